"""Classes of photographs, by a vision transformer of timm."""

from __future__ import annotations

import functools
import io
import math
from collections.abc import Iterator
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import timm
import torch
from PIL import Image
from sklearn.datasets import load_digits
from torch import Tensor, nn
from torch.nn import functional as F

from cycledistill.recipes.reading.guard import PARQUET, reading

from ..errors import StudyError
from ..expected import FLAG, FOLDER, Settings, number, whole
from ..plan import Network
from .task import Inputs, draw

_NAMES = ("train", "test"), ("train", "validation")


class Pictures:
    """Top-1 over the classes of a set of square pictures.

    Args:
        set: Name of a folder of ``data`` with ``train.parquet`` and ``test.parquet`` or ``validation.parquet``, columns
            ``image{bytes}`` and ``label``; or ``digits``, scikit-learn's 1,797, of which 1,000 are trained on.
        size: Pixels of a side.
        patch: Pixels of a patch's side.
        shift: Pixels by which pictures are shifted at random.
        area: Least share of a picture that a random resized crop takes; 1 for none.
        flip: Whether they are mirrored at random.
        smoothing: Of the labels.
        held_out: Training pictures that are tested instead of the test set, for choosing settings.
    """

    blocks = "blocks"
    confidence = "probability"
    settings: ClassVar[Settings] = {
        "set": FOLDER,
        "size": whole(1),
        "patch": whole(1, lambda patch, given: given["size"] % patch == 0, "that divides size"),
        "shift": whole(0, lambda shift, given: shift < given["size"], "and below size"),
        "flip": FLAG,
        "smoothing": number("from 0 to below 1", lambda share: 0 <= share < 1),
        "area": number("above 0 and at most 1", lambda share: 0 < share <= 1, needed=False),
        "held_out": whole(0, needed=False),
    }

    def __init__(
        self,
        *,
        set: str,
        size: int,
        patch: int,
        shift: int,
        flip: bool,
        smoothing: float,
        area: float = 1.0,
        held_out: int = 0,
        data: Path | None,
        device: torch.device,
    ) -> None:
        self.size, self.patch, self.shift, self.flip, self.smoothing = size, patch, shift, flip, smoothing
        self.area = area
        train, test = digits() if set == "digits" else parquet(set, data)
        if train[0].shape[-1] != size:
            raise StudyError(f"{set}: pictures of {train[0].shape[-1]} pixels; the plan says size: {size}")
        if held_out >= len(train[1]):
            raise StudyError(f"task.held_out: got {held_out}, fewer than {set}'s {len(train[1])} training pictures")
        if held_out:
            order = torch.randperm(len(train[1]), generator=draw(0))
            test = tuple(each[order[:held_out]] for each in train)
            train = tuple(each[order[held_out:]] for each in train)
        self.classes = int(train[1].max()) + 1
        padded = F.pad(train[0].float(), (shift,) * 4, mode="reflect").to(torch.uint8) if shift else train[0]
        self.train = padded.to(device), train[1].to(device)
        self.tested = test[0].to(device), test[1].to(device)
        self.channels = train[0].shape[1]
        self.example = (torch.zeros(1, self.channels, size, size),)
        self.device = device

    def network(self, size: Network) -> nn.Module:
        """See `Task`."""
        return timm.create_model(
            "vit_tiny_patch16_224", img_size=self.size, patch_size=self.patch, in_chans=self.channels,
            num_classes=self.classes, embed_dim=size.width, depth=size.depth, num_heads=size.heads,
            drop_path_rate=size.drop_path,
        )  # fmt: skip

    def batch(self, seed: int, step: int, size: int) -> tuple[Tensor, Inputs]:
        """See `Task`; whole epochs are shuffled, each by itself, and their last pictures short of a batch are left."""
        images, labels = self.train
        index = shuffled(len(labels), seed, step, size).to(self.device)
        generator = draw(seed, step, 1, device=self.device)
        random = functools.partial(torch.randint, generator=generator, device=self.device)
        along = torch.arange(self.size, device=self.device)
        rows, columns = random(2 * self.shift + 1, (2, len(index), 1)) + along
        if self.flip:
            columns = torch.where(random(2, (len(index), 1)) == 1, columns.flip(1), columns)
        channels = torch.arange(self.channels, device=self.device)
        at = index[:, None, None, None], channels[None, :, None, None], rows[:, None, :, None], columns[:, None, None]
        pictures = normalised(images[at])
        if self.area < 1:
            pictures = resized_crops(pictures, self.area, generator)
        return pictures, (labels[index],)

    def loss(self, output: Tensor, *target: Tensor) -> Tensor:
        """Cross-entropy with smoothed labels."""
        return F.cross_entropy(output.float(), target[0], label_smoothing=self.smoothing)

    def test(self) -> Iterator[tuple[str, Tensor, Inputs]]:
        """See `Task`."""
        for images, labels in zip(*(each.split(500) for each in self.tested), strict=True):
            yield "", normalised(images), (labels,)

    def right(self, output: Tensor, *target: Tensor) -> dict[str, Tensor]:
        """Whether the class is right (``top1``)."""
        return {"top1": (output.argmax(1) == target[0]).float()}


