"""A study as it is registered: what is compared, on what, from how many seeds, and what would count as success."""

from __future__ import annotations

import dataclasses
import hashlib
import json
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

import yaml

from cycledistill import Distill
from cycledistill.recipes.config.overrides import build
from cycledistill.recipes.errors import RecipeError

from .errors import StudyError

PLANS = Path(__file__).parent / "plans"
BASELINES = ("plain", "equal training", "deeper", "narrower", "narrower, equal training")
"""What stands beside every arm with cycles: the same steps, the same training compute, as many blocks of their own as
cycles run, and as many but narrower, of the same number of weights, for the same steps and for the same compute."""
Schedule = Literal["constant", "late", "early", "growing", "random"]
Link = Literal["plain", "input", "cut", "adapter"]


@dataclass(frozen=True)
class Network:
    """Size of the model; an arm may have another.

    Attributes:
        width: Of a token.
        depth: Blocks of the stack.
        heads: Of the attention.
        drop_path: Rate of stochastic depth; it grows over the blocks up to this.
    """

    width: int
    depth: int
    heads: int
    drop_path: float = 0.0


@dataclass(frozen=True)
class Training:
    """AdamW with a linear warm-up and a cosine to zero; the same for all arms.

    Attributes:
        steps: Of an arm that does not say ``equal_training``.
        batch: Samples a step.
        rate: The highest learning rate.
        weight_decay: On matrices.
        warmup: Share of the steps.
        clip: Largest norm of the gradients; 0 for none.
        precision: ``bf16`` is autocast.
    """

    steps: int
    batch: int
    rate: float
    weight_decay: float = 0.05
    warmup: float = 0.05
    clip: float = 1.0
    precision: Literal["fp32", "bf16"] = "fp32"


@dataclass(frozen=True)
class Arm:
    """One way to train.

    Attributes:
        cycles: While training; 1 is plain training.
        distill: A preset, or fields of ``Distill``; nothing for the task loss of all cycles.
        steps: As a share of the study's.
        rate: Likewise.
        equal_training: Name of an arm: as many steps as cost what that arm's training costs, in multiply-accumulates.
        width, depth, heads: Where they are not the study's.
        drop_path: Likewise.
        drop_path_until: Share of the steps after which there is no stochastic depth ("early", arXiv 2303.01500).
        schedule: How many cycles a step runs. ``constant``: all; ``late`` and ``early``: one before, or after,
            ``turn``; ``growing``: 1 to ``cycles`` in equal parts; ``random``: drawn from 1 to ``cycles`` for each step.
        turn: Share of the steps at which ``late`` and ``early`` change.
        link: What a further cycle starts from. ``plain``: the tokens of the cycle before; ``input``: the stack's own
            input added to them; ``cut``: without gradient into the cycle before.
        start_from: Name of an arm: its trained weights of the same seed are trained on.
        without: Baselines that are left out, each with the reason.
        says: The arm in words, for the report.
        added: Why it was added, where that was after the first runs.
    """

    cycles: int = 1
    distill: str | dict[str, Any] | None = None
    steps: float = 1.0
    rate: float = 1.0
    equal_training: str | None = None
    width: int | None = None
    depth: int | None = None
    heads: int | None = None
    drop_path: float | None = None
    drop_path_until: float = 1.0
    schedule: Schedule = "constant"
    turn: float = 0.5
    link: Link = "plain"
    later_weight: Literal["constant", "growing"] = "constant"
    average: float = 0.0
    start_from: str | None = None
    without: dict[str, str] = field(default_factory=dict)
    says: str = ""
    added: str = ""

    @property
    def scheme(self) -> Distill | None:
        """What ``wrap_cyclic`` is given."""
        if isinstance(self.distill, str):
            return Distill.preset(self.distill)
        return None if self.distill is None else Distill(**self.distill)


@dataclass(frozen=True)
class Comparison:
    """A difference that is looked at, and its place in the argument.

    Attributes:
        left, right: An arm and a number of cycles, ``exits@2``.
        claim: What is shown if the left one is higher.
        metric: Which number; default, the study's first.
        added: Why it was added, where that was after the first runs.
    """

    left: str
    right: str
    claim: str
    metric: str | None = None
    added: str = ""


