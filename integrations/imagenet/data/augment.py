"""Augmentation of training images: crops, RandAugment and erasing of one image, mixup and cutmix of a batch."""

from __future__ import annotations

from dataclasses import dataclass, field
from functools import partial
from typing import Any, Literal

from PIL import Image
from timm.data.mixup import Mixup
from timm.data.transforms_factory import create_transform

from cycledistill.recipes.config.overrides import check


@dataclass
class Augmentation:
    """Augmentation of the training images and the crop of evaluation."""

    auto: str | None = "rand-m9-mstd0.5-inc1"
    color_jitter: float = 0.4
    hflip: float = 0.5
    scale: list[float] = field(default_factory=lambda: [0.08, 1.0])
    ratio: list[float] = field(default_factory=lambda: [3 / 4, 4 / 3])
    interpolation: Literal["bicubic", "bilinear", "random"] = "bicubic"
    erase: float = 0.25
    erase_mode: Literal["pixel", "const", "rand"] = "pixel"
    mixup: float = 0.8
    cutmix: float = 1.0
    mix_prob: float = 1.0
    mix_switch: float = 0.5
    smoothing: float = 0.1
    crop_pct: float = 0.875
    mean: list[float] = field(default_factory=lambda: [0.485, 0.456, 0.406])
    std: list[float] = field(default_factory=lambda: [0.229, 0.224, 0.225])

    def __post_init__(self) -> None:
        for name in ("hflip", "erase", "mix_prob", "mix_switch"):
            value = getattr(self, name)
            check(0 <= value <= 1, f"augment.{name}", value, "a probability in [0, 1]")
        check(0 <= self.smoothing < 1, "augment.smoothing", self.smoothing, "a number in [0, 1)")
        check(0 < self.crop_pct <= 1, "augment.crop_pct", self.crop_pct, "a fraction in (0, 1]")
        check(min(self.mixup, self.cutmix) >= 0, "augment.mixup", self.mixup, "an alpha of 0 (off) or more")
        for name, length in (("scale", 2), ("ratio", 2), ("mean", 3), ("std", 3)):
            check(len(getattr(self, name)) == length, f"augment.{name}", getattr(self, name), f"{length} numbers")

    @property
    def mixes(self) -> bool:
        """Whether mixup or cutmix is on, which makes the targets soft."""
        return self.mix_prob > 0 and (self.mixup > 0 or self.cutmix > 0)

    @property
    def eval_interpolation(self) -> str:
        """How pictures are scaled that are evaluated."""
        return "bicubic" if self.interpolation == "random" else self.interpolation


def eval_transform(augment: Augmentation, img_size: int) -> Any:
    """From a picture to a normalised tensor (3, ``img_size``, ``img_size``), as the evaluation has it."""
    return create_transform(
        img_size,
        interpolation=augment.eval_interpolation,
        mean=tuple(augment.mean),
        std=tuple(augment.std),
        crop_pct=augment.crop_pct,
    )


def train_transform(augment: Augmentation, img_size: int) -> Any:
    """From a picture to a normalised, randomly changed tensor (3, ``img_size``, ``img_size``)."""
    settings: dict[str, Any] = {
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
    transform = create_transform(img_size, is_training=True, **settings)
    accept_zero_bits(transform)
    return transform


def create_mixup(augment: Augmentation, classes: int) -> Mixup | None:
    """Mixup and cutmix of timm for whole batches, or nothing when both are off."""
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
