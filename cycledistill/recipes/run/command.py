"""The command line that trains, resumes or evaluates by a recipe."""

from __future__ import annotations

import argparse
import importlib
import json
import os
import re
import shlex
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from cycledistill.lazy import missing
from cycledistill.presets import SETTINGS
from cycledistill.recipes.config.packaged import packaged_names
from cycledistill.recipes.errors import CheckpointError, DataError, NonFiniteLossError, RecipeError
from cycledistill.terminal.flags import FLAGS, add_flag
from cycledistill.terminal.loading import say_loading, say_opening
from cycledistill.terminal.logs import log_to_stderr
from cycledistill.terminal.parser import Parser
from cycledistill.versions import VersionError


@dataclass(frozen=True)
class Flag:
    """A short way to a key of the recipe.

    Attributes:
        name: As it is typed: ``"--data"``.
        key: The recipe's key.
        help: What it is, in a few words; of one that other commands have as well (`cycledistill.terminal.flags`), what
            is to be said beside.
        kind: The type of the value.
        word: What help calls the value; default, ``N`` for a whole number, else ``NAME``.
        words: Values that are typed otherwise than the recipe has them, such as ``none``.
        advice: What to do about a value that is refused, where the recipe's own error does not say it.

    Raises:
        ValueError: ``kind`` is bool.
    """

    name: str
    key: str
    help: str = ""
    kind: type[Any] = str
    word: str = ""
    words: Mapping[str, Any] = field(default_factory=dict)
    advice: str = ""

    def __post_init__(self) -> None:
        if self.kind is bool:  # of a text: all but the empty one are true
            raise ValueError(
                f"{self.name}: kind=bool would take every word for true, 'false' too; leave kind out: the recipe "
                "reads the words in words={'true': True, 'false': False}."
            )

    @property
    def attribute(self) -> str:
        """Where the parser puts the value."""
        return self.name.lstrip("-").replace("-", "_")

    def add_to(self, parser: argparse.ArgumentParser) -> None:
        """Add it to a command's arguments."""
        if self.name in FLAGS:
            add_flag(parser, self.name, f"{self.help}; {self.key}" if self.help else self.key, type=self.kind)
            return
        word = self.word or ("N" if self.kind is int else "NAME")
        parser.add_argument(self.name, type=self.kind, metavar=word, help=f"{self.help} ({self.key})")


RUN_FLAGS = (
    Flag("--output", "run.output", "logs and checkpoints"),
    Flag("--model", "model.name"),
    Flag("--cycles", "cyclic.cycles", "1: the plain model", int),
    Flag("--distill", "cyclic.distill", f"preset: {', '.join(SETTINGS)}, or none", words={"none": None}),
    Flag("--device", "run.device"),
    Flag("--epochs", "schedule.epochs", "length of the schedule", int),
    Flag("--batch-size", "data.batch_size", kind=int),
    Flag("--workers", "data.workers", "loader processes", int),
    Flag("--seed", "run.seed", "seed of everything random", int),
    Flag("--max-steps", "run.max_steps", "stop after so many steps, with a checkpoint", int),
)
"""Flags that mean the same in every training command."""


