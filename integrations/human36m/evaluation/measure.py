"""Run a lifting model over clips and measure it at each exit."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal, get_args, get_type_hints

import torch
import torch.distributed as dist
from torch import Tensor, nn

from cycledistill.cycle.exits import at_exit
from cycledistill.plugin.install import handle_of
from cycledistill.recipes.progress import with_progress
from cycledistill.recipes.run.accelerator import autocast, shared
from cycledistill.recipes.run.batches import received

from ..data.clips import Clip
from ..data.dataset import Batch, LiftWindows, WindowBatches, window_loader
from ..data.skeleton import MIRRORED
from ..data.windows import window_frames
from ..errors import LiftingDataError
from ..models.convention import convention_of
from .metrics import MotionScores
from .picture import to_picture


@dataclass(frozen=True)
class EvalSettings:
    """How predictions are made and scored.

    Attributes:
        frames: Frames of a window, those the model was built for.
        mode: ``"sequence"``: every frame of windows side by side; ``"centre"``: of a window around each frame the one
            in its middle.
        flip: Average with the prediction of the mirrored input, mirrored back.
        border: ``"mask"``: every frame of a clip counts once; ``"official"``: repeated edge frames count too, as in the
            authors' code.
        batch_size: Windows a batch.
        precision: ``"fp32"``, ``"bf16"`` or ``"fp16"``.

    Raises:
        ValueError: A field that is none of these.
    """

    frames: int
    mode: Literal["sequence", "centre"] = "sequence"
    flip: bool = True
    border: Literal["mask", "official"] = "mask"
    batch_size: int = 8
    precision: Literal["fp32", "bf16", "fp16"] = "fp32"

    def __post_init__(self) -> None:
        for name in ("frames", "batch_size"):
            value = getattr(self, name)
            if isinstance(value, bool) or not isinstance(value, int) or value < 1:
                raise ValueError(f"{name}={value!r}: a whole number of at least 1 is expected")
        if not isinstance(self.flip, bool):
            raise ValueError(f"flip={self.flip!r}: True or False is expected")
        for name, known in get_type_hints(type(self)).items():
            choices = get_args(known)
            if choices and getattr(self, name) not in choices:
                expected = ", ".join(map(repr, choices))
                raise ValueError(f"{name}={getattr(self, name)!r}: one of {expected} is expected")


@torch.no_grad()
def predict(model: nn.Module, inputs: Tensor, settings: EvalSettings) -> Tensor:
    """Poses of a batch of windows, with the mirrored pass averaged in.

    An hourglass whose kept frames were injected (``model.hourglass.index = ...``) keeps those in both passes, and
    still has them afterwards.

    Args:
        model: A lifting model in eval mode.
        inputs: (B, F, J, 2 or 3), normalised.
        settings: How.

    Returns:
        (B, F, J, 3) in the model's unit (``model.convention``); the centre frame's, (B, 1, J, 3), in mode
        ``"centre"``. Of a model that gives the root a place, relative to it.

    Raises:
        LiftingDataError: The model gave no pose for some frame that is asked for.
    """
    poses = _averaged(model, inputs, settings)
    return poses - poses[..., :1, :] if convention_of(model).root == "given" else poses


def _averaged(model: nn.Module, inputs: Tensor, settings: EvalSettings) -> Tensor:
    poses, index = _forward(model, inputs, settings)
    if not settings.flip:
        return poses
    signs = inputs.new_tensor([-1, 1, 1])
    mirrored = inputs[..., list(MIRRORED), :] * signs[: inputs.shape[-1]]
    # The centre's frames are chosen once, for both passes; a whole sequence's anew, both as in HoT's code.
    again, _ = _forward(model, mirrored, settings, index if settings.mode == "centre" else None)
    return (poses + again[..., list(MIRRORED), :] * signs.to(again.dtype)) / 2


def evaluate(
    model: nn.Module,
    clips: Sequence[Clip],
    *,
    settings: EvalSettings,
    exits: Sequence[int] = (1,),
    progress: bool = False,
) -> dict[int, dict[str, Any]]:
    """Errors of a model at each exit.

    In a process group each rank takes a share of the clips, and all get the whole result. A model whose poses are in
    picture units is measured as its authors do, see :func:`to_picture`.

    Args:
        model: A lifting model, wrapped or not; left in eval mode with the exit it had.
        clips: What to measure on.
        settings: How.
        exits: Cycles whose prediction is measured; may exceed the cycles trained. A plain model has exit 1 only.
        progress: Say where it is: by a bar, or by lines in the log where there is no terminal.

    Returns:
        ``{exit: figures}``, see :meth:`MotionScores.summary`. Velocity counts every step of a clip, those from one
        window to the next too; deviations over time are taken inside windows. Frames that a clip says do not count
        (``Clip.valid``) are seen by the model and in no figure.

    Raises:
        ValueError: A plain model was asked for another exit than 1.
        LiftingDataError: No clips, the model gives no pose for some frame, or poses in picture units for a clip without
            a camera.

    Example:
        >>> evaluate(model, clips, settings=EvalSettings(243))[1]["mpjpe_action_mean"]
    """
    if handle_of(model, "cyclic") is None and list(exits) != [1]:
        raise ValueError(f"exits={list(exits)}: a model that is not wrapped has exit 1 only; wrap_cyclic it first")
    rank, world = (dist.get_rank(), dist.get_world_size()) if shared() else (0, 1)
    own = list(clips)[rank::world]
    scores = {number: MotionScores() for number in exits}
    if own:
        _measure(model, own, scores, settings, progress)
    elif not clips:
        raise LiftingDataError("no clips to measure on")
    if world > 1:
        parts: list[Any] = [None] * world
        dist.all_gather_object(parts, scores)
        scores = {number: MotionScores.joined(part[number] for part in parts) for number in exits}
    return {number: found.summary() for number, found in scores.items()}


def _measure(
    model: nn.Module, clips: Sequence[Clip], scores: dict[int, MotionScores], settings: EvalSettings, progress: bool
) -> None:
    scales: list[Tensor] | None = None
    if convention_of(model).unit == "picture":
        pairs = [to_picture(clip) for clip in clips]
        clips, scales = [clip for clip, _ in pairs], [torch.from_numpy(metres) for _, metres in pairs]
    windows = LiftWindows(clips, settings.frames, centred=settings.mode == "centre")
    batches = WindowBatches(len(windows), settings.batch_size, shuffle=False)
    device = next(model.parameters()).device
    poses: dict[int, list[Tensor]] = {number: [] for number in scores}
    loader = with_progress(window_loader(windows, batches), "evaluate", "batches", len(batches), shown=progress)
    model.eval()
    batch: Batch
    for batch in received(loader):
        inputs = batch["inputs"].to(device)
        for number, found in poses.items():
            with at_exit(model, number):
                found.append(predict(model, inputs, settings).float().cpu())
    for number, found in poses.items():
        _count(scores[number], torch.cat(found), windows, settings, scales)


def _count(
    scores: MotionScores, poses: Tensor, windows: LiftWindows, settings: EvalSettings, scales: list[Tensor] | None
) -> None:
    """Put windows together to clips and count them; deviations over time are taken in the windows' lengths."""
    owner, frames = torch.from_numpy(windows.owner), settings.frames
    for number, clip in enumerate(windows.clips):
        found, length = poses[owner == number], len(clip)
        if settings.mode == "centre":  # a window each frame; single frames become windows again
            places, found = torch.arange(length), found[:, 0]
            window = places // frames
        else:
            at, inside = map(torch.from_numpy, window_frames(windows.bounds[windows.owner == number], length))
            counted = inside if settings.border == "mask" else torch.ones_like(inside)
            places, found = at[counted], found[counted]
            window = torch.arange(len(at))[:, None].expand_as(at)[counted]
        scale = 1 if scales is None else scales[number][places, None, None]
        found, truth = scale * found, scale * torch.from_numpy(clip.targets)[places]
        for run in _runs(None if clip.valid is None else torch.from_numpy(clip.valid)[places], len(places)):
            pieces = window[run].unique_consecutive(return_counts=True)[1].tolist()
            scores.add(clip.action, found[run][None], truth[run][None], pieces, clip.recording or clip.name)


