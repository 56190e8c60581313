"""One guard a kind of file: whatever the library below raises becomes the error that is documented here.

Libraries that read damaged files raise many types, each its own, and more with each version: a list of them is never
whole. So a guard takes any ``Exception``, and what stands inside is the call of the library and nothing else.
"""

from __future__ import annotations

import errno
import math
import os
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass

from cycledistill.files import is_of_a_worker
from cycledistill.recipes.errors import OutageError

# Whose fault: an errno stands here where it says nothing of this file, and would meet every other one as well. That is
# the storage's (it fails, is gone or out of reach) or the process's (no descriptors, no memory left). What a name, its
# permissions or its bytes bring about (ENOENT, EACCES, EISDIR, EINVAL, ELOOP, ENAMETOOLONG, ...) is the file's.
_OUTAGES = (
    "EIO EREMOTEIO ESTALE ENODEV ENXIO ETIMEDOUT ENOTCONN ESHUTDOWN ECONNRESET ECONNREFUSED ECONNABORTED EHOSTDOWN "
    "EHOSTUNREACH ENETDOWN ENETUNREACH ENETRESET"
)
_STORAGE = {getattr(errno, name) for name in _OUTAGES.split() if hasattr(errno, name)}
_ADVICE = {
    **dict.fromkeys(_STORAGE, "look after the storage, and start or go on again"),
    **dict.fromkeys((errno.EMFILE, errno.ENFILE), "let it open more (ulimit -n), or use fewer workers"),
    errno.ENOMEM: "make room in memory: smaller batches, or fewer workers",
}
"""What a system says where the file is not at fault -> what to do."""


@dataclass(frozen=True)
class Kind:
    """A kind of file.

    Attributes:
        broken: What is said of one that its library does not read.
        quoted: Whether the library's own reason follows. PyTorch's advises to load what it refused by running it.
    """

    broken: str
    quoted: bool = True


PICTURE = Kind("not a picture, or a broken one")
FILE = Kind("cannot be read")
ARCHIVE = Kind("cannot be read as a zip file, or from it")
JSON = Kind("cannot be read as JSON")
NPZ = Kind("cannot be read as an npz file")
NPY = Kind("cannot be read as an npy file of numbers")
HDF5 = Kind("cannot be read as an HDF5 file (which MATLAB 7.3 writes)")
PARQUET = Kind("cannot be read as a Parquet image set")
SAFETENSORS = Kind("broken or truncated, or no safetensors file")
RECIPE = Kind("missing or cut off")
TORCH = Kind("truncated, or no PyTorch checkpoint", quoted=False)


@contextmanager
def reading(where: object | Callable[[], object], kind: Kind, error: type[Exception]) -> Iterator[None]:
    """Within a ``with`` block, whatever a library raises is ``error``, which says where and what is wrong.

    Args:
        where: The file, and the place in it where there is one; or what says it, called only for an error.
        kind: What kind of file it is.
        error: What is raised instead. One that is raised inside goes through.

    Raises:
        error: The file is not what it should be.
        OutageError: The storage or this process is not: no memory, no more open files, a disk or a network that fails.

    Example:
        >>> with reading("a.png", PICTURE, DataError):
        ...     pixels = decode(data)
        Traceback (most recent call last):
        DataError: a.png: not a picture, or a broken one (unexpected end)
    """
    outside = sys.exc_info()[1]  # what is being handled around the block is the context of all that is raised inside
    try:
        yield
    except error:
        raise
    except Exception as reason:
        if is_of_a_worker(reason):  # and not of the file
            raise
        named = where() if callable(where) else where
        advice = _advice(reason, outside)
        if advice is not None:
            raise OutageError(f"{named} cannot be read now ({_said(reason)}), whatever it holds: {advice}") from reason
        if isinstance(reason, FileNotFoundError):
            raise error(f"{named}: there is no such file") from reason
        quoted = f" ({first_line(reason)})" if kind.quoted else ""
        raise error(f"{named}: {kind.broken}{quoted}") from (reason if kind.quoted else None)


def _advice(reason: Exception, outside: BaseException | None) -> str | None:
    """What to do where it is not the file's fault; None where it is."""
    for cause in _causes(reason, outside):
        if isinstance(cause, MemoryError):
            return None if _asks_for_too_much(cause) else _ADVICE[errno.ENOMEM]
        if isinstance(cause, OSError) and cause.errno in _ADVICE:
            return _ADVICE[cause.errno]
    return None


def _causes(reason: BaseException, outside: BaseException | None) -> Iterator[BaseException]:
    """An error and all that led to it, each once: what it was raised from, and while what was handled."""
    seen = {id(outside)}
    due: list[BaseException | None] = [reason]
    while due:
        cause = due.pop(0)
        if cause is not None and id(cause) not in seen:
            seen.add(id(cause))
            yield cause
            due += [cause.__cause__, cause.__context__]  # the latter stays behind "from None"


def _asks_for_too_much(error: MemoryError) -> bool:
    """Whether NumPy was asked for an array larger than this machine's memory, as a damaged header says."""
    shape, dtype = getattr(error, "shape", None), getattr(error, "dtype", None)
    if not isinstance(shape, tuple) or dtype is None:
        return False
    memory = _memory()
    return memory is not None and math.prod(shape) * dtype.itemsize > memory


def _memory() -> int | None:
    """Physical memory of this machine in bytes; None where the system does not say."""
    try:
        return os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
    except (AttributeError, ValueError, OSError):  # not POSIX
        return None


def _said(reason: Exception) -> str:
    return f"{type(reason).__name__}: {first_line(reason)}" if isinstance(reason, MemoryError) else first_line(reason)


def first_line(error: BaseException) -> str:
    """What an error says, without what follows its first line."""
    return (str(error).strip() or type(error).__name__).splitlines()[0][:300]
