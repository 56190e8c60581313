"""Whether classes are those that a model was trained on: its outputs are told apart by their order alone."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import zip_longest


def other_classes(trained: Sequence[object], found: Sequence[object]) -> str:
    """Where the classes that were found differ from those of a training, in words; empty where they do not.

    Where either names none, as streams do, nothing is known, and nothing said.

    Example:
        >>> other_classes(["cat", "dog"], ["ant", "dog", "cat"])
        "trained on 2 classes, and here are 3; the first that differs is class 0: 'cat' in the training, and here 'ant'"
    """
    if not trained or not found or list(trained) == list(found):
        return ""
    own, other = len(trained), len(found)
    count = f"trained on {own} classes, and here are {other}" if own != other else f"trained on other {own} classes"
    pairs = enumerate(zip_longest(map(repr, trained), map(repr, found), fillvalue="none"))
    at, (before, now) = next((at, pair) for at, pair in pairs if pair[0] != pair[1])
    return f"{count}; the first that differs is class {at}: {before:.80} in the training, and here {now:.80}"
