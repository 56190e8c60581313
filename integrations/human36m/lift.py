r"""Lift a file of 2D keypoints to 3D poses with a trained checkpoint.

    python -m cycledistill.integrations.human36m.lift keypoints.json poses.npz --checkpoint runs/a \\
        --layout coco --width 1920 --height 1080 --figure poses.png

Input: see ``keypoint_files.py``. Output: ``poses`` (T, 17, 3), metres in camera axes (x right, y down, z away),
relative to the pelvis, in an npz or JSON file. Where the person is and how tall is not known from 2D; the scale is that
of the people the model was trained on. One person; any length: longer clips are cut into windows, shorter ones have
their edges repeated.
"""

from __future__ import annotations

import argparse
import json
import logging
import sys
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from torch import nn

from cycledistill.files import atomic_write
from cycledistill.recipes.errors import CheckpointError, RecipeError

from .data.cameras import normalize_screen
from .data.clips import check_keypoints, with_confidence
from .data.keypoint_files import describe_gaps, fill_gaps, read_keypoints, undetected
from .data.npz import write_npz
from .data.skeleton import COCO_USED, JOINTS, coco_to_h36m
from .data.windows import centred_bounds, chunk_bounds, log_short, window_frames
from .draw import draw_sequences
from .errors import LiftingDataError
from .evaluation.measure import EvalSettings, predict

LAYOUTS = ("coco", "h36m")


@torch.no_grad()
def lift(model: nn.Module, keypoints: NDArray[np.float32], settings: EvalSettings) -> NDArray[np.float32]:
    """Poses of a clip of any length.

    Args:
        model: A trained lifting model, wrapped or not; put in eval mode.
        keypoints: (T, 17, 2), or (T, 17, 3) with a confidence, in Human3.6M's order, normalised
            (:func:`normalize_screen`).
        settings: How; ``frames`` is what the model was built for.

    Returns:
        (T, 17, 3), metres, the root at zero.

    Raises:
        LiftingDataError: Keypoints that no model should see, see :func:`check_keypoints`.

    Example:
        >>> poses = lift(load_trained("runs/a"), keypoints, EvalSettings(frames=243))
    """
    check_keypoints(keypoints, "the keypoints")
    length, frames = len(keypoints), settings.frames
    log_short([length], frames)
    centre = settings.mode == "centre"
    places, inside = window_frames((centred_bounds if centre else chunk_bounds)(length, frames), length)
    device = next(model.parameters()).device
    model.eval()
    found = []
    for start in range(0, len(places), settings.batch_size):
        windows = torch.from_numpy(keypoints[places[start : start + settings.batch_size]]).to(device)
        found.append(predict(model, windows, settings).float().cpu().numpy())
    windowed = np.concatenate(found)
    poses: NDArray[np.float32] = windowed[:, 0] if centre else windowed[inside]  # each frame is in one window
    poses[:, 0] = 0
    return poses