@dataclass(frozen=True)
class Command:
    """A training command, as ``cycledistill train NAME`` and as ``python -m PACKAGE.train``.

    The work is the package's, imported when it is done: ``recipe.load_recipe``, ``train.train``,
    ``trained.evaluate_trained`` and ``trained.stored_recipe``; its packaged recipes are in the folder ``configs``. So
    the help of the command needs neither PyTorch nor what the package trains with.

    Attributes:
        package: The package's name.
        help: What it trains, in one line.
        requires: What to install where a module that the work needs is missing: ``"cycledistill[coco]"``.
        data: The flag ``--data``, and others about data: what `RUN_FLAGS` does not have.
        holds: Names of classes by which models say that they are this command's: of a model (``model_class`` in a
            published folder's config.json) and of a network's config (``config_class`` in a file of weights).
            ``"timm"``: of what timm publishes (``architecture`` in config.json).
    """

    package: str
    help: str
    requires: str
    data: Sequence[Flag]
    holds: Sequence[str] = ()

    @property
    def flags(self) -> tuple[Flag, ...]:
        """All short ways to keys of the recipe."""
        return (*self.data, *RUN_FLAGS)

    def main(self, argv: Sequence[str] | None = None) -> int:
        """Read the arguments and run.

        Returns:
            The exit code, see :meth:`run`.

        Raises:
            SystemExit: Help was asked for (code 0), or the call is wrong (2).
        """
        return self.run(self.parser().parse_args(argv))

    def parser(self) -> argparse.ArgumentParser:
        """The command's arguments where it is started as a module; ``cycledistill train`` makes a parser of its own."""
        parser = Parser(f"python -m {self.package}.train", description=f"{self.help[:1].upper()}{self.help[1:]}.")
        self.add_arguments(parser)
        return parser

    def add_arguments(self, parser: argparse.ArgumentParser) -> None:
        """Add the arguments to a parser, whose epilog becomes the names of the packaged recipes."""
        parser.set_defaults(program=parser.prog)
        parser.epilog = f"Packaged recipes: {', '.join(packaged_names(self.package))}."
        add_recipe(parser, self.flags)
        parser.add_argument(
            "--resume",
            metavar="MODEL",
            help="a run, a checkpoint, or 'auto': the last in --output; without --config by that run's own recipe",
        )
        parser.add_argument(
            "--evaluate",
            metavar="MODEL",
            help="measure a run, a checkpoint or a file of weights (with --config) instead, as `cycledistill evaluate`",
        )

    def run(self, args: argparse.Namespace) -> int:
        """Train, resume or evaluate; the summary goes to standard output as JSON.

        A signal that asks to stop is followed when the step is done and saved, a second one at once (`guard.signals`).

        Returns:
            0; 2 where something cannot be used, with the reason on stderr; 130 after Ctrl-C, 143 after SIGTERM or
            SIGUSR1, with the command that goes on.
        """
        say_loading()
        from cycledistill.recipes.run.guard.signals import StopRequest, heeded  # they need PyTorch, and help does not

        primary = os.environ.get("RANK", "0") == "0"
        log_to_stderr()
        recipe = before = None
        try:
            with heeded():
                read = self.recipe(args)
                before, recipe = (
                    None if args.evaluate else _last_of(read),
                    read,
                )  # what is there before is none of this command's
                if args.print_config:
                    sys.stdout.write(self.printed(args, recipe))
                    return 0
                summary = self._summary(args, recipe)
        except (RecipeError, DataError, CheckpointError, NonFiniteLossError, VersionError, OSError) as error:
            return _stop(2, f"error: {_message(error)}")
        except ModuleNotFoundError as error:
            return _stop(2, f"error: {missing(error, self.package, self.requires)}")
        except KeyboardInterrupt as request:
            code = request.code if isinstance(request, StopRequest) else 130
            return _stop(code, self._farewell(args, recipe, before, request)) if primary else code
        if primary:
            sys.stdout.write(json.dumps(summary, indent=1) + "\n")
        return 0

    def recipe(self, args: argparse.Namespace) -> Any:
        """The recipe: what ``--config`` names, else that of the run evaluated or resumed; then flags, then ``--set``.

        Raises:
            RecipeError: Unknown keys, wrong types or values, or ``--evaluate`` beside ``--resume``.
            CheckpointError: What ``--evaluate`` or ``--resume`` names is no run and no checkpoint, and there is no
                ``--config``.
        """
        if args.evaluate and args.resume:
            raise RecipeError("--evaluate and --resume exclude each other.")
        typed = self._typed(args)
        overrides = [*((flag.key, flag.words.get(value, value)) for flag, value in typed), *args.set]
        try:
            return self._work("recipe").load_recipe(self._source(args, overrides), overrides)
        except RecipeError as error:
            raise RecipeError(_by_flags(str(error), [flag for flag, _ in typed])) from error

    def printed(self, args: argparse.Namespace, recipe: Any) -> str:
        """The whole recipe as YAML, with where each value is from."""
        from cycledistill.recipes.config.overrides import parse_override, read_yaml  # they need PyYAML
        from cycledistill.recipes.config.printed import Layer, print_recipe, run_layers

        typed = [Layer(f"{flag.name} {value}", {flag.key: value}) for flag, value in self._typed(args)]
        typed += [Layer(f"--set {text}", dict([parse_override(text)])) for text in args.set]
        source = self._source(args, [pair for layer in typed for pair in layer.data.items()])
        if isinstance(source, dict):
            load = self._work("recipe").load_recipe
            base = run_layers(args.evaluate or args.resume, load(source), load(None))
        else:
            base = [] if source is None else [Layer(f"config {source}", read_yaml(source, self.package))]
        return print_recipe(recipe, [*base, *typed], getattr(self._work("recipe"), "RENAMED", {}))

    def _source(self, args: argparse.Namespace, overrides: Sequence[str | tuple[str, Any]]) -> Any:
        """What a recipe is read from before flags change it."""
        if args.config:
            return args.config
        if args.evaluate:
            return self._work("trained").stored_recipe(args.evaluate).to_dict()
        return self._resumed(args.resume, overrides) if args.resume else None

    def _typed(self, args: argparse.Namespace) -> list[tuple[Flag, Any]]:
        """The flags that were typed, and their values."""
        given = [(flag, getattr(args, flag.attribute, None)) for flag in self.flags]
        return [(flag, value) for flag, value in given if value is not None]

    def _resumed(self, resume: str, overrides: Sequence[str | tuple[str, Any]]) -> dict[str, Any] | None:
        from cycledistill.recipes.run.trained import recipe_to_go_on  # they need PyTorch, and help does not
        from cycledistill.recipes.weights.checkpoint import store_of

        named = [each for each in overrides if _key_of(each) == "run.output"]
        output = self._work("recipe").load_recipe(None, named).run.output if named or resume == "auto" else None
        if output is not None and resume == "auto":
            checkpoint = store_of(output).last()
            if checkpoint is None:
                return None
            resume = str(checkpoint)
        return recipe_to_go_on(resume, self._work("trained").stored_recipe, output)

    def _summary(self, args: argparse.Namespace, recipe: Any) -> dict[str, Any]:
        say_opening("the data and the model")
        if args.evaluate:
            return self._work("trained").evaluate_trained(recipe, args.evaluate)
        return self._work("train").train(recipe, args.resume)

    def _farewell(self, args: argparse.Namespace, recipe: Any, before: Path | None, request: KeyboardInterrupt) -> str:
        """What a command that was stopped left behind, and the command that goes on from there.

        Args:
            args: As typed.
            recipe: The recipe, None where it was not read yet.
            before: The last checkpoint that was in the run's folder when the command began.
            request: Who stopped it.
        """
        said = str(request) or "stopped"
        if args.evaluate:
            return said
        last = None if recipe is None else _last_of(recipe)
        if last == before:
            said += " before anything was saved"
            if last is None or args.resume:
                return f"{said}: start again by the same command."
            return f"{said}. {recipe.run.output} holds a run already: pass --resume auto to go on, or another --output."
        words = going_on(args.program, self.package)
        where = " on each machine, with torchrun's options of meeting as before" if "--nnodes" in words else ""
        how = shlex.join([*words, *_typed("--resume", recipe.run.output)])
        return f"{said}; the last checkpoint is {last}. Go on from it{where} by:\n{how}"

    def _work(self, module: str) -> Any:
        return importlib.import_module(f"{self.package}.{module}")


