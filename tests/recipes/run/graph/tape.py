"""A CUDA graph's stand-in without a GPU: a tape of operators that is played again on the very memory it was made with.

As with a graph, recording does nothing, Python's numbers are those of the recording, a tensor that takes another's
place is not seen, and what reads values back is an error. Unlike a graph's, the memory of a tape is never used twice.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, ValuesView
from contextlib import contextmanager
from typing import Any, TypeVar

import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode

from cycledistill.recipes.errors import NotCapturableError
from cycledistill.recipes.run.graph.capture import CudaCapture

T = TypeVar("T")


class CountedCapture(CudaCapture):
    """Real graphs, counted as the tapes are."""

    def __init__(self) -> None:
        super().__init__(torch.device("cuda"))
        self.captures = self.replays = self.warm_ups = 0

    @contextmanager
    def aside(self) -> Iterator[None]:
        self.warm_ups += 1
        with super().aside():
            yield

    def record(self, work: Callable[[], T]) -> tuple[Callable[[], None], T]:
        self.captures += 1
        replay, result = super().record(work)

        def counted() -> None:
            self.replays += 1
            replay()

        return counted, result


class TapeCapture:
    """What `CudaCapture` is on a GPU."""

    device = torch.device("cpu")

    def __init__(self) -> None:
        self.captures = self.replays = self.warm_ups = 0

    @contextmanager
    def aside(self) -> Iterator[None]:
        self.warm_ups += 1
        yield

    def record(self, work: Callable[[], T]) -> tuple[Callable[[], None], T]:
        tape = Tape()
        self.captures += 1
        try:
            with tape:
                result = work()
        finally:
            tape.undo()

        def play() -> None:
            self.replays += 1
            tape.play()

        return play, result


class Tape(TorchDispatchMode):
    """Records operators as they run."""

    def __init__(self) -> None:
        super().__init__()
        self.calls: list[tuple[Any, Any, Any, Any]] = []
        self.found: dict[int, tuple[Any, Any]] = {}  # storages that were there before, each with what it held
        self.made: dict[int, Any] = {}

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = kwargs or {}
        if func.name() in ("aten::_local_scalar_dense", "aten::nonzero", "aten::equal"):
            raise NotCapturableError("the capture failed: operation not permitted when stream is capturing")
        for each in _tensors((args, kwargs)):
            storage = each.untyped_storage()
            if storage._cdata not in self.made and storage._cdata not in self.found:
                self.found[storage._cdata] = (storage, storage.clone())
        result = func(*args, **kwargs)
        for each in _tensors(result):
            storage = each.untyped_storage()
            if storage._cdata not in self.found:
                self.made[storage._cdata] = storage  # kept, so that no other storage gets its number
        self.calls.append((func, args, kwargs, result))
        return result

    def undo(self) -> None:
        """Leave the memory as if nothing had run."""
        for storage, before in self.found.values():
            storage.copy_(before)

    def play(self) -> None:
        with torch.no_grad():
            for func, args, kwargs, recorded in self.calls:
                given = {each.untyped_storage()._cdata for each in _tensors((args, kwargs))}
                new = [each for each in _tensors(recorded) if each.untyped_storage()._cdata not in given]
                if not new and not func._schema.is_mutable:
                    continue  # a view of what is filled in its place
                for old, fresh in zip(_tensors(recorded), _tensors(func(*args, **kwargs)), strict=True):
                    if any(old is each for each in new):
                        old.copy_(fresh)


def _tensors(values: Any) -> list[Tensor]:
    """As pytrees find them, many times sooner: operators take and give tensors in lists and dicts at most."""
    if isinstance(values, Tensor):
        return [values]
    if isinstance(values, dict):
        values = values.values()
    inside = values if isinstance(values, (tuple, list, ValuesView)) else ()
    return [each for value in inside for each in _tensors(value)]
