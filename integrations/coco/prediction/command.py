"""What ``cycledistill predict coco`` does: poses in pictures, in videos, before a camera."""

from __future__ import annotations

import argparse
import dataclasses
import sys

from cycledistill.commands.arguments import check_positive
from cycledistill.recipes.prediction.output import check_output
from cycledistill.recipes.prediction.sources import check_pictures
from cycledistill.recipes.run.accelerator import open_accelerator

from ..data.joints import joints_of
from ..detector import DetectorError, load_detector
from .box_files import read_boxes
from .boxes import Boxes, DetectedBoxes, whole_picture
from .job import predict_source
from .models import open_model
from .sources import open_source


def predict_files(args: argparse.Namespace) -> None:
    """Predict as the arguments of `add_pictures` of ``coco/commands.py`` say; what was done goes to standard output.

    Raises:
        ValueError: Pictures, boxes, a model or options that cannot be used.
    """
    if args.categories and args.boxes is None:
        raise ValueError(f"--categories {' '.join(args.categories)} without --boxes: no other box has a category")
    for option in ("limit", "exit", "batch_size"):
        check_positive(f"--{option.replace('_', '-')}", getattr(args, option))
    check_pictures(args.source, args.model, ", and boxes are given by --boxes")
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


def _boxes(args: argparse.Namespace) -> Boxes:
    if args.detector is None:
        if args.box_score is not None:
            raise ValueError(f"--box-score {args.box_score:g} without --boxes or --detector: no box has a score")
        return whole_picture
    try:
        detector = load_detector(args.detector)
    except DetectorError as error:
        raise ValueError(str(error)) from error
    return DetectedBoxes(detector, 0.3 if args.box_score is None else args.box_score)