def add_recipe(parser: argparse.ArgumentParser, flags: Sequence[Flag]) -> None:
    """Add the arguments that say a recipe."""
    add_flag(parser, "--config")
    for flag in flags:
        flag.add_to(parser)
    parser.add_argument(
        "--set", action="append", default=[], metavar="KEY=VALUE", help="any key of the recipe, a.b=c; repeatable"
    )
    parser.add_argument(
        "--print-config", action="store_true", help="print the whole recipe, and where each value is from; do nothing"
    )


def going_on(program: str, package: str) -> list[str]:
    """The words that start a command again as it was started, as far as a process that a launcher started can know.

    Args:
        program: As the usage has it, ``cycledistill train coco``.
        package: The command's package.

    Returns:
        ``torchrun ... -m PACKAGE.train`` where there are several processes, as many as there are here on each machine.
    """
    world, here = (int(os.environ.get(name, "1")) for name in ("WORLD_SIZE", "LOCAL_WORLD_SIZE"))
    if world == 1:
        return program.split()
    nodes = [] if world == here else ["--nnodes", str(world // here)]
    return ["torchrun", *nodes, "--nproc-per-node", str(here), "-m", f"{package}.train"]


def _last_of(recipe: Any) -> Path | None:
    """The last checkpoint in the folder of a recipe's run."""
    from cycledistill.recipes.weights.checkpoint import store_of  # it needs PyTorch, and help does not

    return store_of(recipe.run.output).last()


def _typed(name: str, value: str) -> list[str]:
    """A flag and its value as words of a command; a value that begins like a flag must stand in one word with it."""
    return [f"{name}={value}"] if value.startswith("-") else [name, value]


def _key_of(override: str | tuple[str, Any]) -> str:
    return override.partition("=")[0].strip() if isinstance(override, str) else override[0]


def _by_flags(message: str, typed: Sequence[Flag]) -> str:
    """An error about a key of the recipe, with the flag that it was typed by, and what else that takes."""
    for flag in typed:
        if re.match(rf"{re.escape(flag.key)}\b(?!\.)", message):
            words = f" Or {', '.join(map(repr, flag.words))}." if flag.words else ""
            return f"{flag.name}: {message}{words}{flag.advice and ' '}{flag.advice}"
    return message


def _message(error: Exception) -> str:
    """The message alone of an error that a loader worker raised.

    The loader raises it anew in this process, with a text of its own in place of the message: who caught it, then the
    worker's traceback, which ends with the error's full name and the message.
    """
    text, kind = str(error), type(error)
    if not text.startswith(f"Caught {kind.__name__} in "):
        return text
    return text.rpartition(f"\n{kind.__module__}.{kind.__qualname__}: ")[2].strip()


def _stop(code: int, reason: str) -> int:
    sys.stderr.write(f"{reason}\n")
    return code
