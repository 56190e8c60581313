"""A command whose arguments are read without its work, which is imported when it is done."""

from __future__ import annotations

import argparse
import importlib
import sys
from collections.abc import Callable
from dataclasses import dataclass

from cycledistill.terminal.loading import say_loading
from cycledistill.terminal.logs import log_to_stderr


@dataclass(frozen=True)
class Verb:
    """A command of an integration; see :class:`cycledistill.commands.frame.Subcommand`.

    Attributes:
        help: What it does, in one line.
        requires: What to install where an import of the work is missing: ``"cycledistill[coco]"``.
        arguments: Adds its arguments to a parser.
        work: The function that does it, ``"package.module:name"``. It takes the arguments, and returns what is said at
            the end, if anything.

    Example:
        >>> CONVERT = Verb("read theirs", "my_package", add_conversion, "my_package.convert:convert_file")
    """

    help: str
    requires: str
    arguments: Callable[[argparse.ArgumentParser], None]
    work: str

    def add_arguments(self, parser: argparse.ArgumentParser) -> None:
        """Add its arguments."""
        self.arguments(parser)

    def run(self, args: argparse.Namespace) -> int:
        """Do the work; what it returns goes to standard output."""
        log_to_stderr()
        say_loading()
        module, _, name = self.work.partition(":")
        said = getattr(importlib.import_module(module), name)(args)
        if said:
            sys.stdout.write(said if said.endswith("\n") else f"{said}\n")
        return 0
