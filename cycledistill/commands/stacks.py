"""``cycledistill stacks``: the runs of blocks of a model that can be cycled."""

from __future__ import annotations

import argparse
import sys

from cycledistill.commands.arguments import add_model
from cycledistill.terminal.loading import say_loading

help = "runs of blocks that can be cycled"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the model."""
    add_model(parser)


def run(args: argparse.Namespace) -> int:
    """Print a table of stacks, and the call that would cycle one."""
    say_loading()
    from cycledistill.commands.named.models import build
    from cycledistill.errors import StackError
    from cycledistill.stack.choose import choose_stack
    from cycledistill.stack.find import find_stacks

    model, _ = build(args.model, args.img_size, "meta")
    found = find_stacks(model)
    if not found:
        raise ValueError(f"{args.model} ({type(model).__name__}) has no run of equal blocks that keep their shape")
    table = [("path", "depth", "block", "state", "parameters", "share", "attention")]
    for s in found:
        attention = "yes" if s.attention else "no"
        shape = str(s.shape or "unknown")
        table.append((s.path, str(s.depth), s.block, shape, f"{s.parameters:,}", f"{s.share:.1%}", attention))
    widths = [max(map(len, column)) for column in zip(*table, strict=True)]
    lines = ["  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip() for row in table]
    try:
        call = f"wrap_cyclic(model) takes {choose_stack(model).path}"
    except StackError:
        best = next((s for s in found if s.attention), found[0])
        call = f'no stack is taken by itself; for example wrap_cyclic(model, blocks="{best.path}")'
    sys.stdout.write("\n".join([f"{args.model} ({type(model).__name__})", "", *lines, "", call, ""]))
    return 0
