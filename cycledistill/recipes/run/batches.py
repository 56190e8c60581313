"""Which samples a process sees in which order: a function of seed and epoch alone, for any number of processes."""

from __future__ import annotations

import traceback
from collections.abc import Iterable, Iterator, Sequence
from typing import Any, TypeVar

import numpy as np
import torch
from torch.utils.data import DataLoader, Dataset, Sampler

from cycledistill.recipes.run.guard.signals import spare_workers

Key = tuple[int, int]
"""Epoch and number of a sample."""

B = TypeVar("B")


class EpochBatches(Sampler[list[Key]]):
    """Batches of (epoch, sample) keys, shuffled anew in each epoch, by seed and epoch alone.

    With several processes each takes every n-th batch; all get the same number, for which the last are filled from the
    beginning.

    Args:
        groups: Numbers of samples that stay neighbours; the groups are shuffled. A number: so many groups of one.
        batch_size: Samples a batch and process.
        shuffle: Whether to shuffle.
        seed: Of the order.
        rank: This process.
        world_size: The number of processes.
        drop_last: Leave out an incomplete last batch.
    """

    def __init__(
        self,
        groups: Sequence[Sequence[int]] | int,
        batch_size: int,
        *,
        shuffle: bool,
        seed: int = 0,
        rank: int = 0,
        world_size: int = 1,
        drop_last: bool = False,
    ) -> None:
        self.groups = [[number] for number in range(groups)] if isinstance(groups, int) else groups
        self.samples = sum(map(len, self.groups))
        self.batch_size, self.shuffle, self.seed = batch_size, shuffle, seed
        self.rank, self.world_size, self.drop_last = rank, world_size, drop_last
        self.epoch = 0
        self.start = 0
        """Batches of the epoch to leave out, to go on in the middle of one."""

    def __len__(self) -> int:
        """Batches an epoch and process."""
        step = self.batch_size * self.world_size
        return self.samples // step if self.drop_last else -(-self.samples // step)

    def __iter__(self) -> Iterator[list[Key]]:
        """The batches of the current epoch."""
        order = np.arange(len(self.groups))
        if self.shuffle:
            np.random.default_rng((self.seed, self.epoch)).shuffle(order)
        samples = np.array([number for group in order.tolist() for number in self.groups[group]], dtype=np.int64)
        step = self.batch_size * self.world_size
        if self.world_size > 1 and len(self) * step > len(samples):
            samples = np.resize(samples, len(self) * step)
        for number in range(self.start, len(self)):
            first = number * step + self.rank * self.batch_size
            chosen = samples[first : first + self.batch_size].tolist()
            if chosen:
                yield [(self.epoch, sample) for sample in chosen]


def batch_loader(
    dataset: Dataset[B], batches: EpochBatches, workers: int, pin_memory: bool, seed: int
) -> DataLoader[B]:
    """A data loader in the order of ``batches``; set ``batches.epoch`` before each epoch."""
    return spare_workers(
        DataLoader(
            dataset,
            batch_sampler=batches,
            num_workers=workers,
            collate_fn=_as_it_is,
            pin_memory=pin_memory,
            generator=torch.Generator().manual_seed(seed),
        )
    )


def received(loader: Iterable[B]) -> Iterator[B]:
    """The batches of a loader. That a worker died is always PyTorch's own error for it.

    A worker that is killed while it sends breaks the connection a moment before PyTorch can see it dead, which then
    raises what the connection did.

    Raises:
        RuntimeError: A worker died.
    """
    try:
        yield from loader
    except (ConnectionError, EOFError) as error:
        if not _of_the_connection(error):
            raise
        raise RuntimeError(f"DataLoader worker exited unexpectedly: {error!r}") from error


def _of_the_connection(error: Exception) -> bool:
    """Whether it came from receiving a batch, and not from the data set, whose errors PyTorch raises elsewhere."""
    frames = (frame.f_code.co_name for frame, _ in traceback.walk_tb(error.__traceback__))
    return "_try_get_data" in frames or "in pin memory thread" in str(error)


def _as_it_is(batch: Any) -> Any:
    return batch
