"""What a plan must be to run: values in range, baselines beside every arm with cycles, comparisons of what is run."""

from __future__ import annotations

import dataclasses
import math
import re

from cycledistill import Distill
from cycledistill.recipes.config.overrides import did_you_mean

from .errors import StudyError
from .plan import BASELINES, Arm, Plan, Training, split_side
from .tasks import check_settings

_ALIKE = ("steps", "rate", "start_from", "drop_path", "drop_path_until")
"""What an arm and its baselines have in common."""


def check(plan: Plan) -> None:
    """Refuse a plan that cannot answer what it asks.

    Raises:
        StudyError: With the key.
    """
    if not re.fullmatch(r"[A-Za-z0-9-]+", plan.name):
        raise StudyError(f"name: {plan.name!r}: letters, digits and dashes are expected, for files are named by it")
    if not plan.arms or not plan.seeds or not plan.metrics or min(plan.exits, default=0) < 1:
        raise StudyError("arms, seeds, metrics and exits must each have an entry, and exits count from 1")
    for key in ("seeds", "exits", "metrics"):
        values = getattr(plan, key)
        if len(set(values)) != len(values):
            raise StudyError(f"{key} {values}: each is expected once")
    if plan.exits != sorted(plan.exits):
        raise StudyError(f"exits {plan.exits}: ascending numbers are expected")
    if not plan.comparisons:
        raise StudyError("comparisons: what is compared is written down before it runs; one at least is expected")
    check_settings(plan.task)
    _check_training(plan.training)
    for name, arm in plan.arms.items():
        if not re.fullmatch(r"[A-Za-z][A-Za-z0-9_-]*", name):
            raise StudyError(
                f"arms.{name}: a letter, then letters, digits, - and _ are expected: files are named by it"
            )
        _check_arm(plan, name, arm)
    for name in plan.arms:
        _check_chain(plan, name)
    for name, arm in plan.arms.items():
        missing = [each for each in BASELINES if each not in {**plan.baselines(name), **arm.without}]
        if arm.cycles > 1 and missing:
            raise StudyError(
                f"arms.{name}: no baseline for {', '.join(missing)}; add an arm, or say why not under `without`"
                + "".join(_near_miss(plan, name, kind) for kind in missing)
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


def _check_training(training: Training) -> None:
    if not all(0 < each < math.inf for each in (training.steps, training.batch, training.rate)):
        raise StudyError("training: steps, batch and rate are numbers above 0")
    if not 0 <= training.warmup <= 1 or not 0 <= training.clip < math.inf or not 0 <= training.weight_decay < math.inf:
        raise StudyError("training: warmup is a share of the steps, 0 to 1; clip and weight_decay are 0 or more")


def _check_arm(plan: Plan, name: str, arm: Arm) -> None:
    size = plan.network_of(name)
    if min(size.width, size.depth, size.heads) < 1 or size.width % size.heads:
        raise StudyError(f"arms.{name}: width, depth and heads are at least 1, and heads divide the width ({size})")
    scheme = _scheme(name, arm)
    if scheme is not None and isinstance(scheme.task_weights, tuple):
        try:
            scheme.weights(arm.cycles)
        except ValueError as error:
            raise StudyError(f"arms.{name}.distill: {error}") from error
        if arm.schedule != "constant":
            raise StudyError(f"arms.{name}: a weight a cycle is for one number of cycles, not schedule: {arm.schedule}")
    if not 0 <= size.drop_path < 1:
        raise StudyError(f"arms.{name}: drop_path {size.drop_path}: a rate of at least 0 and below 1 is expected")
    if arm.cycles == 1 and (arm.link != "plain" or arm.average or arm.later_weight != "constant"):
        raise StudyError(f"arms.{name}: link, average and later_weight are of further cycles, and it runs one")
    if (
        arm.cycles < 1
        or not all(0 < each < math.inf for each in (arm.steps, arm.rate))
        or not 0 <= arm.turn <= 1
        or not 0 <= arm.drop_path_until <= 1
    ):
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
    if nothing := [kind for kind, why in arm.without.items() if not str(why or "").strip()]:
        raise StudyError(f"arms.{name}.without: why there is no {nothing[0]!r} is expected")
    if unknown := set(arm.without) - set(BASELINES):
        raise StudyError(f"arms.{name}.without: {unknown.pop()!r} is no baseline; they are {', '.join(BASELINES)}")


def _near_miss(plan: Plan, name: str, kind: str) -> str:
    """Which arm would be a baseline if it did not differ in what both must have in common, and in what it does."""
    arms = {
        each: dataclasses.replace(arm, drop_path=plan.network_of(each).drop_path) for each, arm in plan.arms.items()
    }
    own = arms[name]
    for other, arm in arms.items():
        differ = [key for key in _ALIKE if getattr(arm, key) != getattr(own, key)]
        alike = dataclasses.replace(arm, **{key: getattr(own, key) for key in differ})
        if (
            other != name
            and dataclasses.replace(plan, arms={name: own, other: alike}).baselines(name).get(kind) == other
        ):
            what = " and ".join(f"{key} {getattr(arm, key)}, where {name} has {getattr(own, key)}" for key in differ)
            return f". {other} would be the one for {kind}, but has {what}"
    return ""


def _scheme(name: str, arm: Arm) -> Distill | None:
    """How an arm is distilled, as the library takes it."""
    known = [each.name for each in dataclasses.fields(Distill) if each.name != "select"]  # which is code
    for key in arm.distill if isinstance(arm.distill, dict) else ():
        if key not in known:
            near = did_you_mean(key, known)
            raise StudyError(f"unknown key 'arms.{name}.distill.{key}'.{near} Known: {', '.join(known)}.")
    try:
        return arm.scheme
    except (TypeError, ValueError) as error:
        raise StudyError(f"arms.{name}.distill: {error}") from error


def _check_chain(plan: Plan, name: str) -> None:
    """Arms do not start from each other in a circle."""
    seen = [name]
    while (start := plan.arms[seen[-1]].start_from) is not None:
        if start in seen:
            raise StudyError(f"start_from goes in a circle: {' -> '.join((*seen, start))}")
        seen.append(start)
