"""Shares of a batch with unlike many frames that count: the mean of their losses is the loss of the batch."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from cycledistill.integrations.human36m.training import losses
from cycledistill.integrations.human36m.training.losses import LOSSES, SharedMask


@pytest.mark.parametrize("name", LOSSES)
def test_the_mean_over_processes_is_the_loss_of_the_whole_batch(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    predicted, target = torch.randn(2, 4, 9, 17, 3).unbind()
    inside = torch.ones(4, 9, dtype=torch.bool)
    inside[3, 2:] = False
    totals = torch.tensor([9.0 * 3 + 2, 8.0 * 3 + 1])  # frames, and steps between two

    def all_reduce(counts: Tensor) -> None:
        counts.copy_(totals)

    monkeypatch.setattr(losses.dist, "all_reduce", all_reduce)
    monkeypatch.setattr(losses.dist, "get_world_size", lambda: 2)
    loss, shares = LOSSES[name], [slice(0, 2), slice(2, 4)]
    whole = loss(predicted, target, inside)
    mean = torch.stack([loss(predicted[s], target[s], SharedMask.of(inside[s])) for s in shares]).mean()
    torch.testing.assert_close(mean, whole)
    alone = torch.stack([loss(predicted[s], target[s], inside[s]) for s in shares]).mean()
    assert abs(alone - whole) > 1e-3 * whole
