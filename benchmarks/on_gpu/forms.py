"""The forms a call is timed in (eager, compiled, captured in a CUDA graph), and how busy the GPU was meanwhile.

Where a GPU waits for its next kernel to be launched, a time says nothing of the work: "busy" is the time in which at
least one kernel ran over the time of the whole call.
"""

from __future__ import annotations

import gc
import statistics
from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import Any, TypeVar

import torch
from common import Row  # in the folder above
from torch.autograd import DeviceType
from torch.profiler import ProfilerActivity, profile

from cycledistill.cost.timing import interleaved

T = TypeVar("T")
Call = Callable[[], Any]
Compile = Callable[[Callable[..., T]], Callable[..., T]]

EAGER = ("eager", "graph")
COMPILED = ("compiled", "compiled graph")
"""A captured call is that of the form before it: what was compiled is not compiled again."""

LAUNCH_BOUND = 0.85
"""Below this share of busy time, launches are said to be the limit."""


def as_it_is(call: Callable[..., T]) -> Callable[..., T]:
    """The form of a part that is not compiled."""
    return call


def compile_for(device: torch.device) -> Compile[Any]:
    """How parts are compiled: by inductor on a GPU; elsewhere traced alone, which needs no C++ compiler."""
    backend = "inductor" if device.type == "cuda" else "aot_eager"
    return lambda call: torch.compile(call, fullgraph=True, dynamic=False, backend=backend)


def in_forms(
    make: Callable[[Compile[Any]], Mapping[str, Call]], device: torch.device, compiled: bool
) -> Iterator[tuple[str, Mapping[str, Call]]]:
    """The calls that ``make`` gives, in each form: as they are, then captured where there are CUDA graphs.

    Args:
        make: Given how parts are compiled, name -> call.
        device: Where the calls compute.
        compiled: Whether parts are compiled.
    """
    forms = COMPILED if compiled else EAGER
    calls = make(compile_for(device) if compiled else as_it_is)
    yield forms[0], calls
    if device.type == "cuda":
        pool = torch.cuda.graph_pool_handle()  # one for all: each would keep a step's whole memory
        yield forms[1], {name: captured(call, pool) for name, call in calls.items()}


def captured(call: Call, pool: Any) -> Call:
    """The call as a CUDA graph, whose memory comes from ``pool``; results are dropped."""
    side = torch.cuda.Stream()
    side.wait_stream(torch.cuda.current_stream())
    with torch.cuda.stream(side):  # capturing asks for a warm-up away from the default stream
        for _ in range(2):
            call()
    torch.cuda.current_stream().wait_stream(side)
    torch.cuda.synchronize()
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph, pool=pool):
        call()
    return graph.replay


def timed(
    calls: Mapping[str, Call], device: torch.device, repeats: int, warmup: int = 2
) -> tuple[dict[str, list[float]], Row]:
    """Seconds of each round, as of `interleaved`, and on a GPU how busy each call kept it."""
    seconds = interleaved(calls, device, repeats, warmup)
    if device.type != "cuda":
        return seconds, {}
    row = {}
    for name, call in calls.items():
        kernels = kernel_seconds(call)
        if kernels > 0:  # a profiler that is not let at the counters sees none
            row[f"busy, {name}"] = min(1.0, kernels / statistics.median(seconds[name]))
    return seconds, row


def kernel_seconds(call: Call) -> float:
    """Time of one call in which at least one kernel or copy ran on the GPU."""
    call()
    torch.cuda.synchronize()
    with profile(activities=[ProfilerActivity.CUDA]) as record:
        call()
        torch.cuda.synchronize()
    return covered(spans(record.events() or ())) / 1e6


def spans(events: Iterable[Any]) -> list[tuple[float, float]]:
    """Start and end, in microseconds, of what ran on the GPU; marks that only name a stretch of time are none."""
    return [
        (event.time_range.start, event.time_range.end)
        for event in events
        if event.device_type == DeviceType.CUDA and not getattr(event, "is_user_annotation", False)
    ]


def covered(pieces: Iterable[tuple[float, float]]) -> float:
    """Length of the union of stretches of time.

    Example:
        >>> covered([(0, 2), (1, 3), (5, 6)])
        4.0
    """
    total, reached = 0.0, float("-inf")
    for start, end in sorted(pieces):
        total += max(0.0, end - max(start, reached))
        reached = max(reached, end)
    return total


def launch_bound(row: Mapping[str, Any]) -> bool | None:
    """Whether any side of a row waited for launches; ``None`` where it was not measured."""
    shares = [value for key, value in row.items() if key.startswith("busy, ")]
    return min(shares) < LAUNCH_BOUND if shares else None


def clean_up(device: torch.device) -> None:
    """Give back what a case held, compiled code included."""
    torch.compiler.reset()
    gc.collect()
    if device.type == "cuda":
        torch.cuda.empty_cache()
