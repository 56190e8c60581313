"""The command line that measures: ``cycledistill evaluate MODEL``, with the flags of ``cycledistill train``."""

from __future__ import annotations

import argparse
from dataclasses import dataclass

from cycledistill.recipes.config.packaged import packaged_names
from cycledistill.recipes.run.command import Command, Flag, add_recipe
from cycledistill.terminal.flags import MEASURED

_ABOUT_TRAINING = {"--output", "--distill", "--epochs", "--max-steps"}


@dataclass(frozen=True)
class Evaluation:
    """Measuring by a training command's recipe, as ``--evaluate`` of that command does it.

    Attributes:
        training: The command.
        help: What it measures, in one line.
    """

    training: Command
    help: str

    @property
    def requires(self) -> str:
        """What to install where an import is missing."""
        return self.training.requires

    @property
    def flags(self) -> tuple[Flag, ...]:
        """Those of the training that change what is measured, and how."""
        return tuple(flag for flag in self.training.flags if flag.name not in _ABOUT_TRAINING)

    def add_arguments(self, parser: argparse.ArgumentParser) -> None:
        """Add the model, and how it is measured where that is not as its run says."""
        parser.set_defaults(program=parser.prog, resume=None)
        parser.epilog = f"Packaged recipes: {', '.join(packaged_names(self.training.package))}."
        parser.add_argument("evaluate", metavar="MODEL", help=MEASURED)
        add_recipe(parser, self.flags)

    def run(self, args: argparse.Namespace) -> int:
        """Measure; the figures go to standard output as JSON."""
        return self.training.run(args)
