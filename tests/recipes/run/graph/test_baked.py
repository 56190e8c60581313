"""Which of a task's values count as part of a graph: all that a schedule may set, and nothing that a step keeps."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from cycledistill.recipes.run.graph.optimizer import portable_state
from cycledistill.recipes.run.graph.replay import MOST_GRAPHS, GraphedStep
from cycledistill.recipes.run.step import EagerStep
from tests.recipes.run.graph.tape import TapeCapture


class Net(nn.Module):
    """Scales by a value of any kind."""

    value: Any

    def __init__(self, value: Any, read: Callable[[Any], float]) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.layers = nn.Sequential(nn.Linear(3, 4), nn.Linear(4, 3))
        self.value, self.read = value, read

    def forward(self, x: Tensor) -> Tensor:
        return self.read(self.value) * self.layers(x)


def step_of(net: nn.Module, criterion: nn.Module | None = None) -> EagerStep:
    task = nn.ModuleList([net, criterion or nn.MSELoss()])
    optimizer = torch.optim.AdamW(net.parameters())
    return EagerStep(task, optimizer, lambda inputs, logs: {"loss": task[1](net(inputs[0]), inputs[0] + 1)}, model=net)


def run(step: Any, count: int) -> float:
    step.set_rate(0.01)
    loss: float = step.gradients((torch.randn(2, 3, generator=torch.Generator().manual_seed(count)),)).numbers()["loss"]
    step.update(count)
    return loss


def assert_follows(make: Callable[[], EagerStep], set_to: Callable[[EagerStep, bool], None]) -> None:
    """A schedule in two stages: equal to eager steps, in two pairs of graphs."""
    eager, capture = make(), TapeCapture()
    step = GraphedStep(make(), capture)
    for count in range(1, 9):
        for each in (eager, step.eager):
            set_to(each, count > 4)
        assert run(step, count) == pytest.approx(run(eager, count), rel=1e-4)
    for one, other in zip(eager.task.parameters(), step.eager.task.parameters(), strict=True):
        torch.testing.assert_close(one, other, atol=1e-6, rtol=1e-4)
    assert capture.captures == 4 and not step.reason


KINDS: dict[str, tuple[Callable[[float], Any], Callable[[Any], float]]] = {
    "float64": (np.float64, float),
    "bool_": (lambda value: np.bool_(value == 1), lambda held: 1.0 if held else 0.5),
    "array": (lambda value: np.array([1.0, value]), lambda held: float(held[1])),
    "list": (lambda value: [value], lambda held: held[0]),
    "tuple of lists": (lambda value: ("a", [value]), lambda held: held[1][0]),
    "dict": (lambda value: {"by": value}, lambda held: held["by"]),
}


@pytest.mark.parametrize("kind", KINDS)
def test_values_of_every_kind_are_captured_anew(kind: str) -> None:
    hold, read = KINDS[kind]

    def set_to(step: EagerStep, late: bool) -> None:
        step.model.value = hold(0.5 if late else 1.0)

    assert_follows(lambda: step_of(Net(hold(1.0), read)), set_to)


def test_layers_that_are_frozen_on_the_way_are_captured_anew() -> None:
    def freeze(step: EagerStep, late: bool) -> None:
        step.model.layers[0].requires_grad_(not late)  # type: ignore[index]

    assert_follows(lambda: step_of(Net(1.0, float)), freeze)


def test_a_criterion_in_the_task_is_captured_anew() -> None:
    class Scaled(nn.MSELoss):
        by = 1.0

        def forward(self, x: Tensor, y: Tensor) -> Tensor:
            return self.by * super().forward(x, y)

    def set_to(step: EagerStep, late: bool) -> None:
        step.task[1].by = 0.5 if late else 1.0  # type: ignore[index]

    assert_follows(lambda: step_of(Net(1.0, float), Scaled()), set_to)


class Begins(nn.Linear):
    """Keeps its output, and a number that only the first forward has to find."""

    def __init__(self) -> None:
        torch.manual_seed(0)
        super().__init__(3, 3)
        self.seen: Tensor | None = None
        self.width: int | None = None

    def forward(self, x: Tensor) -> Tensor:
        self.width = self.width or x.shape[1]
        self.found = self.width
        self.seen = super().forward(x) / self.width
        return self.seen


def test_what_a_step_keeps_is_no_number_in_a_fresh_run_or_a_resumed_one() -> None:
    whole, first = (GraphedStep(step_of(Begins()), TapeCapture()) for _ in range(2))
    for count in range(1, 4):
        run(whole, count)
        run(first, count)
    eager = step_of(Begins())
    eager.task.load_state_dict(first.eager.task.state_dict())
    eager.optimizer.load_state_dict(portable_state(first.eager.optimizer))
    capture = TapeCapture()
    resumed = GraphedStep(eager, capture)
    for count in range(4, 7):
        assert run(resumed, count) == run(whole, count)
    assert (capture.captures, capture.replays) == (2, 6)
    assert not whole.reason and not resumed.reason


def test_a_flag_that_a_step_uses_up_is_seen_at_the_first_capture(caplog: pytest.LogCaptureFixture) -> None:
    """Set before every step, it is the same before each, and after each but the first of the warm-up."""

    class Once(Net):
        def forward(self, x: Tensor) -> Tensor:
            factor, self.value = (2.0 if self.value else 1.0), False
            return factor * self.layers(x)

    step = GraphedStep(step_of(Once(True, float)), TapeCapture())
    for count in range(1, 5):
        step.eager.model.value = True  # type: ignore[assignment]
        run(step, count)
    (said,) = caplog.messages
    assert said.endswith("a number, which a graph would keep: 0.value, True -> False")


def test_of_what_changes_its_type_is_told_and_no_content(caplog: pytest.LogCaptureFixture) -> None:
    class Gathers(Net):
        def forward(self, x: Tensor) -> Tensor:
            self.value = [*self.value, 1.0, *([x] if len(self.value) > 8 else [])]
            return super().forward(x)

    step = GraphedStep(step_of(Gathers([], len)), TapeCapture())
    for count in range(1, 4):
        run(step, count)
    (said,) = caplog.messages
    assert said.endswith("a number, which a graph would keep: 0.value, list -> list")


def test_that_it_is_the_logs_which_ask_for_one_graph_more_is_said(caplog: pytest.LogCaptureFixture) -> None:
    step = GraphedStep(step_of(Net(1.0, float)), TapeCapture())
    for count in range(MOST_GRAPHS + 2):
        step.eager.model.value = float(count)  # type: ignore[assignment]
        run(step, count + 1)
        if count == MOST_GRAPHS:
            step.gradients((torch.zeros(2, 3),), logs=True)
    assert [record.message.rpartition(": ")[2] for record in caplog.records] == [
        "there changes whether its measures are logged"
    ]
