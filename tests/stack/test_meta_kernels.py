"""Stand-ins on the meta device give what the operations themselves give there: all but the time it takes."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.overrides import TorchFunctionMode

from cycledistill import StackError, wrap_cyclic
from cycledistill.stack.meta_kernels import MetaKernels


def empty(*shape: int, dtype: torch.dtype = torch.float32, gradients: bool = True) -> Tensor:
    return torch.zeros(shape, dtype=dtype, device="meta", requires_grad=gradients)


HALF = torch.bfloat16
ORDINARY: dict[str, tuple[Callable[..., Tensor], tuple[Any, ...], dict[str, Any]]] = {
    "linear": (F.linear, (empty(2, 5, 8), empty(3, 8), empty(3)), {}),
    "linear of a vector": (F.linear, (empty(8), empty(3, 8)), {}),
    "linear in 16 bits": (F.linear, (empty(2, 8, dtype=HALF), empty(3, 8, dtype=HALF)), {"bias": empty(3, dtype=HALF)}),
    "layer norm": (F.layer_norm, (empty(2, 5, 8), (8,), empty(8), empty(8), 1e-6), {}),
    "layer norm of what is not contiguous": (F.layer_norm, (empty(2, 8, 5).transpose(1, 2), [8]), {"weight": empty(8)}),
    "layer norm of two dimensions": (F.layer_norm, (empty(2, 5, 8), (5, 8)), {}),
    "batch norm": (F.batch_norm, (empty(2, 3, 4, 4), *(empty(3, gradients=False),) * 2, empty(3), empty(3)), {}),
    "relu": (F.relu, (empty(2, 3),), {}),
    "silu": (F.silu, (empty(3, 2).t(),), {"inplace": False}),
    "gelu": (F.gelu, (empty(2, 3),), {"approximate": "tanh"}),
    "attention": (F.scaled_dot_product_attention, (empty(2, 3, 5, 4), empty(2, 3, 7, 4), empty(2, 3, 7, 6)), {}),
    "causal attention": (F.scaled_dot_product_attention, (empty(2, 3, 5, 4),) * 3, {"is_causal": True, "scale": 0.5}),
    "without gradients": (F.linear, (empty(2, 8, gradients=False), empty(3, 8, gradients=False)), {}),
}
OTHERS: dict[str, tuple[Callable[..., Tensor], tuple[Any, ...], dict[str, Any]]] = {
    "in place": (F.relu, (empty(2, 3, gradients=False), True), {}),
    "in place, by name": (F.silu, (empty(2, 3, gradients=False),), {"inplace": True}),
    "a norm that gradients come from": (F.layer_norm, (empty(2, 8, gradients=False), (8,), empty(8)), {}),
    "a batch norm that gradients come from": (
        F.batch_norm, (empty(2, 3, gradients=False), *(empty(3, gradients=False),) * 2, empty(3)), {},
    ),
    "a norm by what is computed": (F.layer_norm, (empty(2, 8), (8,), empty(8) * 2), {}),
    "a batch norm by what is computed": (
        F.batch_norm, (empty(2, 3), *(empty(3, gradients=False),) * 2, empty(3), empty(3) * 2), {},
    ),
    "a bias that is computed": (F.linear, (empty(2, 8), empty(3, 8), empty(3) * 2), {}),
    "a bias that gradients come from": (
        F.linear, (empty(2, 8, gradients=False), empty(3, 8, gradients=False), empty(3)), {},
    ),
    "a place for the result": (
        F.gelu, (empty(2, 3, gradients=False),), {"out": empty(2, 3, gradients=False)},
    ),
    "attention with dropout": (F.scaled_dot_product_attention, (empty(2, 3, 5, 4),) * 3, {"dropout_p": 0.5}),
    "statistics of the batch": (F.batch_norm, (empty(2, 3), None, None), {"training": True}),
    "attention under a mask": (F.scaled_dot_product_attention, (empty(2, 3, 5, 4),) * 3, {"attn_mask": empty(5, 5)}),
    "attention of one head": (F.scaled_dot_product_attention, (empty(2, 5, 4),) * 3, {}),
    "keys that are broadcast": (F.scaled_dot_product_attention, (empty(2, 3, 5, 4), *(empty(1, 3, 5, 4),) * 2), {}),
    "types that are not one": (F.linear, (empty(2, 8), empty(3, 8, dtype=HALF)), {}),
    "a CPU's tensors": (F.linear, (torch.ones(2, 8), torch.ones(3, 8)), {}),
}  # fmt: skip
WRONG: dict[str, tuple[Callable[..., Tensor], tuple[Any, ...], dict[str, Any]]] = {
    "features": (F.linear, (empty(2, 7), empty(3, 8)), {}),
    "bias": (F.linear, (empty(2, 8), empty(3, 8), empty(2)), {}),
    "normalized shape": (F.layer_norm, (empty(2, 8), (7,)), {}),
    "normalized shape, a number": (F.layer_norm, (empty(2, 8), 8), {}),
    "normalized shape, with a point": (F.layer_norm, (empty(2, 8), [8.0]), {}),
    "weight of a norm": (F.layer_norm, (empty(2, 8), (8,), empty(7)), {}),
    "channels": (F.batch_norm, (empty(2, 4, 5, 5), *(empty(3, gradients=False),) * 2), {}),
    "approximation": (F.gelu, (empty(2, 3),), {"approximate": "other"}),
    "lengths": (F.scaled_dot_product_attention, (empty(2, 3, 5, 4), empty(2, 3, 7, 4), empty(2, 3, 6, 4)), {}),
    "mask": (F.scaled_dot_product_attention, (empty(2, 3, 5, 4),) * 3, {"attn_mask": empty(4, 4)}),
}


class Operations(TorchFunctionMode):
    """What runs, by name, in the order it does."""

    def __init__(self) -> None:
        super().__init__()
        self.names: list[str] = []

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        self.names.append(getattr(func, "__name__", str(func)))
        return func(*args, **(kwargs or {}))


def run(operation: Callable[..., Tensor], args: Any, kwargs: Any) -> tuple[Tensor, list[str]]:
    with Operations() as seen, MetaKernels():
        return operation(*args, **kwargs), seen.names


def assert_alike(got: Tensor, want: Tensor) -> None:
    assert (got.shape, got.dtype, got.device) == (want.shape, want.dtype, want.device)
    assert got.requires_grad == want.requires_grad and got.is_leaf == want.is_leaf


@pytest.mark.parametrize(("operation", "args", "kwargs"), ORDINARY.values(), ids=ORDINARY)
def test_stand_ins_give_what_the_operations_give(operation: Callable[..., Tensor], args: Any, kwargs: Any) -> None:
    got, names = run(operation, args, kwargs)
    want = operation(*args, **kwargs)
    assert_alike(got, want)
    if operation is not F.scaled_dot_product_attention:  # every kernel has strides of its own
        assert got.stride() == want.stride()
    assert operation.__name__ not in names, "the operation itself ran"
    assert all(got is not each for each in args)


@pytest.mark.parametrize(("operation", "args", "kwargs"), OTHERS.values(), ids=OTHERS)
def test_out_of_the_ordinary_the_operation_runs(operation: Callable[..., Tensor], args: Any, kwargs: Any) -> None:
    got, names = run(operation, args, kwargs)
    assert operation.__name__ in names
    assert_alike(got, operation(*args, **kwargs))


@pytest.mark.parametrize(("operation", "args", "kwargs"), WRONG.values(), ids=WRONG)
def test_what_does_not_fit_is_refused_in_the_operation_s_words(operation: Any, args: Any, kwargs: Any) -> None:
    with pytest.raises((RuntimeError, ValueError, TypeError)) as want:
        operation(*args, **kwargs)
    with pytest.raises(want.type) as got, MetaKernels():
        operation(*args, **kwargs)
    assert str(got.value) == str(want.value)


def test_modules_go_by_them_and_gradients_find_their_inputs() -> None:
    with torch.device("meta"):
        layers = nn.Sequential(nn.Linear(8, 8), nn.LayerNorm(8), nn.GELU(), nn.Linear(8, 2), nn.ReLU()).eval()
        x = torch.zeros(3, 8, requires_grad=True)
        with Operations() as seen, MetaKernels():
            out = layers(x)
    assert out.shape == (3, 2) and not {"linear", "layer_norm", "gelu", "relu"} & set(seen.names)
    grads = torch.autograd.grad(out.sum(), (x, layers[0].weight, layers[3].weight))
    assert [each.shape for each in grads] == [(3, 8), (8, 8), (2, 8)]


class Conditional(nn.Module):
    """Blocks that take, beside their tokens, positions whose norm is made of the tokens before them."""

    class Block(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.fc = nn.Linear(8, 8)

        def forward(self, x: Tensor, beside: Tensor) -> Tensor:
            return x + self.fc(x) * beside

    def __init__(self) -> None:
        super().__init__()
        self.blocks = nn.ModuleList(self.Block() for _ in range(3))
        self.positions = nn.Parameter(torch.randn(4, 8))

    def forward(self, x: Tensor) -> Tensor:
        for block in self.blocks:
            mean = x.mean((0, 1))
            x = block(x, F.layer_norm(self.positions, (8,), mean, mean))
        return x


def test_what_comes_of_earlier_blocks_by_a_norm_s_weights_is_seen() -> None:
    with pytest.raises(StackError, match="takes something beside its tokens that is computed from blocks before it"):
        wrap_cyclic(Conditional(), 2, blocks="blocks", inputs=torch.zeros(2, 4, 8))
