"""``cycledistill insight``: what cycling did to a trained model, as one HTML file."""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

from cycledistill.commands.arguments import check_positive, check_target, write_text
from cycledistill.terminal.flags import add_flag
from cycledistill.terminal.loading import say_loading

help = "attention, drift, parameters of a trained model as HTML"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the checkpoint and what to show of it."""
    parser.add_argument("checkpoint", type=Path, metavar="MODEL", help="folder of a run or checkpoint")
    shown = "images (for lifting: keypoint files) to show it"
    parser.add_argument("--image", type=Path, nargs="+", default=[], metavar="FILE", help=shown)
    add_flag(parser, "--ema")
    add_flag(parser, "--cycles", "to run on --image; default: as trained")
    beside = "put this one's facts, scores and parameters beside"
    parser.add_argument("--compare", type=Path, metavar="MODEL", help=beside)
    add_flag(parser, "--output", "default: insight.html", type=Path, default=Path("insight.html"))


def run(args: argparse.Namespace) -> int:
    """Write the page."""
    check_positive("--cycles", args.cycles)
    if args.cycles is not None and not args.image:
        raise ValueError(f"--cycles {args.cycles} are run on the files of --image, and none is given: add --image FILE")
    check_target("--output", args.output)
    missing = next((file for file in args.image if not file.is_file()), None)
    if missing is not None:
        raise ValueError(f"--image {missing}: there is no such file")
    say_loading()
    from cycledistill.insight.report import insight_report
    from cycledistill.insight.subject import open_subject

    subject = open_subject(args.checkpoint, args.ema)
    compare = open_subject(args.compare, args.ema) if args.compare is not None else None
    try:
        page = insight_report(subject, args.image, cycles=args.cycles, compare=compare)
    except ImportError as error:
        raise ValueError(str(error)) from error
    write_text(args.output, page)
    sys.stdout.write(f"{args.output}: {len(args.image)} files shown, {subject.name}\n")
    return 0
