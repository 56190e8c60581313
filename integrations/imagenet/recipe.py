"""The recipe as typed sections; the defaults are DeiT's.

Numbers: facebookresearch/deit ``main.py`` (Touvron et al., "Training data-efficient image transformers",
arXiv 2012.12877), early stochastic depth: Liu et al., "Dropout Reduces Underfitting", arXiv 2303.01500.
How files and ``a.b=c`` overrides become a :class:`Recipe` is in ``cycledistill/recipes/overrides.py``.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

from cycledistill.recipes.config.distillation import read_distill
from cycledistill.recipes.config.overrides import Overrides, as_dict, load
from cycledistill.recipes.config.overrides import check as _check
from cycledistill.recipes.errors import RecipeError

__all__ = ["Recipe", "RecipeError", "load_recipe"]


@dataclass
class ModelSection:
    """The timm model.

    ``img_size`` and ``num_classes`` left empty mean the model's own size and the data set's classes. ``kwargs`` go
    to ``timm.create_model`` as they are (``depth``, ``embed_dim``, ``patch_size``, ...).
    """

    name: str = "deit_tiny_patch16_224"
    img_size: int | None = None
    num_classes: int | None = None
    pretrained: bool = False
    drop: float = 0.0
    drop_path: float = 0.1
    kwargs: dict[str, Any] = field(default_factory=dict)

    def __post_init__(self) -> None:
        _check(0 <= self.drop < 1, "model.drop", self.drop, "a probability in [0, 1)")
        _check(0 <= self.drop_path < 1, "model.drop_path", self.drop_path, "a probability in [0, 1)")
        _check(self.img_size is None or self.img_size > 0, "model.img_size", self.img_size, "pixels, above 0")
        _check(self.num_classes is None or self.num_classes > 1, "model.num_classes", self.num_classes, "at least 2")


@dataclass
class CyclicSection:
    """What ``wrap_cyclic`` gets.

    ``distill`` is a preset's name, nothing, or a mapping of ``Distill`` fields; with the key ``preset`` the mapping
    changes that preset (``{preset: sdpose, token_weight: 0.01}``). ``exits`` are the cycles evaluated (default: 1 to
    ``cycles`` + 1).
    """

    cycles: int = 2
    distill: str | dict[str, Any] | None = "sdpose"
    blocks: str = "auto"
    exits: list[int] | None = None

    def __post_init__(self) -> None:
        _check(self.cycles >= 1, "cyclic.cycles", self.cycles, "a whole number of at least 1 (1 = the plain model)")
        read_distill(self.distill)
        exits = self.exits
        _check(exits is None or (len(exits) > 0 and min(exits) >= 1), "cyclic.exits", exits, "cycles, each at least 1")


@dataclass
class DataSection:
    """Where the images are and how they are read.

    ``dataset`` empty: found out from what lies under ``dir`` (Parquet files, class folders or tar files named after
    the split). Otherwise one of timm's names: ``hfds/...``, ``hfids/...``, ``wds/...``, ``tfds/...``.
    ``broken_images``: ``stop`` names the file and ends the run, ``skip`` takes the next image instead (timm's way).
    ``repeats``: repeated augmentation, how often an image appears in a row of the epoch; the epoch's length stays.
    """

    dir: str | None = None
    dataset: str = ""
    train_split: str = "train"
    val_split: str = "validation"
    batch_size: int = 256
    eval_batch_size: int | None = None
    workers: int = 8
    repeats: int = 3
    broken_images: Literal["stop", "skip"] = "stop"

    def __post_init__(self) -> None:
        _check(self.batch_size >= 1, "data.batch_size", self.batch_size, "images a process and step, at least 1")
        _check(self.workers >= 0, "data.workers", self.workers, "a number of processes, 0 or more")
        _check(self.repeats >= 1, "data.repeats", self.repeats, "1 (off) or more")


@dataclass
class AugmentSection:
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
            _check(0 <= value <= 1, f"augment.{name}", value, "a probability in [0, 1]")
        _check(0 <= self.smoothing < 1, "augment.smoothing", self.smoothing, "a number in [0, 1)")
        _check(0 < self.crop_pct <= 1, "augment.crop_pct", self.crop_pct, "a fraction in (0, 1]")
        _check(min(self.mixup, self.cutmix) >= 0, "augment.mixup", self.mixup, "an alpha of 0 (off) or more")
        for name, length in (("scale", 2), ("ratio", 2), ("mean", 3), ("std", 3)):
            _check(len(getattr(self, name)) == length, f"augment.{name}", getattr(self, name), f"{length} numbers")

    @property
    def mixes(self) -> bool:
        """Whether mixup or cutmix is on, which makes the targets soft."""
        return self.mix_prob > 0 and (self.mixup > 0 or self.cutmix > 0)


@dataclass
class OptimSection:
    """AdamW. ``lr`` is for 512 images a step and is scaled by the real number: lr * images / 512."""

    name: str = "adamw"
    lr: float = 5e-4
    weight_decay: float = 0.05
    eps: float = 1e-8
    betas: list[float] = field(default_factory=lambda: [0.9, 0.999])
    clip: float | None = None
    clip_mode: Literal["norm", "value", "agc"] = "norm"

    def __post_init__(self) -> None:
        _check(self.lr > 0, "optim.lr", self.lr, "a number above 0")
        _check(self.weight_decay >= 0, "optim.weight_decay", self.weight_decay, "0 or more")
        _check(self.clip is None or self.clip > 0, "optim.clip", self.clip, "a number above 0, or nothing for no clip")
        _check(len(self.betas) == 2, "optim.betas", self.betas, "2 numbers")


@dataclass
class ScheduleSection:
    """Cosine with linear warm-up, and how long drop path is on.

    ``per_step`` moves the rate at every step; DeiT moves it once an epoch. ``drop_path_epochs`` switches drop path off
    after so many epochs (early stochastic depth), constant until then or falling linearly to 0.
    """

    epochs: int = 300
    warmup_epochs: int = 5
    warmup_lr: float = 1e-6
    min_lr: float = 1e-5
    per_step: bool = False
    drop_path_epochs: int | None = None
    drop_path_shape: Literal["constant", "linear"] = "linear"

    def __post_init__(self) -> None:
        _check(self.epochs >= 1, "schedule.epochs", self.epochs, "at least 1")
        expected = f"0 to schedule.epochs ({self.epochs})"
        _check(0 <= self.warmup_epochs <= self.epochs, "schedule.warmup_epochs", self.warmup_epochs, expected)
        early = self.drop_path_epochs
        _check(early is None or 0 < early <= self.epochs, "schedule.drop_path_epochs", early, "1" + expected[1:])


@dataclass
class EmaSection:
    """Moving average of the weights (timm's ModelEmaV3). ``warmup`` lets short runs forget the initial weights."""

    enabled: bool = True
    decay: float = 0.99996
    warmup: bool = False

    def __post_init__(self) -> None:
        _check(0 < self.decay < 1, "ema.decay", self.decay, "a number between 0 and 1")


@dataclass
class RunSection:
    """Where and how the run happens. ``max_steps`` ends it early, with a checkpoint to go on from."""

    output: str = "runs/imagenet"
    device: str = "auto"
    seed: int = 0
    precision: Literal["fp32", "bf16", "fp16"] = "fp32"
    compile: bool = False
    compile_backend: str = "inductor"
    max_steps: int | None = None
    eval_every: int = 1
    save_every_steps: int | None = None
    keep: int = 2
    log_every: int = 50
    tensorboard: bool = False
    progress: bool = True

    def __post_init__(self) -> None:
        for name in ("eval_every", "keep", "log_every"):
            _check(getattr(self, name) >= 1, f"run.{name}", getattr(self, name), "at least 1")
        for name in ("max_steps", "save_every_steps"):
            value = getattr(self, name)
            _check(value is None or value >= 1, f"run.{name}", value, "at least 1, or nothing")
        _check(self.seed >= 0, "run.seed", self.seed, "0 or more")


@dataclass
class Recipe:
    """A whole run. ``Recipe()`` is DeiT-Tiny's recipe with two cycles and SDPose's distillation."""

    model: ModelSection = field(default_factory=ModelSection)
    cyclic: CyclicSection = field(default_factory=CyclicSection)
    data: DataSection = field(default_factory=DataSection)
    augment: AugmentSection = field(default_factory=AugmentSection)
    optim: OptimSection = field(default_factory=OptimSection)
    schedule: ScheduleSection = field(default_factory=ScheduleSection)
    ema: EmaSection = field(default_factory=EmaSection)
    run: RunSection = field(default_factory=RunSection)

    def __post_init__(self) -> None:
        even = self.data.batch_size % 2 == 0
        _check(
            even or not self.augment.mixes, "data.batch_size", self.data.batch_size, "an even number (mixup, cutmix)"
        )
        moving = self.schedule.drop_path_epochs is not None and self.schedule.drop_path_shape == "linear"
        if self.run.compile and moving:
            raise RecipeError(
                "schedule.drop_path_shape='linear' changes the compiled model at every step: "
                "set it to 'constant' (two graphs), or run.compile=false."
            )

    def to_dict(self) -> dict[str, Any]:
        """The whole recipe as plain data, as YAML and JSON can hold it."""
        return as_dict(self)


def load_recipe(
    source: str | Path | Mapping[str, Any] | None = None,
    overrides: Overrides = (),
) -> Recipe:
    """Read a recipe: the defaults, then a file, then overrides.

    Args:
        source: A YAML file, the name of a packaged one (``"deit_tiny"``, ``"imagenette_96"``, ``"cifar10_32"``,
            ``"cpu_96"``; with or without ``.yaml``), a mapping, or nothing for the defaults. A file holds only what
            differs from the defaults.
        overrides: ``"section.key=value"`` strings, the value read as YAML, or dotted keys with values.

    Raises:
        RecipeError: A file that is not there or not YAML, an unknown key (the nearest known one is named), a value of
            the wrong type or out of range.

    Example::

        config = load_recipe("deit_tiny", ["data.dir=/data/imagenet", "cyclic.cycles=3", "optim.lr=1e-3"])
    """
    return load(Recipe, __package__, source, overrides)
