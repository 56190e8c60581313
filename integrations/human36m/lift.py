r"""Lift a file of 2D keypoints to 3D poses with a trained checkpoint.

    python -m cycledistill.integrations.human36m.lift keypoints.json poses.npz --checkpoint runs/a \\
        --layout coco --width 1920 --height 1080 --figure poses.png

Input: the files of many tools, see docs/lifting.md. Output: ``poses`` (T, 17, 3), metres in camera axes (x right, y
down, z away), relative to the pelvis, in an npz or JSON file, with the numbers of their pictures (``frames``) where the
file has them.
Where the person is and how tall is not known from 2D; the scale is that of the people the model was trained on, or the
one that ``--person-height`` gives. All persons of the file that tracks tell apart, each in a file of its own. Any
length: longer clips are cut into windows that overlap, shorter ones have their edges repeated.
"""

from __future__ import annotations

import argparse
import logging
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any
from urllib.parse import quote

import numpy as np
import torch
from numpy.typing import NDArray
from torch import nn

from cycledistill.recipes.errors import CheckpointError, RecipeError

from .data.clips import check_keypoints
from .data.keypoints.files import choose_persons, read_keypoints, read_persons
from .data.keypoints.gaps import LEAST_CONFIDENCE, LONGEST_GAP, NAMES
from .data.keypoints.inputs import model_input
from .data.keypoints.person import Keypoints
from .data.keypoints.plausible import check_normalised
from .data.pose_files import check_target, write_poses
from .data.skeleton import COCO_MAPPINGS
from .data.stature import scale_to_height
from .data.windows import blend_windows, centred_bounds, chunk_bounds, log_short, window_frames
from .draw import draw_sequences
from .errors import LiftingDataError
from .evaluation.measure import EvalSettings, predict
from .models.convention import convention_of
from .models.lifter import Lifter

_logger = logging.getLogger(__name__)


@torch.no_grad()
def lift(
    model: nn.Module,
    keypoints: NDArray[np.float32],
    settings: EvalSettings,
    *,
    overlap: int | None = None,
    person_height: float | None = None,
) -> NDArray[np.float32]:
    """Poses of a clip of any length.

    Longer clips are cut into windows that overlap, and where two do, one is faded into the other: side by side, poses
    jump from the last frame of a window to the first of the next.

    Args:
        model: A trained lifting model, wrapped or not; put in eval mode. Its ``convention`` says what its numbers mean.
        keypoints: (T, 17, 2), or (T, 17, 3) with a confidence, in Human3.6M's order, normalised
            (:func:`normalize_screen`).
        settings: How; ``frames`` is what the model was built for.
        overlap: Frames that neighbouring windows share; default, a quarter of a window. 0: side by side, as models are
            measured. Not in mode ``"centre"``, which has a window around every frame.
        person_height: Metres. Needed of a model that gives no metres, whose poses are scaled to it in every frame; of
            one that does, they are scaled to it too, where it is given.

    Returns:
        (T, 17, 3), metres, the root at zero.

    Raises:
        LiftingDataError: Keypoints that no model should see, see :func:`check_keypoints` and :func:`check_normalised`;
            a model that gives no metres, without a height; an overlap that is none.

    Example:
        >>> poses = lift(load_trained("runs/a"), keypoints, EvalSettings(frames=243))
    """
    check_keypoints(keypoints, "the keypoints")
    check_normalised(keypoints, "the keypoints")
    check_unit(model, person_height)
    length, frames, centre = len(keypoints), settings.frames, settings.mode == "centre"
    shared = _shared_frames(overlap, settings)
    log_short([length], frames)
    bounds = centred_bounds(length, frames) if centre else chunk_bounds(length, frames, frames - shared)
    places, inside = window_frames(bounds, length)
    device = next(model.parameters()).device
    model.eval()
    found = []
    for start in range(0, len(places), settings.batch_size):
        windows = torch.from_numpy(keypoints[places[start : start + settings.batch_size]]).to(device)
        found.append(predict(model, windows, settings).float().cpu().numpy())
    windowed = np.concatenate(found)
    poses: NDArray[np.float32] = windowed[:, 0] if centre else blend_windows(windowed, places, inside, length, shared)
    poses[:, 0] = 0
    return poses if person_height is None else scale_to_height(poses, person_height)


