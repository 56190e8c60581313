"""The frame of the command ``cycledistill``: it finds subcommands, shows their help and runs the one that is called.

A subcommand is an entry point of the group ``cycledistill.commands``; any installed package may announce one::

    [project.entry-points."cycledistill.commands"]
    "train.mine" = "my_package.train:COMMAND"

Its name is the words that call it, joined by dots: ``cycledistill train mine``. It leads to a :class:`Subcommand`: an
object, or a module, with ``help``, ``add_arguments`` and ``run``. Importing it must be cheap, for that happens at
``cycledistill --help``: PyTorch and the like are imported in ``run``. A :class:`Chooser` stands over several commands
and says by what was typed which of them is meant: ``cycledistill predict runs/a photos``.
"""

from __future__ import annotations

import argparse
import difflib
import sys
from collections.abc import Sequence
from importlib.metadata import EntryPoint
from typing import Any, NoReturn, Protocol

import cycledistill
from cycledistill.announced import Announced, Words, called_by, distribution, find_entries, lacking, load_entry
from cycledistill.terminal.parser import Parser
from cycledistill.versions import VersionError

PROGRAM = "cycledistill"
SUMMARIES = {
    (): "Multi-cycled transformers: what cycles cost a model, training with them, and what they did",
    ("train",): "train or resume a model by a recipe",
    ("convert",): "weights of the authors' files in this library's names, and back",
}
"""What stands over several commands, by the words they begin with."""


class Subcommand(Protocol):
    """What an entry point of ``cycledistill.commands`` names: an object or a module.

    Attributes:
        help: What it does, in one line.
        requires: May be left out: what to install where an import of ``run`` is missing. Default: the package that
            announces the command.
    """

    help: str

    def add_arguments(self, parser: argparse.ArgumentParser) -> None:
        """Add the command's arguments; ``parser.description`` and ``parser.epilog`` may be set too."""

    def run(self, args: argparse.Namespace) -> int:
        """Do the work, and return the exit code.

        Raises:
            ValueError: What was given cannot be used: the frame shows the message alone, and exits with 2.
            OSError: A file cannot be read or written: the same.
        """


class Chooser(Protocol):
    """What an entry point names that stands over several commands, and knows which one is meant.

    Attributes:
        help: What they do, in one line.
    """

    help: str

    def choose(self, words: Sequence[str], known: Sequence[str]) -> str:
        """The command that is meant.

        Args:
            words: What was typed; the first is neither an option nor the name of a command.
            known: The commands there are.

        Raises:
            ValueError: None of them is meant: the frame shows the message alone, and exits with 2.
        """


def main(argv: Sequence[str] | None = None) -> int:
    """Run one command.

    Args:
        argv: The arguments after the program's name; default, those of the process.

    Returns:
        0; 2 for bad input, with the reason on stderr; 130 after Ctrl-C.

    Raises:
        SystemExit: Help or the version was asked for (code 0), or the call is wrong (2).

    Example:
        >>> main(["stacks", "deit_tiny_patch16_224"])
        0
    """
    try:  # around all of it: to say which command is meant a model may be looked for on the hub
        entry, command, args = parse(sys.argv[1:] if argv is None else argv)
        try:
            return command.run(args)
        except ModuleNotFoundError as error:
            return _refuse(lacking(error, entry, getattr(command, "requires", None)))
        except (ValueError, OSError, VersionError) as error:  # StackError is a ValueError
            return _refuse(str(error))
    except KeyboardInterrupt:
        sys.stderr.write(f"{PROGRAM}: stopped\n")
        return 130


def parse(words: Sequence[str]) -> tuple[EntryPoint, Subcommand, argparse.Namespace]:
    """The command that is called, and its arguments; raises as :func:`main` does."""
    found = find_entries()
    path: Words = ()
    while len(words) > len(path) and words[len(path)] in _below(path, found):
        path = (*path, words[len(path)])
    if path not in found:
        _explain(path, words[len(path) :], found)
    command, rest = _only(found[path]), words[len(path) :]
    if hasattr(command, "choose"):
        helped = {"-h", "--help"} & {*rest}  # whose the model is takes PyTorch to say, and help does without
        if not rest or rest[0].startswith("-") or helped:
            _explain(path, ["--help"] if helped else rest, found)
        path = (*path, _chosen(command, found[path][0], rest, _below(path, found)))
        command = _only(found[path])
    parser = _parser(path, command.help)
    command.add_arguments(parser)
    return found[path][0], command, parser.parse_args(rest)


def _chosen(chooser: Chooser, entry: EntryPoint, words: Sequence[str], known: Sequence[str]) -> str:
    """What a chooser chooses.

    Raises:
        SystemExit: Nothing.
    """
    try:
        return chooser.choose(words, known)
    except ModuleNotFoundError as error:
        raise SystemExit(_refuse(lacking(error, entry, getattr(chooser, "requires", None)))) from error
    except (ValueError, OSError, VersionError) as error:
        raise SystemExit(_refuse(str(error))) from error


def _only(entries: list[EntryPoint]) -> Any:
    """The command of one entry, and no other's.

    Raises:
        SystemExit: Several packages announce it, or it cannot be loaded.
    """
    entry, *others = entries
    if others:
        places = ", ".join(f"{distribution(each)} ({each.value})" for each in entries)
        raise SystemExit(
            _refuse(f"{called_by(entry)!r} is announced by several packages: {places}. Uninstall all but one.")
        )
    command = load_entry(entry)
    if isinstance(command, str):
        raise SystemExit(_refuse(command))
    return command


def _below(path: Words, found: Announced) -> list[str]:
    """The words that may follow ``path``."""
    depth = len(path)
    return sorted({each[depth] for each in found if len(each) > depth and each[:depth] == path})


def _explain(path: Words, rest: Sequence[str], found: Announced) -> NoReturn:
    """Show help, or say what is wrong with a call that stops short of a command."""
    parser = _parser(path, _summary(path, found) if path in found else SUMMARIES.get(path, "several commands"))
    parser.epilog = getattr(load_entry(found[path][0]), "epilog", None) if path in found else None
    if not found:
        parser.error("no commands are announced: install the package (in a checkout: pip install -e .)")
    if not path:
        parser.add_argument("--version", action="version", version=cycledistill.__version__)
    names = _below(path, found)
    shown = parser.add_subparsers(title="commands", metavar="COMMAND")  # first, for the usage of every answer names it
    if path in found and rest and rest[0] not in ("-h", "--help"):
        parser.error(f"{rest[0]} stands before the model: the model comes first, or one of {', '.join(names)}")
    if rest and not rest[0].startswith("-"):
        near = difflib.get_close_matches(rest[0], names, n=1)
        hint = f"did you mean {near[0]!r}?" if near else f"known: {', '.join(names)}"
        parser.error(f"unknown command {rest[0]!r}; {hint}")
    for name in names:
        shown.add_parser(name, help=_summary((*path, name), found).replace("%", "%%"))
    parser.parse_args(rest)
    parser.error(f"a command is expected: {', '.join(names)}")


def _summary(path: Words, found: Announced) -> str:
    if path not in found:
        return f"{SUMMARIES.get(path, 'several commands')}: {', '.join(_below(path, found))}"
    command = load_entry(found[path][0])
    return command if isinstance(command, str) else command.help


def _parser(path: Words, about: str) -> Parser:
    return Parser(" ".join((PROGRAM, *path)), description=f"{about[:1].upper()}{about[1:]}.")


def _refuse(reason: str) -> int:
    sys.stderr.write(f"{PROGRAM}: {reason}\n")
    return 2
