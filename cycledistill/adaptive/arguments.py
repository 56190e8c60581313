"""What a model is called with: how many samples, and which arguments may hold one row of each."""

from __future__ import annotations

import enum
from typing import Any

import torch
from torch import Tensor

from cycledistill.adaptive.outputs import at
from cycledistill.adaptive.samples import Axes
from cycledistill.cycle.handle import ModelCall
from cycledistill.plugin.torch_private import tree_leaves, tree_leaves_with_path

_PLAIN = (bool, int, float, complex, str, bytes, type(None), enum.Enum, torch.dtype, torch.device, torch.layout)


def batch_of(call: ModelCall) -> tuple[int, list[Axes]]:
    """How many samples a model is called with, and guesses of which of its arguments hold one row of each.

    The first tensor does. Others that are as long are thought to, in the first guess; in the second they are tables
    that all samples share; in the rest one of them is the other.

    Raises:
        ValueError: There is no sample.
        TypeError: No tensor, or something whose content cannot be told from another's: an array, an object.
    """
    for path, leaf in tree_leaves_with_path((call.args, call.kwargs)):
        if not isinstance(leaf, (Tensor, *_PLAIN)):
            raise TypeError(
                f"the model was called with a {type(leaf).__name__}{at(path)} (of positional and keyword arguments), "
                "of which AdaptiveExit cannot tell what belongs to which sample: give a tensor, or let the model hold "
                "what all share"
            )
    first = first_tensor(call)
    leaves = tree_leaves((call.args, call.kwargs))
    batch = int(first.shape[0])
    if batch == 0:
        raise ValueError("the batch is empty: at least one sample is expected")
    alike = tuple(0 if isinstance(x, Tensor) and x.ndim and x.shape[0] == batch else None for x in leaves)
    alone = tuple(0 if x is first else None for x in leaves)
    guesses = [alike, alone]
    for number, (here, there) in enumerate(zip(alike, alone, strict=True)):
        if here != there:
            guesses += [_with(alike, number, there), _with(alone, number, here)]
    return batch, list(dict.fromkeys(guesses))


def first_tensor(call: ModelCall) -> Tensor:
    """The one that says how many samples there are."""
    for leaf in tree_leaves((call.args, call.kwargs)):
        if isinstance(leaf, Tensor) and leaf.ndim:
            return leaf
    raise TypeError("the model was called without a tensor: AdaptiveExit takes the batch from the first one")


def _with(axes: Axes, number: int, axis: Any) -> Axes:
    return (*axes[:number], axis, *axes[number + 1 :])
