"""Sections of a recipe that mean the same in every training command."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Generic, Literal, TypeVar

from cycledistill.recipes.config.distillation import read_distill
from cycledistill.recipes.config.overrides import Overrides, check, load
from cycledistill.recipes.config.packaged import packaged_names

R = TypeVar("R")


@dataclass(frozen=True)
class RecipeReader(Generic[R]):
    """The recipes of one training command.

    Attributes:
        kind: The dataclass of sections.
        package: Whose folder ``configs`` holds the packaged ones.
    """

    kind: type[R]
    package: str

    def names(self) -> list[str]:
        """Names of the packaged recipes.

        Example:
            >>> "sdpose_s_v1" in list_recipes()
            True
        """
        return packaged_names(self.package)

    def load(self, source: str | Path | Mapping[str, Any] | None = None, overrides: Overrides = ()) -> R:
        """Read a recipe: the defaults, then a file, then overrides.

        Args:
            source: A YAML file, the name of a packaged one, a mapping, or nothing for the defaults. A file holds only
                what differs from the defaults.
            overrides: ``"section.key=value"`` strings, the value read as YAML, or dotted keys with values.

        Raises:
            RecipeError: A file that is not there or not YAML, an unknown key (the nearest known one is named), a value
                of the wrong type or out of range.

        Example:
            >>> recipe = load_recipe("sdpose_s_v1", ["data.root=/data/coco", "cyclic.cycles=3", "optim.lr=5e-4"])
            >>> recipe.cyclic.cycles
            3
        """
        return load(self.kind, self.package, source, overrides)


class BaseRecipe:
    """What recipes, dataclasses of sections, have in common."""

    def to_dict(self) -> dict[str, Any]:
        """The whole recipe as plain data, as YAML and JSON can hold it."""
        return dataclasses.asdict(self)  # type: ignore[call-overload]


@dataclass
class ModelSection:
    """A model by name: ``options`` are what it is to be built with otherwise, ``weights`` a file to start from."""

    name: str = ""
    options: dict[str, Any] = field(default_factory=dict)
    weights: str | None = None


DEVICES = ("auto", "cpu", "cuda", "mps")
TRACKERS = ("tensorboard", "wandb", "mlflow", "trackio")
"""What a run's numbers can be sent to beside its log, by Accelerate's names; each is a package of that name."""


@dataclass
class CyclicSection:
    """What ``wrap_cyclic`` gets. ``cycles`` empty: what the model's name stands for.

    ``distill`` is a preset's name, nothing, or a mapping of ``Distill`` fields; with the key ``preset`` the mapping
    changes that preset.
    """

    cycles: int | None = None
    distill: str | dict[str, Any] | None = "sdpose"

    def __post_init__(self) -> None:
        check(self.cycles is None or self.cycles >= 1, "cyclic.cycles", self.cycles, "at least 1, or nothing")
        read_distill(self.distill)


@dataclass
class OptimSection:
    """The optimiser. ``lr`` is for the whole batch as it is; ``clip``: the largest norm of a step's gradient."""

    name: str = "adamw"
    lr: float = 1e-3
    weight_decay: float = 0.0
    clip: float | None = None

    def __post_init__(self) -> None:
        check(self.lr > 0, "optim.lr", self.lr, "a number above 0")
        check(self.weight_decay >= 0, "optim.weight_decay", self.weight_decay, "0 or more")
        check(self.clip is None or self.clip > 0, "optim.clip", self.clip, "a number above 0, or nothing for no clip")


@dataclass
class EvalSection:
    """When models are measured, and at which exits. ``exits`` empty: cycles 1 to one beyond those trained."""

    every: int = 10
    exits: list[int] | None = None

    def __post_init__(self) -> None:
        check(self.every >= 1, "evaluate.every", self.every, "at least 1")
        fine = self.exits is None or (len(self.exits) > 0 and min(self.exits) >= 1)
        check(fine, "evaluate.exits", self.exits, "cycles, each at least 1")


@dataclass
class EmaSection:
    """Moving average of the weights (timm's ModelEmaV3). ``warmup`` lets short runs forget the initial weights."""

    enabled: bool = False
    decay: float = 0.9999
    warmup: bool = False

    def __post_init__(self) -> None:
        check(0 < self.decay < 1, "ema.decay", self.decay, "a number between 0 and 1")


@dataclass
class RunSection:
    """Where and how the run happens. ``max_steps`` ends it early, with a checkpoint to go on from.

    ``device``: ``auto`` (an accelerator where there is one), ``cpu``, ``cuda`` or ``mps``. ``compile``: ``default`` is
    ``torch.compile`` with ``compile_backend``, ``graph`` captures whole steps in CUDA graphs. ``sync_batch_norm``:
    several processes, each with a GPU, take BatchNorm's statistics over all their batches; without, each over its own.
    ``log_with``: some of `TRACKERS`. ``progress``: a bar in a terminal, elsewhere lines: every ``log_every`` steps, in
    an evaluation by the clock.
    """

    output: str = "runs/run"
    device: str = "auto"
    seed: int = 0
    precision: Literal["fp32", "bf16", "fp16"] = "fp32"
    compile: Literal["none", "default", "graph"] | bool = "none"
    compile_backend: str = "inductor"
    sync_batch_norm: bool = False
    max_steps: int | None = None
    save_every_steps: int | None = None
    keep: int = 2
    log_every: int = 50
    log_with: list[str] = field(default_factory=list)
    progress: bool = True

    def __post_init__(self) -> None:
        if isinstance(self.compile, bool):  # as stored recipes may have it
            self.compile = "default" if self.compile else "none"
        for name in ("keep", "log_every"):
            check(getattr(self, name) >= 1, f"run.{name}", getattr(self, name), "at least 1")
        for name in ("max_steps", "save_every_steps"):
            value = getattr(self, name)
            check(value is None or value >= 1, f"run.{name}", value, "at least 1, or nothing")
        for name in self.log_with:
            check(name in TRACKERS, "run.log_with", self.log_with, f"some of {', '.join(TRACKERS)}")
        check(self.seed >= 0, "run.seed", self.seed, "0 or more")
        which = " (which GPU: by the environment variable CUDA_VISIBLE_DEVICES)" if ":" in self.device else ""
        check(self.device in DEVICES, "run.device", self.device, f"one of {', '.join(map(repr, DEVICES))}{which}")
