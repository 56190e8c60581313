"""What a value from a file must be: a task's setting, or what a line of results says of a run."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from cycledistill.recipes.reading.plain import is_finite


@dataclass(frozen=True)
class Expected:
    """A value's kind and range.

    Attributes:
        says: Them in words.
        fits: Whether a value, beside the others that were given, is of them.
        needed: Whether it must be given.
    """

    says: str
    fits: Callable[[Any, Mapping[str, Any]], bool]
    needed: bool = True


Settings = Mapping[str, Expected]
"""By their names."""


def unfit(given: Mapping[str, Any], expected: Settings) -> str | None:
    """The first of the values that is not what it must be, in words; they are looked at in the order of ``expected``.

    Example:
        >>> unfit({"side": 0}, {"side": whole(1)})
        'side: got 0, a whole number from 1 is expected'
    """
    for name, each in expected.items():
        if name in given and not each.fits(given[name], given):
            return f"{name}: got {given[name]!r:.80}, {each.says} is expected"
    return None


def is_whole(value: Any, least: float = -float("inf")) -> bool:
    """Whether a value is a whole number from ``least``; truth values and 3.0 are none."""
    return isinstance(value, int) and not isinstance(value, bool) and value >= least


def whole(
    least: int | None = None,
    also: Callable[[int, Mapping[str, Any]], bool] = lambda *_: True,
    says: str = "",
    *,
    needed: bool = True,
) -> Expected:
    """A whole number from ``least``; ``also`` is what it has to be beside the others, and ``says`` that in words."""
    words = " ".join(filter(None, ("a whole number", f"from {least}" if least is not None else "", says)))
    low = -float("inf") if least is None else least
    return Expected(words, lambda value, given: is_whole(value, low) and also(value, given), needed)


def number(says: str, within: Callable[[float], bool], *, needed: bool = True) -> Expected:
    """A finite number in a range, which ``says`` tells in words."""
    return Expected(f"a number {says}".strip(), lambda value, _: is_finite(value) and within(value), needed)


def several(least: int) -> Expected:
    """Whole numbers from ``least``, one at least and each once."""

    def fits(value: Any, _: Mapping[str, Any]) -> bool:
        if not isinstance(value, list) or not all(is_whole(each, least) for each in value):
            return False
        return bool(value) and len(set(value)) == len(value)

    return Expected(f"a list of whole numbers from {least}, one at least and each once,", fits)


def one_of(*words: str) -> Expected:
    """One of some words."""
    return Expected(" or ".join(words), lambda value, _: isinstance(value, str) and value in words)


FOLDER = Expected(
    "a folder's name (letters, digits, -, _ and .)",
    lambda value, _: isinstance(value, str) and re.fullmatch(r"[A-Za-z0-9_][A-Za-z0-9_.-]*", value) is not None,
)
FLAG = Expected("true or false", lambda value, _: isinstance(value, bool))
TEXT = Expected("text", lambda value, _: isinstance(value, str))
