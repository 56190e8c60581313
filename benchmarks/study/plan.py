"""A study as it is registered: what is compared, on what, from how many seeds, and what would count as success."""

from __future__ import annotations

import dataclasses
import hashlib
import json
from dataclasses import dataclass, field
from typing import Any, Literal

from cycledistill import Distill

from .errors import StudyError

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
        decides: Whether it is part of what the study counts as success.
        added: Why it was added, where that was after the first runs.
    """

    left: str
    right: str
    claim: str
    metric: str | None = None
    decides: bool = False
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
        decided_by: Whether ``all`` of those that decide must hold for success, or ``any``.
        not_judged: What of the success no comparison judges, and why.
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
    decided_by: Literal["all", "any"] = "all"
    not_judged: str = ""

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
