"""Small runs in processes of their own, each with a fault that befalls it: killed, out of disk, a worker or rank dead.

One process imports all that a run needs, and forks for each run, so that a run takes a fraction of a second. It is
started by `Nursery`, and lives in ``python -m tests.faults.nursery``.
"""

from __future__ import annotations

import contextlib
import errno
import json
import os
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[2]
PATIENCE = 120.0
"""Seconds after which a run hangs; one takes less than a second."""
OPERATIONS = ("open", "os.rename", "os.mkdir", "os.link", "os.remove", "os.rmdir", "os.chmod", "os.utime")
FILLING = ("open", "os.rename", "os.mkdir", "os.link")


@dataclass(frozen=True)
class Lived:
    """How a run ended: by which signal, by which error; how many operations on files it did, and how long it took."""

    signal: int | None
    error: str | None
    message: str
    operations: int
    seconds: float


class Nursery:
    """Starts runs. A context manager, for it has a process.

    Example:
        >>> with Nursery() as nursery:
        ...     nursery.run(folder, kill_at=30).signal
        [9]
    """

    def __enter__(self) -> Nursery:
        env = {**os.environ, "OMP_NUM_THREADS": "1", "PYTHONPATH": str(ROOT), "PYTHONWARNINGS": "ignore"}
        command = [sys.executable, "-m", "tests.faults.nursery"]
        self._process = subprocess.Popen(
            command,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            env=env,
            cwd=ROOT,
            text=True,
        )
        return self

    def __exit__(self, *_: object) -> None:
        self._process.communicate()  # its input ends, and so does it

    def run(self, folder: Path, ranks: int = 1, **fault: Any) -> list[Lived]:
        """A run to its end, from the last checkpoint in its folder if there is one; how each of its processes ended.

        Args:
            folder: The run's.
            ranks: Its processes.
            **fault: ``kill_at=n``: killed at the n-th operation on its files; ``kill_after=s``: killed after so many
                seconds, wherever it is; ``full_at=n``: no space from the n-th operation on; ``largest=b``: no file
                grows beyond b bytes; ``dead_worker=[epoch, item]``: the worker that makes an item is killed;
                ``dead_rank=[rank, step]``: the process that begins a step is killed.
        """
        assert self._process.stdin is not None and self._process.stdout is not None
        self._process.stdin.write(json.dumps({"folder": str(folder), "ranks": ranks, "fault": fault}) + "\n")
        self._process.stdin.flush()
        answer = self._process.stdout.readline()
        assert answer, "the process that starts runs has ended"
        return [Lived(**each) for each in json.loads(answer)]


def _serve() -> None:
    answers = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)
    with tempfile.TemporaryDirectory() as folder:
        _train(folder, {}, 0)  # imports and makes, once for all runs, what is imported and made when it is first needed
    for line in sys.stdin:
        order = json.loads(line)
        answers.write(json.dumps(_raise(order)) + "\n")
        answers.flush()


def _raise(order: dict[str, Any]) -> list[dict[str, Any]]:
    """Fork the processes of a run, and wait for them."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    children, began = [], time.monotonic()
    for rank in range(order["ranks"]):
        reader, writer = os.pipe()
        pid = os.fork()
        if pid == 0:
            os.close(reader)
            os.setpgid(0, 0)
            if order["ranks"] > 1:
                place = {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": port, "WORLD_SIZE": order["ranks"]}
                os.environ.update(
                    {name: str(value) for name, value in place.items()}, RANK=str(rank), LOCAL_RANK=str(rank)
                )
            _live(order, rank, writer)
        os.close(writer)
        children.append((pid, reader))
    return [_wait(pid, reader, began) for pid, reader in children]


def _wait(pid: int, reader: int, began: float) -> dict[str, Any]:
    lived = {"error": None, "message": "", "operations": 0}
    while True:
        done, status = os.waitpid(pid, os.WNOHANG)
        if done:
            break
        if time.monotonic() - began > PATIENCE:
            lived = {**lived, "error": "hangs"}
            os.kill(pid, signal.SIGKILL)
        time.sleep(0.002)
    with contextlib.suppress(OSError):
        os.killpg(pid, signal.SIGKILL)  # workers that outlived it
    with os.fdopen(reader) as told:
        text = told.read()
    lived |= json.loads(text) if text else {}
    killed = os.WTERMSIG(status) if os.WIFSIGNALED(status) else None
    return {**lived, "signal": killed, "seconds": time.monotonic() - began}


def _live(order: dict[str, Any], rank: int, writer: int) -> None:
    """A run, in the process that was made for it."""
    told: dict[str, Any] = {"operations": 0}
    try:
        _befall(order["folder"], order["fault"], rank, told)
        _train(order["folder"], order["fault"], rank)
    except BaseException as error:
        told |= {"error": type(error).__name__, "message": str(error)[:2000]}
    os.write(writer, json.dumps(told).encode())
    os._exit(0)


def _befall(folder: str, fault: dict[str, Any], rank: int, told: dict[str, Any]) -> None:
    """Let the faults of the operating system happen."""
    if rank:
        return
    if "largest" in fault:
        import resource

        resource.setrlimit(resource.RLIMIT_FSIZE, (fault["largest"],) * 2)
    if "kill_after" in fault:
        signal.signal(signal.SIGALRM, signal.SIG_DFL)  # nobody is asked: C code is interrupted too
        signal.setitimer(signal.ITIMER_REAL, fault["kill_after"])
    own = os.getpid()

    def look(event: str, arguments: tuple[Any, ...]) -> None:
        if event not in OPERATIONS or not str(arguments[0]).startswith(folder) or os.getpid() != own:
            return
        told["operations"] += 1
        if told["operations"] == fault.get("kill_at"):
            os.kill(own, signal.SIGKILL)
        reads = event == "open" and not (arguments[2] & (os.O_WRONLY | os.O_RDWR))
        if event in FILLING and not reads and told["operations"] >= fault.get("full_at", float("inf")):
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), str(arguments[0]))

    sys.addaudithook(look)


def _train(folder: str, fault: dict[str, Any], rank: int) -> None:
    """Two epochs of four steps, a checkpoint after each step, and the faults of workers and ranks."""
    from tests.recipes.run import toy

    worker, dead = fault.get("dead_worker"), fault.get("dead_rank")
    if worker is not None:
        make: Callable[[Any, tuple[int, int]], Any] = toy.Drawn.__getitem__

        def item(self: toy.Drawn, key: tuple[int, int]) -> Any:
            if list(key) == worker:
                os.kill(os.getpid(), signal.SIGKILL)
            return make(self, key)

        toy.Drawn.__getitem__ = item  # type: ignore[method-assign]

    class Session(toy.ToySession):
        def prepare(self) -> tuple[float, dict[str, float]]:
            if dead == [rank, self.step]:
                os.kill(os.getpid(), signal.SIGKILL)
            return super().prepare()

    run = {"output": folder, "device": "cpu", "progress": False, "log_every": 1, "save_every_steps": 1}
    data = {"workers": 0 if worker is None else 1}
    recipe = toy.load_recipe({"run": run, "data": data, "ema": {"enabled": True, "decay": 0.9}})
    toy.train(recipe, resume="auto", session_class=Session)


if __name__ == "__main__":
    _serve()
