"""Small models with something in them that belongs to samples, or to none, and looks alike."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn

from cycledistill import at_exit, wrap_cyclic
from cycledistill.adaptive import AdaptiveExit
from cycledistill.plugin.torch_private import tree_leaves, tree_map_only
from tests import toys

EXITS = (1, 2, 3)


class TableBlock(toys.Block):
    """Mixes a table into its tokens: by looks, (L, C) or (B, L, C), anything may be shared or of the samples."""

    def forward(self, x: Tensor, table: Tensor) -> Tensor:  # type: ignore[override]
        return super().forward(x + torch.tanh(table.mean(-2, keepdim=True)))


class TableViT(toys.ToyViT):
    """Hands a table to every block: of its own, made by a module before the stack, or an argument of the forward."""

    def __init__(self, length: int = 6, embedded: bool = False) -> None:
        super().__init__(2, block=TableBlock)
        self.length = length
        self.register_buffer("own", torch.randn(length, toys.DIM))
        self.embedding = nn.Embedding(length, toys.DIM) if embedded else None
        self.of_samples = False

    def forward(self, x: Tensor, table: Tensor | None = None) -> Tensor:
        if table is None:
            table = self.own if self.embedding is None else self.embedding(torch.arange(self.length))
        x = self.embed(x)
        table = x if self.of_samples else table
        for block in self.blocks:
            x = block(x, table)
        return self.head(self.norm(x).mean(1))


class SecondAxisViT(toys.ToyViT):
    """Hands tokens on as (N, B, C), as `nn.MultiheadAttention` does by default."""

    def __init__(self) -> None:
        super().__init__(2, block=SecondAxisBlock)

    def forward(self, x: Tensor) -> Tensor:
        x = self.embed(x).transpose(0, 1)
        for block in self.blocks:
            x = block(x)
        return self.head(self.norm(x).mean(0))


class SecondAxisBlock(toys.Block):
    def forward(self, x: Tensor) -> Tensor:
        return super().forward(x.transpose(0, 1)).transpose(0, 1)


class ReadsItsInput(toys.ToyViT):
    """Its tail sees the input, and what the stem made, beside the tokens."""

    def forward(self, x: Tensor) -> Tensor:
        stem = self.embed(x)
        y = stem
        for block in self.blocks:
            y = block(y)
        return self.head(self.norm(y + stem).mean(1)) + x.mean((1, 2))[:, None]


class MixingBlock(toys.Block):
    """What a sample becomes depends on the others."""

    def forward(self, x: Tensor) -> Tensor:
        return super().forward(x) - 0.5 * x.mean(0, keepdim=True)


class LateMixingBlock(toys.Block):
    """Mixes samples in further cycles alone, which it tells by a mark in its first channel."""

    def forward(self, x: Tensor) -> Tensor:
        again = x[..., :1] > 0.5
        y = super().forward(x) + 5 * x.mean(0, keepdim=True) * again
        return torch.cat([torch.ones_like(y[..., :1]), y[..., 1:]], -1)


class LateMixingViT(toys.ToyViT):
    def __init__(self) -> None:
        super().__init__(1, block=LateMixingBlock)

    def forward(self, x: Tensor) -> Tensor:
        x = self.embed(x)
        x = torch.cat([torch.zeros_like(x[..., :1]), x[..., 1:]], -1)
        for block in self.blocks:
            x = block(x)
        return self.head(self.norm(x).mean(1))


class FoldingViT(toys.ToyViT):
    """Hands on its tokens in windows, two of each sample, in the first dimension."""

    def forward(self, x: Tensor) -> Tensor:
        x = self.embed(x).reshape(2 * len(x), -1, toys.DIM)
        for block in self.blocks:
            x = block(x)
        return self.head(self.norm(x).mean(1).reshape(-1, 2, toys.DIM).mean(1))


def wrapped(cls: type[nn.Module] = toys.ToyViT, blocks: str = "blocks", **options: Any) -> Any:
    return wrap_cyclic(toys.make(cls, **options), 3, "exits", blocks=blocks).eval()


def fixed(model: nn.Module, exits: tuple[int, ...], *args: Any, **kwargs: Any) -> list[Any]:
    """The whole batch at each exit: the truth."""
    outputs = []
    for each in exits:
        with at_exit(model, each):
            outputs.append(model(*args, **kwargs))
    return outputs


def spread(adaptive: AdaptiveExit, outputs: list[Any]) -> None:
    """Set thresholds by which a third of the samples leaves at the first exit, and half of the others at each."""
    values = adaptive.confidences(outputs)
    left = torch.ones(len(values), dtype=torch.bool)
    threshold = []
    for place, column in enumerate(values.unbind(1)):
        ordered = column[left].sort(descending=True).values
        number = max(1, len(ordered) // (2 if place else 3))
        threshold.append(float(ordered[number - 1 : number + 1].mean()))  # between two, not on one that may round
        left &= column < threshold[-1]
    adaptive.threshold = threshold


def check_rows(
    model: nn.Module, *args: Any, exits: tuple[int, ...] = EXITS, rtol: float = 0.0, **kwargs: Any
) -> Tensor:
    """Every row of an adaptive call is that of the fixed exit it names; three calls, samples at several exits."""
    truth = fixed(model, exits, *args, **kwargs)
    adaptive = AdaptiveExit(model, exits, confidence=wobble)
    spread(adaptive, truth)
    for _ in range(3):
        outputs, reached = adaptive(*args, return_exits=True, **kwargs)
        for row, each in enumerate(reached.tolist()):
            got = [leaf[row] for leaf in tree_leaves(outputs) if isinstance(leaf, Tensor)]
            expected = [leaf[row] for leaf in tree_leaves(truth[exits.index(each)]) if isinstance(leaf, Tensor)]
            torch.testing.assert_close(got, expected, rtol=rtol, atol=rtol)
    assert len(set(reached.tolist())) == len(exits), reached
    return reached


def images(size: int = 6, tokens: int = 4) -> Tensor:
    return toys.batch(size=size, tokens=tokens)[0]


def wobble(output: Any) -> Tensor:
    """A confidence for any output, different for each sample."""
    values = next(leaf for leaf in tree_leaves(output) if isinstance(leaf, Tensor) and leaf.is_floating_point())
    return torch.sin(7 * values.flatten(1).double()).mean(1)


def to_float(value: Any) -> Any:
    return tree_map_only(Tensor, lambda x: x.float() if x.is_floating_point() else x, value)
