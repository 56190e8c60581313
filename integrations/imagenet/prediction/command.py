"""What ``cycledistill predict imagenet`` does: the likeliest classes of pictures."""

from __future__ import annotations

import argparse
import dataclasses
import sys
import time
from contextlib import nullcontext

from cycledistill.commands.arguments import check_positive
from cycledistill.recipes.prediction.output import check_output
from cycledistill.recipes.prediction.sources import check_pictures
from cycledistill.recipes.prediction.stopping import interruptible
from cycledistill.recipes.progress import with_progress
from cycledistill.recipes.run.accelerator import open_accelerator

from ..commands import SHOWN
from .models import open_model
from .sources import open_source
from .stream import predict_stream
from .written import open_outputs, table


def predict_files(args: argparse.Namespace) -> None:
    """Predict as the arguments of `add_pictures` say; a table of the first pictures goes to standard output.

    Raises:
        ValueError: Pictures, a model or options that cannot be used.
    """
    for option in ("top", "limit", "exit", "batch_size"):
        check_positive(f"--{option.replace('_', '-')}", getattr(args, option))
    for each in args.sources:
        check_pictures(each, args.model)
    model, settings = open_model(args.model, args.config, args.ema)  # before the source, which may be a whole disk
    source = open_source(*args.sources, limit=args.limit, exif=args.exif)
    if args.output is not None:
        check_output(args.output, source)
    settings = dataclasses.replace(
        settings,
        batch_size=args.batch_size or settings.batch_size,
        broken="skip" if args.skip_broken else settings.broken,
    )
    shown, count, start = [], 0, time.perf_counter()
    with (
        open_accelerator(args.device, settings.precision, "--device") as accelerator,
        interruptible(source),
        nullcontext() if args.output is None else open_outputs(args.output, source) as add,
    ):
        stream = predict_stream(model.to(accelerator.device), source, top=args.top, exit=args.exit, settings=settings)
        for found in with_progress(stream, "predict", "pictures", source.total, shown=True, leave=True):
            if add is not None:
                add(found)
            shown += [found] if count < SHOWN else []
            count += 1
    rate = count / max(time.perf_counter() - start, 1e-9)
    sys.stdout.write(table(shown))
    if count > SHOWN:
        where = "--output PATH has them all" if args.output is None else f"all are in {args.output}"
        sys.stdout.write(f"... and {count - SHOWN} more: {where}\n")
    sys.stdout.write(f"{count} pictures, {rate:.1f} pictures a second\n")
    if args.output is not None:
        sys.stdout.write(f"{args.output}: {', '.join(sorted(each.name for each in args.output.iterdir()))}\n")
