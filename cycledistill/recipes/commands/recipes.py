"""``cycledistill recipes``: the packaged recipes, a line each; ``cycledistill recipes show NAME``: one of them."""

from __future__ import annotations

import argparse
import difflib
import itertools
import re
import sys
from dataclasses import dataclass
from importlib import resources

from cycledistill.recipes.config.packaged import commands_with, packaged_names, training_commands
from cycledistill.recipes.errors import RecipeError


@dataclass(frozen=True)
class Packaged:
    """A recipe that comes with an integration.

    Attributes:
        command: That trains by it.
        name: As ``--config`` takes it.
        text: The YAML file.
    """

    command: str
    name: str
    text: str

    @property
    def about(self) -> str:
        """The first sentence of the comment that it begins with."""
        comment = itertools.takewhile(lambda line: line.startswith("#"), self.text.splitlines())
        paragraph = "\n".join(line.lstrip("# ").strip() for line in comment).split("\n\n")[0]
        return _sentence(paragraph.replace("\n", " "))

    @property
    def published(self) -> str:
        """What its authors reported: the key ``published``; empty where there is none."""
        from cycledistill.recipes.config.overrides import take_published  # they need PyYAML, and help does not
        from cycledistill.recipes.reading.texts import parse_yaml

        data = parse_yaml(self.text, f"config {self.name}", RecipeError)
        return take_published(data, f"config {self.name}") if isinstance(data, dict) else ""


def packaged_recipes() -> list[Packaged]:
    """All of them, of every command that is installed."""
    found = []
    for command, each in training_commands().items():
        for name in packaged_names(each.package):
            text = (resources.files(each.package) / "configs" / f"{name}.yaml").read_text(encoding="utf-8")
            found.append(Packaged(command, name, text))
    return found


@dataclass(frozen=True)
class Listing:
    """``cycledistill recipes``."""

    help: str = "the packaged recipes with what was published for them; show NAME prints one"
    requires: str = "cycledistill[all]"

    def add_arguments(self, parser: argparse.ArgumentParser) -> None:
        """Add whose recipes are wanted."""
        parser.add_argument("commands", nargs="*", metavar="COMMAND", help="those of `train COMMAND` alone")
        parser.epilog = "cycledistill recipes show NAME prints a recipe; train COMMAND --config NAME trains by it."

    def run(self, args: argparse.Namespace) -> int:
        """Print a table a command."""
        found = packaged_recipes()
        commands = list(dict.fromkeys(each.command for each in found))
        for typed in args.commands:
            if typed not in commands:
                shown = f" `cycledistill recipes show {typed}` prints the recipe." if commands_with(typed) else ""
                near = shown or _near(typed, [*commands, "show"])
                raise ValueError(f"no command trains {typed!r}.{near}")
        for command in args.commands or commands:
            recipes = [each for each in found if each.command == command]
            width = max(len(each.name) for each in recipes)
            sys.stdout.write(f"cycledistill train {command} --config NAME\n")
            for each in recipes:
                published = f"\n  {'':{width}}  published: {each.published}" if each.published else ""
                sys.stdout.write(f"  {each.name:{width}}  {each.about}{published}\n")
            sys.stdout.write("\n")
        sys.stdout.write("published: by the model's authors; `recipes show NAME` says whether it was reproduced\n")
        return 0


@dataclass(frozen=True)
class Showing:
    """``cycledistill recipes show NAME``."""

    help: str = "print a packaged recipe"

    def add_arguments(self, parser: argparse.ArgumentParser) -> None:
        """Add the name."""
        parser.add_argument("name", metavar="NAME", help="of a packaged recipe; COMMAND/NAME where two have one name")

    def run(self, args: argparse.Namespace) -> int:
        """Print the file as it is."""
        recipes = packaged_recipes()
        found = [each for each in recipes if args.name in (each.name, f"{each.command}/{each.name}")]
        if not found:
            raise ValueError(f"there is no recipe {args.name!r}.{_near(args.name, [each.name for each in recipes])}")
        if len(found) > 1:
            names = ", ".join(f"{each.command}/{each.name}" for each in found)
            raise ValueError(f"several recipes are called {args.name}: {names}")
        sys.stdout.write(found[0].text)
        return 0


LIST, SHOW = Listing(), Showing()


def _sentence(text: str) -> str:
    """Up to the first full stop or semicolon that stands outside brackets, and is no point of a number."""
    ends = (
        found.start()
        for found in re.finditer(r"\.(?=\s|$)|;\s", text)
        if text.count("(", 0, found.start()) == text.count(")", 0, found.start())
    )
    return text[: next(ends, None)].strip().rstrip(".:")


def _near(word: str, known: list[str]) -> str:
    found = difflib.get_close_matches(word, known, n=1, cutoff=0.5)
    return f" Did you mean {found[0]!r}?" if found else f" Known: {', '.join(known)}."