def check_unit(model: nn.Module, person_height: float | None) -> None:
    """Refuse a model whose poses cannot be brought to metres.

    Raises:
        LiftingDataError: It gives picture units, and there is no height of the person.
    """
    if convention_of(model).unit != "metres" and person_height is None:
        raise LiftingDataError(
            f"the weights give poses in the unit {convention_of(model).unit!r} (half widths of the picture, as "
            "MotionBERT is trained), which are no metres without the person's height: give "
            "--person-height (person_height=), in metres, such as 1.7"
        )


def _shared_frames(overlap: int | None, settings: EvalSettings) -> int:
    if settings.mode == "centre":
        if overlap:
            raise LiftingDataError(f"overlap={overlap}: in mode 'centre' there is a window around every frame already")
        return 0
    if overlap is None:
        return settings.frames // 4
    if isinstance(overlap, bool) or not isinstance(overlap, int) or not 0 <= overlap < settings.frames:
        raise LiftingDataError(
            f"overlap={overlap!r}: a whole number of frames from 0 to {settings.frames - 1} is expected, less than a "
            "window"
        )
    return overlap


def prepare(
    path: str | Path,
    layout: str | None = None,
    width: float | None = None,
    height: float | None = None,
    *,
    track: str | None = None,
    person: int | None = None,
    **options: Any,
) -> NDArray[np.float32]:
    """A file of keypoints as a model's input: of one person.

    Args:
        path: See :func:`read_persons`.
        layout: ``"coco"``, ``"h36m"`` or ``"halpe26"``; default, what the file's form says, else ``"coco"``.
        width: Of the picture in pixels; default, what the file says.
        height: The same.
        track: Which track of the file, where it has several.
        person: Which person, from 1, those with the most results first.
        **options: Of :func:`model_input`: ``fill``, ``confidence``, ``coco`` (``model.convention.coco``),
            ``least_confidence``, ``checked``.

    Returns:
        (T, 17, 2 or 3), normalised.

    Raises:
        LiftingDataError: A file that cannot be used, see :func:`read_keypoints` and :func:`model_input`.
    """
    return model_input(read_keypoints(path, track, person), str(path), layout, width, height, **options)


def main(argv: Sequence[str] | None = None) -> int:
    """The command."""
    parser = _parser()
    args = parser.parse_args(argv)
    logging.basicConfig(level=logging.INFO, format="%(name)s: %(message)s")
    try:
        _run(args)
    except (LiftingDataError, CheckpointError, RecipeError, OSError) as error:  # the last: a figure that is not written
        parser.exit(2, f"error: {error}\n")
    return 0


def _run(args: argparse.Namespace) -> None:
    from .recipe import load_recipe
    from .trained import load_trained, stored_recipe
    from .training.build import eval_settings

    check_target(args.poses)
    recipe = load_recipe(args.config) if args.config else stored_recipe(args.checkpoint)
    settings = eval_settings(recipe)
    _shared_frames(args.overlap, settings)
    model = load_trained(args.checkpoint, args.ema, recipe if args.config else None)
    check_unit(model, args.person_height)
    persons = choose_persons(read_persons(args.keypoints), args.keypoints, args.track, args.person)
    done = 0
    for one in persons:
        source = f"{args.keypoints}, track {one.track}" if len(persons) > 1 else str(args.keypoints)
        try:
            poses = _lifted(one, source, args, model, settings, recipe.data.confidence)
        except LiftingDataError as error:
            if len(persons) == 1:
                raise
            _logger.warning("%s; not lifted", error)
            continue
        done += 1
        _write(poses, one, args, several=len(persons) > 1)
    if not done:
        raise LiftingDataError(f"{args.keypoints}: none of its {len(persons)} persons could be lifted, as told above")