def _runs(valid: Tensor | None, length: int) -> list[slice]:
    """The stretches of frames that count: no step leads over those that do not."""
    if valid is None:
        return [slice(0, length)]
    edges = torch.nn.functional.pad(valid.int(), (1, 1)).diff()
    starts, stops = ((edges == sign).nonzero().flatten().tolist() for sign in (1, -1))
    return [slice(start, stop) for start, stop in zip(starts, stops, strict=True)]


def _forward(model: nn.Module, inputs: Tensor, settings: EvalSettings, index: Any = None) -> tuple[Tensor, Any]:
    """Poses of the frames asked for, and the index of the kept frames, if there is one."""
    frames, handle = inputs.shape[1], handle_of(model, "hourglass")
    before = None if handle is None else handle.index
    try:
        if index is not None:
            handle.index = index
        with autocast(inputs.device, settings.precision):
            poses: Tensor = model(inputs)
        used = None if handle is None else handle.index
        if settings.mode == "centre" and handle is not None:
            poses = handle.centre_frame(poses)[:, None]
            # An index that is the same object as before was injected by the user: it stays, for the next pass too.
            return poses, None if used is before else used
    finally:
        if index is not None:
            handle.index = None
    if poses.shape[1] != frames:
        raise LiftingDataError(
            f"the model gave {poses.shape[1]} poses for {frames} frames: a model of single frames cannot answer for "
            "sequences; use mode 'centre', or recover the frames that the hourglass drops"
        )
    if settings.mode == "centre":
        poses = poses[:, (frames - 1) // 2][:, None]
    return poses, used
