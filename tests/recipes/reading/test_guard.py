"""The guard: what it takes, what it lets through, and what it never repeats."""

from __future__ import annotations

import traceback

import pytest

from cycledistill.recipes.errors import DataError
from cycledistill.recipes.reading.guard import PICTURE, TORCH, reading


class StrangeError(Exception):
    """No list of errors has it."""


@pytest.mark.parametrize("kind", [StrangeError, OSError, RecursionError, MemoryError, AssertionError, SyntaxError])
def test_any_error_of_a_library_is_the_documented_one(kind: type[Exception]) -> None:
    with pytest.raises(DataError, match=r"^a\.png: not a picture, or a broken one \(why\)$") as raised:
        with reading("a.png", PICTURE, DataError):
            raise kind("why\nmore")
    assert type(raised.value.__cause__) is kind


def test_what_goes_through() -> None:
    for error in (DataError("mine"), KeyboardInterrupt()):
        with pytest.raises(type(error)) as raised, reading("a", PICTURE, DataError):
            raise error
        assert raised.value is error


def test_advice_that_must_not_be_repeated_is_not_even_in_the_traceback() -> None:
    with pytest.raises(DataError, match=r"^a\.pth: truncated, or no PyTorch checkpoint$") as raised:
        with reading("a.pth", TORCH, DataError):
            raise StrangeError("set weights_only=False")
    assert "weights_only" not in "".join(traceback.format_exception(raised.value))


def test_the_place_is_worked_out_for_an_error_alone() -> None:
    asked = []

    def name() -> str:
        asked.append(1)
        return "row 3"

    with reading(name, PICTURE, DataError):
        pass
    assert asked == []
    with pytest.raises(DataError, match="^row 3: "), reading(name, PICTURE, DataError):
        raise StrangeError
