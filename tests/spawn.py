"""Runs a function in several processes, joined by gloo or NCCL, and raises each rank's traceback in the parent."""

from __future__ import annotations

import os
import tempfile
import traceback
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
import torch.distributed as dist
import torch.multiprocessing as mp

PRELOADED = ["timm", "accelerate", "torchvision", "cycledistill.recipes.run.loop"]
"""Imported once by a process that forks for each rank: to import them takes longer than what most tests do."""

TIMEOUT = 120  # seconds; a rank that waits for a dead one must not hang the suite


def _entry(
    rank: int,
    world: int,
    folder: str,
    backend: str,
    environment: dict[str, str],
    function: Callable[..., Any],
    args: tuple[Any, ...],
) -> None:
    from datetime import timedelta

    torch.set_num_threads(1)
    os.environ.update(environment)
    os.environ.update(MASTER_ADDR="127.0.0.1", RANK=str(rank), WORLD_SIZE=str(world), LOCAL_RANK=str(rank))
    try:
        if backend == "nccl":
            torch.cuda.set_device(rank)  # each rank has a GPU of its own
        dist.init_process_group(
            backend,
            store=dist.FileStore(str(Path(folder) / "store"), world),
            rank=rank,
            world_size=world,
            timeout=timedelta(seconds=TIMEOUT // 2),
        )
        torch.save(function(rank, world, *args), Path(folder) / f"result{rank}")
    except BaseException:
        (Path(folder) / f"error{rank}").write_text(traceback.format_exc())
        os._exit(1)  # peers may be waiting: do not wait for them
    finally:
        if dist.is_initialized():
            dist.destroy_process_group()


def run(function: Callable[..., Any], *args: Any, world: int = 2, backend: str = "gloo") -> list[Any]:
    """What `function(rank, world, *args)` returned on each rank.

    Raises:
        AssertionError: A rank failed; the text holds every rank's own traceback.
    """
    with tempfile.TemporaryDirectory() as folder:
        context = _context(backend)
        given = (backend, dict(os.environ), function, args)
        ranks = [context.Process(target=_entry, args=(rank, world, folder, *given)) for rank in range(world)]
        for process in ranks:
            process.start()
        for process in ranks:
            process.join(TIMEOUT)
        late = [rank for rank, process in enumerate(ranks) if process.is_alive()]
        for process in ranks:
            process.kill()
        errors = [f"rank {path.name[5:]}:\n{path.read_text()}" for path in sorted(Path(folder).glob("error*"))]
        assert not errors, "\n".join(errors)
        assert not late, f"ranks {late} did not end within {TIMEOUT} s"
        return [torch.load(Path(folder) / f"result{rank}", weights_only=False) for rank in range(world)]


def alone(function: Callable[..., Any], *args: Any) -> Any:
    """What `function(*args)` returned in a process of its own, for what would spoil this one."""
    with _context("gloo").Pool(1) as pool:
        return pool.apply(function, args)


def _context(backend: str) -> Any:
    if backend != "gloo" or "forkserver" not in mp.get_all_start_methods():
        return mp.get_context("spawn")
    context = mp.get_context("forkserver")
    context.set_forkserver_preload(PRELOADED)
    return context
