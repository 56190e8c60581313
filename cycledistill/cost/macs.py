"""Count multiply-accumulates of whatever runs inside a context, and tell attention's matmuls from those of weights."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import ExitStack
from typing import Any, NamedTuple

import torch
from torch import nn
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.utils.flop_counter import FlopCounterMode

from cycledistill.cost.meta_shapes import MetaShapes
from cycledistill.plugin.torch_private import TO_COPY, TorchDispatchMode, storage_of

_BATCHED = (torch.ops.aten.bmm, torch.ops.aten.baddbmm)
_COPIES = (torch.ops.aten.clone, TO_COPY)  # another layout or another type


class Macs(NamedTuple):
    """Multiply-accumulates (one MAC is two FLOPs): all of them, and those between two activations (QK^T and AV)."""

    total: int
    attention: int

    @property
    def weights(self) -> int:
        """MACs of convolutions and linear layers alone: the convention that leaves attention matmuls out."""
        return self.total - self.attention

    def since(self, earlier: Macs) -> Macs:
        """What was counted after ``earlier``."""
        return Macs(self.total - earlier.total, self.attention - earlier.attention)


class MacCounter:
    """Counts while it is entered: `torch.utils.flop_counter.FlopCounterMode` / 2, split by what is multiplied.

    Operations without a FLOP formula in PyTorch (elementwise, normalisation, softmax, FFT, custom kernels) count zero.
    A batched product with a weight, as ``einsum`` makes, is a weight's; any other batched product is attention's.

    Args:
        weights: The module whose parameters are the weights.

    Example:
        >>> layer = nn.Linear(3, 5)
        >>> with MacCounter(layer) as counter:
        ...     _ = layer(torch.zeros(2, 3))
        >>> counter.read()
        Macs(total=30, attention=0)
    """

    def __init__(self, weights: nn.Module) -> None:
        self._products = _WeightProducts(weights)
        self._flops = FlopCounterMode(display=False)
        self._stack = ExitStack()

    def __enter__(self) -> MacCounter:
        # Outside the FLOP counter, which decomposes composite operations: these modes then see their parts.
        self._stack.enter_context(MetaShapes())
        self._stack.enter_context(self._products)
        self._stack.enter_context(self._flops)
        # Attention as two batched products: some fused kernels are one operation without a formula in older PyTorch.
        self._stack.enter_context(sdpa_kernel(SDPBackend.MATH))
        # So is the fused encoder layer of eval mode, in any.
        fused = torch.backends.mha.get_fastpath_enabled()
        torch.backends.mha.set_fastpath_enabled(False)
        self._stack.callback(torch.backends.mha.set_fastpath_enabled, fused)
        return self

    def __exit__(self, *error: Any) -> None:
        self._stack.close()

    def read(self) -> Macs:
        """The count so far; may be read while counting goes on."""
        flops = self._flops.get_flop_counts().get("Global", {})
        batched = sum(count for op, count in flops.items() if op in _BATCHED or "attention" in str(op))
        return Macs(sum(flops.values()) // 2, (batched - self._products.flops) // 2)


class _WeightProducts(TorchDispatchMode):
    """FLOPs of batched matrix products that have a parameter, a view or a copy of one, as a factor."""

    def __init__(self, module: nn.Module) -> None:
        super().__init__()
        self.flops = 0
        # Storages by id; holding them keeps an id from being used again.
        self._weights = {storage_of(parameter): parameter.untyped_storage() for parameter in module.parameters()}

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        out = func(*args, **(kwargs or {}))
        if func.overloadpacket in _COPIES and storage_of(args[0]) in self._weights:
            self._weights[storage_of(out)] = out.untyped_storage()
        elif func.overloadpacket in _BATCHED:
            a, b = args[-2:]
            if storage_of(a) in self._weights or storage_of(b) in self._weights:
                self.flops += 2 * a.shape[0] * a.shape[1] * a.shape[2] * b.shape[2]
        return out


def count_parts(model: nn.Module, blocks: list[nn.Module], forward: Callable[[], Any]) -> tuple[Macs, Macs, Macs]:
    """MACs of one ``forward`` of the model before, inside and after a stack of ``blocks``, each of which runs once."""
    seen: list[Macs] = []
    with MacCounter(model) as counter:
        handles = [
            blocks[0].register_forward_pre_hook(lambda *_: seen.append(counter.read())),
            blocks[-1].register_forward_hook(lambda *_: seen.append(counter.read())),
        ]
        try:
            forward()
        finally:
            for handle in handles:
                handle.remove()
    if len(seen) != 2:
        raise RuntimeError(f"the forward entered and left the stack {len(seen)} times in all; 2 were expected")
    entered, left = seen
    return entered, left.since(entered), counter.read().since(left)
