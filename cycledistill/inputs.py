"""Inputs to run a model with: guessed, filled with data, and put in words."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from cycledistill.errors import StackError
from cycledistill.plugin.torch_private import tree_leaves, tree_map_only
from cycledistill.stack.copies import unnoticed
from cycledistill.stack.given import Call, Inputs, call_of, describe
from cycledistill.stack.probe import guess_inputs

__all__ = ["Call", "Inputs", "batch_size", "call_of", "describe", "guess_call", "with_data"]


@unnoticed()
def guess_call(model: nn.Module, copied: nn.Module) -> Call:
    """One image of the first declared size that ``copied``, a meta copy of the model, runs on, as a meta tensor."""
    tried = []
    for args, kwargs in guess_inputs(model):
        try:
            with torch.no_grad():
                copied.eval()(*args, **kwargs)
            return args, kwargs
        except StackError:
            raise
        except Exception as error:  # a wrong guess fails anywhere inside the model
            tried.append(f"{describe((args, kwargs))} ({type(error).__name__})")
    raise ValueError(
        f"no input was given, and {type(model).__name__} declares no size that runs; tried: "
        f"{', '.join(tried) or 'none'}. Give one, such as inputs=torch.zeros(1, 3, 224, 224)"
    )


def with_data(given: Call, model: nn.Module) -> Call:
    """The inputs with data, on the model's device; guessed ones (meta) become noise, the same in every call."""
    device = next((parameter.device for parameter in model.parameters()), torch.device("cpu"))

    def filled(x: Tensor) -> Tensor:
        if not x.is_meta:
            return x.to(device)
        if not x.is_floating_point():
            return torch.zeros(x.shape, dtype=x.dtype, device=device)
        return torch.randn(x.shape, generator=torch.Generator().manual_seed(0)).to(device, x.dtype)

    return tree_map_only(Tensor, filled, given)


def batch_size(given: Call) -> int | None:
    """Dimension 0 of the first tensor."""
    return next((int(x.shape[0]) for x in tree_leaves(given) if isinstance(x, Tensor) and x.dim()), None)