def normalised(images: Tensor) -> Tensor:
    """Bytes to numbers in [-1, 1]."""
    return images.float() / 127.5 - 1


def resized_crops(images: Tensor, least: float, generator: torch.Generator) -> Tensor:
    """A box of at least that share of the area, at 3/4 to 4/3 of the sides' ratio, of every image (B, C, S, S)."""
    area, ratio, x, y = torch.rand(4, len(images), generator=generator, device=images.device)
    area, ratio = least + (1 - least) * area, torch.exp((2 * ratio - 1) * math.log(4 / 3))
    width, height = (area * ratio).sqrt().clamp(max=1), (area / ratio).sqrt().clamp(max=1)
    theta = torch.zeros(len(images), 2, 3, device=images.device)
    theta[:, 0, 0], theta[:, 1, 1] = width, height
    theta[:, 0, 2], theta[:, 1, 2] = (2 * x - 1) * (1 - width), (2 * y - 1) * (1 - height)
    grid = F.affine_grid(theta, list(images.shape), align_corners=False)
    return F.grid_sample(images, grid, padding_mode="reflection", align_corners=False)


def shuffled(count: int, seed: int, step: int, size: int) -> Tensor:
    """Which of so many samples are in a step's batch."""
    a_pass = max(1, count // size)
    return _order(seed, step // a_pass, count)[step % a_pass * size : (step % a_pass + 1) * size]


@functools.lru_cache(maxsize=2)
def _order(seed: int, epoch: int, count: int) -> Tensor:
    return torch.randperm(count, generator=draw(seed, epoch, 0))


def digits() -> tuple[tuple[Tensor, Tensor], tuple[Tensor, Tensor]]:
    """Scikit-learn's digits as bytes (N, 1, 8, 8), and their labels: 1,000 to train on, 797 to test on."""
    found = load_digits()
    order = np.random.RandomState(123).permutation(len(found.target))
    images = torch.tensor(found.images[order] * (255 / 16), dtype=torch.uint8)[:, None]
    labels = torch.tensor(found.target[order])
    return (images[:1000], labels[:1000]), (images[1000:], labels[1000:])


def parquet(name: str, data: Path | None) -> tuple[tuple[Tensor, Tensor], tuple[Tensor, Tensor]]:
    """A set of Parquet files as bytes (N, 3, S, S) and labels (N,), to train and to test on."""
    if data is None:
        raise StudyError(f"the pictures of {name} are not in the package: give --data, the folder that holds {name}/")
    for names in _NAMES:
        files = [data / name / f"{each}.parquet" for each in names]
        if all(file.is_file() for file in files):
            train, test = (_decoded(file) for file in files)
            return train, test
    raise StudyError(f"{data / name} holds no train.parquet beside test.parquet or validation.parquet")


def _decoded(file: Path) -> tuple[Tensor, Tensor]:
    import pyarrow.parquet as pq

    with reading(file, PARQUET, StudyError):
        rows: Any = pq.read_table(file, columns=["image", "label"])
        encoded, labels = rows["image"].to_pylist(), torch.tensor(rows["label"].to_pylist())
        pictures = [np.asarray(Image.open(io.BytesIO(row["bytes"])).convert("RGB")) for row in encoded]
    sizes = sorted({picture.shape[:2] for picture in pictures})
    if len(sizes) != 1 or sizes[0][0] != sizes[0][1]:
        raise StudyError(f"{file.name} holds pictures of sizes {sizes[:3]}: one square size is expected")
    return torch.from_numpy(np.stack(pictures)).permute(0, 3, 1, 2).contiguous(), labels
