"""The tokens in what a block takes or returns: found there, laid out as (B, F, J, C), and put back in their form."""

from __future__ import annotations

import inspect
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from cycledistill.errors import StackError
from cycledistill.plugin.torch_private import tree_flatten, tree_unflatten


@dataclass
class Tokens:
    """The tokens in what a module takes or returns: its first tensor, and whatever is of the same shape."""

    leaves: list[Any]
    """All that the structure holds, tokens and others."""
    spec: Any
    numbers: list[int]
    """Which of the leaves are tokens."""

    @classmethod
    def within(cls, tree: Any, same_type: bool) -> Tokens | None:
        """Those in a nested structure, if there is a tensor; with ``same_type``, of the first one's dtype alone."""
        leaves, spec = tree_flatten(tree)
        first = next((leaf for leaf in leaves if isinstance(leaf, Tensor)), None)
        if first is None:
            return None
        alike = [isinstance(leaf, Tensor) and leaf.shape == first.shape for leaf in leaves]
        if same_type:
            alike = [same and leaf.dtype == first.dtype for same, leaf in zip(alike, leaves, strict=True)]
        return cls(leaves, spec, [number for number, same in enumerate(alike) if same])

    @property
    def first(self) -> Tensor:
        """The first tensor."""
        tensor: Tensor = self.leaves[self.numbers[0]]
        return tensor

    @property
    def value(self) -> Any:
        """One tensor, or a tuple of several."""
        found = tuple(self.leaves[number] for number in self.numbers)
        return found[0] if len(found) == 1 else found

    def replaced(self, value: Any, path: str) -> Any:
        """The whole structure, with other tokens."""
        made = value if isinstance(value, tuple) else (value,)
        if len(made) != len(self.numbers) or not all(isinstance(each, Tensor) for each in made):
            raise StackError(
                f"layout: the second function gave {len(made)} things for the tokens at {path}, which are "
                f"{len(self.numbers)} tensor(s)"
            )
        leaves = list(self.leaves)
        for number, leaf in zip(self.numbers, made, strict=True):
            leaves[number] = leaf
        return tree_unflatten(leaves, self.spec)


class FramesFirst:
    """The usual layouts: (B, F, J, C); (B, F, C), one token a frame; tuples of these, side by side on the J axis."""

    def to(self, tokens: Any, frames: int | None) -> Tensor:
        """The tokens as (B, F, J, C); another layout comes back as it is."""
        if isinstance(tokens, Tensor):
            return tokens.unsqueeze(2) if tokens.ndim == 3 else tokens
        if all(each.ndim == 3 for each in tokens):
            return torch.stack(tokens, dim=2)
        return torch.cat(tokens, dim=2) if all(each.ndim == 4 for each in tokens) else tokens[0]

    def back(self, grid: Tensor, like: Any) -> Any:
        """(B, F, J, C) in the form of ``like``."""
        if isinstance(like, Tensor):
            return grid.squeeze(2) if like.ndim == 3 else grid
        if like[0].ndim == 3:
            return tuple(each.contiguous() for each in grid.unbind(dim=2))
        return tuple(each.contiguous() for each in grid.split([each.shape[2] for each in like], dim=2))


@dataclass(frozen=True)
class GivenLayout:
    """The user's two functions; the first may take the number of frames as well."""

    forth: Callable[..., Tensor]
    back_again: Callable[[Tensor], Any]
    takes_frames: bool

    def to(self, tokens: Any, frames: int | None) -> Tensor:
        """The tokens as (B, F, J, C); ``frames`` is F where it is known."""
        if not self.takes_frames:
            return self.forth(tokens)
        if frames is None:
            raise StackError("layout: the first function takes the number of frames, which needs frames=...")
        return self.forth(tokens, frames)

    def back(self, grid: Tensor, like: Any) -> Any:
        """(B, F, J, C) in the user's layout."""
        return self.back_again(grid)


Layout = FramesFirst | GivenLayout


def resolve_layout(layout: Any) -> Layout:
    """The layout that ``layout=`` of ``wrap_hourglass`` means."""
    if layout is None:
        return FramesFirst()
    if not isinstance(layout, (tuple, list)) or len(layout) != 2 or not all(callable(each) for each in layout):
        raise StackError(
            f"layout={layout!r}: a pair of functions is expected, from the blocks' tokens to (B, F, J, C) and back, as "
            "(lambda x: x.transpose(1, 2), lambda x: x.transpose(1, 2)) for blocks on (B, J, F, C)"
        )
    needed = [
        each
        for each in inspect.signature(layout[0]).parameters.values()
        if each.default is each.empty and each.kind in (each.POSITIONAL_ONLY, each.POSITIONAL_OR_KEYWORD)
    ]
    return GivenLayout(layout[0], layout[1], len(needed) > 1)


Front = Tensor | tuple[Tensor, ...]


def split_front(tokens: Any, prefix: int) -> tuple[Front | None, Any]:
    """Tokens (B, P + F, ...), or a tuple of such, as those in front and the others; ``None`` where there are none."""
    if not prefix:
        return None, tokens
    if isinstance(tokens, Tensor):
        return tokens[:, :prefix], tokens[:, prefix:]
    return tuple(each[:, :prefix] for each in tokens), tuple(each[:, prefix:] for each in tokens)


def with_front(front: Front | None, tokens: Any) -> Any:
    """What `split_front` split, together again."""
    if front is None:
        return tokens
    if isinstance(front, Tensor):
        return _joined(front, tokens)
    return tuple(_joined(*both) for both in zip(front, tokens, strict=True))


def _joined(front: Tensor, tokens: Tensor) -> Tensor:
    if front.shape[0] != tokens.shape[0]:
        raise StackError(
            f"the tokens in front are {tuple(front.shape)}, and the frames {tuple(tokens.shape)}: prefix counts tokens "
            "on axis 1 of what the blocks take, before any layout, and here that is another axis. Let the model put "
            "its batch first"
        )
    return torch.cat((front, tokens), dim=1)
