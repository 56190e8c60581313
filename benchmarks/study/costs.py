"""What the arms of a study cost, counted in multiply-accumulates, and how many steps are equally costly."""

from __future__ import annotations

from dataclasses import dataclass

from cycledistill.cost.report import cost

from .errors import StudyError
from .plan import Plan
from .schedules import cycles_at
from .tasks.task import Task

_EQUAL = 0.1
"""What a baseline keeps equal to the cycled arm is this near, as a share; it may train for more."""


@dataclass(frozen=True)
class ArmCost:
    """Of one arm, for one sample.

    Attributes:
        parameters: Of the model.
        exits: MACs of an answer at the study's exits.
        steps: Of its training.
        training: MACs of the whole training, forward and backward, for one sample of each batch.
    """

    parameters: int
    exits: tuple[int, ...]
    steps: int
    training: int


def arm_costs(plan: Plan, task: Task) -> dict[str, ArmCost]:
    """The cost of every arm, by its name.

    Raises:
        StudyError: Arms are as costly as each other in a circle, or a baseline does not keep equal what it has to.
    """
    sizes = {plan.network_of(name) for name in plan.arms}
    most = max(*plan.exits, *(arm.cycles for arm in plan.arms.values()))
    reports = {size: cost(task.network(size), task.example, most, blocks=task.blocks) for size in sizes}
    found: dict[str, ArmCost] = {}

    def settle(name: str, asking: tuple[str, ...] = ()) -> ArmCost:
        if name in asking:
            raise StudyError(f"equal_training goes in a circle: {' -> '.join((*asking, name))}")
        if name not in found:
            arm, report = plan.arms[name], reports[plan.network_of(name)]
            # A teacher answers at all cycles once more, without gradients.
            taught = report.exits[arm.cycles - 1].total if arm.average else 0
            step = [macs.total + taught for macs in report.training_step]
            if arm.equal_training is None:
                steps = round(plan.training.steps * arm.steps)
                training = sum(step[cycles_at(arm, at, steps, seed=0) - 1] for at in range(steps))
            else:
                steps = round(settle(arm.equal_training, (*asking, name)).training / step[arm.cycles - 1])
                training = steps * step[arm.cycles - 1]
            exits = tuple(report.exits[exit - 1].total for exit in plan.exits)
            found[name] = ArmCost(report.parameters, exits, steps, training)
        return found[name]

    for name in plan.arms:
        settle(name)
    for name, arm in plan.arms.items():
        if arm.cycles > 1:
            _check_baselines(plan, name, found, reports[plan.network_of(name)].exits[arm.cycles - 1].total)
    return found


def _check_baselines(plan: Plan, name: str, found: dict[str, ArmCost], answer: int) -> None:
    """Whether the baselines of an arm keep equal what they are there for; ``answer`` costs all its cycles."""
    for kind, baseline in plan.baselines(name).items():
        own, other, ratios = found[name], found[baseline], dict[str, float]()
        if kind in plan.arms[name].without:
            continue  # it says why there is none
        if "training" in kind:
            ratios["training cost"] = other.training / own.training
        if "narrower" in kind:
            ratios["number of weights"] = other.parameters / own.parameters
        if kind == "deeper":
            ratios["cost of an answer"] = other.exits[0] / answer if plan.exits[0] == 1 else 1.0
        for what, ratio in ratios.items():
            low = 1 - _EQUAL
            if not low <= ratio <= 1 + _EQUAL and not (what == "training cost" and ratio > 1):
                raise StudyError(
                    f"arms.{baseline} has {ratio:.2f} of the {what} of {name}, beside which it stands as equal in it: "
                    f"within {_EQUAL:.0%} is expected"
                )