def _lifted(
    one: Keypoints, source: str, args: argparse.Namespace, model: Lifter, settings: EvalSettings, confidence: bool
) -> NDArray[np.float32]:
    trained, rate = model.convention.frame_rate, args.frame_rate or one.frame_rate
    if rate and trained and not 0.9 < rate / trained < 1.1:
        _logger.warning(
            "%s: %g frames a second, and the model was trained on %g: motion looks %.2g times as fast to it",
            source,
            rate,
            trained,
            trained / rate,
        )
    inputs = model_input(
        one,
        source,
        args.layout,
        args.width,
        args.height,
        fill=args.fill_gaps,
        confidence=confidence,
        coco=args.coco_mapping or model.convention.coco,
        least_confidence=args.min_confidence,
        checked=not args.unchecked,
    )
    return lift(model, inputs, settings, overlap=args.overlap, person_height=args.person_height)


def _write(poses: NDArray[np.float32], one: Keypoints, args: argparse.Namespace, several: bool) -> None:
    target, figure = args.poses, args.figure
    if several:
        target, figure = _of_track(target, one.track), figure and _of_track(figure, one.track)
    write_poses(poses, target, one.frames)
    sys.stdout.write(f"{len(poses)} poses in {target}\n")
    if figure:
        draw_sequences({"lifted": poses}, figure)
        sys.stdout.write(f"picture: {figure}\n")


def _of_track(path: Path, track: str | None) -> Path:
    """``poses.npz`` of track 3: ``poses.track3.npz``."""
    return path.with_name(f"{path.stem}.track{quote(str(track), safe='')}{path.suffix}")


def _frames(text: str) -> int:
    if not text.isdecimal() or int(text) < 1:
        raise argparse.ArgumentTypeError(f"{text!r}: a number of frames, from 1, is expected")
    return int(text)


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        "python -m cycledistill.integrations.human36m.lift", description="Lift a file of 2D keypoints to 3D poses."
    )
    parser.add_argument("keypoints", type=Path, help="a file, or a folder of files, as in docs/lifting.md")
    parser.add_argument("poses", type=Path, help="what to write, .npz or .json")
    parser.add_argument("--checkpoint", required=True, help="a run, a checkpoint, or a file of weights (with --config)")
    parser.add_argument("--config", help="recipe of the model, where the checkpoint is a file of weights")
    parser.add_argument("--ema", action="store_true", help="the average of the weights")
    parser.add_argument("--layout", choices=NAMES, help="the keypoints' order (default: the file's form, else coco)")
    parser.add_argument("--track", help="lift this track of the file alone (default: all, a file each)")
    parser.add_argument("--person", type=int, help="lift this person alone, from 1, the longest seen first")
    parser.add_argument("--width", type=float, help="of the picture, pixels; default, what the file says")
    parser.add_argument("--height", type=float, help="the same")
    parser.add_argument(
        "--fill-gaps",
        type=_frames,
        nargs="?",
        const=LONGEST_GAP,
        default=0,
        metavar="FRAMES",
        help="fill what was not detected from the frames around, over so many in a row (%(const)s)",
    )
    parser.add_argument(
        "--min-confidence",
        type=float,
        default=LEAST_CONFIDENCE,
        help="a keypoint with less was guessed, not detected (default: %(default)s)",
    )
    parser.add_argument("--frame-rate", type=float, help="of the keypoints, a second; default, what the file says")
    parser.add_argument("--overlap", type=int, help="frames that windows share (default: a quarter of a window)")
    parser.add_argument("--person-height", type=float, help="metres; scales the poses, and is needed for MotionBERT's")
    parser.add_argument("--coco-mapping", choices=COCO_MAPPINGS, help="default, as the weights' authors do it")
    parser.add_argument("--unchecked", action="store_true", help="lift what does not look like a person in the picture")
    parser.add_argument("--figure", type=Path, help="also draw some of the poses; needs matplotlib")
    return parser


if __name__ == "__main__":
    sys.exit(main())
