"""Pictures as a classifier's evaluation prepares them, whatever they come from."""

from __future__ import annotations

import io
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image, ImageOps
from timm.data.config import resolve_model_data_config
from timm.data.loader import fast_collate
from timm.data.transforms_factory import create_transform
from torch import Tensor, nn

from cycledistill.recipes.errors import CheckpointError, DataError
from cycledistill.recipes.reading.guard import PICTURE, reading
from cycledistill.recipes.reading.pixels import to_rgb
from cycledistill.recipes.reading.stored import StoredFiles


@dataclass(frozen=True)
class Pillow:
    """Reads pictures as the readers of data sets do; a `Decoder`.

    Attributes:
        exif: Whether they are turned as their EXIF data says. Evaluation, and training, take them as they are stored.
    """

    exif: Literal["apply", "ignore"] = "ignore"

    def __call__(self, root: Path) -> Callable[[str], NDArray[np.uint8]]:
        """What reads a picture by name."""
        files = StoredFiles(root)

        def read(name: str) -> NDArray[np.uint8]:
            data = files.read_bytes(name)
            with reading(root / name, PICTURE, DataError), Image.open(io.BytesIO(data)) as image:
                return self.pixels(image)
            raise AssertionError  # `reading` swallows nothing

        return read

    def pixels(self, image: Image.Image) -> NDArray[np.uint8]:
        """RGB bytes (H, W, 3) of a picture that Pillow opened."""
        shown = image if self.exif == "ignore" else ImageOps.exif_transpose(image)
        return np.array(to_rgb(shown, image.format))


@dataclass(frozen=True)
class Preparation:
    """How pictures become a model's input: scaled, cropped, and normalised on its device, as in evaluation.

    Attributes:
        size: Height and width of the input, pixels.
        mean: Of the three channels, as fractions of white.
        std: Their standard deviations.
        crop_pct: The part of the scaled picture that is taken.
        crop_mode: How: ``"center"``, or another of timm's.
        interpolation: How pictures are scaled.
    """

    size: tuple[int, int]
    mean: tuple[float, ...]
    std: tuple[float, ...]
    crop_pct: float
    crop_mode: str = "center"
    interpolation: str = "bicubic"

    @classmethod
    def of(cls, model: nn.Module) -> Preparation:
        """What a model says of itself, as timm's do: by its run's recipe, where a run trained it.

        Raises:
            CheckpointError: It takes no RGB images.
        """
        said = resolve_model_data_config(model)
        channels, *size = said["input_size"]
        if channels != 3:
            raise CheckpointError(f"the model takes images of {channels} channels; one of RGB images is expected")
        mean, std = (tuple(map(float, said[name])) for name in ("mean", "std"))
        return cls((size[0], size[1]), mean, std, said["crop_pct"], said["crop_mode"], said["interpolation"])

    @cached_property
    def transform(self) -> Any:
        """From a PIL image to bytes (3, H, W)."""
        return create_transform(
            self.size,
            interpolation=self.interpolation,
            mean=self.mean,
            std=self.std,
            crop_pct=self.crop_pct,
            crop_mode=self.crop_mode,
            use_prefetcher=True,
        )

    def crop(self, pixels: NDArray[np.uint8]) -> Tensor:
        """RGB bytes of any size, (H, W, 3), to those of the input, (3, H, W)."""
        found: Tensor = self.transform(Image.fromarray(pixels))
        return found

    def batch(self, crops: Sequence[Tensor], device: torch.device) -> Tensor:
        """Bytes (3, H, W) of several pictures to numbers (B, 3, H, W), the arithmetic of timm's loader.

        Its `PrefetchLoader` itself would wait for the next batch before it gives one.
        """
        images, _ = fast_collate([(each, 0) for each in crops])
        mean, std = (
            torch.tensor([255 * each for each in numbers], device=device).view(1, -1, 1, 1)
            for numbers in (self.mean, self.std)
        )
        numbers: Tensor = images.to(device).float().sub_(mean).div_(std)
        return numbers
