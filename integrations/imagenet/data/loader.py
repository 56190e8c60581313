"""Batches in a fixed order: any batch of any epoch can be had again without reading those before it.

The order of an epoch and each image's augmentation are functions of (seed, epoch, position); see ``seeding.py``. So
mid-epoch resume costs nothing, and the number of loader workers changes no pixel. Streamed sets (WebDataset) have no
positions: there the epoch's first batches are read again and dropped.

As in DeiT, crops, RandAugment and random erasing happen in the workers, on one image, and mixup on the device; with
``data.decoder=torchcodec`` erasing happens on the device too (``tensors.py``).
"""

from __future__ import annotations

import logging
from collections.abc import Iterator
from itertools import islice
from typing import Any

import torch
from timm.data.distributed_sampler import RepeatAugSampler
from timm.data.loader import create_loader
from torch.utils.data import DataLoader, Sampler, get_worker_info
from torch.utils.data.distributed import DistributedSampler

from cycledistill.recipes.errors import DataError
from cycledistill.recipes.run.guard.signals import spare_workers
from cycledistill.recipes.run.seeding import IMAGE, STREAM, derive_seed, seeded

from .augment import Augmentation, train_transform
from .splits import Images, ImageSets
from .tensors import Finish, leave_bytes

_logger = logging.getLogger(__name__)


class SeededOrder(Sampler[tuple[int, int]]):
    """One rank's share of an epoch as ``(seed, number)`` keys, from any position on.

    The next iteration begins with image ``start`` of ``epoch``; both are there to be set.

    Args:
        length: Images in the set.
        seed: The run's seed.
        repeats: Repeated augmentation (Hoffer et al., CVPR 2020): how often an image comes in a row, each time
            augmented afresh; the epoch keeps its length.
        rank: This process.
        world: Number of processes; together they draw one global order.
    """

    def __init__(self, length: int, seed: int, repeats: int = 1, rank: int = 0, world: int = 1):
        self.seed, self.rank, self.world = seed, rank, world
        self.epoch = self.start = 0
        images = range(length)
        if repeats > 1:
            self.order: Any = RepeatAugSampler(images, num_replicas=world, rank=rank, num_repeats=repeats)
        else:
            self.order = DistributedSampler(images, num_replicas=world, rank=rank)  # type: ignore[arg-type]

    def __iter__(self) -> Iterator[tuple[int, int]]:
        self.order.set_epoch(derive_seed(self.seed, IMAGE, self.epoch))
        for position, index in islice(enumerate(self.order), self.start, None):
            # counted over all ranks, so that they never share a seed
            yield derive_seed(self.seed, IMAGE, self.epoch, position * self.world + self.rank), int(index)

    def __len__(self) -> int:
        return len(self.order)


class SeededTransform:
    """For streams: the transform of the n-th image of a worker's epoch draws from a seed of its own."""

    def __init__(self, transform: Any, seed: int, rank: int, epoch: int):
        self.transform, self.seed, self.rank, self.epoch = transform, seed, rank, epoch
        self.count = 0

    def __call__(self, image: Any) -> Any:
        """Transform the next image."""
        worker = get_worker_info()
        path = (self.seed, STREAM, self.epoch, self.rank, worker.id if worker else 0, self.count)
        self.count += 1
        with seeded(derive_seed(*path)):
            return self.transform(image)


class TrainLoader:
    """Training batches of one rank: images, which ``finish`` makes (B, 3, H, W) and normalised, and labels (B,).

    Iterating gives the batches of ``epoch`` from number ``start`` on; both are there to be set.

    Raises:
        DataError: Fewer images than one batch.
    """

    def __init__(
        self,
        images: ImageSets,
        augment: Augmentation,
        img_size: int,
        *,
        batch_size: int,
        workers: int = 0,
        repeats: int = 1,
        seed: int = 0,
        rank: int = 0,
        world_size: int = 1,
        pin_memory: bool = False,
    ):
        self.batch_size, self.seed, self.rank, self.world_size = batch_size, seed, rank, world_size
        self.epoch = self.start = 0
        self.order: SeededOrder | None = None
        self.dataset: Any = images.train
        self.transform = train_transform(augment, img_size)
        self._finish: Finish | None = None
        if images.streams:
            self.loader = self._stream(img_size, workers)
        else:
            if images.tensors:
                self._finish = leave_bytes(self.transform)
            self.dataset.transform = self.transform
            self.order = SeededOrder(len(self.dataset), seed, repeats, rank, world_size)
            if len(self.order) < batch_size:
                raise DataError(
                    f"{len(self.order)} training images a process make no batch of {batch_size}: lower data.batch_size."
                )
            self.loader = DataLoader(
                self.dataset,
                batch_size=batch_size,
                sampler=self.order,
                num_workers=workers,
                drop_last=True,
                pin_memory=pin_memory,
                persistent_workers=workers > 0,
                generator=torch.Generator(),  # else each epoch would draw from the generator that drives dropout
            )
        spare_workers(self.loader)

    def _stream(self, img_size: int, workers: int) -> DataLoader[Any]:
        if workers == 0:
            _logger.warning("streamed data: resuming is bit-exact only with data.workers of at least 1.")
        loader = create_loader(
            self.dataset,
            img_size,
            self.batch_size,
            is_training=True,
            use_prefetcher=False,
            num_workers=workers,
            persistent_workers=False,  # fresh workers start at the epoch's beginning
        )
        loader.generator = torch.Generator()
        return loader

    def __len__(self) -> int:
        """Batches of a whole epoch."""
        return len(self.loader)

    def __iter__(self) -> Iterator[tuple[torch.Tensor, torch.Tensor]]:
        found = self.start > 0
        for batch in self.batches(self.epoch, self.start):
            found = True
            yield batch
        if not found:
            raise DataError("the training images made no batch: lower data.batch_size.")

    def finish(self, images: torch.Tensor) -> torch.Tensor:
        """Do what is left to be done with the images of a batch on the device; nothing, where Pillow decodes."""
        return images if self._finish is None else self._finish(images)

    def batches(self, epoch: int, start: int = 0) -> Iterator[tuple[torch.Tensor, torch.Tensor]]:
        """The batches of ``epoch`` from number ``start`` on."""
        if self.order is not None:
            self.order.epoch, self.order.start = epoch, start * self.batch_size
            return iter(self.loader)
        self.dataset.set_epoch(epoch)
        self.dataset.transform = SeededTransform(self.transform, self.seed, self.rank, epoch)
        self.loader.generator.manual_seed(derive_seed(self.seed, STREAM, epoch, self.rank))
        return islice(iter(self.loader), start, None)


def eval_loader(
    images: Images,
    augment: Augmentation,
    img_size: int,
    *,
    batch_size: int,
    device: torch.device,
    workers: int = 0,
    distributed: bool = False,
) -> Any:
    """Batches to evaluate on, resized to ``img_size / crop_pct`` and centre-cropped; timm's loader as it is."""
    loader = create_loader(
        images,  # type: ignore[arg-type]  # read by number or iterated: all that is asked of it
        img_size,
        batch_size,
        interpolation=augment.eval_interpolation,
        mean=tuple(augment.mean),
        std=tuple(augment.std),
        crop_pct=augment.crop_pct,
        num_workers=workers,
        distributed=distributed,
        pin_memory=device.type == "cuda",
        device=device,
        persistent_workers=False,
    )
    loader.loader.generator = torch.Generator()
    spare_workers(loader.loader)
    return loader
