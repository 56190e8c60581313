"""What the arms of a study cost, counted in multiply-accumulates, and how many steps are equally costly."""

from __future__ import annotations

from dataclasses import dataclass

from cycledistill.cost.report import cost

from .errors import StudyError
from .plan import Plan
from .schedules import cycles_at
from .tasks.task import Task

_EQUAL_WEIGHTS = 0.1
"""The narrower baseline's number of weights is this near to the cycled arm's, as a share."""


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
        StudyError: Arms are as costly as each other in a circle, or the narrower baseline has not as many weights.
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
            step = [macs.total for macs in report.training_step]
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
        narrower = plan.baselines(name).get("narrower") if arm.cycles > 1 else None
        if narrower is not None:
            ratio = found[narrower].parameters / found[name].parameters
            if abs(ratio - 1) > _EQUAL_WEIGHTS:
                raise StudyError(
                    f"arms.{narrower} has {ratio:.2f} of the weights of {name}, beside which it stands as equal in "
                    f"weights: choose a width within {_EQUAL_WEIGHTS:.0%}"
                )
    return found
