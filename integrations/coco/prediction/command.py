"""``cycledistill predict MODEL SOURCE --output OUT``: poses in pictures, in videos, before a camera."""

from __future__ import annotations

import argparse
import sys
from pathlib import Path
from typing import TYPE_CHECKING

from cycledistill.terminal.flags import TRAINED, add_flag

if TYPE_CHECKING:
    from .boxes import Boxes

help = "find the poses of persons in pictures, a video or a camera's picture, with a trained pose model"
requires = "cycledistill[coco]"

KINDS = ("results", "poses", "csv", "drawn", "keypoints")  # `written.folder.KINDS`, which needs more than help may load


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the command's arguments."""
    parser.add_argument("model", metavar="MODEL", help=TRAINED)
    parser.add_argument(
        "source", metavar="SOURCE", help="a picture, a folder, a glob in quotes, a zip file, a video, a camera's number"
    )
    add_flag(parser, "--output", "a new folder", required=True, type=Path)
    whose = parser.add_mutually_exclusive_group()
    add_flag(whose, "--boxes", "by file name or image id", type=Path)
    add_flag(whose, "--detector")
    parser.add_argument(
        "--box-score", type=float, metavar="SCORE", help="least score of a box (default 0.3 of a detector, 0 of a file)"
    )
    parser.add_argument(
        "--categories",
        nargs="+",
        metavar="ID",
        help="of a file of boxes these categories, by id or name (default: the run's data.categories; else those that "
        "have the model's joints, or the only one)",
    )
    parser.add_argument("--track", action="store_true", help="follow persons from frame to frame, and number them")
    parser.add_argument(
        "--write", nargs="+", choices=KINDS, default=KINDS, metavar="KIND", help=f"of {', '.join(KINDS)} (default: all)"
    )
    add_flag(parser, "--limit", "pictures or frames")
    add_flag(parser, "--skip-broken", "and count them")
    parser.add_argument(
        "--exif", choices=("apply", "ignore"), default="apply", help="turn pictures as a viewer does (default), or not"
    )
    add_flag(parser, "--config", "of a file of weights that does not say it")
    add_flag(parser, "--ema")
    add_flag(parser, "--exit", "default 1", default=1)
    add_flag(parser, "--device", default="auto")
    add_flag(parser, "--batch-size", "persons; default: the run's, else 64")
    parser.epilog = "Without --boxes and --detector a picture is taken for one person who fills it."


def run(args: argparse.Namespace) -> int:
    """Predict; what was done, and where it is, goes to standard output."""
    from cycledistill.terminal.loading import say_loading

    say_loading()
    import dataclasses

    from cycledistill.commands.arguments import check_positive
    from cycledistill.recipes.run.accelerator import open_accelerator
    from cycledistill.terminal.logs import log_to_stderr

    from ..data.joints import joints_of
    from .box_files import read_boxes
    from .job import predict_source
    from .models import open_model
    from .sources import open_source
    from .written.folder import check_output

    log_to_stderr()
    if args.categories and args.boxes is None:
        raise ValueError(f"--categories {' '.join(args.categories)} without --boxes: no other box has a category")
    for option in ("limit", "exit", "batch_size"):
        check_positive(f"--{option.replace('_', '-')}", getattr(args, option))
    if Path(args.source).suffix.lower() in (".json", ".jsonl", ".npz", ".npy"):
        raise ValueError(
            f"{args.source} is a file of keypoints or boxes, and {args.model} takes pictures and videos: keypoints are "
            "lifted by a model of `cycledistill train human36m`, and boxes are given by --boxes"
        )
    boxes = None if args.boxes is not None else _boxes(args)
    model, settings = open_model(args.model, args.config, args.ema)  # before the source, which may be a whole disk
    source = open_source(args.source, args.limit, args.exif)
    check_output(args.output, source)
    if boxes is None:  # which of a file's boxes count is a matter of the model
        categories = args.categories or settings.categories
        boxes = read_boxes(args.boxes, args.box_score or 0.0, joints_of(model), categories)
    settings = dataclasses.replace(
        settings,
        batch_size=args.batch_size or settings.batch_size,
        broken="skip" if args.skip_broken else settings.broken,
    )
    with open_accelerator(args.device, settings.precision, "--device") as accelerator:
        if args.detector:
            boxes.detector.to(accelerator.device)  # type: ignore[attr-defined]
        done = predict_source(
            model.to(accelerator.device),
            source,
            args.output,
            boxes,
            exit=args.exit,
            settings=settings,
            kinds=args.write,
            tracked=args.track,
            progress=True,
        )
    sys.stdout.write(
        f"{done.persons} persons in {done.frames} pictures, {done.rate:.1f} pictures a second; {done.empty} pictures "
        f"have nobody\n{args.output}: {', '.join(sorted(each.name for each in args.output.iterdir()))}\n"
    )
    return 0


def _boxes(args: argparse.Namespace) -> Boxes:
    from .boxes import DetectedBoxes, whole_picture

    if args.detector is None:
        if args.box_score is not None:
            raise ValueError(f"--box-score {args.box_score:g} without --boxes or --detector: no box has a score")
        return whole_picture
    from ..detector import DetectorError, load_detector

    try:
        detector = load_detector(args.detector)
    except DetectorError as error:
        raise ValueError(str(error)) from error
    return DetectedBoxes(detector, 0.3 if args.box_score is None else args.box_score)
