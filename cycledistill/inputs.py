"""A copy of a model that may be run and thrown away, and inputs to run it with."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor, nn

from cycledistill.errors import StackError
from cycledistill.plugin.torch_private import tree_leaves, tree_map_only
from cycledistill.stack.probe import guess_inputs

Inputs = tuple[tuple[Any, ...], dict[str, Any]]
"""Positional and keyword arguments of a model's forward."""


def guess_call(model: nn.Module, twin: nn.Module) -> Inputs:
    """One image of the first declared size that a meta copy runs on, as meta tensors of the model's type."""
    dtype = next((p.dtype for p in model.parameters() if p.is_floating_point()), torch.float32)
    tried = []
    for named in guess_inputs(model):
        cast = {name: x.to(dtype) if x.is_floating_point() else x for name, x in named.items()}
        args = tuple(x for name, x in cast.items() if not name)
        kwargs = {name: x for name, x in cast.items() if name}
        try:
            with torch.no_grad():
                twin.eval()(*args, **kwargs)
            return args, kwargs
        except StackError:
            raise
        except Exception as error:  # a wrong guess fails anywhere inside the model
            tried.append(f"{describe((args, kwargs))} ({type(error).__name__})")
    raise ValueError(
        f"no input was given, and {type(model).__name__} declares no size that runs; tried: "
        f"{', '.join(tried) or 'none'}. Give one: cost(model, inputs=torch.zeros(1, 3, 224, 224))"
    )


def call_of(inputs: Tensor | tuple[Any, ...] | Mapping[str, Any]) -> Inputs:
    """A tensor, a tuple of positional or a mapping of keyword arguments, as both."""
    if isinstance(inputs, Mapping):
        return (), dict(inputs)
    return (inputs if isinstance(inputs, tuple) else (inputs,)), {}


def with_data(given: Inputs, model: nn.Module) -> Inputs:
    """The inputs with data, on the model's device; guessed ones (meta) become noise."""
    device = next(model.parameters()).device

    def place(x: Tensor) -> Tensor:
        if not x.is_meta:
            return x.to(device)
        noise = torch.randn if x.is_floating_point() else torch.zeros
        return noise(x.shape, dtype=x.dtype, device=device)

    placed: Inputs = tree_map_only(Tensor, place, given)
    return placed


def describe(given: Inputs) -> str:
    """The arguments in words, tensors by shape: ``"1 x 3 x 224 x 224"``."""
    args, kwargs = given
    named = [("", x) for x in args] + [(f"{name} ", x) for name, x in kwargs.items()]
    words = [(name, " x ".join(map(str, x.shape)) if isinstance(x, Tensor) else type(x).__name__) for name, x in named]
    return ", ".join(name + word for name, word in words)


def batch_size(given: Inputs) -> int | None:
    """Dimension 0 of the first tensor."""
    return next((int(x.shape[0]) for x in tree_leaves(given) if isinstance(x, Tensor) and x.dim()), None)
