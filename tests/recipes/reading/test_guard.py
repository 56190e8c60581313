"""The guard: what it takes, what it lets through, and what it never repeats."""

from __future__ import annotations

import errno
import io
import os
import traceback

import numpy as np
import pytest

from cycledistill.recipes.errors import DataError, OutageError
from cycledistill.recipes.reading.guard import NPZ, PICTURE, TORCH, Kind, reading


class StrangeError(Exception):
    """No list of errors has it."""


@pytest.mark.parametrize("kind", [StrangeError, OSError, RecursionError, AssertionError, SyntaxError])
def test_any_error_of_a_library_is_the_documented_one(kind: type[Exception]) -> None:
    with pytest.raises(DataError, match=r"^a\.png: not a picture, or a broken one \(why\)$") as raised:
        with reading("a.png", PICTURE, DataError):
            raise kind("why\nmore")
    assert type(raised.value.__cause__) is kind


@pytest.mark.parametrize(
    ("number", "advice"),
    [
        (errno.EIO, "look after the storage"),
        (errno.ESTALE, "look after the storage"),
        (errno.EMFILE, "ulimit -n"),
        (errno.ENFILE, "ulimit -n"),
        (errno.ENOMEM, "smaller batches"),
    ],
    ids=errno.errorcode.get,
)
def test_what_is_no_fault_of_the_file_is_said_to_be_none(number: int, advice: str) -> None:
    """It is no `DataError` either: who skips broken files would skip one after the other."""
    said = rf"^a\.png cannot be read now \(.*{os.strerror(number)}.*\), whatever it holds: .*{advice}"
    with pytest.raises(OutageError, match=said), reading("a.png", PICTURE, DataError):
        raise OSError(number, os.strerror(number), "a.png")
    with pytest.raises(OutageError, match=said), reading("a.png", PICTURE, DataError):
        raise StrangeError(os.strerror(number)) from OSError(number, os.strerror(number))
    assert not issubclass(OutageError, DataError)


@pytest.mark.parametrize("kind", [NPZ, PICTURE, TORCH], ids=lambda kind: kind.broken)
def test_a_file_that_is_not_there_is_not_called_broken(kind: Kind) -> None:
    with pytest.raises(DataError, match=r"^none\.npz: there is no such file$"), reading("none.npz", kind, DataError):
        np.load("none.npz")


def test_no_memory_is_no_fault_of_the_file() -> None:
    said = r"^a\.png cannot be read now \(MemoryError: MemoryError\), whatever it holds: make room in memory"
    with pytest.raises(OutageError, match=said), reading("a.png", PICTURE, DataError):
        raise MemoryError


def test_a_header_that_asks_for_more_than_the_machine_has_is_damaged() -> None:
    """The oracle is NumPy's own error, of the shape that a stranger's file claims."""
    file = io.BytesIO()
    np.save(file, np.zeros(1))
    claims = file.getvalue().replace(b"(1,), }".ljust(24), b"(1000000000000000,), }".ljust(24))
    assert claims != file.getvalue()
    with pytest.raises(DataError, match=r"^a\.npz: cannot be read as an npz file \(Unable to allocate"):
        with reading("a.npz", NPZ, DataError):
            np.load(io.BytesIO(claims))
    now = MemoryError("Unable to allocate")
    now.shape, now.dtype = (300, 200), np.dtype("f8")  # type: ignore[attr-defined]  # which this machine has
    with pytest.raises(OutageError), reading("a.npz", NPZ, DataError):
        raise now


def test_what_a_library_handled_before_counts_too() -> None:
    outage = OSError(errno.EIO, os.strerror(errno.EIO))
    with pytest.raises(OutageError), reading("a.png", PICTURE, DataError):
        try:
            raise outage
        except OSError:
            raise StrangeError("no picture")  # noqa: B904
    with pytest.raises(OutageError), reading("a.png", PICTURE, DataError):
        try:
            raise outage
        except OSError:
            raise StrangeError("no picture") from None
    try:
        raise outage
    except OSError:  # of another file, which is read in the place of one
        with pytest.raises(DataError, match="why"), reading("b.png", PICTURE, DataError):
            raise StrangeError("why")  # noqa: B904


def test_causes_in_a_circle_end() -> None:
    first, second = StrangeError("first"), StrangeError("second")
    first.__cause__, second.__cause__ = second, first
    with pytest.raises(DataError, match="first"), reading("a.png", PICTURE, DataError):
        raise first


def test_what_says_that_a_file_is_not_there_is_of_the_file() -> None:
    for number in (errno.ENOENT, errno.EACCES, errno.EISDIR, errno.EINVAL):
        with pytest.raises(DataError), reading("a.png", PICTURE, DataError):
            raise OSError(number, os.strerror(number))


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