def prepare(
    path: str | Path,
    layout: str = "coco",
    width: float | None = None,
    height: float | None = None,
    *,
    fill: bool = False,
    confidence: bool = False,
) -> NDArray[np.float32]:
    """A file of keypoints as a model's input.

    Args:
        path: See ``keypoint_files.py``.
        layout: ``"coco"``, COCO's 17 keypoints, or ``"h36m"``, Human3.6M's 17 joints.
        width: Of the picture in pixels; default, what the file says.
        height: The same.
        fill: Fill what was not detected, persons and single keypoints, from the frames around it, instead of refusing
            the file. A keypoint at x = y = 0 was not detected.
        confidence: Whether the model takes a confidence; 1 where the file has none, and 0 for what was filled.

    Returns:
        (T, 17, 2 or 3), normalised.

    Raises:
        LiftingDataError: A file that cannot be used; the picture's size is not known; persons or keypoints that were
            not detected, without ``fill``, or in no frame at all.
    """
    source, given = str(path), read_keypoints(path)
    width, height = width or given.width, height or given.height
    if width is None or height is None:
        raise LiftingDataError(
            f"{source} does not say how large the picture is: give --width and --height in pixels, "
            "or write `width` and `height` beside `keypoints`"
        )
    pixels = given.pixels
    if pixels.ndim == 3 and pixels.shape[1] == len(JOINTS) and len(pixels) and pixels.shape[2] in (2, 3):
        pixels = with_confidence(pixels) if confidence and pixels.shape[2] == 2 else pixels
        needed = COCO_USED if layout == "coco" else tuple(range(len(JOINTS)))
        missing = undetected(pixels)[:, needed]
        if missing.any() and not missing.all():
            if fill:
                pixels = fill_gaps(pixels, source, needed)
            elif np.isfinite(pixels).all():
                raise LiftingDataError(
                    f"{source}: {describe_gaps(missing)}; --fill-gaps fills them from the frames around them"
                )
    check_keypoints(pixels, source)
    joints = coco_to_h36m(pixels) if layout == "coco" else pixels
    normal = normalize_screen(joints[..., :2], width, height)
    return np.concatenate([normal, joints[..., 2:]], axis=-1) if confidence else normal


def check_target(path: str | Path) -> None:
    """Refuse a file that poses cannot be written to, before the work is done.

    Raises:
        LiftingDataError: A suffix other than ``.npz`` and ``.json``, or no such folder.
    """
    path = Path(path)
    if path.suffix not in (".npz", ".json"):
        raise LiftingDataError(f"{path}: a name that ends in .npz or .json is expected")
    if not path.parent.is_dir():
        raise LiftingDataError(f"{path} cannot be written: there is no folder {path.parent}; make it first")


def write_poses(poses: NDArray[np.float32], path: str | Path) -> None:
    """Write poses as ``.npz`` or ``.json``, beside and then renamed.

    Raises:
        LiftingDataError: Another suffix, or the file cannot be written.
    """
    path = Path(path)
    check_target(path)
    try:
        if path.suffix == ".npz":
            write_npz(path, {"poses": poses})
        else:
            text = json.dumps({"poses": np.round(poses.astype(float), 5).tolist()})
            atomic_write(path, lambda file: file.write_text(text, encoding="utf-8"))
    except OSError as error:
        raise LiftingDataError(f"{path} cannot be written: {error}") from error


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
    confidence = recipe.data.confidence
    inputs = prepare(args.keypoints, args.layout, args.width, args.height, fill=args.fill_gaps, confidence=confidence)
    model = load_trained(args.checkpoint, args.ema, recipe if args.config else None)
    poses = lift(model, inputs, eval_settings(recipe))
    write_poses(poses, args.poses)
    sys.stdout.write(f"{len(poses)} poses in {args.poses}\n")
    if args.figure:
        draw_sequences({"lifted": poses}, args.figure)
        sys.stdout.write(f"picture: {args.figure}\n")


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        "python -m cycledistill.integrations.human36m.lift", description="Lift a file of 2D keypoints to 3D poses."
    )
    parser.add_argument("keypoints", type=Path, help=".json or .npz")
    parser.add_argument("poses", type=Path, help="what to write, .npz or .json")
    parser.add_argument("--checkpoint", required=True, help="a run, a checkpoint, or a file of weights (with --config)")
    parser.add_argument("--config", help="recipe of the model, where the checkpoint is a file of weights")
    parser.add_argument("--ema", action="store_true", help="the average of the weights")
    parser.add_argument("--layout", choices=LAYOUTS, default="coco", help="the keypoints' order (default: coco)")
    parser.add_argument("--width", type=float, help="of the picture, pixels; default, what the file says")
    parser.add_argument("--height", type=float, help="the same")
    parser.add_argument("--fill-gaps", action="store_true", help="fill what was not detected from other frames")
    parser.add_argument("--figure", type=Path, help="also draw some of the poses; needs matplotlib")
    return parser


if __name__ == "__main__":
    sys.exit(main())
