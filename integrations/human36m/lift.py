r"""Lift a file of 2D keypoints to 3D poses with a trained checkpoint.

    cycledistill predict runs/a keypoints.json --output poses.npz \\
        --layout coco --width 1920 --height 1080 --figure poses.png

Input: the files of many tools, see docs/lifting.md. Output: ``poses`` (T, 17, 3), metres in camera axes (x right, y
down, z away), relative to the pelvis, in an npz or JSON file, with the numbers of their pictures (``frames``) where the
file has them.
Where the person is and how tall is not known from 2D; the scale is that of the people the model was trained on, or the
one that ``--person-height`` gives. All persons of the file that tracks tell apart, each in a file of its own. Any
length and frame rate: longer clips are cut into windows that overlap, shorter ones have their edges repeated, and those
of another rate than the model was trained on are resampled.
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path
from time import perf_counter
from typing import Any
from urllib.parse import quote

import numpy as np
from numpy.typing import NDArray

from cycledistill.recipes.reading.numbered import PICTURES, VIDEOS

from .data.keypoints.files import choose_persons, read_keypoints, read_persons
from .data.keypoints.inputs import model_input
from .data.keypoints.person import Keypoints
from .data.pose_files import write_poses
from .draw import check_figure, draw_sequences
from .errors import LiftingDataError
from .evaluation.measure import EvalSettings
from .lifting.clip import check_unit, lift, shared_frames
from .lifting.command.options import outputs_of
from .lifting.command.persons import leave_out, prepare_persons
from .models.lifter import Lifter
from .written.command import write_outputs
from .written.outputs import Outputs, Seen
from .written.world import in_world

__all__ = ["lift", "prepare"]

Array = NDArray[np.float32]


def prepare(
    path: str | Path,
    layout: str | None = None,
    width: float | None = None,
    height: float | None = None,
    *,
    track: str | None = None,
    person: int | None = None,
    **options: Any,
) -> Array:
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


def lift_file(args: argparse.Namespace) -> None:
    """Lift a file as the arguments of :func:`~.commands.add_lifting` say; what is written goes to standard output.

    Raises:
        LiftingDataError: Keypoints or options that cannot be used, or a picture or video in place of keypoints.
        CheckpointError: A model that cannot be used.
        RecipeError: There is no such recipe.
    """
    from cycledistill.recipes.run.accelerator import open_accelerator

    from .lifting.models import open_model

    if args.keypoints.suffix.lower() in PICTURES | VIDEOS:
        raise LiftingDataError(
            f"{args.keypoints} is a picture or a video, and {args.model} lifts files of 2D keypoints: find these "
            f"first, cycledistill predict POSE_MODEL {args.keypoints} --output FOLDER"
        )
    outputs = outputs_of(args)
    if args.figure:
        check_figure(args.figure)
    model, settings = open_model(args.model, args.config, args.ema)
    shared_frames(args.overlap, settings, args.delay)
    check_unit(model, args.person_height)
    persons = choose_persons(read_persons(args.keypoints), args.keypoints, args.track, args.person)
    several, frames, seconds = len(persons) > 1, 0, 0.0
    with open_accelerator(args.device, settings.precision, "--device") as accelerator:
        model.to(accelerator.device)
        for one, inputs, seen in prepare_persons(persons, args, outputs, model):
            try:
                start = perf_counter()
                poses = _lifted(inputs, one.frame_rate, args, model, settings)
                taken = perf_counter() - start
                placed = in_world(poses, seen, outputs)
            except LiftingDataError as error:
                leave_out(error, several)
                continue
            frames, seconds = frames + len(poses), seconds + taken
            _write(poses, placed, seen, one, args, outputs, several)
        if not frames:
            raise LiftingDataError(
                f"{args.keypoints}: none of its {len(persons)} persons could be lifted, as told above"
            )
        sys.stdout.write(f"lifted on {accelerator.device.type}, {frames / seconds:.1f} frames a second\n")


def _lifted(
    inputs: Array, rate: float | None, args: argparse.Namespace, model: Lifter, settings: EvalSettings
) -> Array:
    return lift(
        model,
        inputs,
        settings,
        overlap=args.overlap,
        person_height=args.person_height,
        frame_rate=rate,
        delay=args.delay,
        progress=True,
    )


def _write(
    poses: Array,
    placed: Array,
    seen: Seen,
    one: Keypoints,
    args: argparse.Namespace,
    outputs: Outputs,
    several: bool,
) -> None:
    """Write poses in camera axes, and as they are ``placed`` in a world where there is one."""

    def named(path: Path) -> Path:
        return _of_track(path, one.track) if several else path

    target, figure = named(args.output), args.figure and named(args.figure)
    write_poses(placed, target, one.frames)
    sys.stdout.write(f"{len(poses)} poses in {target}\n")
    if figure:
        draw_sequences({"lifted": poses}, figure)
        sys.stdout.write(f"picture: {figure}\n")
    write_outputs(placed, outputs, seen.frame_rate, seen=seen, named=named)


def _of_track(path: Path, track: str | None) -> Path:
    """``poses.npz`` of track 3: ``poses.track3.npz``."""
    return path.with_name(f"{path.stem}.track{quote(str(track), safe='')}{path.suffix}")
