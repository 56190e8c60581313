"""The parser of every command: no shortened flags, the nearest of a mistyped one, and a word on one given twice."""

from __future__ import annotations

import argparse
import difflib
import sys
from collections.abc import Iterator, Sequence
from typing import Any


class Parser(argparse.ArgumentParser):
    """An argument parser that takes no shortened flags: what a flag means must not hang on which others there are.

    Args:
        prog: What the usage calls the command.
        **options: Of `argparse.ArgumentParser`.

    Example:
        >>> parser = Parser("cycledistill mine")
        >>> _ = parser.add_argument("--config")
        >>> parser.parse_args(["--conifg", "a"])
        Traceback (most recent call last):
        SystemExit: 2
    """

    def __init__(self, prog: str | None = None, **options: Any) -> None:
        super().__init__(prog, allow_abbrev=False, **options)

    def parse_args(self, args: Sequence[str] | None = None, namespace: Any = None) -> Any:  # type: ignore[override]
        """The arguments; raises as argparse does, before anything else for a flag that there is not."""
        words = list(sys.argv[1:] if args is None else args)
        typed = list(_flags(words))
        known = self._option_string_actions
        unknown = [flag for flag in typed if flag not in known]
        if unknown and not {"-h", "--help"} & {*words}:
            near = difflib.get_close_matches(unknown[0], known, n=1)
            self.error(f"unrecognized arguments: {' '.join(unknown)}{f'; did you mean {near[0]!r}?' if near else ''}")
        found = super().parse_args(words, namespace)
        for flag in dict.fromkeys(typed):
            if typed.count(flag) > 1 and isinstance(known[flag], argparse._StoreAction):  # not those that are gathered
                sys.stderr.write(f"{self.prog}: {flag} was given {typed.count(flag)} times: the last holds\n")
        return found


def _flags(words: Sequence[str]) -> Iterator[str]:
    """The words that argparse takes for long flags, without their values."""
    for word in words:
        if word == "--":
            return
        if word.startswith("--") and " " not in word.partition("=")[0]:
            yield word.partition("=")[0]
