"""Files are whole or not there, and what was there before survives every failure."""

from __future__ import annotations

import errno
import os
import stat
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file

from cycledistill.files import (
    atomic_file,
    atomic_files,
    atomic_folder,
    atomic_write,
    check_writable,
    clear_unfinished,
    os_errors,
)
from cycledistill.recipes.reading.guard import PICTURE, reading


def text(content: str) -> Callable[[Path], int]:
    return lambda file: file.write_text(content)


def names(folder: Path) -> list[str]:
    return sorted(os.listdir(folder))


class Killed(BaseException):
    """Not an Exception: Ctrl-C is none either."""


@pytest.mark.parametrize("error", [OSError(28, "No space left on device"), ValueError("no number"), Killed()])
def test_a_failure_half_way_leaves_the_old_file_and_nothing_else(tmp_path: Path, error: BaseException) -> None:
    path = tmp_path / "a.json"
    assert atomic_write(path, text("old")) == 3

    def fail(file: Path) -> None:
        file.write_text("half")
        assert path.read_text() == "old"
        raise error

    with pytest.raises(type(error)) as raised:
        atomic_write(path, fail)
    assert raised.value is error
    assert (path.read_text(), names(tmp_path)) == ("old", ["a.json"])


def test_a_file_that_grows_has_its_name_when_it_is_whole(tmp_path: Path) -> None:
    path = tmp_path / "rows.csv"
    with atomic_file(path) as file, file.open("w") as rows:
        rows.write("a\n")
        assert not path.exists() and file.parent == tmp_path and file.suffix == ".csv"
    with pytest.raises(KeyboardInterrupt), atomic_file(path) as file:
        file.write_text("half")
        raise KeyboardInterrupt
    assert path.read_text() == "a\n" and list(tmp_path.iterdir()) == [path]


def test_the_writer_gets_a_name_of_its_own_beside_the_file(tmp_path: Path) -> None:
    path, given = tmp_path / "a.b.png", []

    def nested(file: Path) -> None:
        given.append(file)
        if len(given) < 3:
            atomic_write(path, nested)  # a second writer of the same file, while the first one writes
        file.write_text(f"{len(given)}")

    atomic_write(path, nested)
    assert len({*given, path}) == 4
    assert {(each.parent, each.suffix) for each in given} == {(tmp_path, ".png")}
    assert names(tmp_path) == ["a.b.png"]


def test_many_writers_at_once_leave_one_whole_file(tmp_path: Path) -> None:
    contents = [str(number) * 10_000 for number in range(10)]
    with ThreadPoolExecutor(8) as pool:
        list(pool.map(lambda content: atomic_write(tmp_path / "a", text(content)), contents * 5))
    assert (tmp_path / "a").read_text() in contents
    assert names(tmp_path) == ["a"]


def test_errors_name_the_file_that_was_asked_for(tmp_path: Path) -> None:
    (tmp_path / "folder").mkdir()
    (tmp_path / "file").touch()
    called: list[Path] = []
    for where, kind, words in (
        ("none/a", FileNotFoundError, f"there is no folder: '{tmp_path / 'none'}'"),
        ("file/a", FileNotFoundError, f"there is no folder: '{tmp_path / 'file'}'"),
        ("folder", IsADirectoryError, f"Is a directory: '{tmp_path / 'folder'}'"),
        ("x" * 300, OSError, "File name too long"),
    ):
        for refuse in (check_writable, lambda path: atomic_write(path, called.append)):
            with pytest.raises(kind) as error:
                refuse(tmp_path / where)
            assert words in str(error.value)
            assert ".new-" not in str(error.value)
    assert called == []
    with pytest.raises(OSError, match=r"No such file.*'\S+/a'$"):
        atomic_write(tmp_path / "a", lambda file: (file.unlink(), file.stat()))
    assert names(tmp_path) == ["file", "folder"]


def test_a_name_as_long_as_names_can_be(tmp_path: Path) -> None:
    path = tmp_path / ("ä" * 125 + ".json")
    check_writable(path)
    atomic_write(path, text("{}"))
    assert path.read_text() == "{}"


@pytest.mark.skipif(os.name != "posix", reason="permissions of POSIX")
def test_what_a_killed_write_left_is_found_by_the_name_of_its_file(tmp_path: Path) -> None:
    path, longer = tmp_path / "[a].csv", tmp_path / ("b" * 60 + ".csv")
    own = [tmp_path / f".new-00ff00ff-{each.name[-40:]}" for each in (path, longer)]
    others = [path, longer, tmp_path / ".new-00ff00ff-a.csv", tmp_path / ".new-mine-[a].csv", tmp_path / "x.csv"]
    for each in (*own, *others):
        each.touch()
    clear_unfinished(path)
    clear_unfinished(longer)
    assert names(tmp_path) == sorted(each.name for each in others)
    used: list[Path] = []
    atomic_write(path, used.append)
    used[0].touch()  # the name that a write has
    clear_unfinished(path)
    assert names(tmp_path) == sorted(each.name for each in others)


