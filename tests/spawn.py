"""Runs a function in several processes, joined by gloo or NCCL, and raises each rank's traceback in the parent."""

from __future__ import annotations

import os
import pickle
import tempfile
import time
import traceback
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
import torch.distributed as dist
import torch.multiprocessing as mp

PRELOADED = ["timm", "accelerate", "torchvision", "cycledistill.recipes.run.loop"]
"""Imported once by a process that forks for each rank: to import them takes longer than what most tests do."""

TIMEOUT = 300  # seconds; a rank that waits for a dead one must not hang the suite


def _entry(rank: int, world: int, folder: str, backend: str | None, environment: dict[str, str], called: bytes) -> None:
    from datetime import timedelta

    os.environ.clear()  # a fork of the server has what was set when that was started
    os.environ.update(environment)
    torch.set_num_threads(1)
    try:
        if backend is not None:
            os.environ.update(MASTER_ADDR="127.0.0.1", RANK=str(rank), WORLD_SIZE=str(world), LOCAL_RANK=str(rank))
            if backend == "nccl":
                torch.cuda.set_device(rank)  # each rank has a GPU of its own
            dist.init_process_group(
                backend,
                store=dist.FileStore(str(Path(folder) / "store"), world),
                rank=rank,
                world_size=world,
                timeout=timedelta(seconds=TIMEOUT // 2),
            )
        function, args = pickle.loads(called)  # here, for what it imports may look at the environment
        torch.save(function(*args) if backend is None else function(rank, world, *args), Path(folder) / f"result{rank}")
    except BaseException:
        (Path(folder) / f"error{rank}").write_text(traceback.format_exc())
        os._exit(1)  # peers may be waiting: do not wait for them
    finally:
        if dist.is_initialized():
            dist.destroy_process_group()


def run(function: Callable[..., Any], *args: Any, world: int = 2, backend: str = "gloo") -> list[Any]:
    """What `function(rank, world, *args)` returned on each rank, which has the environment of this call.

    Raises:
        AssertionError: A rank failed; the text holds every rank's own traceback. Or it died, or did not end in time.
    """
    return _results(world, backend, function, args)


def alone(function: Callable[..., Any], *args: Any) -> Any:
    """What `function(*args)` returned in a process of its own, for what would spoil this one; the rest as for `run`."""
    return _results(1, None, function, args)[0]


def _results(world: int, backend: str | None, function: Callable[..., Any], args: tuple[Any, ...]) -> list[Any]:
    with tempfile.TemporaryDirectory() as folder:
        context = _context(backend)
        given = (world, folder, backend, dict(os.environ), pickle.dumps((function, args)))
        ranks = [context.Process(target=_entry, args=(rank, *given)) for rank in range(world)]
        for process in ranks:
            process.start()
        end = time.monotonic() + TIMEOUT
        for process in ranks:
            process.join(max(end - time.monotonic(), 0))
        late = [rank for rank, process in enumerate(ranks) if process.is_alive()]
        dead = [f"rank {rank} died, exit code {each.exitcode}" for rank, each in enumerate(ranks) if each.exitcode]
        for process in ranks:
            process.kill()
        errors = [f"rank {path.name[5:]}:\n{path.read_text()}" for path in sorted(Path(folder).glob("error*"))]
        assert not errors and not dead, "\n".join(errors or dead)
        assert not late, f"ranks {late} did not end within {TIMEOUT} s"
        return [torch.load(Path(folder) / f"result{rank}", weights_only=False) for rank in range(world)]


def _context(backend: str | None) -> Any:
    if backend == "nccl" or "forkserver" not in mp.get_all_start_methods():
        return mp.get_context("spawn")
    context = mp.get_context("forkserver")
    context.set_forkserver_preload(PRELOADED)
    return context
