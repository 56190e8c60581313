"""The recipe of a training run as typed sections; the defaults are MixSTE's on Human3.6M, without the hourglass.

How files and ``a.b=c`` overrides become a :class:`Recipe` is in ``cycledistill/recipes/config/overrides.py``.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any, Literal

from cycledistill.recipes.config import sections
from cycledistill.recipes.config.overrides import check
from cycledistill.recipes.config.sections import CyclicSection, EmaSection
from cycledistill.recipes.errors import RecipeError

from .data.dataset import Flip
from .data.h36m import TEST_SUBJECTS, TRAIN_SUBJECTS
from .data.mpi_inf_3dhp.hdf5 import Annotation

__all__ = ["Recipe", "RecipeError", "list_recipes", "load_recipe"]

Border = Literal["mask", "official"]


@dataclass
class ModelSection(sections.ModelSection):
    """The lifting model: a name for ``create_lifter``, options it takes, weights to start from.

    ``frames`` and ``in_channels`` follow from ``data``. ``resize``: ``weights`` for another clip length have their
    tables over frames interpolated; else they are refused.
    """

    name: str = "mixste"
    resize: bool = False


@dataclass
class HourglassSection:
    """Frame pruning and recovery, as ``wrap_hourglass`` takes them; what is empty is as ``model.name`` stands for.

    ``hot_...`` and ``tpc_...`` have an hourglass, which keeps the published share of ``data.frames``. Any other model
    gets one by ``layer`` and ``keep``: frames, or a share of the window's (0.25). Both may be lists: several prune
    points. ``recover`` is true (recovery attention), ``local`` (one that looks near in time), ``linear`` or
    ``nearest``, or false: the poses of the kept frames alone, trained on just those, which needs
    ``evaluate.mode=centre``. ``options`` are its other arguments.
    """

    layer: int | list[int] | None = None
    keep: int | float | list[int | float] | None = None
    select: Literal["tpc", "uniform", "attention", "motion"] | None = None
    recover: bool | Literal["local", "linear", "nearest"] | None = None
    options: dict[str, Any] = field(default_factory=dict)


@dataclass
class LeaveOutSection:
    """What is neither trained on nor measured, by the data's names; one that the data does not have is refused.

    Sequences are ``S9/Greeting`` of Human3.6M, ``S1/Seq2`` and ``TS3`` of MPI-INF-3DHP, ``train/running/a`` of a file
    of motion, ``figure_3/walking`` of generated motion. ``damaged`` stands for Human3.6M's three whose 3D is displaced
    (``data/h36m.py`` says which, and who leaves them out).
    """

    subjects: list[str] = field(default_factory=list)
    actions: list[str] = field(default_factory=list)
    sequences: list[str] = field(default_factory=list)


@dataclass
class DataSection:
    """Where poses come from and how they are cut.

    ``source``: ``generated`` (embedded motion, made by formulas), ``cmu`` (``motion``: an npz of recorded motion, seen
    by made-up cameras), ``h36m`` (``pose_3d``, ``pose_2d``, ``calibration``; of ``train_subjects`` and
    ``test_subjects``, the ``actions``, or all) or ``3dhp`` (MPI-INF-3DHP; ``train_data``, ``test_data``: npz files, or
    the folder of the test set, of which ``annotation`` chooses the 3D). ``allow_pickle`` reads object arrays, which
    runs code in the files: see ``npz.py``. ``frames``: of a window. ``stride``: between training windows; empty:
    ``frames``, or 1 where ``centred``. ``noise``: pixels, of made-up 2D. ``batch_size``: windows a process and step.
    """

    source: Literal["generated", "cmu", "h36m", "3dhp"] = "h36m"
    pose_3d: str | None = None
    pose_2d: str | None = None
    calibration: str | None = None
    train_data: str | None = None
    test_data: str | None = None
    annotation: Annotation = "universal"
    allow_pickle: bool = False
    train_subjects: list[str] = field(default_factory=lambda: list(TRAIN_SUBJECTS))
    test_subjects: list[str] = field(default_factory=lambda: list(TEST_SUBJECTS))
    actions: list[str] | None = None
    leave_out: LeaveOutSection = field(default_factory=LeaveOutSection)
    motion: str | None = None
    sequences: int = 64
    length: int = 243
    views: int = 4
    noise: float = 5.0
    frames: int = 243
    stride: int | None = None
    centred: bool = False
    flip: Flip = "both"
    confidence: bool = False
    batch_size: int = 4
    workers: int = 0

    def __post_init__(self) -> None:
        for name in ("sequences", "length", "views", "frames", "batch_size"):
            check(getattr(self, name) >= 1, f"data.{name}", getattr(self, name), "at least 1")
        check(self.stride is None or self.stride >= 1, "data.stride", self.stride, "frames, at least 1, or nothing")
        check(self.noise >= 0, "data.noise", self.noise, "pixels, 0 or more")
        check(self.workers >= 0, "data.workers", self.workers, "a number of processes, 0 or more")


@dataclass
class LossSection:
    """``name``: ``mixste``, ``mpjpe`` or ``motionbert``. ``border``: whether frames repeated at a clip's edges count.

    ``mask`` leaves them out; ``official`` counts them, as the authors' code does.
    """

    name: Literal["mixste", "mpjpe", "motionbert"] = "mixste"
    border: Border = "mask"


@dataclass
class OptimSection(sections.OptimSection):
    """The optimiser; ``amsgrad`` is Adam with that option."""

    name: Literal["adamw", "adam", "amsgrad"] = "adamw"
    lr: float = 4e-5
    weight_decay: float = 0.1


@dataclass
class ScheduleSection:
    """The rate is multiplied by ``decay`` after each epoch, by ``drop`` instead after every ``drop_every``-th.

    ``cosine`` replaces both by half a cosine to 0 over all epochs, by steps. A linear warm-up over ``warmup_steps``.
    """

    epochs: int = 160
    decay: float = 0.99
    drop: float = 0.5
    drop_every: int | None = None
    cosine: bool = False
    warmup_steps: int = 0

    def __post_init__(self) -> None:
        check(self.epochs >= 1, "schedule.epochs", self.epochs, "at least 1")
        check(self.warmup_steps >= 0, "schedule.warmup_steps", self.warmup_steps, "0 or more")
        for name in ("decay", "drop"):
            check(0 < getattr(self, name) <= 1, f"schedule.{name}", getattr(self, name), "a fraction above 0")
        check(
            self.drop_every is None or self.drop_every >= 1, "schedule.drop_every", self.drop_every, "epochs, or none"
        )


@dataclass
class EvalSection(sections.EvalSection):
    """When and how errors are measured. No checkpoint is chosen by them: there is no validation set to choose on.

    ``mode``: ``sequence`` takes every frame of windows side by side, ``centre`` the centre frame of a window around
    each. ``border`` as in ``loss``, for ``sequence``. ``exits`` empty: cycles 1 to one beyond those trained.
    """

    flip: bool = True
    mode: Literal["sequence", "centre"] = "sequence"
    border: Border = "mask"
    batch_size: int = 8

    def __post_init__(self) -> None:
        super().__post_init__()
        check(self.batch_size >= 1, "evaluate.batch_size", self.batch_size, "at least 1")


@dataclass
class RunSection(sections.RunSection):
    """Where and how the run happens; see :class:`cycledistill.recipes.config.sections.RunSection`."""

    output: str = "runs/human36m"


@dataclass
class Recipe(sections.BaseRecipe):
    """A whole run. ``Recipe()`` is MixSTE's; ``cyclic.cycles`` empty leaves it as it is."""

    model: ModelSection = field(default_factory=ModelSection)
    hourglass: HourglassSection = field(default_factory=HourglassSection)
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
