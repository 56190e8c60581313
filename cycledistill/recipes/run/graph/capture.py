"""What is CUDA's own of a captured step: the side stream, the graphs and their memory."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from typing import Any, Protocol, TypeVar

import torch

from cycledistill.recipes.errors import NotCapturableError
from cycledistill.recipes.reading.guard import first_line

T = TypeVar("T")


class Capture(Protocol):
    """Makes graphs of work on a device."""

    device: torch.device

    def aside(self) -> AbstractContextManager[None]:
        """Run work where graphs are captured, in its turn among the other work: for runs before a capture."""

    def record(self, work: Callable[[], T]) -> tuple[Callable[[], None], T]:
        """Call ``work`` once without doing it; what does it, as often as called, and what ``work`` returned.

        Raises:
            NotCapturableError: There is something in ``work`` that no graph can hold.
        """


class CudaCapture:
    """Graphs of a CUDA device, in one pool of memory: replay them one after the other.

    Args:
        device: Which.
    """

    def __init__(self, device: torch.device) -> None:
        self.device = torch.device("cuda", torch.cuda.current_device() if device.index is None else device.index)
        self._stream = torch.cuda.Stream(self.device)
        self._pool = torch.cuda.graph_pool_handle()

    @contextmanager
    def aside(self) -> Iterator[None]:
        """See `Capture`; on the stream of the captures, for libraries keep handles and memory a stream."""
        self._stream.wait_stream(torch.cuda.current_stream(self.device))
        try:
            with torch.cuda.stream(self._stream):
                yield
        finally:
            torch.cuda.current_stream(self.device).wait_stream(self._stream)

    def record(self, work: Callable[[], T]) -> tuple[Callable[[], None], T]:
        """See `Capture`."""
        graph = torch.cuda.CUDAGraph()
        # of this thread alone: that of a loader pins memory meanwhile, which would end the capture
        capturing = torch.cuda.graph(graph, pool=self._pool, stream=self._stream, capture_error_mode="thread_local")
        reason: BaseException | None = None  # the end of a capture fails, too, and hides what ended it
        try:
            # a capture that cannot be ended leaves its stream entered; the outer context leaves it whatever happens
            with torch.cuda.stream(self._stream), capturing:
                try:
                    result = work()
                except BaseException as error:
                    reason = error
                    raise
        except RuntimeError as error:
            reason = reason or error
            if not isinstance(reason, Exception):  # Ctrl-C
                raise reason from None
            self._pool = torch.cuda.graph_pool_handle()  # that of the failed one may still count it
            self._mend_generator()
            raise NotCapturableError(f"the capture failed: {first_line(reason)}{_aftermath()}") from error
        finally:
            reason = None  # it holds this frame, and all that the step has made
        return graph.replay, result

    def _mend_generator(self) -> None:
        """After a capture that failed, the device's generator may still count for it; steps seed it anew anyway."""
        try:
            torch.rand(1, device=self.device)
        except RuntimeError:
            torch.cuda.default_generators[self.device.index].graphsafe_set_state(torch.Generator(self.device))


def open_capture(accelerator: Any) -> Capture:
    """The graphs of a run's device.

    Raises:
        NotCapturableError: The run is not on a CUDA device, is one of several processes, or scales its loss.
    """
    device: torch.device = accelerator.device
    if device.type != "cuda":
        raise NotCapturableError(f"a graph needs a CUDA device, and the run is on {device.type!r}")
    if accelerator.num_processes > 1:
        raise NotCapturableError(f"{accelerator.num_processes} processes share the run, and graphs are for one alone")
    if accelerator.scaler is not None:
        raise NotCapturableError("run.precision=fp16 reads back in each step whether to skip it; bf16 does not")
    return CudaCapture(device)


def _aftermath() -> str:
    """What else a failed capture may do. Before 2.12 the allocator may go on as if it were under way."""
    leaks = torch.__version__ < "2.12"  # compared as versions
    return "; before torch 2.12 later allocations may fail, too: go on in a new process" if leaks else ""