def test_others_read_the_file_as_the_umask_says(tmp_path: Path) -> None:
    previous = os.umask(0o027)
    try:
        atomic_write(tmp_path / "a.safetensors", lambda file: save_file({"a": torch.ones(1)}, file))
    finally:
        os.umask(previous)
    assert stat.S_IMODE((tmp_path / "a.safetensors").stat().st_mode) == 0o640


@pytest.mark.skipif(os.name != "posix" or os.geteuid() == 0, reason="root writes anywhere")
def test_a_folder_that_may_not_be_written(tmp_path: Path) -> None:
    tmp_path.chmod(0o500)
    for refuse in (check_writable, lambda path: atomic_write(path, text(""))):
        with pytest.raises(PermissionError, match=r"'\S+/a'$"):
            refuse(tmp_path / "a")
    tmp_path.chmod(0o700)


def test_synced_before_it_has_its_name(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    order: list[str] = []
    replace, fsync = os.replace, os.fsync
    monkeypatch.setattr(os, "replace", lambda *paths: (order.append("rename"), replace(*paths)))
    monkeypatch.setattr(os, "fsync", lambda handle: (order.append("sync"), fsync(handle)))
    atomic_write(tmp_path / "a", text("1"))
    assert order == ["rename"]
    atomic_write(tmp_path / "a", text("2"), sync=True)
    assert order == ["rename", "sync", "rename", "sync"]
    order.clear()
    atomic_folder(tmp_path / "b", lambda folder: [(folder / name).touch() for name in "xy"])
    assert order == ["sync"] * 3 + ["rename", "sync"]


def test_a_folder_is_replaced_whole_or_stays(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "step-1"
    for content in ("one", "two"):
        atomic_folder(path, lambda folder, content=content: (folder / content).touch())
        assert (names(path), names(tmp_path)) == ([content], ["step-1"])

    def fail(folder: Path) -> None:
        (folder / "three").touch()
        raise Killed

    with pytest.raises(Killed):
        atomic_folder(path, fail)
    replace = os.replace

    def refuse(source: Path, target: Path) -> None:
        if ".new-" in os.fspath(source):
            raise PermissionError(13, "Permission denied", os.fspath(source), None, os.fspath(target))
        replace(source, target)

    monkeypatch.setattr(os, "replace", refuse)
    with pytest.raises(PermissionError, match=r"'\S+/step-1'$"):
        atomic_folder(path, lambda folder: (folder / "three").touch())
    assert (names(path), names(tmp_path)) == (["two"], ["step-1"])


def test_files_that_belong_together(tmp_path: Path) -> None:
    def write(folder: Path) -> str:
        (folder / "model.onnx").write_text("graph")
        (folder / "model.onnx.data").write_text("weights")
        assert names(tmp_path) == [folder.name]
        return "both"

    assert atomic_files(tmp_path, write) == "both"
    with pytest.raises(ValueError, match="no"):
        atomic_files(tmp_path, lambda folder: ((folder / "model.onnx").write_text("half"), int("no")))
    assert names(tmp_path) == ["model.onnx", "model.onnx.data"]
    assert (tmp_path / "model.onnx").read_text() == "graph"


def test_of_a_read_only_disk_the_path_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """There, removing a file that is not there fails as well."""

    def refuse(path: Path, *_: object, **__: object) -> None:
        raise OSError(errno.EROFS, os.strerror(errno.EROFS), str(path))

    monkeypatch.setattr(Path, "touch", refuse)
    monkeypatch.setattr(Path, "unlink", refuse)
    with pytest.raises(OSError, match="Read-only") as error:
        check_writable(tmp_path / "a.json")
    assert error.value.filename == str(tmp_path / "a.json")


def test_a_worker_that_dies_while_a_file_is_written_or_read_is_not_the_files_fault() -> None:
    """PyTorch's handler of the signal raises in whatever runs just then."""
    said = "DataLoader worker (pid 7) is killed by signal: Killed. "
    with pytest.raises(RuntimeError, match="^DataLoader worker"), os_errors(RuntimeError):
        raise RuntimeError(said)
    with pytest.raises(RuntimeError, match="^DataLoader worker"), reading("a.png", PICTURE, LookupError):
        raise RuntimeError(said)
    with pytest.raises(OSError, match="is the disk full"), os_errors(RuntimeError):
        raise RuntimeError("file write failed")
