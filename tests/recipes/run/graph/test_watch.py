"""What no graph can hold is seen in the warm-up, and said with its place."""

from __future__ import annotations

import random
import re
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from cycledistill.plugin.running import is_eager
from cycledistill.recipes.errors import NotCapturableError
from cycledistill.recipes.run.graph.replay import GraphedStep
from cycledistill.recipes.run.graph.watch import watched
from cycledistill.recipes.run.step import EagerStep
from tests.recipes.run.graph.tape import TapeCapture


def step_of(model: nn.Module) -> GraphedStep:
    optimizer = torch.optim.Adam(model.parameters())
    eager = EagerStep(model, optimizer, lambda inputs, logs: {"loss": model(inputs[0]).square().mean()})
    return GraphedStep(eager, TapeCapture())


CPU = torch.device("cpu")
X = torch.arange(6.0).reshape(2, 3)
S = torch.eye(2)
READS = "the step reads values back from the device"
MAKES = "the step makes a tensor on the device from Python's numbers"


@pytest.mark.parametrize(
    ("work", "reason"),
    [
        (lambda: X.sum().item(), READS),
        (lambda: bool(X.sum() > 0), READS),
        (lambda: X[X > 2], READS),
        (lambda: X.nonzero(), READS),
        (lambda: torch.where(X > 2), READS),
        (lambda: torch.masked_select(X, X > 2), READS),
        (lambda: torch.equal(X, X), READS),
        (lambda: X.unique(), READS),
        (lambda: torch.repeat_interleave(X[0].long()), READS),
        (lambda: X.clone().__setitem__(X > 2, torch.ones(3)), READS),
        (lambda: X.clone().__setitem__((X[:, 0] > 2, X[0] > 0), 1.0), READS),
        (lambda: X.index_put((X > 2,), torch.ones(3)), READS),
        (lambda: X.index_put((X > 2,), torch.tensor(1.0), accumulate=True), READS),
        (lambda: torch.allclose(X, X), READS),
        (lambda: torch.linalg.inv(S), READS),
        (lambda: torch.linalg.solve(S, S), READS),
        (lambda: torch.linalg.cholesky(S), READS),
        (lambda: torch.linalg.svd(S), READS),
        (lambda: torch.linalg.eigh(S), READS),
        (lambda: torch.linalg.eigvals(S), READS),
        (lambda: torch.linalg.pinv(S), READS),
        (lambda: torch.linalg.lstsq(S, S), READS),
        (lambda: torch.tensor([1.0, 2.0]), MAKES),
        (lambda: X.new_tensor([1.0, 2.0]), MAKES),
        (lambda: X[:, [0, 2]], MAKES),
        (lambda: random.random(), "draws random numbers from Python's generator on the CPU"),
        (lambda: np.random.rand(), "draws random numbers from numpy's generator on the CPU"),
    ],
)
def test_what_is_refused(work: Callable[[], Any], reason: str) -> None:
    with pytest.raises(NotCapturableError, match=reason), watched(CPU):
        work()


def test_what_is_fine() -> None:
    mask = X > 2
    with watched(CPU):
        y = X * mask + torch.full((2,), 3.0)[0] + torch.rand(()) + torch.zeros(3)
        y[mask] = 0
        y[torch.arange(2)] = X
        torch.linalg.inv_ex(torch.linalg.vector_norm(X) * torch.eye(2))
        torch.where(mask, X, y).index_select(1, torch.arange(2)).sort().values.gather(1, torch.zeros(2, 1).long())


def test_the_place_is_named() -> None:
    with pytest.raises(NotCapturableError, match=r"\(aten::_local_scalar_dense, graph/test_watch\.py, line \d+\)"):
        with watched(CPU):
            X.sum().item()


def test_a_backward_is_watched_too() -> None:
    class Reading(torch.autograd.Function):
        @staticmethod
        def forward(ctx: Any, x: Tensor) -> Tensor:
            return x.clone()

        @staticmethod
        def backward(ctx: Any, grad: Tensor) -> Tensor:
            return grad * grad.sum().item()

    loss = Reading.apply(X.clone().requires_grad_()).sum()
    with pytest.raises(NotCapturableError, match=READS), watched(CPU):
        loss.backward()


