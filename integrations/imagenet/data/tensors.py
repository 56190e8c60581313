"""Training images decoded and cropped as tensors: the pictures, crops and draws of the Pillow way, in less time.

TorchCodec decodes a JPEG to the very pixels Pillow does, and torchvision resizes bytes with vector instructions. What
follows (flip, RandAugment, colour jitter) stays with timm and Pillow, which are faster at it than tensors.
"""

from __future__ import annotations

import random
from typing import Any, BinaryIO

import numpy as np
import torch
from PIL import Image
from timm.data.random_erasing import RandomErasing
from timm.data.transforms import MaybeToTensor, RandomResizedCropAndInterpolation
from torch import Tensor
from torchvision.transforms.v2 import functional

from cycledistill.recipes.errors import DataError

ORIENTATION = 0x0112  # the Exif tag; TorchCodec turns pictures by it, timm's readers do not


def check_torchcodec() -> None:
    """Find out before a run whether TorchCodec is there.

    Raises:
        DataError: It is not installed, or does not load beside this PyTorch.
    """
    try:
        from torchcodec.decoders import decode_jpeg  # noqa: F401
    except (ImportError, OSError, RuntimeError) as error:  # the last two: libraries that do not load
        raise DataError(
            f"data.decoder=torchcodec: TorchCodec cannot be imported ({error}). "
            "pip install cycledistill[torchcodec], or pass data.decoder=pillow."
        ) from error


def decode(source: BinaryIO, image: Image.Image) -> Tensor:
    """The pixels of an opened image as bytes, (3, H, W); those of ``image.convert("RGB")`` bit for bit.

    What is no plain JPEG (PNG, CMYK, turned by Exif) is decoded by Pillow.

    Args:
        source: The file, open for reading.
        image: The same file as Pillow opened it; its pixels need not have been read.

    Raises:
        OSError: The JPEG is broken.
    """
    if image.format != "JPEG" or image.mode not in ("RGB", "L") or image.getexif().get(ORIENTATION, 1) != 1:
        return functional.pil_to_tensor(image.convert("RGB"))
    from torchcodec.decoders import decode_jpeg

    source.seek(0)
    try:
        return decode_jpeg(source.read())
    except RuntimeError as error:
        raise OSError(f"TorchCodec: {error}") from error


def take_tensors(transform: Any) -> None:
    """Let timm's transform of training pictures take bytes (3, H, W) instead of pictures.

    Every random number is drawn as before. The result differs by the rounding of resized bytes (at most 2 of 256 levels
    before RandAugment) and of normalisation (1e-6).
    """
    *changes, normalise = (step for step in transform.transforms if not isinstance(step, RandomErasing | MaybeToTensor))
    erase = [step for step in transform.transforms if isinstance(step, RandomErasing)]
    crop, *others = changes
    transform.transforms = [TensorCrop(crop), *others, PictureToTensor(normalise.mean, normalise.std), *erase]


class TensorCrop(RandomResizedCropAndInterpolation):
    """timm's crop of a random size, of bytes instead of a picture.

    Args:
        crop: The crop of pictures that has the size, the ranges and the interpolation.
    """

    def __init__(self, crop: RandomResizedCropAndInterpolation):
        vars(self).update(vars(crop))

    def __call__(self, image: Tensor) -> Image.Image:
        """From bytes (3, H, W) to the picture of the crop."""
        top, left, height, width = self.get_params(image, self.scale, self.ratio)
        choices = self.interpolation
        interpolation = random.choice(choices) if isinstance(choices, tuple) else choices
        crop = functional.resized_crop(image, top, left, height, width, list(self.size), interpolation)
        return Image.fromarray(crop.permute(1, 2, 0).contiguous().numpy())


class PictureToTensor:
    """From a picture to normalised numbers (3, H, W), in one pass over them.

    Args:
        mean: Of the three channels, as fractions of white.
        std: Their standard deviations.
    """

    def __init__(self, mean: Tensor, std: Tensor):
        self.mean, self.factor = (255 * mean).view(3, 1, 1), (1 / (255 * std)).view(3, 1, 1)

    def __call__(self, picture: Image.Image) -> Tensor:
        """Convert one picture."""
        values = torch.from_numpy(np.array(picture)).permute(2, 0, 1)
        return torch.empty(values.shape).copy_(values).sub_(self.mean).mul_(self.factor)
