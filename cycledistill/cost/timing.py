"""Time callables against each other: interleaved rounds, so that a drift of the machine meets all of them alike."""

from __future__ import annotations

import contextlib
import gc
import time
from collections.abc import Callable, Iterator, Mapping

import torch


def interleaved(
    calls: Mapping[str, Callable[[], object]],
    device: torch.device | str = "cpu",
    repeats: int = 7,
    warmup: int = 1,
) -> dict[str, list[float]]:
    """Time every callable once per round, for ``repeats`` rounds, turning the order round each time.

    On the CPU the clock is the process's CPU time with torch held to one thread, which other processes disturb least;
    on CUDA it is a pair of events around the call; elsewhere the wall clock around a synchronised call.

    Args:
        calls: Name -> callable without arguments. Results are dropped.
        device: Where the callables compute.
        repeats: Rounds that are kept.
        warmup: Rounds before, thrown away (allocator, compilation).

    Returns:
        Name -> seconds of each round, in round order, so that entries at one index belong to one round.

    Raises:
        ValueError: ``repeats`` below 1 or ``warmup`` below 0.

    Example:
        >>> times = interleaved({"a": lambda: sum(range(10)), "b": lambda: sum(range(10))}, repeats=3)
        >>> sorted(times), len(times["a"])
        (['a', 'b'], 3)
    """
    if repeats < 1 or warmup < 0:
        raise ValueError(f"repeats must be at least 1 and warmup at least 0, got {repeats} and {warmup}")
    device = torch.device(device)
    names = list(calls)
    seconds: dict[str, list[float]] = {name: [] for name in names}
    with _quiet(device):
        for turn in range(warmup + repeats):
            gc.collect()
            for name in names if turn % 2 == 0 else reversed(names):
                elapsed = _time(calls[name], device)
                if turn >= warmup:
                    seconds[name].append(elapsed)
    return seconds


def clock_name(device: torch.device | str) -> str:
    """How `interleaved` measures on this device, in words for a report."""
    device = torch.device(device)
    if device.type == "cuda":
        return f"{torch.cuda.get_device_name(device)}, CUDA events"
    return "CPU, one thread, process CPU time" if device.type == "cpu" else f"{device.type}, wall clock, synchronised"


def _time(call: Callable[[], object], device: torch.device) -> float:
    if device.type == "cuda":
        start, end = torch.cuda.Event(enable_timing=True), torch.cuda.Event(enable_timing=True)
        torch.cuda.synchronize(device)
        start.record()
        call()
        end.record()
        torch.cuda.synchronize(device)
        return start.elapsed_time(end) / 1e3
    clock = time.process_time if device.type == "cpu" else time.perf_counter
    begin = clock()
    call()
    if device.type != "cpu":
        torch.accelerator.synchronize(device)
    return clock() - begin


@contextlib.contextmanager
def _quiet(device: torch.device) -> Iterator[None]:
    """One thread on the CPU and no garbage collection inside a timed call; both restored."""
    threads, collecting = torch.get_num_threads(), gc.isenabled()
    if device.type == "cpu":
        torch.set_num_threads(1)
    gc.disable()
    try:
        yield
    finally:
        torch.set_num_threads(threads)
        if collecting:
            gc.enable()
