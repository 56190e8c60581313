"""Batches in a fixed order: any batch of any epoch can be had again without reading those before it.

The order of an epoch and each image's augmentation are functions of (seed, epoch, position); see ``seeding.py``. So
mid-epoch resume costs nothing, and the number of loader workers changes no pixel. Streamed sets (WebDataset) have no
positions: there the epoch's first batches are read again and dropped.

As in DeiT, crops, RandAugment and random erasing happen in the workers, on one image, and mixup on the device.
"""

from __future__ import annotations

import logging
from collections.abc import Iterator
from functools import partial
from itertools import islice
from typing import Any

import torch
from PIL import Image
from timm.data.distributed_sampler import RepeatAugSampler
from timm.data.loader import create_loader
from timm.data.mixup import Mixup
from timm.data.transforms_factory import create_transform
from torch.utils.data import DataLoader, Sampler, get_worker_info
from torch.utils.data.distributed import DistributedSampler

from cycledistill.recipes.run.seeding import IMAGE, STREAM, derive_seed, seeded

from ..errors import DataError
from ..place import Place
from ..recipe import Recipe
from .splits import ImageSets

_logger = logging.getLogger(__name__)


class SeededOrder(Sampler[tuple[int, int]]):
    """One rank's share of an epoch as ``(seed, number)`` keys, from any position on.

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

    def set_position(self, epoch: int, start: int = 0) -> None:
        """Make the next iteration begin with image ``start`` of ``epoch``."""
        self.epoch, self.start = epoch, start

    def __iter__(self) -> Iterator[tuple[int, int]]:
        self.order.set_epoch(derive_seed(self.seed, IMAGE, self.epoch))
        for position, index in islice(enumerate(self.order), self.start, None):
            # counted over all ranks, so that they never share a seed
            yield derive_seed(self.seed, IMAGE, self.epoch, position * self.world + self.rank), int(index)

    def __len__(self) -> int:
        return len(self.order)


class SeededTransform:
    """For streams: the transform of the n-th image of a worker's epoch draws from a seed of its own."""

    def __init__(self, transform: Any, seed: int, rank: int):
        self.transform, self.seed, self.rank = transform, seed, rank
        self.restart(0)

    def restart(self, epoch: int) -> None:
        """Count from the first image of ``epoch``."""
        self.epoch, self.count = epoch, 0

    def __call__(self, image: Any) -> Any:
        """Transform the next image."""
        worker = get_worker_info()
        path = (self.seed, STREAM, self.epoch, self.rank, worker.id if worker else 0, self.count)
        self.count += 1
        with seeded(derive_seed(*path)):
            return self.transform(image)


