"""Models that an hourglass is put on, and what is compared of them."""

from __future__ import annotations

import copy
from typing import Any

import torch
from torch import Tensor, nn

from cycledistill import wrap_hourglass
from tests.hourglass.models import FrameModel, JointModel, TupleModel

KINDS = (FrameModel, JointModel, TupleModel)


def close(got: Any, want: Any) -> None:
    torch.testing.assert_close(got, want, rtol=1e-11, atol=1e-11)


def gradients(model: nn.Module, output: Tensor) -> dict[str, Tensor]:
    model.zero_grad()
    output.square().sum().backward()
    return {name: p.grad.clone() for name, p in model.named_parameters() if p.grad is not None}


def wrap(plain: nn.Module, layers: tuple[int, ...] = (2,), keep: tuple[int, ...] = (5,), **settings: Any) -> Any:
    return wrap_hourglass(copy.deepcopy(plain), layer=layers, keep=keep, **settings)
