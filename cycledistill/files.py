"""Files and folders that are whole or not there: written under another name beside their place, then renamed."""

from __future__ import annotations

import contextlib
import errno
import glob
import os
import secrets
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TypeVar

T = TypeVar("T")

_SHOWN = 40  # letters of a file's name in its temporary one: a name that is as long as names can be still has one


def atomic_write(path: str | os.PathLike[str], write: Callable[[Path], T], *, sync: bool = False) -> T:
    """Write a file so that ``path`` is at any moment the file that was there, or the whole new one.

    The new file may be read by whoever may read a file that this process makes, also where the writer made it for its
    owner alone (safetensors does).

    Args:
        path: The file.
        write: Writes it under the name that it is given: empty, beside ``path``, of this call alone, with its suffix.
        sync: Have it on the disk before it takes the name, so that a computer that stops keeps one of the two as well.

    Returns:
        What ``write`` returned.

    Raises:
        OSError: There is no such folder, ``path`` is a folder, or it cannot be written. It names ``path``; a file that
            was there is as it was, and nothing is left beside it. What ``write`` raises goes through.

    Example:
        >>> atomic_write("numbers.json", lambda file: file.write_text("[1, 2]"))
        6
    """
    with atomic_file(path, sync=sync) as file:
        return write(file)


@contextlib.contextmanager
def atomic_file(path: str | os.PathLike[str], *, sync: bool = False) -> Iterator[Path]:
    """Within a ``with`` block, the name to write a file under that is ``path`` when the block ends, whole.

    For a file that grows while other work is done; arguments and errors as for `atomic_write`. Where the block raises
    there is no new file.

    Example:
        >>> with atomic_file("rows.csv") as file, file.open("w") as rows:
        ...     rows.writelines(work())
    """
    path = Path(path)
    _check_place(path)
    with _temporary(path) as beside:
        beside.touch(exist_ok=False)
        mode = beside.stat().st_mode
        yield beside
        beside.chmod(mode)
        if sync:
            _sync(beside)
        os.replace(beside, path)
        if sync:
            _sync(path.parent)


def atomic_folder(path: str | os.PathLike[str], write: Callable[[Path], T]) -> T:
    """Write a folder of files so that it has its name only when all of it is on the disk.

    One that is there is replaced: it is ``.old-NAME`` for the moment between two renames, where whoever reads after a
    crash finds it. ``write`` fills the new, empty folder that it is given; result and errors as for `atomic_write`.

    Example:
        >>> atomic_folder("step-1", lambda folder: (folder / "recipe.json").write_text("{}"))
        2
    """
    path = Path(path)
    old = path.with_name(f".old-{path.name}")
    with _temporary(path) as beside:
        beside.mkdir()
        result = write(beside)
        for file in _as_the_umask_says(beside):
            _sync(file)
        _sync(beside)
        if path.exists():
            os.replace(path, old)
        try:
            os.replace(beside, path)
        except OSError:
            if old.exists():
                os.replace(old, path)
            raise
        _sync(path.parent)
        shutil.rmtree(old, ignore_errors=True)
    return result


def atomic_files(folder: str | os.PathLike[str], write: Callable[[Path], T]) -> T:
    """Write files that belong together, then move each into ``folder`` under its own name.

    For writers that decide themselves how many files there are, and by what names these know each other: ``write`` is
    given a new, empty folder. Result and errors as for `atomic_write`; what is in ``folder`` is then as it was, unless
    moving itself failed half way.

    Example:
        >>> atomic_files(".", lambda folder: (folder / "model.onnx").write_bytes(b"..."))
        3
    """
    folder = Path(folder)
    with _temporary(folder / "files") as beside:
        beside.mkdir()
        result = write(beside)
        for file in _as_the_umask_says(beside):
            os.replace(file, folder / file.name)
    return result


@contextlib.contextmanager
def os_errors(*kinds: type[Exception]) -> Iterator[None]:
    """Within a ``with`` block, what a library raises of its own where a file cannot be written is an ``OSError``.

    The death of a loader's worker goes through (see `is_of_a_worker`).

    Args:
        *kinds: Those errors: safetensors' own, say, or the RuntimeError that PyTorch has for a full disk.

    Example:
        >>> with os_errors(RuntimeError):
        ...     torch.save(state, "/full/state.pt")
        Traceback (most recent call last):
        OSError: [Errno 5] the file cannot be written whole; is the disk full? ... file write failed
    """
    try:
        yield
    except kinds as error:
        if is_of_a_worker(error):
            raise
        said = (str(error).strip() or type(error).__name__).splitlines()[0]
        raise OSError(errno.EIO, f"the file cannot be written whole; is the disk full? {said[:200]}") from error


def is_of_a_worker(error: Exception) -> bool:
    """Whether PyTorch raised it because a loader's worker died: a signal's handler does, in whatever runs just then."""
    return isinstance(error, RuntimeError) and str(error).startswith("DataLoader worker ")


def check_writable(path: str | os.PathLike[str]) -> None:
    """Refuse a file that cannot be written, before the work is done whose result it will hold. Nothing is left behind.

    Args:
        path: The file.

    Raises:
        OSError: There is no such folder, ``path`` is a folder, its name is too long, or no file can be made there.

    Example:
        >>> check_writable("missing/report.html")
        Traceback (most recent call last):
        FileNotFoundError: [Errno 2] there is no folder: 'missing'
    """
    _check_place(Path(path))
    with _temporary(Path(path)) as beside:
        beside.touch(exist_ok=False)


def _check_place(path: Path) -> None:
    if not path.parent.is_dir():
        raise FileNotFoundError(errno.ENOENT, "there is no folder", str(path.parent))
    if os.path.isdir(path):
        raise IsADirectoryError(errno.EISDIR, os.strerror(errno.EISDIR), str(path))
    with contextlib.suppress(FileNotFoundError):
        path.lstat()  # a name that is too long


def clear_unfinished(path: str | os.PathLike[str]) -> None:
    """Take away what writes of ``path`` left beside it when their process was killed.

    Only where nobody else writes ``path`` now, as in the folder of a run that holds its lock.

    Raises:
        OSError: It cannot be taken away.

    Example:
        >>> clear_unfinished("runs/a/train.csv")
    """
    path = Path(path)
    for each in path.parent.glob(f".new-{'[0-9a-f]' * 8}-{glob.escape(path.name[-_SHOWN:])}"):
        each.unlink(missing_ok=True)


@contextlib.contextmanager
def _temporary(path: Path) -> Iterator[Path]:
    """A name beside ``path`` that no other call or process has. In the end nothing has it; errors name ``path``."""
    beside = path.with_name(f".new-{secrets.token_hex(4)}-{path.name[-_SHOWN:]}")
    try:
        yield beside
    except OSError as error:
        if error.filename is not None and os.fspath(error.filename) == os.fspath(beside):
            raise OSError(error.errno, error.strerror, str(path)) from error
        raise
    finally:
        if beside.is_dir():
            shutil.rmtree(beside, ignore_errors=True)
        else:
            with contextlib.suppress(OSError):  # nothing is there, or the disk is read-only: the first error is said
                beside.unlink()


def _as_the_umask_says(folder: Path) -> list[Path]:
    """The files in a folder, after whoever may read a new one may read them."""
    files, probe = sorted(folder.iterdir()), folder / ".mode"
    probe.touch(exist_ok=False)
    for file in files:
        shutil.copymode(probe, file)
    probe.unlink()
    return files


def _sync(path: Path) -> None:
    if os.name != "posix":
        return  # a folder cannot be opened for syncing elsewhere
    handle = os.open(path, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)
