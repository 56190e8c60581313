"""CycleLoss: sums, named parts, targets of several tensors, plain outputs."""

from __future__ import annotations

from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from cycledistill import CycleLoss, CycleOutput, Distill, wrap_cyclic
from tests import toys
from tests.oracle import assert_same


def output(losses: dict[str, Tensor] | None = None, weights: tuple[float, ...] = (1.0, 0.5)) -> CycleOutput:
    x = torch.arange(6.0, dtype=torch.float64).reshape(2, 3)
    return CycleOutput((x, x**2), (x, x), losses or {}, weights)


def test_sum_of_weighted_task_losses_and_terms() -> None:
    out = output({"token_all": torch.tensor(0.25), "output": torch.tensor(0.125)})
    target = torch.tensor([2, 0])
    criterion = CycleLoss(nn.CrossEntropyLoss())
    want = F.cross_entropy(out[0], target) + 0.5 * F.cross_entropy(out[1], target) + 0.375
    assert_same(criterion(out, target), want, rtol=1e-15)


def test_parts_sum_to_the_loss_and_have_names() -> None:
    out = output({"token_all": torch.tensor(0.25)})
    target = torch.tensor([2, 0])
    parts = CycleLoss(nn.CrossEntropyLoss()).parts(out, target)
    assert list(parts) == ["task_1", "task_2", "token_all"]
    assert_same(parts["task_2"], 0.5 * F.cross_entropy(out[1], target), rtol=1e-15)
    assert_same(sum(parts.values()), CycleLoss(nn.CrossEntropyLoss())(out, target), rtol=1e-15)


def test_cycle_of_weight_zero_is_not_evaluated() -> None:
    """NaN times zero is NaN: an output that does not count must not reach the task loss."""
    out = output(weights=(1.0, 0.0))
    out.outputs[1].fill_(float("nan"))
    assert torch.isfinite(CycleLoss(nn.CrossEntropyLoss())(out, torch.tensor([2, 0])))


def test_whole_outputs_and_several_targets_reach_the_task_loss() -> None:
    seen: list[tuple[Any, ...]] = []

    def loss(*args: Any) -> Tensor:
        seen.append(args)
        return args[0]["logits"].sum()

    out = wrap_cyclic(toys.make(toys.DictViT), 2, distill=None)(toys.batch()[0])
    CycleLoss(loss)(out, "a", 3)
    assert [args[0] is out[i] for i, args in enumerate(seen)] == [True, True]
    assert [args[1:] for args in seen] == [("a", 3)] * 2


def test_plain_output_goes_straight_through() -> None:
    x, target = torch.randn(2, 3), torch.tensor([0, 1])
    criterion = CycleLoss(nn.CrossEntropyLoss(label_smoothing=0.1))
    assert_same(criterion(x, target), F.cross_entropy(x, target, label_smoothing=0.1))
    assert list(criterion.parts(x, target)) == ["task"]


def test_it_is_a_module_that_moves_its_task_loss() -> None:
    class Weighted(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.weight = nn.Parameter(torch.ones(()))

        def forward(self, x: Tensor, y: Tensor) -> Tensor:
            return self.weight * (x - y).square().mean()

    criterion = CycleLoss(Weighted())
    assert isinstance(criterion, nn.Module)
    assert [name for name, _ in criterion.named_parameters()] == ["task_loss.weight"]
    assert next(criterion.double().parameters()).dtype == torch.float64


def test_without_a_task_loss_the_outputs_bring_their_own() -> None:
    class Output:
        def __init__(self, loss: Tensor) -> None:
            self.loss = loss

    a, b = Output(torch.tensor(1.0)), Output(torch.tensor(4.0))
    out = CycleOutput((a, b), (), {"output": torch.tensor(0.5)}, (1.0, 0.5))
    assert float(CycleLoss()(out)) == 3.5
    assert float(CycleLoss()(a)) == 1.0
    as_dicts = CycleOutput(({"loss": a.loss}, {"loss": b.loss}), (), {}, (1.0, 1.0))
    assert float(CycleLoss()(as_dicts)) == 5.0


def test_without_a_task_loss_and_without_a_loss_it_says_what_to_do() -> None:
    with pytest.raises(ValueError, match=r"(?s)loss.*CycleLoss\("):
        CycleLoss()(output())


def test_task_loss_must_be_callable() -> None:
    with pytest.raises((TypeError, ValueError), match="'mse'"):
        CycleLoss("mse")


def test_whole_training_loop_lowers_the_loss_at_every_exit() -> None:
    model = wrap_cyclic(toys.make(), 2, distill=Distill(token_weight=0.01))
    criterion = CycleLoss(nn.CrossEntropyLoss())
    optimizer = torch.optim.Adam(model.parameters(), lr=1e-2)
    x, target = toys.batch(size=16)
    before = criterion.parts(model(x), target)
    for _ in range(40):
        optimizer.zero_grad()
        criterion(model(x), target).backward()
        optimizer.step()
    after = criterion.parts(model(x), target)
    assert all(float(after[key].detach()) < 0.5 * float(before[key].detach()) for key in ("task_1", "task_2"))
    model.eval()
    for k in (1, 2):
        model.cyclic.exit = k
        assert float(criterion(model(x), target).detach()) == pytest.approx(
            float(after[f"task_{k}"].detach()), rel=1e-9
        )
