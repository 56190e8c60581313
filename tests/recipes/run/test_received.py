"""A worker that dies: PyTorch's own error, also where the connection breaks a moment before it is seen dead."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
import torch
from torch.multiprocessing import get_context
from torch.utils.data import DataLoader, Dataset

pytest.importorskip("timm")

from cycledistill.recipes.run.batches import received


class Numbers(Dataset[int]):
    def __init__(self, error: Exception | None = None) -> None:
        self.error = error

    def __len__(self) -> int:
        return 3

    def __getitem__(self, index: int) -> int:
        if self.error is not None:
            raise self.error
        return index


def test_the_batches_of_a_loader() -> None:
    assert torch.cat(list(received(DataLoader(Numbers())))).tolist() == [0, 1, 2]


@pytest.mark.parametrize("error", [ConnectionResetError(104, "reset"), EOFError()])
def test_a_connection_that_breaks_is_a_worker_that_died(error: Exception) -> None:
    """Of a loader as PyTorch's is: its receiving function raises what it got."""

    def _try_get_data() -> int:
        raise error

    def batches() -> Iterator[int]:
        yield 0
        yield _try_get_data()

    found = received(batches())
    assert next(found) == 0
    with pytest.raises(RuntimeError, match=f"^DataLoader worker exited unexpectedly: {type(error).__name__}") as caught:
        next(found)
    assert caught.value.__cause__ is error


def test_pytorch_receives_by_that_function() -> None:
    """The name that is looked for, held to the installed version."""
    loader = DataLoader(Numbers(), num_workers=1, multiprocessing_context=get_context("fork"))
    batches = iter(loader)
    next(batches)

    def broken(*_: object, **__: object) -> None:
        raise ConnectionResetError(104, "reset")

    batches._data_queue.get = broken  # type: ignore[attr-defined]
    with pytest.raises(RuntimeError, match="^DataLoader worker exited unexpectedly"):
        list(received(batches))


@pytest.mark.parametrize("workers", [0, 1])
def test_errors_of_the_data_set_are_its_own(workers: int) -> None:
    loader = DataLoader(Numbers(ConnectionResetError(104, "the bucket hung up")), num_workers=workers)
    with pytest.raises(ConnectionResetError, match="the bucket hung up"):
        list(received(loader))
