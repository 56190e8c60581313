"""What keeps weights from fitting is told by name, and shortened where it is long."""

from __future__ import annotations

import torch

from cycledistill.recipes.weights.fitting import mismatch, shorten


def test_what_differs_is_named() -> None:
    state = {"a": torch.zeros(2), "c": torch.zeros(1)}
    told = mismatch(state, {"a": (3,), "b": (1,)})
    assert told == "1 missing: b; 1 unknown: c; 1 of another shape: a (2,), expected (3,)"
    assert mismatch(state, {"a": (2,), "c": (1,)}) == ""


def test_long_lists_are_cut() -> None:
    names = [f"n{number}" for number in range(8)]
    assert shorten(names) == "n0, n1, n2, n3, n4, n5 and 2 more"
    assert shorten(names[:6]) == "n0, n1, n2, n3, n4, n5"
