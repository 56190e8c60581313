"""The recipe of a training run as typed sections; the defaults are SDPose-S-V1's on COCO.

Numbers: the configs of SDPose (CVPR 2024; mmpose 0.29). How files and ``a.b=c`` overrides become a :class:`Recipe` is
in ``cycledistill/recipes/config/overrides.py``.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any, Literal

from cycledistill.recipes.config import sections
from cycledistill.recipes.config.overrides import check
from cycledistill.recipes.config.sections import CyclicSection, EmaSection
from cycledistill.recipes.errors import RecipeError

from .data.augment import Augmentation
from .data.joints import JOINT_SETS, JointError, JointSet, is_joints, joints_from, needs_file

__all__ = ["Recipe", "RecipeError", "list_recipes", "load_recipe"]


@dataclass
class ModelSection(sections.ModelSection):
    """The pose model.

    ``name`` is one of ``list_pose_models()``; ``options`` are fields of ``TokenPoseConfig`` to set otherwise
    (``image_size``, ``depth``, ...). ``weights`` starts from a file of weights, a run or a name on the hub,
    ``backbone_weights`` from HRNet's that were trained on ImageNet. ``new_joints`` says what becomes of weights
    of other joints: with ``by_name`` joints whose names agree keep their tokens, with ``random`` all tokens are new;
    empty: such weights are refused.
    """

    name: str = "sdpose_s_v1"
    backbone_weights: str | None = None
    new_joints: Literal["by_name", "random"] | None = None

    def __post_init__(self) -> None:
        fine = self.new_joints is None or self.weights is not None
        check(fine, "model.new_joints", self.new_joints, "model.weights beside it, the weights to start from")


@dataclass
class PruneSection:
    """Token pruning (PPT). ``layers`` and ``keep`` empty: what the model's name stands for.

    The fraction kept is 1 for ``start_epochs``, falls to ``keep`` along half a cosine over ``anneal_epochs``, step by
    step, and stays there. 0 and 0: ``keep`` from the first step.
    """

    layers: list[int] | None = None
    keep: float | None = None
    start_epochs: int = 0
    anneal_epochs: int = 0

    def __post_init__(self) -> None:
        check(self.keep is None or 0 < self.keep <= 1, "prune.keep", self.keep, "a fraction above 0 and at most 1")
        for name in ("start_epochs", "anneal_epochs"):
            check(getattr(self, name) >= 0, f"prune.{name}", getattr(self, name), "0 or more")


@dataclass
class DataSection:
    """Where persons and pictures are. Names are below ``root``, which may be a zip file.

    ``detections``: a JSON list of person boxes to evaluate in; empty: the annotated boxes. ``joints``: ``coco`` (17),
    ``crowdpose`` (14), ``mpii`` (16), ``ap10k`` (17), ``wholebody`` (133), ``wholebody_hand`` (21), ``wholebody_face``
    (68); ``auto``: those of the annotation file's category; a YAML file; or a mapping, see ``data/joints/own.py``. A
    run keeps the whole set, as a mapping. ``batch_size``: persons a process and step. ``broken_images``: ``stop`` names
    the file and ends the run, ``skip`` leaves its persons out and counts them. ``allow_outside``: read pictures that
    the annotation file names outside the folder of pictures too, by ``..`` or by an absolute path. ``categories``: ids
    or names of those in the annotation files that count; empty: all that have these joints. ``exif``: whether pictures
    are turned as their EXIF data says: ``auto``, where that fits the sizes in the annotation file, ``apply`` or
    ``ignore``.
    """

    root: str | None = None
    joints: str | dict[str, Any] = "coco"
    train_annotations: str = "annotations/person_keypoints_train2017.json"
    train_images: str = "train2017"
    val_annotations: str = "annotations/person_keypoints_val2017.json"
    val_images: str = "val2017"
    detections: str | None = "person_detection_results/COCO_val2017_detections_AP_H_56_person.json"
    detection_threshold: float = 0.0
    batch_size: int = 64
    workers: int = 4
    broken_images: Literal["stop", "skip"] = "stop"
    allow_outside: bool = False
    categories: list[int | str] | None = None
    exif: Literal["auto", "apply", "ignore"] = "auto"

    def __post_init__(self) -> None:
        self._check_joints()
        check(self.batch_size >= 1, "data.batch_size", self.batch_size, "persons a process and step, at least 1")
        check(self.workers >= 0, "data.workers", self.workers, "a number of processes, 0 or more")
        _check_fraction("data.detection_threshold", self.detection_threshold)
        some = self.categories is None or len(self.categories) > 0
        check(some, "data.categories", self.categories, "ids or names, or nothing for all that have these joints")

    @property
    def joint_set(self) -> JointSet:
        """The joints that ``joints`` names.

        Raises:
            RecipeError: They are in a file that is not read yet; a run begins by `training.joints.with_joints`.
        """
        if needs_file(self.joints):
            raise RecipeError(f"data.joints={self.joints!r}: with_joints(recipe) reads them from their file first")
        return joints_from(self.joints)

    def _check_joints(self) -> None:
        if isinstance(self.joints, str):
            names = f"one of {', '.join(JOINT_SETS)}, auto, or a YAML file"
            check(is_joints(self.joints), "data.joints", self.joints, names)
        elif not needs_file(self.joints):
            try:
                joints_from(self.joints)
            except JointError as error:
                raise RecipeError(f"data.joints: {error}") from error


@dataclass
class LossSection:
    """The task loss follows from the model's head; ``scale`` multiplies it. ``sigma``: the targets', heatmap pixels."""

    scale: float = 1.0
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
    """The rate is multiplied by ``gamma`` at each of ``milestones`` (epochs), after a linear warm-up by steps."""

    epochs: int = 300
    milestones: list[int] = field(default_factory=lambda: [200, 260])
    gamma: float = 0.1
    warmup_steps: int = 500
    warmup_factor: float = 0.001

    def __post_init__(self) -> None:
        check(self.epochs >= 1, "schedule.epochs", self.epochs, "at least 1")
        check(self.warmup_steps >= 0, "schedule.warmup_steps", self.warmup_steps, "0 or more")
        check(0 < self.warmup_factor <= 1, "schedule.warmup_factor", self.warmup_factor, "a fraction above 0")
        check(0 < self.gamma <= 1, "schedule.gamma", self.gamma, "a fraction above 0")
        rising = sorted(set(self.milestones)) == self.milestones and min(self.milestones, default=1) > 0
        check(rising, "schedule.milestones", self.milestones, "epochs above 0, ascending")


@dataclass
class EvalSection(sections.EvalSection):
    """When and how AP is measured.

    ``exits`` empty: cycles 1 to one beyond those trained (a plain model: 1). The best checkpoint is that of the highest
    AP at ``best_exit``. ``nms`` empty: every pose is kept. ``by_category``: each category of the annotation file is
    measured by itself and the numbers are averaged; else a pose is a pose, whatever its category.
    """

    best_exit: int = 1
    flip: bool = True
    decode: Literal["dark", "quarter", "none"] = "dark"
    nms: float | None = 0.9
    keypoint_threshold: float = 0.2
    batch_size: int = 64
    by_category: bool = False

    def __post_init__(self) -> None:
        super().__post_init__()
        for name in ("best_exit", "batch_size"):
            check(getattr(self, name) >= 1, f"evaluate.{name}", getattr(self, name), "at least 1")
        _check_fraction("evaluate.keypoint_threshold", self.keypoint_threshold)
        nms = self.nms
        check(nms is None or 0 < nms <= 1, "evaluate.nms", nms, "an OKS above 0 and at most 1, or nothing for no NMS")
        found = self.exits is None or self.best_exit in self.exits
        check(found, "evaluate.best_exit", self.best_exit, f"one of evaluate.exits, {self.exits}")


@dataclass
class RunSection(sections.RunSection):
    """Where and how the run happens; see :class:`cycledistill.recipes.config.sections.RunSection`.

    ``results``: a folder for what ``--evaluate`` measures, one file an exit in the form that COCO's server takes.
    """

    output: str = "runs/coco"
    results: str | None = None


@dataclass
class Recipe(sections.BaseRecipe):
    """A whole run. ``Recipe()`` is SDPose-S-V1's."""

    model: ModelSection = field(default_factory=ModelSection)
    cyclic: CyclicSection = field(default_factory=CyclicSection)
    prune: PruneSection = field(default_factory=PruneSection)
    data: DataSection = field(default_factory=DataSection)
    augment: Augmentation = field(default_factory=Augmentation)
    loss: LossSection = field(default_factory=LossSection)
    optim: OptimSection = field(default_factory=OptimSection)
    schedule: ScheduleSection = field(default_factory=ScheduleSection)
    ema: EmaSection = field(default_factory=EmaSection)
    evaluate: EvalSection = field(default_factory=EvalSection)
    run: RunSection = field(default_factory=RunSection)

    def __post_init__(self) -> None:
        _check_augmentation(self.augment)
        if self.run.compile != "none" and self.prune.anneal_epochs:
            raise RecipeError(
                f"prune.anneal_epochs with run.compile={self.run.compile}: the number of tokens would change at every "
                "step, and the model be compiled or captured anew. Set prune.anneal_epochs=0, or run.compile=none."
            )


def _check_fraction(key: str, value: float) -> None:
    check(0 <= value <= 1, key, value, "a number from 0 to 1")


def _check_augmentation(augment: Augmentation) -> None:
    for name in ("shift", "flip", "half_body", "rotation"):
        _check_fraction(f"augment.{name}_probability", getattr(augment, f"{name}_probability"))
    _check_fraction("augment.shift", augment.shift)
    check(augment.half_body_joints >= 0, "augment.half_body_joints", augment.half_body_joints, "0 or more")
    # The size factor is cut at 1 - scale, which must stay above 0.
    check(0 <= augment.scale < 1, "augment.scale", augment.scale, "a number from 0 to below 1")
    check(0 <= augment.rotation <= 180, "augment.rotation", augment.rotation, "degrees from 0 to 180")


RECIPES = sections.RecipeReader(Recipe, __package__)
list_recipes, load_recipe = RECIPES.names, RECIPES.load
"""Names of the packaged recipes; and a recipe from one of these, a file or a mapping, with overrides."""
