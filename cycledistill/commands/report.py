"""``cycledistill report``: what a model costs with more cycles, or what a file says of itself."""

from __future__ import annotations

import argparse
import json
import sys
from pathlib import Path

from cycledistill.commands.arguments import add_model, check_positive, check_target, write_text
from cycledistill.terminal.flags import add_flag
from cycledistill.terminal.loading import say_loading

help = "parameters, MACs and time of a model with 1..N cycles; or what a file of a model says of itself"

FILES = (".onnx", ".pt2", ".safetensors", ".pth", ".pt")
"""Endings of no name of a model; of the last two the answer says why they are not read."""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the model and what to report of it."""
    add_model(parser, ", or a file: .onnx, .pt2, .safetensors")
    add_flag(parser, "--cycles", "all up to it are reported; default: 2")
    add_flag(parser, "--blocks")
    parser.add_argument("--time", action="store_true", help="also time one image, on the CPU with one thread")
    parser.add_argument("--repeats", type=int, default=5, metavar="N", help="rounds of --time (default: 5)")
    parser.add_argument("--json", type=Path, metavar="FILE", help="write the report there too")


def run(args: argparse.Namespace) -> int:
    """Print the report; with ``--json``, write it too."""
    check_positive("--cycles", args.cycles)
    check_positive("--repeats", args.repeats)
    if args.json is not None:
        check_target("--json", args.json)
    if Path(args.model).is_file() or args.model.endswith(FILES):
        _report_file(args)
    else:
        _report_cost(args)
    return 0


def _report_file(args: argparse.Namespace) -> None:
    """Its weights are not read, and PyTorch is not needed."""
    options = {"--cycles": args.cycles, "--img-size": args.img_size, "--time": args.time or None}
    given = [name for name, value in options.items() if value is not None]
    if given:
        raise ValueError(f"{', '.join(given)}: a file says what it is; these are of models that are built by name")
    from cycledistill.metadata.told import report_file

    report = report_file(args.model)
    sys.stdout.write(f"{report}\n")
    if args.json is not None:
        write_text(args.json, json.dumps(report.to_dict(), indent=2) + "\n")


def _report_cost(args: argparse.Namespace) -> None:
    say_loading()
    from cycledistill.commands.named.models import build
    from cycledistill.cost.report import cost

    model, image = build(args.model, args.img_size, "cpu" if args.time else "meta")
    repeats = args.repeats if args.time else 0
    try:
        report = cost(model, image, args.cycles or 2, blocks=args.blocks, repeats=repeats)
    except (RuntimeError, AssertionError) as error:
        if args.img_size is None:
            raise
        raise ValueError(f"{args.model} does not run on --img-size {args.img_size}: {error}") from error
    sys.stdout.write(f"{report}\n")
    if args.json is not None:
        write_text(args.json, json.dumps({"name": args.model, **report.to_dict()}, indent=2) + "\n")
