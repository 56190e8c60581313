"""The recipe of a training run as typed sections; the defaults are multi-view PPT's on Human3.6M.

How files and ``a.b=c`` overrides become a :class:`Recipe` is in ``cycledistill/recipes/config/overrides.py``.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Literal

from cycledistill.recipes.config import sections
from cycledistill.recipes.config.overrides import check
from cycledistill.recipes.config.sections import CyclicSection, EmaSection
from cycledistill.recipes.errors import RecipeError

__all__ = ["Recipe", "RecipeError", "list_recipes", "load_recipe"]


@dataclass
class ModelSection(sections.ModelSection):
    """The model, a ``multiview_ppt``: ``options`` are fields of `MultiViewConfig`, ``weights`` a file to start from.

    ``from_coco``: ``weights`` are of a single-view PPT-S that was trained on COCO, see `start_from_coco`.
    """

    name: str = "multiview_ppt"
    from_coco: bool = False

    def __post_init__(self) -> None:
        check(not self.from_coco or bool(self.weights), "model.from_coco", True, "model.weights beside it")


@dataclass
class DataSection:
    """Where moments come from.

    ``source``: ``human36m`` (``root``, with ``train_subjects`` and ``test_subjects``; see ``data/human36m.py``),
    ``folders`` (``train`` and ``test``, a recording or a folder of recordings each; ``calibration`` and ``unit`` where
    these do not say it; see ``data/folders.py``) or ``generated`` (``moments`` of ``views`` cameras, pictures of
    ``size`` pixels). ``cameras``: those that count, by name. ``train_every``, ``test_every``: pictures whose number is
    a multiple of it. ``least_views``: fewest views of a moment; one that lacks others goes without them. ``padding``:
    by which boxes are enlarged. ``layout``: the joints, for checks and for the pelvis. ``batch_size``: moments a
    process and step.
    """

    source: Literal["generated", "folders", "human36m"] = "human36m"
    root: str | None = None
    train: str | None = None
    test: str | None = None
    calibration: str | None = None
    unit: str | None = None
    train_subjects: list[str] = field(default_factory=lambda: ["S1", "S5", "S6", "S7", "S8"])
    test_subjects: list[str] = field(default_factory=lambda: ["S9", "S11"])
    cameras: list[str] | None = None
    train_every: int = 1
    test_every: int = 1
    least_views: int = 2
    padding: float = 1.25
    layout: Literal["h36m", "coco", "other"] = "h36m"
    moments: int = 64
    views: int = 4
    size: int = 256
    batch_size: int = 8
    workers: int = 0

    def __post_init__(self) -> None:
        for name in ("train_every", "test_every", "least_views", "moments", "batch_size"):
            check(getattr(self, name) >= 1, f"data.{name}", getattr(self, name), "at least 1")
        check(self.views >= 2, "data.views", self.views, "at least 2")
        check(self.size >= 32, "data.size", self.size, "pixels, at least 32")
        check(self.padding > 0, "data.padding", self.padding, "a number above 0")
        check(self.workers >= 0, "data.workers", self.workers, "a number of processes, 0 or more")


@dataclass
class LossSection:
    """Squared errors of heatmaps, summed over views, times ``scale``. ``sigma``: the targets', heatmap pixels."""

    scale: float = 0.5
    sigma: float = 2.0

    def __post_init__(self) -> None:
        for name in ("scale", "sigma"):
            check(getattr(self, name) > 0, f"loss.{name}", getattr(self, name), "a number above 0")


@dataclass
class OptimSection(sections.OptimSection):
    """Adam. ``lr`` is for the whole batch as it is; it is not scaled."""

    name: Literal["adam", "adamw"] = "adam"
    lr: float = 1e-3


@dataclass
class ScheduleSection:
    """The rate is multiplied by ``gamma`` at each of ``milestones`` (epochs), after a linear warm-up by steps.

    ``cosine`` replaces the milestones by half a cosine to 0 over all epochs.
    """

    epochs: int = 20
    milestones: list[int] = field(default_factory=lambda: [10, 15])
    gamma: float = 0.1
    cosine: bool = False
    warmup_steps: int = 0

    def __post_init__(self) -> None:
        check(self.epochs >= 1, "schedule.epochs", self.epochs, "at least 1")
        check(self.warmup_steps >= 0, "schedule.warmup_steps", self.warmup_steps, "0 or more")
        check(0 < self.gamma <= 1, "schedule.gamma", self.gamma, "a fraction above 0")
        rising = sorted(set(self.milestones)) == self.milestones and min(self.milestones, default=1) > 0
        check(rising, "schedule.milestones", self.milestones, "epochs above 0, ascending")


@dataclass
class EvalSection(sections.EvalSection):
    """When and how joints and poses are measured. No checkpoint is chosen by them: there is no validation set.

    ``decode``: of heatmaps; the authors' is ``quarter``. ``head_size``: pixels of the pictures, half of which a
    detected joint may be off (JDR); 25.6 is the published one for pictures of 1000 pixels. ``threshold``: pixels that a
    view may be off for a joint to be triangulated from it.
    """

    every: int = 1
    decode: Literal["dark", "quarter", "none"] = "dark"
    head_size: float = 25.6
    threshold: float = 20.0
    batch_size: int = 8

    def __post_init__(self) -> None:
        super().__post_init__()
        check(self.batch_size >= 1, "evaluate.batch_size", self.batch_size, "at least 1")
        for name in ("head_size", "threshold"):
            check(getattr(self, name) > 0, f"evaluate.{name}", getattr(self, name), "pixels, above 0")


@dataclass
class RunSection(sections.RunSection):
    """Where and how the run happens; see :class:`cycledistill.recipes.config.sections.RunSection`."""

    output: str = "runs/multiview"


@dataclass
class Recipe(sections.BaseRecipe):
    """A whole run. ``Recipe()`` is multi-view PPT's; ``cyclic.cycles`` empty leaves it as it is."""

    model: ModelSection = field(default_factory=ModelSection)
    cyclic: CyclicSection = field(default_factory=CyclicSection)
    data: DataSection = field(default_factory=DataSection)
    loss: LossSection = field(default_factory=LossSection)
    optim: OptimSection = field(default_factory=OptimSection)
    schedule: ScheduleSection = field(default_factory=ScheduleSection)
    ema: EmaSection = field(default_factory=EmaSection)
    evaluate: EvalSection = field(default_factory=EvalSection)
    run: RunSection = field(default_factory=RunSection)


RECIPES = sections.RecipeReader(Recipe, __package__)
list_recipes, load_recipe = RECIPES.names, RECIPES.load
"""Names of the packaged recipes; and a recipe from one of these, a file or a mapping, with overrides."""
