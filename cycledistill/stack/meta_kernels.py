"""Quick meta kernels: stand-ins on the meta device for operations whose results PyTorch works out there in Python.

A probe asks which tensor goes where and of what shape it is. The meta device answers with the operation's own
decomposition: two milliseconds for a layer norm, as long for attention, most of what a probe of a model takes. The
stand-ins give a new tensor of the same shape, type, device and strides by operations that take a hundredth of that. For
autograd it comes of the input, and weights of norms and biases are left out while they are a model's own: where one is
computed, from tokens say, or anything else is out of the ordinary, the operation itself runs, and refuses what it does.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as F
from torch.overrides import TorchFunctionMode


class MetaKernels(TorchFunctionMode):
    """In its context the stand-ins run in place of their operations.

    Example:
        >>> with MetaKernels(), torch.device("meta"):
        ...     F.layer_norm(torch.zeros(2, 3), (3,)).shape
        torch.Size([2, 3])
    """

    def __torch_function__(
        self, func: Any, types: Sequence[type], args: Sequence[Any] = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        """One operation: its stand-in's result, or its own where there is none."""
        kwargs = kwargs or {}
        stand_in = _KERNELS.get(func)
        result = None if stand_in is None else stand_in(*args, **kwargs)
        return func(*args, **kwargs) if result is None else result


def _of_one_type(*tensors: Any) -> bool:
    """Whether these are tensors of numbers with a point, on the meta device, of one type."""
    return all(
        type(x) in (Tensor, torch.nn.Parameter) and x.is_meta and x.is_floating_point() and x.dtype == tensors[0].dtype
        for x in tensors
    )


def _needed_by_autograd(heard: bool, *weights: Tensor | None) -> bool:
    """Whether autograd has something of weights that the stand-in leaves out: what they come of, or that they need it.

    Args:
        heard: Whether the result needs gradients without them.
        weights: Those that are left out.
    """
    left = [each for each in weights if each is not None and torch.is_grad_enabled()]
    return any(each.grad_fn is not None or (each.requires_grad and not heard) for each in left)


def _linear(input: Any, weight: Any, bias: Any = None, **other: Any) -> Tensor | None:
    given = (input, weight) if bias is None else (input, weight, bias)
    if other or not _of_one_type(*given) or weight.ndim != 2 or not input.ndim or input.shape[-1] != weight.shape[1]:
        return None
    if _needed_by_autograd(input.requires_grad or weight.requires_grad, bias):
        return None
    return None if bias is not None and bias.shape != weight.shape[:1] else input.matmul(weight.t())


def _layer_norm(
    input: Any, normalized_shape: Any, weight: Any = None, bias: Any = None, eps: float = 1e-5, **other: Any
) -> Tensor | None:
    if other or not isinstance(normalized_shape, (tuple, list)) or any(type(n) is not int for n in normalized_shape):
        return None
    shape, weights = tuple(normalized_shape), [each for each in (weight, bias) if each is not None]
    if not _of_one_type(input, *weights) or not shape or tuple(input.shape[-len(shape) :]) != shape:
        return None
    if any(tuple(each.shape) != shape for each in weights) or _needed_by_autograd(input.requires_grad, *weights):
        return None
    return input.clone(memory_format=torch.contiguous_format)


def _batch_norm(
    input: Any,
    running_mean: Any,
    running_var: Any,
    weight: Any = None,
    bias: Any = None,
    training: bool = False,
    momentum: float = 0.1,
    eps: float = 1e-5,
    **other: Any,
) -> Tensor | None:
    weights = [each for each in (running_mean, running_var, weight, bias) if each is not None]
    if (
        other
        or training
        or running_mean is None
        or running_var is None
        or not _of_one_type(input, *weights)
        or input.ndim < 2
    ):
        return None
    if any(each.shape != input.shape[1:2] for each in weights) or _needed_by_autograd(input.requires_grad, *weights):
        return None
    return input.clone()


def _activation(input: Any, inplace: bool = False, **other: Any) -> Tensor | None:
    return input.clone() if _of_one_type(input) and not inplace and not other else None


def _gelu(input: Any, approximate: str = "none", **other: Any) -> Tensor | None:
    return input.clone() if _of_one_type(input) and approximate in ("none", "tanh") and not other else None


def _attention(
    query: Any,
    key: Any,
    value: Any,
    attn_mask: Any = None,
    dropout_p: float = 0.0,
    is_causal: bool = False,
    scale: float | None = None,
    **other: Any,
) -> Tensor | None:
    if (
        attn_mask is not None
        or dropout_p != 0
        or any(other.values())
        or not _of_one_type(query, key, value)
        or query.ndim != 4
    ):
        return None
    same = query.shape[:2] == key.shape[:2] == value.shape[:2]
    if not same or query.shape[3] != key.shape[3] or key.shape[2] != value.shape[2]:
        return None
    return query.matmul(key.transpose(-2, -1)).matmul(value)


_KERNELS: dict[Any, Callable[..., Tensor | None]] = {
    F.linear: _linear,
    F.layer_norm: _layer_norm,
    F.batch_norm: _batch_norm,
    F.relu: _activation,
    F.silu: _activation,
    F.gelu: _gelu,
    F.scaled_dot_product_attention: _attention,
}
