"""``cycledistill verify``: prove on a model, wrapped, that cycles are what they are said to be."""

from __future__ import annotations

import argparse
import sys

from cycledistill.commands.arguments import add_model, check_positive
from cycledistill.terminal.flags import add_flag
from cycledistill.terminal.loading import say_loading

help = "prove on a model that its cycles are right"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the model and how it is wrapped."""
    add_model(parser)
    add_flag(parser, "--cycles", "default: 2", default=2)
    add_flag(parser, "--blocks")
    parser.epilog = "Exit code: 0 where all was proved, 1 where something failed or could not be checked."


def run(args: argparse.Namespace) -> int:
    """Print a row a claim."""
    check_positive("--cycles", args.cycles)
    say_loading()
    from cycledistill.commands.named.models import build

    model, image = build(args.model, args.img_size, "cpu")
    import torch

    from cycledistill.cycle.wrap import wrap_cyclic
    from cycledistill.verification.proof import verify

    inputs = None if image is None else torch.randn(2, *image.shape[1:])
    result = verify(wrap_cyclic(model, args.cycles, None, blocks=args.blocks, inputs=inputs), inputs)
    sys.stdout.write(f"{args.model}, with random weights\n{result}\n")
    return 0 if result.ok else 1