class TrainLoader:
    """Training batches of one rank: images (B, 3, H, W) normalised, labels (B,).

    Args:
        images: The sets from :func:`~cycledistill.integrations.imagenet.data.splits.open_images`.
        config: The whole recipe.
        img_size: Side of the square images, pixels.
        place: This process.

    Raises:
        DataError: Fewer images than one batch.
    """

    def __init__(self, images: ImageSets, config: Recipe, img_size: int, place: Place):
        self.seed, self.rank = config.run.seed, place.rank
        self.order: SeededOrder | None = None
        self.dataset: Any = images.train
        transform = create_transform(img_size, is_training=True, **_train_transform(config))
        accept_zero_bits(transform)
        if images.streams:
            self.loader = self._stream(transform, config, img_size)
        else:
            self.dataset.transform = transform
            self.order = SeededOrder(len(self.dataset), self.seed, config.data.repeats, place.rank, place.world)
            if len(self.order) < config.data.batch_size:
                raise DataError(
                    f"{len(self.order)} training images a process make no batch of {config.data.batch_size}: "
                    "lower data.batch_size."
                )
            self.loader = DataLoader(
                self.dataset,
                batch_size=config.data.batch_size,
                sampler=self.order,
                num_workers=config.data.workers,
                drop_last=True,
                pin_memory=place.device.type == "cuda",
                persistent_workers=config.data.workers > 0,
                generator=torch.Generator(),  # else each epoch would draw from the generator that drives dropout
            )

    def _stream(self, transform: Any, config: Recipe, img_size: int) -> DataLoader[Any]:
        if config.data.workers == 0:
            _logger.warning("streamed data: resuming is bit-exact only with data.workers of at least 1.")
        loader = create_loader(
            self.dataset,
            img_size,
            config.data.batch_size,
            is_training=True,
            use_prefetcher=False,
            num_workers=config.data.workers,
            persistent_workers=False,  # fresh workers start at the epoch's beginning
        )
        self.dataset.transform = SeededTransform(transform, self.seed, self.rank)
        loader.generator = torch.Generator()
        return loader

    def __len__(self) -> int:
        """Batches of a whole epoch."""
        return len(self.loader)

    def batches(self, epoch: int, start: int = 0) -> Iterator[tuple[torch.Tensor, torch.Tensor]]:
        """The batches of ``epoch`` from number ``start`` on."""
        if self.order is not None:
            assert self.loader.batch_size is not None
            self.order.set_position(epoch, start * self.loader.batch_size)
            return iter(self.loader)
        self.dataset.set_epoch(epoch)
        self.dataset.transform.restart(epoch)
        self.loader.generator.manual_seed(derive_seed(self.seed, STREAM, epoch, self.rank))
        return islice(iter(self.loader), start, None)


def eval_loader(images: ImageSets, config: Recipe, img_size: int, place: Place) -> Any:
    """Validation batches, resized to ``img_size / crop_pct`` and centre-cropped; timm's loader as it is."""
    loader = create_loader(
        images.validation,  # type: ignore[arg-type]  # read by number or iterated: all that is asked of it
        img_size,
        config.data.eval_batch_size or config.data.batch_size,
        interpolation="bicubic" if config.augment.interpolation == "random" else config.augment.interpolation,
        mean=tuple(config.augment.mean),
        std=tuple(config.augment.std),
        crop_pct=config.augment.crop_pct,
        num_workers=config.data.workers,
        distributed=place.world > 1,
        pin_memory=place.device.type == "cuda",
        device=place.device,
        persistent_workers=False,
    )
    loader.loader.generator = torch.Generator()
    return loader


def create_mixup(config: Recipe, classes: int) -> Mixup | None:
    """Mixup and cutmix of timm for whole batches, or nothing when both are off."""
    augment = config.augment
    if not augment.mixes:
        return None
    return Mixup(
        mixup_alpha=augment.mixup,
        cutmix_alpha=augment.cutmix,
        prob=augment.mix_prob,
        switch_prob=augment.mix_switch,
        mode="batch",
        label_smoothing=augment.smoothing,
        num_classes=classes,
    )


def accept_zero_bits(transform: Any) -> None:
    """Let RandAugment posterize to 0 bits, a black image, as it did before Pillow 13 made that an error.

    DeiT's ``rand-m9-mstd0.5-inc1`` asks for 0 bits about once in a thousand images (timm 1.0.31).
    """
    for step in transform.transforms:
        choices = getattr(step, "ops", None) or [op for policy in getattr(step, "policy", ()) for op in policy]
        for op in choices:
            if op.name.startswith("Posterize"):
                op.aug_fn = partial(_posterize, op.aug_fn)


def _posterize(posterize: Any, image: Any, bits: int, **kwargs: Any) -> Any:
    return posterize(image, bits, **kwargs) if bits >= 1 else Image.new(image.mode, image.size)


def _train_transform(config: Recipe) -> dict[str, Any]:
    augment = config.augment
    return {
        "scale": tuple(augment.scale),
        "ratio": tuple(augment.ratio),
        "hflip": augment.hflip,
        "color_jitter": augment.color_jitter or None,
        "auto_augment": augment.auto,
        "interpolation": augment.interpolation,
        "mean": tuple(augment.mean),
        "std": tuple(augment.std),
        "re_prob": augment.erase,
        "re_mode": augment.erase_mode,
    }
