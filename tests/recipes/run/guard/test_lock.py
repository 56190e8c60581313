"""One run a folder: who has it is refused to others, what was left behind is taken over, and nobody writes to both."""

from __future__ import annotations

import dataclasses
import json
import logging
import os
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

pytest.importorskip("accelerate")
pytest.importorskip("timm")

from cycledistill.recipes.errors import CheckpointError, RecipeError
from cycledistill.recipes.run.guard import lock as lock_module
from cycledistill.recipes.run.guard.lock import NAME, RunLock, run_lock
from cycledistill.recipes.run.guard.process import ProcessId
from tests.recipes.run.toy import ToyRecipe, ToySession, load_recipe, train
from tests.recipes.run_checks import last


@pytest.fixture(autouse=True)
def short_watch(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(lock_module, "BEAT", 0.02)
    monkeypatch.setattr(lock_module, "SILENCE", 0.3)


@pytest.fixture
def tiny(tmp_path: Path) -> ToyRecipe:
    """Two epochs of four steps."""
    return load_recipe({"run": {"output": str(tmp_path / "run"), "device": "cpu", "progress": False}})


def leave(folder: Path, who: ProcessId, age: float = 0.0) -> Path:
    """The lock of another run, and when its heart beat last."""
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / NAME
    path.write_text(json.dumps({**dataclasses.asdict(who), "token": "theirs"}))
    os.utime(path, (time.time() - age,) * 2)
    return path


def elsewhere() -> ProcessId:
    return ProcessId("node7", os.getpid(), "another start of another machine", "1")


@pytest.fixture
def stranger() -> Iterator[subprocess.Popen[bytes]]:
    process = subprocess.Popen([sys.executable, "-c", "input()"], stdin=subprocess.PIPE)
    yield process
    process.kill()
    process.communicate()


def identity(pid: int) -> ProcessId:
    """As the process itself would tell it."""
    return dataclasses.replace(ProcessId.own(), pid=pid, born=Path(f"/proc/{pid}/stat").read_text().split()[21])


class Meanwhile(ToySession):
    """Another run wants the folder in the middle of this one."""

    said = ""

    def look_at_validation(self) -> None:
        try:
            train(self.recipe, resume="auto")
        except RecipeError as error:
            type(self).said = str(error)


def test_a_second_run_in_the_folder_is_refused_by_name(tiny: ToyRecipe) -> None:
    assert train(tiny, session_class=Meanwhile)["finished"]
    folder = tiny.run.output
    assert Meanwhile.said == (
        f"run.output={folder!r} is in use by the run of process {os.getpid()} on {socket.gethostname()}: wait for its "
        f"end, or pass another --output. (If that run is certain to have ended, delete {folder}/{NAME}.)"
    )
    assert not list(Path(folder).glob("*lock*")) and not list(Path(folder).glob(".*"))
    train(tiny, resume="auto")


needs_proc = pytest.mark.skipif(not Path("/proc/self/stat").exists(), reason="Linux says when a process began")


@needs_proc
def test_a_process_of_this_machine_is_asked(
    tmp_path: Path, stranger: subprocess.Popen[bytes], caplog: pytest.LogCaptureFixture
) -> None:
    who = identity(stranger.pid)
    assert who.is_gone() is False
    path = leave(tmp_path, who, age=10_000)  # how old its heartbeat is does not count here
    with pytest.raises(RecipeError, match=rf"is in use by the run of process {stranger.pid} on"):
        RunLock(tmp_path).take()
    assert dataclasses.replace(who, born="1").is_gone()  # another process that got its number
    stranger.kill()
    os.waitid(os.P_PID, stranger.pid, os.WEXITED | os.WNOWAIT)  # it ended, and nobody asked how
    assert who.is_gone()
    stranger.wait()
    assert who.is_gone()
    with caplog.at_level(logging.WARNING), run_lock(tmp_path):
        assert json.loads(path.read_text())["pid"] == os.getpid()
    assert f"{tmp_path} was left by process {stranger.pid} on" in caplog.text
    assert "which has ended: taken over" in caplog.text
    assert not path.exists()


def test_where_numbers_of_processes_mean_nothing_the_heartbeat_is_watched(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """On another machine, or in another container of this one."""
    other_container = dataclasses.replace(ProcessId.own(), space="another", pid=1)
    for who in (elsewhere(), other_container):
        assert who.is_gone() is None
        path = leave(tmp_path, who)
        ended = threading.Event()

        def beat(path: Path = path, ended: threading.Event = ended) -> None:
            while not ended.wait(0.02):
                os.utime(path)

        heart = threading.Thread(target=beat)
        heart.start()
        try:
            with pytest.raises(RecipeError, match=f"is in use by the run of process {who.pid} on {who.host}"):
                RunLock(tmp_path).take()
        finally:
            ended.set()
            heart.join()
        began = time.monotonic()
        with caplog.at_level(logging.WARNING), run_lock(tmp_path):
            assert time.monotonic() - began >= 0.3
        assert "watching its heartbeat for 0.3 s" in caplog.text
        assert f"was left by process {who.pid} on {who.host}, silent for 0.3 s: taken over" in caplog.text


def test_an_old_heartbeat_is_not_watched(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(lock_module, "SILENCE", 1000.0)
    leave(tmp_path, elsewhere(), age=601)
    with caplog.at_level(logging.WARNING), run_lock(tmp_path):
        pass
    assert "on node7, silent for long: taken over" in caplog.text


@pytest.mark.parametrize("text", ["", "{", "[]", '{"pid": "x", "host": "a", "token": "b"}', '{"host": "a"}'])
def test_a_lock_that_says_nothing_is_watched_too(tmp_path: Path, text: str, caplog: pytest.LogCaptureFixture) -> None:
    (tmp_path / NAME).write_text(text)
    with caplog.at_level(logging.WARNING), run_lock(tmp_path):
        pass
    assert "was left by an unknown process, silent for 0.3 s: taken over" in caplog.text


def test_the_heart_beats(tmp_path: Path) -> None:
    with run_lock(tmp_path):
        path = tmp_path / NAME
        os.utime(path, (0, 0))
        end = time.monotonic() + 10
        while path.stat().st_mtime == 0:
            assert time.monotonic() < end
            time.sleep(0.01)


def test_of_many_one_gets_the_folder(tmp_path: Path) -> None:
    leave(tmp_path, elsewhere(), age=1000)
    inside, most, lock = 0, [0], threading.Lock()
    refused: list[BaseException] = []

    def run() -> None:
        nonlocal inside
        try:
            with run_lock(tmp_path):
                with lock:
                    inside += 1
                    most.append(inside)
                time.sleep(0.3)
                with lock:
                    inside -= 1
        except RecipeError as error:
            refused.append(error)

    threads = [threading.Thread(target=run) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert max(most) == 1 and len(refused) == 7


class TakenOver(ToySession):
    """While this process was suspended, another machine's run took the folder."""

    def evaluate(self, **logged: Any) -> dict[str, Any]:
        (Path(self.recipe.run.output) / NAME).unlink()
        leave(Path(self.recipe.run.output), elsewhere())
        return super().evaluate(**logged)


class SilentlyTakenOver(ToySession):
    def prepare(self) -> tuple[float, dict[str, float]]:
        if self.step == 5:
            (Path(self.recipe.run.output) / NAME).unlink()
        return super().prepare()


@pytest.mark.parametrize(
    ("kind", "by"), [(TakenOver, r"is process \d+ on node7's"), (SilentlyTakenOver, "is gone")], ids=["other", "gone"]
)
def test_who_lost_the_folder_writes_no_more_to_it(tiny: ToyRecipe, kind: type[ToySession], by: str) -> None:
    tiny.run.log_every = 1
    with pytest.raises(CheckpointError, match=rf"the lock of this run, .*run\.lock, {by}: .* Go on with --resume"):
        train(tiny, session_class=kind)
    assert last(tiny).name == "step-00000004"
    rows = [json.loads(line) for line in (Path(tiny.run.output) / "log.jsonl").read_text().splitlines()]
    assert max(row["step"] for row in rows if row["kind"] == "train") <= 5
    measured = json.loads((last(tiny) / "recipe.json").read_text())["metrics"]
    assert bool(measured) == (kind is not TakenOver)
    assert (Path(tiny.run.output) / NAME).exists() == (kind is TakenOver)  # another's lock stays


def test_a_file_system_without_links_has_locks_too(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def none(*_: Any) -> None:
        raise PermissionError(1, "Operation not permitted")

    monkeypatch.setattr(os, "link", none)
    with run_lock(tmp_path), pytest.raises(RecipeError, match="is in use"):
        RunLock(tmp_path).take()
    assert list(tmp_path.iterdir()) == []


def test_who_does_not_write_takes_no_lock_and_makes_no_folder(tmp_path: Path) -> None:
    with run_lock(tmp_path / "a" / "b", writes=False) as lock:
        assert lock is None
    with run_lock(tmp_path / "a" / "b"):
        assert (tmp_path / "a" / "b" / NAME).is_file()
    assert list(tmp_path.iterdir()) == []  # nothing came into the folders


def test_a_place_that_cannot_be_a_folder_is_refused(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(RecipeError, match=r"run\.output='.*run' cannot be written to: .*file"):
        with run_lock(tmp_path / "file" / "run"):
            pass


def test_what_killed_processes_left_beside_the_lock_is_cleared(tmp_path: Path) -> None:
    left = [tmp_path / f".{NAME}-0123", tmp_path / f".{NAME}-4567-old", tmp_path / f".{NAME}-89ab"]
    for each in left[:2]:
        each.write_text(json.dumps({**dataclasses.asdict(elsewhere()), "token": "theirs"}))
    left[2].touch()  # killed before it wrote
    with run_lock(tmp_path) as lock:
        assert lock is not None and [each.name for each in tmp_path.iterdir()] == [NAME]
        ours = tmp_path / f".{NAME}-4567-old"
        ours.write_text((tmp_path / NAME).read_text())
        lock._clear()
        assert ours.is_file()  # another process is about to put it back


def test_a_lock_that_another_took_over_first_is_put_back(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Two found the same lock left behind: who is slower has looked at what is no longer there."""
    path = leave(tmp_path, elsewhere())
    faster = path.read_text().replace("theirs", "the faster one's")
    read, looked = lock_module._read, [(elsewhere(), "theirs")]
    path.write_text(faster)
    monkeypatch.setattr(lock_module, "_read", lambda path: looked.pop() if looked else read(path))
    assert not RunLock(tmp_path)._remove("theirs")
    assert [each.read_text() for each in tmp_path.iterdir()] == [faster]


def test_a_lock_that_cannot_be_read_is_nobodys_to_take(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Another user's, or on a disk that does not answer: no sign that its run has ended."""
    (tmp_path / NAME).write_text("{}", encoding="utf-8")

    def refused(self: Path, *args: Any, **kwargs: Any) -> Any:
        raise PermissionError(13, "Permission denied", str(self))

    for name in ("read_bytes", "open"):
        with monkeypatch.context() as only_here:
            only_here.setattr(Path, name, refused)
            with pytest.raises(RecipeError, match=r"cannot be written to: .*Permission denied"), run_lock(tmp_path):
                pass
        assert (tmp_path / NAME).read_text(encoding="utf-8") == "{}"


def test_a_lock_that_cannot_be_moved_is_said_and_not_tried_for_ever(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As in a folder where each may remove what is their own alone."""
    (tmp_path / NAME).write_text("{}", encoding="utf-8")
    os.utime(tmp_path / NAME, (0, 0))

    def refused(old: Any, new: Any) -> None:
        raise PermissionError(1, "Operation not permitted", str(old))

    monkeypatch.setattr(os, "rename", refused)
    with pytest.raises(RecipeError, match=r"cannot be written to: .*Operation not permitted"), run_lock(tmp_path):
        pass


@pytest.mark.parametrize("pid", [10**30, 0, -1, "7", None, True])
def test_numbers_that_no_process_has_are_asked_of_none(
    tmp_path: Path, pid: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    own = dataclasses.asdict(ProcessId.own()) | {"pid": pid, "token": "x"}
    (tmp_path / NAME).write_text(json.dumps(own), encoding="utf-8")
    os.utime(tmp_path / NAME, (0, 0))
    monkeypatch.setattr(os, "kill", lambda *args: pytest.fail("a process was asked"))
    with run_lock(tmp_path):
        pass


def test_brackets_without_end_are_no_lock(tmp_path: Path) -> None:
    (tmp_path / NAME).write_text("[" * 100_000, encoding="utf-8")
    os.utime(tmp_path / NAME, (0, 0))
    with run_lock(tmp_path):
        pass
