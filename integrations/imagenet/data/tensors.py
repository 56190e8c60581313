"""Training images as bytes: decoded and cropped as tensors, and made numbers of no earlier than on the device.

TorchCodec decodes a JPEG to the very pixels Pillow does, and torchvision resizes bytes with vector instructions. What
follows (flip, RandAugment, colour jitter) stays with timm and Pillow, which are faster at it than tensors. A batch of
bytes is a quarter of one of numbers, which cost a worker time to make and to copy.

Crops, flips and what follows draw the numbers that they draw the Pillow way; resized bytes differ by rounding, at most
2 of 256 levels. Only erasing draws others, since it happens to the batch.
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
from cycledistill.recipes.reading.pixels import to_rgb
from cycledistill.versions import require

ORIENTATION = 0x0112  # the Exif tag; TorchCodec turns pictures by it, timm's readers do not


def check_torchcodec() -> None:
    """Find out before a run whether TorchCodec is there.

    Raises:
        DataError: It is not installed, or does not load beside this PyTorch.
    """
    require("torchcodec")
    try:
        from torchcodec.decoders import decode_jpeg  # noqa: F401
    except (ImportError, OSError, RuntimeError) as error:  # the last two: libraries that do not load
        raise DataError(
            f"data.decoder=torchcodec: TorchCodec cannot be imported ({error}). "
            "pip install cycledistill[torchcodec], or pass data.decoder=pillow."
        ) from error


def decode(source: BinaryIO, image: Image.Image) -> Tensor:
    """The pixels of an opened image as bytes, (3, H, W); those of `to_rgb`, bit for bit.

    What is no plain JPEG (PNG, CMYK, turned by Exif) is decoded by Pillow.

    Args:
        source: The file, open for reading.
        image: The same file as Pillow opened it; its pixels need not have been read.

    Raises:
        OSError: The JPEG is broken.
    """
    if image.format != "JPEG" or image.mode not in ("RGB", "L") or image.getexif().get(ORIENTATION, 1) != 1:
        return functional.pil_to_tensor(to_rgb(image))
    from torchcodec.decoders import decode_jpeg

    source.seek(0)
    try:
        return decode_jpeg(source.read())
    except RuntimeError as error:
        raise OSError(f"TorchCodec: {error}") from error


def leave_bytes(transform: Any) -> Finish:
    """Let timm's transform of training pictures take bytes (3, H, W) and end in bytes (H, W, 3).

    Returns:
        What is left to be done with a batch of them on its device.
    """
    erase = next((step for step in transform.transforms if isinstance(step, RandomErasing)), None)
    *changes, normalise = (step for step in transform.transforms if not isinstance(step, RandomErasing | MaybeToTensor))
    crop, *others = changes
    transform.transforms = [TensorCrop(crop), *others, as_bytes]
    return Finish(normalise.mean, normalise.std, erase)


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


def as_bytes(picture: Image.Image) -> Tensor:
    """A picture as bytes (H, W, 3)."""
    return torch.from_numpy(np.array(picture))


class Finish:
    """Normalise a batch of bytes and erase places in it, on the device it is on.

    Erasing draws from the generators as they are: in a run from the step's seed, and on a GPU from the GPU's generator.

    Args:
        mean: Of the three channels, as fractions of white.
        std: Their standard deviations.
        erase: timm's random erasing, or nothing.
    """

    def __init__(self, mean: Tensor, std: Tensor, erase: RandomErasing | None):
        self.mean, self.factor = (255 * mean).view(3, 1, 1), (1 / (255 * std)).view(3, 1, 1)
        self.erase = erase

    def __call__(self, images: Tensor) -> Tensor:
        """Bytes (B, H, W, 3) to numbers (B, 3, H, W)."""
        if self.mean.device != images.device:  # once: a copy from the CPU would wait for the device at every step
            self.mean, self.factor = self.mean.to(images.device), self.factor.to(images.device)
        images = images.permute(0, 3, 1, 2).to(torch.float32, memory_format=torch.contiguous_format)
        images = images.sub_(self.mean).mul_(self.factor)
        if self.erase is None:
            return images
        self.erase.device = images.device
        return self.erase(images)
