"""Batches of person crops: each picture of a batch is decoded once, and all else happens once a batch."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from typing import Any, Literal, TypedDict

import cv2
import numpy as np
import torch
from torch.utils.data import DataLoader, Dataset

from cycledistill.recipes.run.batches import EpochBatches, Key, batch_loader

from .annotations import Person
from .augment import NO_AUGMENTATION, Augmentation, draw_crop
from .images import PictureSource, PoseDataError
from .joints import JointSet

_logger = logging.getLogger(__name__)

MEAN = (0.485, 0.456, 0.406)
STD = (0.229, 0.224, 0.225)


class Batch(TypedDict):
    """What the data loader yields; `prepare_images` and `heatmap_targets` make it floating point."""

    image: torch.Tensor
    """(B, H, W, 3), uint8, RGB."""
    joints: torch.Tensor
    """(B, K, 2) in input pixels."""
    visible: torch.Tensor
    """(B, K)."""
    person: torch.Tensor
    """(B,) index into the data set's persons."""
    skipped: int
    """Persons asked for whose picture could not be read."""


class PersonCrops(Dataset[Batch]):
    """Crops of persons, fetched a batch at a time.

    Args:
        persons: Whom to cut out.
        images: Where the pictures are.
        joints: The joint set.
        image_size: Height and width of a crop.
        augmentation: What varies; nothing by default.
        seed: Seed of the random crops.
        broken: What to do with a picture that cannot be read: ``"stop"``, or ``"skip"`` its persons and count them.
        refill: Where none of a batch's persons can be read, take the next persons of the data set that can, so that
            every process has a batch at every step. A batch is then empty only where no picture at all can be read.
    """

    def __init__(
        self,
        persons: Sequence[Person],
        images: PictureSource,
        joints: JointSet,
        image_size: tuple[int, int] = (256, 192),
        augmentation: Augmentation = NO_AUGMENTATION,
        seed: int = 0,
        broken: Literal["stop", "skip"] = "stop",
        refill: bool = False,
    ) -> None:
        self.persons = list(persons)
        self.images = images
        self.joints = joints
        self.image_size = image_size
        self.augmentation = augmentation
        self.seed = seed
        self.broken = broken
        self.refill = refill
        self.skipped = 0

    def __len__(self) -> int:
        """The number of persons."""
        return len(self.persons)

    def __getitem__(self, key: Key) -> Batch:
        """One crop as a batch of one."""
        return self.__getitems__([key])

    def __getitems__(self, keys: Sequence[Key]) -> Batch:
        """The crops of a batch; persons of one picture share its decoding when their keys are neighbours."""
        batch = self._cut(keys)
        self.skipped += batch["skipped"]
        if self.refill and batch["skipped"] == len(keys) > 0:
            others = self._readable_after(keys)
            _logger.warning(
                "none of the %d persons of a batch could be read: %d others take their place", len(keys), len(others)
            )
            batch = {**self._cut(others), "skipped": len(keys)}
        return batch

    def _readable_after(self, keys: Sequence[Key]) -> list[Key]:
        """As many keys, of the persons that follow in the data set and can be read; fewer where there are not as many.

        They follow from the keys alone, so that neither workers nor a resumed run change them.
        """
        epoch, last = keys[-1]
        readable: dict[str, bool] = {}
        found: list[Key] = []
        for step in range(1, len(self.persons) + 1):
            index = (last + step) % len(self.persons)
            name = self.persons[index].file_name
            if name not in readable:
                readable[name] = self._read(self.persons[index]) is not None
            if readable[name]:
                found.append((epoch, index))
                if len(found) == len(keys):
                    break
        return found

    def _cut(self, keys: Sequence[Key]) -> Batch:
        height, width = self.image_size
        pixels = torch.empty(len(keys), height, width, 3, dtype=torch.uint8)
        joints = np.empty((len(keys), len(self.joints), 2), np.float32)
        visible = np.empty((len(keys), len(self.joints)), np.float32)
        held, picture = "", None
        used: list[int] = []
        for epoch, index in keys:
            person = self.persons[index]
            if person.file_name != held:
                held, picture = person.file_name, self._read(person)
            if picture is None:
                continue
            rng = np.random.default_rng((self.seed, epoch, index))
            crop = draw_crop(person, picture.shape[1], self.joints, self.image_size, self.augmentation, rng)
            row = len(used)
            cv2.warpAffine(picture, crop.matrix, (width, height), dst=pixels[row].numpy(), flags=cv2.INTER_LINEAR)
            joints[row], visible[row] = crop.joints, crop.visible
            used.append(index)
        rows = len(used)
        return {
            "image": pixels[:rows],
            "joints": torch.from_numpy(joints[:rows]),
            "visible": torch.from_numpy(visible[:rows]),
            "person": torch.tensor(used, dtype=torch.int64),
            "skipped": len(keys) - rows,
        }

    def _read(self, person: Person) -> np.ndarray | None:
        try:
            return self.images.read(person.file_name, person.size)
        except PoseDataError as error:
            if self.broken == "stop":
                raise
            _logger.warning("skipped: %s", error)
            return None


class PictureBatches(EpochBatches):
    """Batches in which the persons of one picture are neighbours, so that it is decoded once.

    Args:
        persons: The persons of the data set.
        batch_size: Persons a batch and process.
        shuffle: Whether to shuffle; else file order.
        **order: ``seed``, ``rank``, ``world_size`` and ``drop_last``, as `EpochBatches` takes them.
    """

    def __init__(self, persons: Sequence[Person], batch_size: int, *, shuffle: bool, **order: Any) -> None:
        pictures: dict[str, list[int]] = {}
        for index, person in enumerate(persons):
            pictures.setdefault(person.file_name, []).append(index)
        super().__init__(list(pictures.values()), batch_size, shuffle=shuffle, **order)


def crop_loader(
    dataset: PersonCrops,
    batches: PictureBatches,
    workers: int = 0,
    pin_memory: bool = False,
) -> DataLoader[Batch]:
    """A data loader over ``dataset`` in the order of ``batches``; set ``batches.epoch`` before each epoch."""
    return batch_loader(dataset, batches, workers, pin_memory, dataset.seed)


def prepare_images(pixels: torch.Tensor, dtype: torch.dtype = torch.float32) -> torch.Tensor:
    """Normalised network input of uint8 crops: (B, H, W, 3) -> (B, 3, H, W) in channels-last memory."""
    batch, height, width, _ = pixels.shape
    mean = (torch.tensor(MEAN, device=pixels.device) * 255).repeat(width)
    scale = (1 / (torch.tensor(STD, device=pixels.device) * 255)).repeat(width)
    rows = pixels.reshape(batch, height, width * 3)
    normal = torch.empty(rows.shape, device=pixels.device)
    # On a CPU both steps of a crop happen while it is in the cache; rows of all channels at once keep the loops long.
    for part, out in [(rows, normal)] if pixels.is_cuda else zip(rows, normal, strict=True):
        torch.sub(part, mean, out=out).mul_(scale)
    return normal.view(pixels.shape).to(dtype).permute(0, 3, 1, 2)