@dataclass(frozen=True)
class Plan:
    """A registered study.

    Attributes:
        name: Of its files; letters, digits and dashes.
        question: What it is to answer.
        success: What would count as a yes.
        task: Kind and settings of the task, see `study.tasks`.
        network: The model.
        training: How all arms are trained.
        seeds: One fixes first weights, order and augmentation of the data for every arm.
        exits: Numbers of cycles at which every arm is read.
        metrics: Those that are reported, the first decides.
        arms: By name.
        comparisons: In the order of the argument; their p values are corrected for their number.
    """

    name: str
    question: str
    success: str
    task: dict[str, Any]
    network: Network
    training: Training
    seeds: list[int]
    exits: list[int]
    metrics: list[str]
    arms: dict[str, Arm]
    comparisons: list[Comparison]

    @property
    def digest(self) -> str:
        """Of everything but the seeds: which plan a run was made by."""
        return _digest({key: value for key, value in _stated(self).items() if key != "seeds"})

    def content_of(self, arm: str) -> str:
        """Digest of what a run of an arm depends on: an arm that is added later changes none of the others."""
        own = self.arms[arm]
        fields = {key: value for key, value in _stated(own).items() if key not in ("says", "added", "without")}
        others = {key: self.content_of(getattr(own, key)) for key in ("equal_training", "start_from") if key in fields}
        setup = {"task": self.task, "training": _stated(self.training), "exits": self.exits}
        return _digest({**setup, "network": _stated(self.network), "arm": {**fields, **others}})

    def network_of(self, arm: str) -> Network:
        """The size of an arm's model."""
        own = self.arms[arm]
        changes = {name: getattr(own, name) for name in ("width", "depth", "heads", "drop_path")}
        return dataclasses.replace(self.network, **{name: it for name, it in changes.items() if it is not None})

    def baselines(self, arm: str) -> dict[str, str]:
        """Which arms stand beside one with cycles, by what they keep equal; those that are there.

        That they do keep it equal is counted by `study.costs.arm_costs`.
        """
        own, found = self.arms[arm], dict[str, str]()
        size = self.network_of(arm)
        for name, other in self.arms.items():
            network = self.network_of(name)
            alike = (other.start_from, other.rate, other.drop_path_until, network.drop_path) == (
                own.start_from, own.rate, own.drop_path_until, size.drop_path
            )  # fmt: skip
            if other.cycles > 1 or not alike:
                continue
            equal_steps = other.equal_training is None and other.steps == own.steps
            if network.depth == size.depth * own.cycles and (equal_steps or other.equal_training):
                kind = "deeper" if network.width == size.width else "narrower"
                found.setdefault(kind if equal_steps else f"{kind}, equal training", name)
            elif network == size and equal_steps:
                found.setdefault("plain", name)
            elif network == size and other.equal_training is not None:
                found.setdefault("equal training", name)
        return found


def load_plan(source: str | Path) -> Plan:
    """Read a plan: a YAML file, or the name of one in ``plans``.

    Raises:
        StudyError: It is not there or not YAML, has an unknown key or a value out of range, compares what it does not
            train, or leaves out a baseline of an arm with cycles without saying why.

    Example:
        >>> load_plan("mazes").arms["exits"].cycles
        4
    """
    path = Path(source)
    path = path if path.is_file() else PLANS / f"{source}.yaml"
    if not path.is_file():
        known = ", ".join(sorted(each.stem for each in PLANS.glob("*.yaml")))
        raise StudyError(f"{source}: neither a file nor a registered study ({known})")
    try:
        data = _mapping(yaml.safe_load(path.read_text(encoding="utf-8")), "the file")
        arms = _mapping(data.pop("arms", {}), "arms")
        comparisons = data.pop("comparisons", [])
        named = {name: build(Arm, _mapping(fields, f"arms.{name}")) for name, fields in arms.items()}
        listed = [build(Comparison, _mapping(each, "comparisons")) for each in comparisons]
        plan: Plan = dataclasses.replace(
            build(Plan, data | {"arms": {}, "comparisons": []}), arms=named, comparisons=listed
        )
        _check(plan)
    except (RecipeError, yaml.YAMLError, ValueError, TypeError) as error:
        raise StudyError(f"{path.name}: {error}") from error
    return plan


def split_side(side: str) -> tuple[str, int]:
    """``exits@2`` as an arm and a number of cycles."""
    arm, found, cycles = side.rpartition("@")
    if not found or not cycles.isdigit():
        raise StudyError(f"{side!r}: an arm and a number of cycles are expected, such as exits@2")
    return arm, int(cycles)


