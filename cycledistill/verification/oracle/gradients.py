"""Gradients of any output, and of which weights a model has."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import torch
from torch import Tensor, nn

from cycledistill.plugin.torch_private import tree_leaves
from cycledistill.verification.table import NotChecked

Gradients = dict[str, Tensor | None]


def number_of(output: Any) -> Tensor | None:
    """One number that depends on all floating-point entries of an output, each in a way of its own."""
    total: Tensor | None = None
    for leaf in tree_leaves(output):
        if isinstance(leaf, Tensor) and leaf.is_floating_point() and leaf.requires_grad:
            weights = torch.rand(leaf.shape, generator=torch.Generator().manual_seed(1), dtype=torch.float64)
            term = (leaf * (weights - 0.3).to(leaf.device, leaf.dtype)).sum()
            total = term if total is None else total + term.to(total.dtype)
    return total


def trained(model: nn.Module) -> dict[str, nn.Parameter]:
    """The parameters that ask for gradients, by name."""
    return {name: each for name, each in model.named_parameters() if each.requires_grad}


def gradients_of(outputs: Iterable[Any], weights: dict[str, nn.Parameter]) -> Gradients:
    """The gradients of the outputs' numbers together; ``None`` where a weight gets none. No ``.grad`` is touched."""
    found = [number for number in map(number_of, outputs) if number is not None]
    if not found:
        return dict.fromkeys(weights)
    values = torch.autograd.grad(
        torch.stack([each.double() for each in found]).sum(), list(weights.values()), allow_unused=True
    )
    return dict(zip(weights, values, strict=True))


def added(parts: Iterable[Gradients]) -> Gradients:
    """The sum of gradients, weight by weight."""
    total: Gradients = {}
    for part in parts:
        for name, value in part.items():
            before = total.get(name)
            total[name] = value if before is None else before if value is None else before + value
    return total


def check_trained(weights: dict[str, nn.Parameter]) -> None:
    """There is something to train."""
    if not weights:
        raise NotChecked("no parameter asks for gradients", optional=True)
