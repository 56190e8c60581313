"""Claims about pruning: which tokens are kept, and what the model returns without the others."""

from __future__ import annotations

import inspect
import math
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn

from cycledistill.verification.oracle.attention import AttentionSeen
from cycledistill.verification.oracle.calls import hooks
from cycledistill.verification.oracle.compare import check_same
from cycledistill.verification.oracle.cycles import ByHand
from cycledistill.verification.oracle.plain import find_place
from cycledistill.verification.oracle.subject import Subject
from cycledistill.verification.table import Failed, NotChecked, Proof

_TIE = 1e-5
"""Scores nearer than this share of the best are told apart by rounding alone."""


class TokensDropped:
    """Drops tokens of the plain model after whole blocks, by the attention that these blocks were seen to pay."""

    def __init__(self, subject: Subject) -> None:
        handle = subject.handle("pruning")
        self.blocks = find_place(subject.model, handle.stack.path).blocks
        self.layers, self.keep, self.first, self.scoring = handle.layers, handle.keep, handle.first, handle.query
        cyclic = subject.handle("cyclic")
        self.inside = True
        if cyclic is not None:
            cycled = find_place(subject.model, cyclic.stack.path).blocks
            self.inside = all(any(self.blocks[n] is each for each in cycled) for n in self.layers)
        self.seen = AttentionSeen()
        self.begin()

    def begin(self) -> None:
        """All tokens are there."""
        self.index: Tensor | None = None
        self.total = 0
        self.nearest = math.inf

    @contextmanager
    def inner(self, again: bool) -> Iterator[None]:
        """Blocks of the first round return the kept tokens alone."""
        if again and not self.inside:
            raise NotChecked("tokens are dropped in blocks outside those that are cycled")
        if again:
            yield
            return
        self.begin()
        with self.seen, hooks([self.blocks[n].register_forward_hook(self._leave) for n in self.layers]):
            yield

    @contextmanager
    def outer(self, again: bool) -> Iterator[None]:
        """Blocks of the first round are given tables for the kept tokens alone."""
        if again:
            yield
            return
        with hooks(
            [each.register_forward_pre_hook(self._enter, prepend=True, with_kwargs=True) for each in self.blocks]
        ):
            yield

    def _enter(self, block: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        tokens = args[0] if args else next(iter(kwargs.values()))
        if not self.total:
            self.total = tokens.shape[1]
        if any(self.blocks[number] is block for number in self.layers):
            self.seen.tokens, self.seen.weights = tokens.shape[1], []
        if self.index is None:
            return None
        names = list(inspect.signature(block.forward).parameters)
        taken = [self._of_kept(name, each) for name, each in zip(names[1:], args[1:], strict=False)]
        named = {name: each if each is tokens else self._of_kept(name, each) for name, each in kwargs.items()}
        return (*args[:1], *taken), named

    def _leave(self, block: nn.Module, args: Any, output: Tensor) -> Tensor:
        self.seen.tokens = None
        droppable = output.shape[1] - self.first
        count = math.ceil(round(droppable * self.keep, 9))
        if count >= droppable:
            return output
        if len(self.seen.weights) != 1:
            raise NotChecked(
                f"{len(self.seen.weights)} attentions over {output.shape[1]} tokens were seen in a block that drops "
                "some: what it computes is neither scaled_dot_product_attention nor one softmax"
            )
        scores = self.seen.weights[0][:, :, self.scoring].mean(1).sum(1)[:, self.first :]
        ordered = scores.sort(dim=1, descending=True, stable=True)
        gaps = ordered.values[:, :count] - ordered.values[:, 1 : count + 1]
        self.nearest = min(self.nearest, float((gaps[:, -1] / ordered.values[:, 0]).min()))
        best = ordered.indices[:, :count].to(output.device)
        self.index = best if self.index is None else self.index.gather(1, best)
        kept = [tokens[chosen] for tokens, chosen in zip(output[:, self.first :], best, strict=True)]
        return torch.cat((output[:, : self.first], torch.stack(kept)), 1)

    def _of_kept(self, name: str, value: Any) -> Any:
        """The rows of a table that belong to the kept tokens of each sample."""
        if not isinstance(value, Tensor) or not {self.total, self.total - self.first} & set(value.shape[:-1]):
            return value
        assert self.index is not None
        table = value[0] if value.ndim == 3 and len(value) == 1 else value
        if table.ndim != 2 or "mask" in name or "bias" in name:
            raise NotChecked(
                f"blocks take {name!r}, {tuple(value.shape)}, whose part for the kept tokens is not known here"
            )
        first = torch.arange(self.first, device=value.device).expand(len(self.index), -1)
        rows = self.index if len(table) == self.total - self.first else torch.cat((first, self.index + self.first), 1)
        found = torch.stack([table[each] for each in rows])
        return found.unsqueeze(1) if "rope" in name else found


def check_choice(subject: Subject, drops: TokensDropped) -> Proof:
    """The tokens that are kept are those that the scoring tokens attended to most."""
    subject.ask()
    got: Tensor | None = subject.handle("pruning").index
    _by_hand(subject, drops)
    want = drops.index
    if got is None or want is None:
        if got is not want:
            raise Failed("tokens are dropped" if want is None else "no token is dropped")
        return Proof(detail="nothing is dropped")
    if got.shape != want.shape:
        raise Failed(f"{got.shape[1]} tokens are kept, not {want.shape[1]}")
    others = (got.sort(1).values != want.sort(1).values).any(1)
    if bool(others.any()):
        if drops.nearest < _TIE:
            raise NotChecked("two tokens at the edge have one score but for rounding: give other inputs")
        lost = [len(set(b.tolist()) - set(a.tolist())) for a, b in zip(got, want, strict=True)]
        raise Failed(
            f"{int(others.sum())} of {len(got)} samples keep other tokens than their attention says, up to {max(lost)} "
            f"of {got.shape[1]}. What stands around attn.qkv, or in its place, is not seen by the scores"
        )
    return Proof(detail=f"{got.shape[1]} of {drops.total - drops.first} tokens kept, in each of {len(got)} samples")


def check_pruned(subject: Subject, drops: TokensDropped) -> Proof:
    """The model returns what it does when tokens are dropped by hand after whole blocks."""
    got = subject.ask()
    return Proof(check_same(got, _by_hand(subject, drops)))


def _by_hand(subject: Subject, drops: TokensDropped) -> Any:
    return ByHand(subject, find_place(subject.model, subject.handle("pruning").stack.path), drops).record([])
