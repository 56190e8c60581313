"""The recipe as typed sections; the defaults are DeiT's.

Numbers: facebookresearch/deit ``main.py`` (Touvron et al., "Training data-efficient image transformers",
arXiv 2012.12877), early stochastic depth: Liu et al., "Dropout Reduces Underfitting", arXiv 2303.01500.
How files and ``a.b=c`` overrides become a :class:`Recipe` is in ``cycledistill/recipes/config/overrides.py``.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

from cycledistill.recipes.config import sections
from cycledistill.recipes.config.overrides import Overrides, check, load
from cycledistill.recipes.config.packaged import packaged_names
from cycledistill.recipes.errors import RecipeError

from .data.augment import Augmentation
from .data.splits import ImageSource

__all__ = ["Recipe", "RecipeError", "list_recipes", "load_recipe"]

RENAMED = {
    "run.eval_every": "evaluate.every",
    "cyclic.exits": "evaluate.exits",
    "data.eval_batch_size": "evaluate.batch_size",
}
"""Keys of 0.1 that have the names of the other commands now; they are still taken."""


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
        check(0 <= self.drop < 1, "model.drop", self.drop, "a probability in [0, 1)")
        check(0 <= self.drop_path < 1, "model.drop_path", self.drop_path, "a probability in [0, 1)")
        check(self.img_size is None or self.img_size > 0, "model.img_size", self.img_size, "pixels, above 0")
        check(self.num_classes is None or self.num_classes > 1, "model.num_classes", self.num_classes, "at least 2")


@dataclass
class CyclicSection(sections.CyclicSection):
    """What ``wrap_cyclic`` gets, ``blocks`` included; ``cycles=1`` is the plain model."""

    cycles: int = 2
    blocks: str = "auto"


@dataclass
class DataSection(ImageSource):
    """Where the images are (:class:`~cycledistill.integrations.imagenet.data.splits.ImageSource`), and their batches.

    ``repeats``: repeated augmentation, how often an image appears in a row of the epoch; the epoch's length stays.
    """

    batch_size: int = 256
    workers: int = 8
    repeats: int = 3

    def __post_init__(self) -> None:
        check(self.batch_size >= 1, "data.batch_size", self.batch_size, "images a process and step, at least 1")
        check(self.workers >= 0, "data.workers", self.workers, "a number of processes, 0 or more")
        check(self.repeats >= 1, "data.repeats", self.repeats, "1 (off) or more")


@dataclass
class OptimSection(sections.OptimSection):
    """AdamW. ``lr`` is for 512 images a step and is scaled by the real number: lr * images / 512."""

    lr: float = 5e-4
    weight_decay: float = 0.05
    eps: float = 1e-8
    betas: list[float] = field(default_factory=lambda: [0.9, 0.999])
    clip_mode: Literal["norm", "value", "agc"] = "norm"

    def __post_init__(self) -> None:
        super().__post_init__()
        check(len(self.betas) == 2, "optim.betas", self.betas, "2 numbers")


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
        check(self.epochs >= 1, "schedule.epochs", self.epochs, "at least 1")
        expected = f"0 to schedule.epochs ({self.epochs})"
        check(0 <= self.warmup_epochs <= self.epochs, "schedule.warmup_epochs", self.warmup_epochs, expected)
        early = self.drop_path_epochs
        check(early is None or 0 < early <= self.epochs, "schedule.drop_path_epochs", early, "1" + expected[1:])


@dataclass
class EmaSection(sections.EmaSection):
    """Moving average of the weights; see :class:`cycledistill.recipes.config.sections.EmaSection`."""

    enabled: bool = True
    decay: float = 0.99996


@dataclass
class EvalSection(sections.EvalSection):
    """When and how accuracy is measured.

    ``exits`` empty: cycles 1 to one beyond those trained. The best checkpoint is that of the highest top-1 accuracy at
    ``best_exit``. ``batch_size`` empty: ``data.batch_size``.
    """

    every: int = 1
    best_exit: int = 1
    batch_size: int | None = None

    def __post_init__(self) -> None:
        super().__post_init__()
        check(self.best_exit >= 1, "evaluate.best_exit", self.best_exit, "at least 1")
        size = self.batch_size
        check(size is None or size >= 1, "evaluate.batch_size", size, "at least 1, or nothing")


@dataclass
class RunSection(sections.RunSection):
    """Where and how the run happens; see :class:`cycledistill.recipes.config.sections.RunSection`."""

    output: str = "runs/imagenet"


@dataclass
class Recipe(sections.BaseRecipe):
    """A whole run. ``Recipe()`` is DeiT-Tiny's recipe with two cycles and SDPose's distillation."""

    model: ModelSection = field(default_factory=ModelSection)
    cyclic: CyclicSection = field(default_factory=CyclicSection)
    data: DataSection = field(default_factory=DataSection)
    augment: Augmentation = field(default_factory=Augmentation)
    optim: OptimSection = field(default_factory=OptimSection)
    schedule: ScheduleSection = field(default_factory=ScheduleSection)
    ema: EmaSection = field(default_factory=EmaSection)
    evaluate: EvalSection = field(default_factory=EvalSection)
    run: RunSection = field(default_factory=RunSection)

    def __post_init__(self) -> None:
        even = self.data.batch_size % 2 == 0
        check(even or not self.augment.mixes, "data.batch_size", self.data.batch_size, "an even number (mixup, cutmix)")
        moving = self.schedule.drop_path_epochs is not None and self.schedule.drop_path_shape == "linear"
        if self.run.compile != "none" and moving:
            raise RecipeError(
                f"schedule.drop_path_shape='linear' with run.compile={self.run.compile}: drop path would change at "
                "every step, and the model be compiled or captured anew. Set it to 'constant' (two graphs), or "
                "run.compile=none."
            )

    @property
    def eval_batch_size(self) -> int:
        """Images a process and batch of evaluation."""
        return self.evaluate.batch_size or self.data.batch_size


def list_recipes() -> list[str]:
    """Names of the packaged recipes.

    Example:
        >>> "deit_tiny" in list_recipes()
        True
    """
    return packaged_names(__package__)


def load_recipe(
    source: str | Path | Mapping[str, Any] | None = None,
    overrides: Overrides = (),
) -> Recipe:
    """Read a recipe: the defaults, then a file, then overrides.

    Args:
        source: A YAML file, the name of a packaged one (see :func:`list_recipes`), a mapping, or nothing for the
            defaults. A file holds only what differs from the defaults.
        overrides: ``"section.key=value"`` strings, the value read as YAML, or dotted keys with values.

    Raises:
        RecipeError: A file that is not there or not YAML, an unknown key (the nearest known one is named), a value of
            the wrong type or out of range.

    Example::

        recipe = load_recipe("deit_tiny", ["data.dir=/data/imagenet", "cyclic.cycles=3", "optim.lr=1e-3"])
    """
    return load(Recipe, __package__, source, overrides, RENAMED)
