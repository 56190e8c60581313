"""Run a model over persons and measure it: average precision at each exit, mean OKS and PCK.

The protocol of SDPose: the mean of the picture's and the mirrored picture's prediction, DARK decoding, scores from
``average_precision.py``, OKS suppression, pycocotools.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
import torch
import torch.distributed as dist
from numpy.typing import NDArray
from torch import Tensor, nn

from cycledistill.cycle.exits import at_exit
from cycledistill.plugin.install import handle_of
from cycledistill.recipes.progress import with_progress
from cycledistill.recipes.run.accelerator import autocast, shared
from cycledistill.recipes.run.batches import received
from cycledistill.recipes.run.sub_batches import SUB_BATCH, in_sub_batches

from ..data.annotations import PADDING, Person
from ..data.coco_file.normalise import BOX_TO_AREA
from ..data.dataset import PersonCrops, PictureBatches, crop_loader, prepare_images
from ..data.images import PictureSource
from ..data.joints import JointSet
from ..models.tokenpose import TokenPose
from .accuracy import mean_oks, pck
from .average_precision import PosePrediction, evaluate_poses, to_results
from .coordinates import decode_coordinates, flip_back_coordinates
from .decode import Method, decode_heatmaps, flip_back, to_image
from .ground_truth import GroundTruth

Joints = NDArray[np.float32]
Keep = Callable[[int, list[dict[str, Any]]], None]


@dataclass(frozen=True)
class EvalSettings:
    """How predictions are made and scored; the defaults are SDPose's.

    Attributes:
        flip: Average with the mirrored picture.
        decode: From heatmaps to positions.
        nms: OKS above which the lower-scored of two poses is dropped; ``None`` keeps all.
        keypoint_threshold: Joints scored below do not count in a pose's score.
        batch_size: Persons a batch.
        workers: Loader processes.
        broken: What to do with a picture that cannot be read: ``"stop"``, or ``"skip"`` its persons.
        precision: ``"fp32"``, ``"bf16"`` or ``"fp16"``.
        by_category: Measure each category by itself and average; default: whatever the category, a pose is a pose.
        categories: Ids or names of those that count, for who reads a file of boxes; default: all that have the joints.
    """

    flip: bool = True
    decode: Method = "dark"
    nms: float | None = 0.9
    keypoint_threshold: float = 0.2
    batch_size: int = 64
    workers: int = 0
    broken: Literal["stop", "skip"] = "stop"
    precision: str = "fp32"
    by_category: bool = False
    categories: tuple[int | str, ...] | None = None


DEFAULT = EvalSettings()


def predict_persons(
    model: nn.Module,
    persons: Sequence[Person],
    images: PictureSource,
    joints: JointSet,
    *,
    exits: Sequence[int] = (1,),
    settings: EvalSettings = DEFAULT,
    progress: bool = False,
) -> dict[int, dict[int, Joints]]:
    """Joints of every person at every exit, in picture pixels.

    In a process group each rank takes a share of the persons, and all get the whole result.

    Args:
        model: A pose model, wrapped or not; left in eval mode with the exit it had. Images have its config's size.
        persons: Whom to look at.
        images: Where the pictures are.
        joints: The joint set.
        exits: Cycles whose prediction is wanted; may exceed the cycles trained. A plain model has exit 1 only.
        settings: How.
        progress: Say where it is: by a bar, or by lines in the log where there is no terminal.

    Returns:
        ``{exit: {index of the person: (K, 3) x, y, score}}``; persons whose picture cannot be read are left out where
        the settings say ``"skip"``.

    Raises:
        ValueError: The model predicts another number of joints, or a plain model was asked for another exit than 1.
        PoseDataError: A picture cannot be read.
    """
    config: Any = model.config
    if config.num_keypoints != len(joints):
        raise ValueError(
            f"the model predicts {config.num_keypoints} joints, {joints.name} has {len(joints)}: build the model with "
            f"num_keypoints={len(joints)}, or choose the joint set it was trained on"
        )
    if handle_of(model, "cyclic") is None and list(exits) != [1]:
        raise ValueError(f"exits={list(exits)}: a model that is not wrapped has exit 1 only; wrap_cyclic it first")
    rank, world = (dist.get_rank(), dist.get_world_size()) if shared() else (0, 1)
    crops = PersonCrops(persons, images, joints, config.image_size, broken=settings.broken)
    order = PictureBatches(persons, settings.batch_size, shuffle=False, rank=rank, world_size=world)
    loader = with_progress(
        crop_loader(crops, order, settings.workers), "evaluate", "batches", len(order), shown=progress
    )
    weight = next(model.parameters())
    device = weight.device
    found: dict[int, dict[int, Joints]] = {number: {} for number in exits}
    model.eval()
    with torch.no_grad():
        for batch in received(loader) if len(persons) else ():
            index = batch["person"].tolist()
            if not index:
                continue  # none of its pictures could be read
            pixels = prepare_images(batch["image"].to(device), weight.dtype)
            centers = torch.from_numpy(np.stack([persons[i].center for i in index])).to(device)
            scales = torch.from_numpy(np.stack([persons[i].scale for i in index])).to(device)
            for number in exits:
                with at_exit(model, number):
                    placed = _predict(model, pixels, centers, scales, joints, settings).float().cpu().numpy()
                found[number].update(zip(index, placed, strict=True))
    return _gathered(found, world)


def evaluate(
    model: nn.Module,
    persons: Sequence[Person],
    images: PictureSource,
    joints: JointSet,
    ground_truth: GroundTruth,
    *,
    exits: Sequence[int] = (1,),
    settings: EvalSettings = DEFAULT,
    progress: bool = False,
    keep: Keep | None = None,
) -> dict[int, dict[str, Any]]:
    """COCO's or CrowdPose's numbers of a model at each exit.

    Args:
        model: A pose model, wrapped or not; left in eval mode with the exit it had.
        persons: Annotated or detected persons; none gives AP 0.
        images: Where the pictures are.
        joints: The joint set.
        ground_truth: The annotations, as ``load_ground_truth`` reads them.
        exits: Cycles whose prediction is measured; may exceed the cycles trained.
        settings: How.
        progress: Say where it is: by a bar, or by lines in the log where there is no terminal.
        keep: Is given each exit and what is measured there, COCO's result entries, by one process of all.

    Returns:
        ``{exit: {"AP": ..., "AR": ...}}``, fractions, on every rank; ``AP_interval``, where AP lies with 95 % (`None`
        of few pictures), and ``images``, on how many it was measured. With annotated persons also ``oks`` (mean over
        persons, on 0.53 of the box) and ``pck`` (by what the joints measure it in: 0.2 of the torso or the box, 0.5
        of the head). Joints with parts, COCO-WholeBody's, have AP and AR of each: ``APbody``, ``ARbody``, ...

    Raises:
        ValueError: See :func:`predict_persons`.
        PoseDataError: A picture cannot be read.

    Example:
        >>> evaluate(model, persons, ImageStore("coco/val2017"), COCO, truth, exits=(1, 2, 3))[1]["AP"]
    """
    found = predict_persons(model, persons, images, joints, exits=exits, settings=settings, progress=progress)
    if shared() and dist.get_rank() != 0:
        measured: list[Any] = [None]
    else:
        measured = [
            {n: _numbers(n, poses, persons, joints, ground_truth, settings, keep) for n, poses in found.items()}
        ]
    if shared():
        dist.broadcast_object_list(measured, src=0)
    result: dict[int, dict[str, Any]] = measured[0]
    return result


def _predict(
    model: nn.Module, images: Tensor, centers: Tensor, scales: Tensor, joints: JointSet, settings: EvalSettings
) -> Tensor:
    """(B, K, 3): x, y in picture pixels, and scores."""
    config: Any = model.config
    is_heatmap = config.head == "heatmap"
    with autocast(images.device, settings.precision):  # decoding is in full precision
        parts = SUB_BATCH if isinstance(model, TokenPose) else None  # another model may look at the batch
        predicted: Tensor = in_sub_batches(model, images, size=parts)
        mirrored: Tensor | None = in_sub_batches(model, images.flip(3), size=parts) if settings.flip else None
    if is_heatmap:
        maps = predicted.float()
        if mirrored is not None:
            maps = (maps + flip_back(mirrored.float(), joints.flip_order)) / 2
        position, scores = decode_heatmaps(maps, settings.decode)
        size = config.heatmap_size
    else:  # fractions of the image: a map of one pixel
        position, scores = decode_coordinates(predicted.float())
        if mirrored is not None:  # averaged after the sigmoid of the deviations, as SDPose's authors do
            theirs = decode_coordinates(flip_back_coordinates(mirrored.float(), joints.flip_order))
            position, scores = (position + theirs[0]) / 2, (scores + theirs[1]) / 2
        size = (1, 1)
    return torch.cat([to_image(position, centers, scales, size), scores[..., None]], dim=-1)


def _numbers(
    exit: int,
    poses: dict[int, Joints],
    persons: Sequence[Person],
    joints: JointSet,
    truth: GroundTruth,
    settings: EvalSettings,
    keep: Keep | None,
) -> dict[str, Any]:
    results = to_results(
        predictions_of(poses, persons),
        joints,
        nms_threshold=settings.nms,
        keypoint_threshold=settings.keypoint_threshold,
        by_category=settings.by_category,
    )
    if keep is not None:
        keep(exit, results)
    numbers = evaluate_poses(truth, results, joints, by_category=settings.by_category, interval=True)
    known = [index for index in sorted(poses) if np.any(persons[index].joints)]  # a detection has no labels
    if known:
        predicted = np.stack([poses[index][:, :2] for index in known]).astype(np.float64)
        labels = np.stack([persons[index].joints for index in known]).astype(np.float64)
        visible = np.stack([persons[index].visible for index in known]).astype(np.float64)
        area = np.array([persons[index].area for index in known]) * (BOX_TO_AREA / PADDING**2)
        numbers["oks"] = mean_oks(predicted, labels, visible, area, joints)
        sides = np.array([persons[index].box_side for index in known])
        if joints.pck != "none":
            numbers["pck"] = pck(predicted, labels, visible, joints, sides)
    return {name: round(value, 6) if isinstance(value, float) else value for name, value in numbers.items()}


def predictions_of(poses: dict[int, Joints], persons: Sequence[Person]) -> list[PosePrediction]:
    """What was predicted of each person, under the ids of the annotation file.

    Args:
        poses: Of one exit, as `predict_persons` returns them: index of the person -> (K, 3).
        persons: Those that it was given.
    """
    return [
        PosePrediction(person.image_id, placed, person.score, person.area, person.category_id)
        for person, placed in ((persons[index], poses[index]) for index in sorted(poses))
    ]


def _gathered(found: dict[int, dict[int, Joints]], world: int) -> dict[int, dict[int, Joints]]:
    if world == 1:
        return found
    parts: list[Any] = [None] * world
    dist.all_gather_object(parts, found)
    return {number: {k: v for part in parts for k, v in part[number].items()} for number in found}