def _stated(value: Any) -> Any:
    """A dataclass as plain data, without what is at its default: a key that is new changes no plan without it."""
    if isinstance(value, (list, tuple)):
        return [_stated(each) for each in value]
    if isinstance(value, dict):
        return {key: _stated(each) for key, each in value.items()}
    if not dataclasses.is_dataclass(value):
        return value
    fields = {each.name: each.default for each in dataclasses.fields(value)}
    given = {name: getattr(value, name) for name in fields}
    return {name: _stated(each) for name, each in given.items() if each != fields[name] and each != {}}


def _digest(content: Any) -> str:
    return hashlib.sha256(json.dumps(content, sort_keys=True).encode()).hexdigest()[:12]


def _mapping(value: Any, where: str) -> dict[str, Any]:
    if not isinstance(value, Mapping):
        raise StudyError(f"{where}: a mapping of keys to values is expected, not {type(value).__name__}")
    return dict(value)


def _check(plan: Plan) -> None:
    if not re.fullmatch(r"[A-Za-z0-9-]+", plan.name):
        raise StudyError(f"name: {plan.name!r}: letters, digits and dashes are expected, for files are named by it")
    if not plan.arms or not plan.seeds or not plan.metrics or min(plan.exits, default=0) < 1:
        raise StudyError("arms, seeds, metrics and exits must each have an entry, and exits count from 1")
    for key in ("seeds", "exits", "metrics"):
        values = getattr(plan, key)
        if len(set(values)) != len(values):
            raise StudyError(f"{key} {values}: each is expected once")
    if min(plan.training.steps, plan.training.batch, plan.training.rate) <= 0:
        raise StudyError("training: steps, batch and rate are above 0")
    for name, arm in plan.arms.items():
        _check_arm(plan, name, arm)
    for name, arm in plan.arms.items():
        missing = [each for each in BASELINES if each not in {**plan.baselines(name), **arm.without}]
        if arm.cycles > 1 and missing:
            raise StudyError(
                f"arms.{name}: no baseline for {', '.join(missing)}; add an arm, or say why not under `without`"
            )
    for comparison in plan.comparisons:
        for side in (comparison.left, comparison.right):
            arm_name, cycles = split_side(side)
            if arm_name not in plan.arms or cycles not in plan.exits:
                raise StudyError(f"comparison of {side}: arms are {', '.join(plan.arms)}, read at {plan.exits}")
        if not comparison.claim or comparison.left == comparison.right:
            raise StudyError(
                f"comparison of {comparison.left} and {comparison.right}: two sides and a claim are expected"
            )
        if comparison.metric not in (None, *plan.metrics):
            raise StudyError(f"comparison of {comparison.metric!r}: the metrics are {', '.join(plan.metrics)}")


def _check_arm(plan: Plan, name: str, arm: Arm) -> None:
    size = plan.network_of(name)
    if min(size.width, size.depth, size.heads) < 1 or size.width % size.heads:
        raise StudyError(f"arms.{name}: width, depth and heads are at least 1, and heads divide the width ({size})")
    scheme = arm.scheme
    if scheme is not None and isinstance(scheme.task_weights, tuple):
        scheme.weights(arm.cycles)
        if arm.schedule != "constant":
            raise StudyError(f"arms.{name}: a weight a cycle is for one number of cycles, not schedule: {arm.schedule}")
    if arm.cycles < 1 or min(arm.steps, arm.rate) <= 0 or not 0 <= arm.turn <= 1 or not 0 <= arm.drop_path_until <= 1:
        raise StudyError(
            f"arms.{name}: cycles count from 1, steps and rate are above 0, and turn and drop_path_until are shares of "
            "the steps, 0 to 1"
        )
    if not 0 <= arm.average < 1:
        raise StudyError(f"arms.{name}.average {arm.average}: a decay is at least 0 and below 1")
    if arm.later_weight == "growing" and (scheme is not None or arm.schedule != "constant"):
        raise StudyError(f"arms.{name}: later_weight: growing sets the task weights of one number of cycles by itself")
    if arm.equal_training is not None and arm.steps != 1:
        raise StudyError(f"arms.{name}: its steps follow from equal_training: leave out steps")
    for key in ("equal_training", "start_from"):
        other = getattr(arm, key)
        if other is not None and (other not in plan.arms or other == name):
            raise StudyError(f"arms.{name}.{key}: {other!r} is no other arm; there are {', '.join(plan.arms)}")
    if unknown := set(arm.without) - set(BASELINES):
        raise StudyError(f"arms.{name}.without: {unknown.pop()!r} is no baseline; they are {', '.join(BASELINES)}")
