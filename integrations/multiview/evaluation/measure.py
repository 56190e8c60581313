"""JDR of the joints that are found in the pictures, and MPJPE of the poses triangulated from them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
import torch.distributed as dist
from torch import Tensor, nn

from cycledistill import at_exit
from cycledistill.integrations.coco.evaluation.decode import Method, decode_heatmaps
from cycledistill.integrations.human36m.multiview.crops import PADDING, heatmap_to_picture
from cycledistill.integrations.human36m.multiview.detection import HEAD_SIZE
from cycledistill.integrations.human36m.multiview.triangulation import THRESHOLD
from cycledistill.plugin.install import handle_of
from cycledistill.recipes.progress import with_progress
from cycledistill.recipes.run.accelerator import autocast, shared

from ..data.moments import Array, MultiViewSet
from ..data.samples import MultiViewSamples, Views
from .scores import MultiViewScores


@dataclass(frozen=True)
class EvalSettings:
    """How a model is measured.

    Attributes:
        decode: See `decode_heatmaps`.
        head_size: Pixels of the pictures, see `joint_detection_rate`.
        threshold: See `triangulate`.
        padding: By which boxes are enlarged.
        root: Number of the joint that root-relative errors are counted from; ``None``: none are.
        batch_size: Moments at once.
        precision: ``"fp32"``, ``"bf16"`` or ``"fp16"``.
    """

    decode: Method = "dark"
    head_size: float = HEAD_SIZE
    threshold: float = THRESHOLD
    padding: float = PADDING
    root: int | None = 0
    batch_size: int = 8
    precision: str = "fp32"


DEFAULT = EvalSettings()


@torch.no_grad()
def evaluate(
    model: nn.Module,
    moments: MultiViewSet,
    settings: EvalSettings = DEFAULT,
    exits: Sequence[int] = (1,),
    progress: bool = False,
) -> dict[int, dict[str, Any]]:
    """Measure a model on a set, at each exit. In a process group each rank takes a share, and all get the whole result.

    Args:
        model: A multi-view model, wrapped or not, on any device. Left in eval mode.
        moments: The set.
        settings: How.
        exits: Cycles whose prediction is measured. A plain model has exit 1 only.
        progress: Say where it is: by a bar, or by lines in the log where there is no terminal.

    Returns:
        Exit -> ``jdr``, per cent of the labelled joints (the mean over joints); ``error_2d``, pixels; and where there
        are 3D labels ``mpjpe``, millimetres in the world, ``mpjpe_root``, after the root joints were put together, and
        ``triangulated``, per cent of the joints on which two views or more agree. The errors are of all joints; of the
        others, the point is the one nearest to what all views say. What there is nothing of is ``None``.

    Raises:
        ValueError: A plain model was asked for another exit than 1.
        DataError: A picture that cannot be read, or of another size than its camera's.

    Example:
        >>> evaluate(model, read_folder("recordings/test"))[1]["jdr"]
    """
    if handle_of(model, "cyclic") is None and list(exits) != [1]:
        raise ValueError(f"exits={list(exits)}: a model that is not wrapped has exit 1 only; wrap_cyclic it first")
    rank, world = (dist.get_rank(), dist.get_world_size()) if shared() else (0, 1)
    scores = {number: MultiViewScores(settings.head_size, settings.threshold, settings.root) for number in exits}
    own = list(range(rank, len(moments), world))
    batches = [own[start : start + settings.batch_size] for start in range(0, len(own), settings.batch_size)]
    samples = MultiViewSamples(moments, model.config, settings.padding)  # type: ignore[arg-type]
    model.eval()
    for batch in with_progress(batches, "evaluate", "batches", shown=progress):
        for views, numbers in samples.by_views(batch):
            for exit, score in scores.items():
                with at_exit(model, exit):
                    positions, certain = find_joints(model, views, settings)
                for place, number in enumerate(numbers):
                    moment = moments.moments[number]
                    matrices = [samples.matrix(view) for view in moment.views.values()]
                    score.add(moment, in_pictures(positions[:, place], certain[:, place], matrices, model))
    if world > 1:
        parts: list[Any] = [None] * world
        dist.all_gather_object(parts, scores)
        scores = {number: MultiViewScores.joined([part[number] for part in parts]) for number in exits}
    return {number: score.summary() for number, score in scores.items()}


def find_joints(model: nn.Module, views: Views, settings: EvalSettings) -> tuple[Tensor, Tensor]:
    """Joints (V, B, J, 2) in pixels of the heatmaps, and their scores (V, B, J), on the CPU."""
    device = next(model.parameters()).device
    with autocast(device, settings.precision):
        maps = torch.stack(call_model(model, Views(*(each.to(device) for each in views)))).float()
    found = decode_heatmaps(maps.flatten(0, 1), settings.decode)
    positions, scores = (each.cpu().unflatten(0, maps.shape[:2]) for each in found)
    return positions, scores


def call_model(model: Any, views: Views) -> Any:
    """What the model says of some views: with their rays, if it encodes these."""
    if not model.config.ray_encoding:
        return model(list(views.pixels))
    return model(list(views.pixels), rays=list(views.rays), centers=list(views.centers))


def in_pictures(positions: Tensor, scores: Tensor, matrices: Sequence[Array], model: Any) -> Array:
    """Joints of V views as (V, J, 3): pixels of the pictures that the matrices cut the views from, and confidences.

    Args:
        positions: (V, J, 2), pixels of the heatmaps.
        scores: (V, J), the heatmaps' maxima, which are drawn in to 0 and 1.
        matrices: V of them, see `view_matrix`.
        model: Whose heatmaps they are.
    """
    stride = model.config.image_size[0] / model.config.heatmap_size[0]
    pixels = [heatmap_to_picture(own, matrix, stride) for own, matrix in zip(positions, matrices, strict=True)]
    confidences = scores.double().clamp(0, 1).numpy()
    return np.concatenate([np.stack(pixels), confidences[..., None]], axis=-1)
