"""The command line that trains, resumes or evaluates by a recipe."""

from __future__ import annotations

import argparse
import json
import logging
import os
import sys
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from cycledistill.recipes.errors import CheckpointError, NonFiniteLossError, RecipeError

Flags = Mapping[str, tuple[str, type, str]]
"""Flag -> key of the recipe, type, help."""

RUN_FLAGS: Flags = {
    "--output": ("run.output", str, "folder for logs and checkpoints"),
    "--epochs": ("schedule.epochs", int, "length of the schedule"),
    "--workers": ("data.workers", int, "loader processes"),
    "--device": ("run.device", str, "auto, cpu, cuda or mps"),
    "--seed": ("run.seed", int, "seed of everything random"),
    "--max-steps": ("run.max_steps", int, "stop after so many steps, with a checkpoint"),
}
"""Flags that mean the same in every command."""


@dataclass(frozen=True)
class Command:
    """A command's own parts.

    Attributes:
        name: How it is called.
        description: What it does.
        flags: Short ways to keys of the recipe.
        load: ``(source, overrides) -> recipe``; the recipe has ``to_dict()``.
        recipes: Names of the packaged recipes.
        train: ``(recipe, resume) -> summary``.
        evaluate: ``(recipe, path) -> summary``.
        stored: ``path -> recipe`` of a run or checkpoint.
        errors: Errors of its data, shown as their message.
    """

    name: str
    description: str
    flags: Flags
    load: Callable[[Any, Any], Any]
    recipes: Callable[[], Sequence[str]]
    train: Callable[[Any, str | None], dict[str, Any]]
    evaluate: Callable[[Any, str], dict[str, Any]]
    stored: Callable[[str], Any]
    errors: tuple[type[Exception], ...]

    def main(self, argv: Sequence[str] | None = None) -> int:
        """Train, resume or evaluate; the summary goes to standard output as JSON."""
        parser = self.parser()
        args = parser.parse_args(argv)
        primary = os.environ.get("RANK", "0") == "0"
        expected: tuple[type[Exception], ...] = (RecipeError, CheckpointError, NonFiniteLossError, *self.errors)
        logging.basicConfig(level=logging.INFO if primary else logging.ERROR, format="%(name)s: %(message)s")
        try:
            summary = self._run(args)
        except expected as error:
            # an error from a loader worker comes with the worker's traceback before its message
            parser.exit(2, f"error: {str(error).rpartition(f'{type(error).__name__}: ')[2].strip()}\n")
        except KeyboardInterrupt:
            parser.exit(130, "stopped; --resume auto goes on from the last checkpoint\n")
        if primary:
            sys.stdout.write(json.dumps(summary, indent=1) + "\n")
        return 0

    def parser(self) -> argparse.ArgumentParser:
        """The command's arguments."""
        parser = argparse.ArgumentParser(
            self.name, description=self.description, epilog=f"Packaged recipes: {', '.join(self.recipes())}."
        )
        parser.add_argument("--config", help="YAML file, or the name of a packaged recipe (below)")
        for flag, (key, kind, text) in self.flags.items():
            parser.add_argument(flag, type=kind, metavar=key, help=text)
        parser.add_argument(
            "--set", action="append", default=[], metavar="a.b=c", help="any key of the recipe; repeatable"
        )
        parser.add_argument("--resume", metavar="PATH", help="a run, a checkpoint, or 'auto': the last in --output")
        parser.add_argument(
            "--evaluate", metavar="PATH", help="measure a run, a checkpoint or a file of weights instead"
        )
        return parser

    def _run(self, args: argparse.Namespace) -> dict[str, Any]:
        if args.evaluate and args.resume:
            raise RecipeError("--evaluate and --resume exclude each other.")
        source: Any = args.config
        if args.evaluate and not args.config and not args.evaluate.endswith((".safetensors", ".pth", ".pt", ".bin")):
            source = self.stored(args.evaluate).to_dict()
        recipe = self._recipe(args, source)
        return self.evaluate(recipe, args.evaluate) if args.evaluate else self.train(recipe, args.resume)

    def _recipe(self, args: argparse.Namespace, source: Any) -> Any:
        options: list[Any] = []
        for flag, (key, _, _) in self.flags.items():
            value = getattr(args, flag.lstrip("-").replace("-", "_"))
            if value is not None:
                options.append((key, None if (key, value) == ("cyclic.distill", "none") else value))
        return self.load(source, [*options, *args.set])