MIXES = "the step uses a tensor of the CPU beside those of the device"
COPIES = "the step copies values to the device"
FIRST = torch.zeros(3, dtype=torch.long)


@pytest.mark.parametrize(
    ("work", "reason"),
    [
        (lambda x: x.to("cpu"), "the step copies values from the device"),
        (lambda x: torch.zeros(3).copy_(x), "the step copies values from the device"),
        (lambda x: torch.rand(3), "draws random numbers from torch's generator on the CPU"),
        (lambda x: torch.zeros(3).to(x.device, non_blocking=True), COPIES),
        (lambda x: torch.zeros(()).to(x.device), COPIES),
        (lambda x: x.copy_(torch.zeros(3), non_blocking=True), COPIES),
        (lambda x: torch._foreach_copy_([x], [torch.zeros(3)]), MIXES),
        (lambda x: torch.ops.aten.add.Tensor(x, torch.zeros(3)), MIXES),
        (lambda x: x[FIRST], MIXES),
        (lambda x: x.index_put_((FIRST,), x), MIXES),
        (lambda x: x.index_put_((x > 0,), x.sum()), READS),
        (lambda x: torch.ops.aten.lift_fresh(x.sum()), MAKES),  # of torch.tensor(2.0, device=...)
    ],
)
def test_what_goes_between_the_device_and_the_cpu_is_refused(work: Callable[[Tensor], Any], reason: str) -> None:
    """The meta device is the one that is always there beside the CPU."""
    with pytest.raises(NotCapturableError, match=reason), watched(torch.device("meta")):
        work(torch.zeros(3, device="meta"))


def test_numbers_of_the_cpu_and_work_there_are_fine() -> None:
    x = torch.zeros(3, device="meta")
    with watched(torch.device("meta")):
        x * torch.tensor(2.0) + (torch.zeros(3) + torch.ones(3)).sum()
        x.index_put_((x > 0,), torch.tensor(1.0))  # x[x > 0] = 1.0, on CUDA
        x.to(torch.float64).copy_(x).to(x.device)


class Looks(nn.Linear):
    """As forwards of wrapped models do, now and then: at values, where they can be looked at."""

    looked = 0

    def forward(self, x: Tensor) -> Tensor:
        if is_eager() and x.sum().item() > 0:
            Looks.looked += 1
        return super().forward(x)


def test_what_eager_forwards_look_at_is_not_looked_at() -> None:
    step = step_of(Looks(3, 3))
    for count in range(1, 4):
        step.gradients((X,))
        step.update(count)
    assert not step.reason
    assert Looks.looked == 1  # in the first step


class Reads(nn.Linear):
    def forward(self, x: Tensor) -> Tensor:
        return super().forward(x) * (1 if x.sum() > 0 else 2)


class Counts(nn.Linear):
    def __init__(self) -> None:
        super().__init__(3, 3)
        self.seen = 0

    def forward(self, x: Tensor) -> Tensor:
        self.seen += 1
        return super().forward(x) / self.seen


@pytest.mark.parametrize(
    ("model", "reason"),
    [
        (Reads(3, 3), r"the step reads values back from the device \(.*test_watch\.py, line \d+\)"),
        (Counts(), r"the step itself changes a number, which a graph would keep: seen, 1 -> 4"),
    ],
    ids=["reads", "counts"],
)
def test_a_model_that_cannot_be_captured_runs_eagerly(
    model: nn.Module, reason: str, caplog: pytest.LogCaptureFixture
) -> None:
    step = step_of(model)
    for count in range(1, 4):
        assert step.gradients((X,)).numbers()["loss"] > 0
        step.update(count)
    (said,) = caplog.messages
    assert said.startswith("run.compile=graph: the steps run eagerly: ")
    assert re.search(reason, said)
