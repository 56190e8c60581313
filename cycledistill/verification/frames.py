"""Claims about an hourglass: what it counts are frames, and the frames it keeps are those it names."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn

from cycledistill.plugin.handle import HOURGLASS_STATE
from cycledistill.plugin.torch_private import tree_leaves, tree_map_only
from cycledistill.verification.oracle.calls import BlockCall, hooks, listening
from cycledistill.verification.oracle.compare import check_same
from cycledistill.verification.oracle.cycles import ByHand
from cycledistill.verification.oracle.plain import find_place
from cycledistill.verification.oracle.subject import Subject
from cycledistill.verification.table import Failed, NotChecked, Proof


class FramesDropped:
    """Takes, in the plain model and by hand, the frames that the hourglass kept, and makes all of them again."""

    def __init__(self, subject: Subject) -> None:
        self.handle = subject.handle("hourglass")
        model = subject.model
        self.blocks = find_place(model, self.handle.stack.path).blocks
        layout = vars(self.blocks[self.handle.layers[0]])[HOURGLASS_STATE].layout
        if type(layout).__name__ != "FramesFirst":
            raise NotChecked("the layout is the user's own two functions, which a loop by hand does not know")
        self.prefix = self.handle.settings.prefix
        self.last = self.blocks[self.handle.end]
        after = self.handle.recover_after
        self.back = model.get_submodule(after) if after is not None else None
        learns = self.handle.settings.learns
        self.tables = [each.pos for each in model.prune] if learns else None  # type: ignore[union-attr]
        self.recovery: Any = model.recover if learns else None
        self.frames, self.due = 0, False

    @contextmanager
    def inner(self, again: bool) -> Iterator[None]:
        """Nothing."""
        yield

    @contextmanager
    def outer(self, again: bool) -> Iterator[None]:
        """Blocks are given kept frames, and the module after them returns all of them."""
        self.due = False
        points = [self.blocks[number] for number in self.handle.layers]
        registered = [
            *(each.register_forward_pre_hook(self._enter, with_kwargs=True, prepend=True) for each in points),
            self.blocks[0].register_forward_pre_hook(self._count, with_kwargs=True, prepend=True),  # before the others
            self.last.register_forward_hook(self._end),
        ]
        if self.back is not None:
            registered.append(self.back.register_forward_hook(self._recover))
        with hooks(registered):
            yield

    def _index(self) -> list[Tensor]:
        index = self.handle.index
        return [index] if isinstance(index, Tensor) else list(index)

    def _count(self, block: nn.Module, args: Any, kwargs: Any) -> None:
        self.frames = _first_tensor((args, kwargs)).shape[1] - self.prefix

    def _enter(self, block: nn.Module, args: Any, kwargs: Any) -> Any:
        point = next(n for n, number in enumerate(self.handle.layers) if self.blocks[number] is block)
        index = self._index()
        like = _first_tensor((args, kwargs))
        numbers = index[point].expand(len(like), -1)
        if point:
            before = index[point - 1].expand(len(like), -1)
            numbers = torch.stack([torch.searchsorted(a, b) for a, b in zip(before, numbers, strict=True)])

        def kept(value: Tensor) -> Tensor:
            if value.shape != like.shape or value.dtype != like.dtype:
                return value
            front, frames = value[:, : self.prefix], value[:, self.prefix :]
            found = torch.stack([clip[each] for clip, each in zip(frames, numbers, strict=True)])
            found = found if self.tables is None else found + _for_each_frame(self.tables[point], found)
            return torch.cat((front, found), 1)

        return tree_map_only(Tensor, kept, (args, kwargs))

    def _end(self, *_: Any) -> None:
        self.due = True

    def _recover(self, module: nn.Module, args: Any, output: Any) -> Any:
        if not self.due:
            return output
        self.due = False
        index = self._index()[-1]
        return tree_map_only(Tensor, lambda value: self._all_frames(value, index.expand(len(value), -1)), output)

    def _all_frames(self, tokens: Tensor, index: Tensor) -> Tensor:
        """Those in front stay as they are, where the model did not take them off before."""
        first = tokens.shape[1] - index.shape[1]
        front, kept = tokens[:, :first], tokens[:, first:]
        if self.recovery is not None:
            return torch.cat((front, _attended(self.recovery, kept, index)), 1)
        interpolate = _linear if self.handle.recover == "linear" else _nearest
        made = [interpolate(clip, numbers.tolist(), self.frames) for clip, numbers in zip(kept, index, strict=True)]
        return torch.cat((front, torch.stack(made)), 1)


def check_frames(subject: Subject) -> Proof:
    """The axis that is dropped from holds as many tokens as the clip has frames; a prefix beside them stays whole."""
    handle = subject.handle("hourglass")
    blocks, number = find_place(subject.model, handle.stack.path).blocks, handle.layers[0]
    prefix, learned = handle.settings.prefix, count_prefix(subject, blocks)
    if learned > prefix:
        raise Failed(
            f"the tokens begin with {learned} that do not depend on the input, and {prefix} are set aside: what is no "
            f"frame is counted as one, and may be dropped. Wrap with prefix={learned}"
        )
    seen: list[Tensor] = []

    def note(block: nn.Module, args: Any, kwargs: Any) -> None:
        seen.append(_first_tensor((args, kwargs)))

    with hooks([blocks[number].register_forward_pre_hook(note, with_kwargs=True)]):
        subject.ask()
        subject.tell()
    index = handle.index[0] if isinstance(handle.index, tuple) else handle.index
    whole = _grid(subject, seen[-1][:, prefix:], handle.settings.frames)
    frames = _frames_of(subject, whole.shape[1], handle.settings.frames)
    in_words = f", and {prefix} in front" if prefix else ""
    if whole.shape[1] != frames:
        raise Failed(
            f"the axis that frames are dropped from holds {whole.shape[1]} tokens{in_words}, and the clip has {frames} "
            "frames: they are no frames. Pass layout=(to, back), two functions from and to (B, F, J, C)"
        )
    kept = _grid(subject, seen[0][:, prefix:], index.shape[1])
    if kept.shape[1] != index.shape[1] or int(index.max()) >= frames:
        raise Failed(f"{kept.shape[1]} frames enter block {number}, and {index.shape[1]} are said to be kept{in_words}")
    if prefix:
        check_same(seen[0][:, :prefix], seen[-1][:, :prefix], what="the tokens in front: ")
    _check_content(subject, kept, whole, index)
    return Proof(detail=f"{index.shape[1]} of {frames} frames kept" + (f", {prefix} in front" if prefix else ""))


def check_hourglass(subject: Subject, drops: FramesDropped) -> Proof:
    """The model returns what it does when these frames are taken by hand, and all made again by hand."""
    got = subject.ask()
    stack = find_place(subject.model, drops.handle.stack.path)
    return Proof(check_same(got, ByHand(subject, stack, drops).record([])))


def count_prefix(subject: Subject, blocks: Sequence[nn.Module]) -> int:
    """Tokens in front of the others that do not depend on the input: learned ones, which are no frames."""
    given = subject.args, subject.kwargs
    entering = []
    for change in (False, True):
        if change:
            subject.args, subject.kwargs = tree_map_only(Tensor, _other, given)
        calls: list[BlockCall] = []
        try:
            with listening(blocks[:1], calls):
                subject.tell()
        finally:
            subject.args, subject.kwargs = given
        if not calls:
            raise NotChecked("no block of the stack runs with these inputs: give inputs that reach it")
        entering.append(next(leaf for leaf in calls[0].taken if isinstance(leaf, Tensor)))
    one, other = entering
    same = (one == other).flatten(2).all(2).all(0).tolist() if one.ndim > 2 else [False]
    if all(same):
        raise NotChecked("the tokens of this model do not depend on these inputs")
    return same.index(False)


def _grid(subject: Subject, tokens: Tensor, frames: int | None) -> Tensor:
    """Tokens with their frames on axis 1."""
    handle = subject.handle("hourglass")
    block = find_place(subject.model, handle.stack.path).blocks[handle.layers[0]]
    layout = vars(block)[HOURGLASS_STATE].layout
    found: Tensor = layout.to(tokens, frames) if type(layout).__name__ != "FramesFirst" else tokens
    return found


def _check_content(subject: Subject, kept: Tensor, whole: Tensor, index: Tensor) -> None:
    chosen = torch.stack([clip[each] for clip, each in zip(whole, index.expand(len(whole), -1), strict=True)])
    if subject.handle("hourglass").settings.learns:
        chosen = chosen + _for_each_frame(subject.model.prune[0].pos, chosen)  # type: ignore[index, union-attr]
    check_same(kept, chosen, what="the tokens that enter: ")


def _frames_of(subject: Subject, tokens: int, declared: int | None) -> int:
    """Frames of the clip that was given; fewer tokens, each of as many frames, are taken as frames.

    A clip may be shorter than ``declared``, what the model is made for, or longer.
    """
    if tokens == declared:
        return tokens
    given = next((x for x in tree_leaves((subject.args, subject.kwargs)) if isinstance(x, Tensor) and x.ndim > 2), None)
    if given is None:
        raise NotChecked("how many frames the clip has cannot be told from these inputs: wrap with frames=...")
    frames = given.shape[1]
    return tokens if tokens and frames % tokens == 0 else frames


def _first_tensor(tree: Any) -> Tensor:
    return next(leaf for leaf in tree_leaves(tree) if isinstance(leaf, Tensor))


def _other(value: Tensor) -> Tensor:
    if not value.is_floating_point():
        return value
    return value + torch.randn(value.shape, generator=torch.Generator().manual_seed(3)).to(value)


def _for_each_frame(table: Tensor, tokens: Tensor) -> Tensor:
    if table.shape[1] != tokens.shape[1]:
        raise NotChecked("the clip is of another length than the tables of the hourglass")
    return table if tokens.ndim == 3 else table.unsqueeze(2)


def _attended(recovery: Any, kept: Tensor, index: Tensor) -> Tensor:
    """Queries of all frames over the kept ones, head by head; the residual is the query."""
    if kept.ndim == 4:
        return torch.stack([_attended(recovery, kept[:, :, joint], index) for joint in range(kept.shape[2])], 2)
    width = kept.shape[-1] // recovery.heads
    q, k, v = recovery.q(recovery.query), recovery.k(kept), recovery.v(kept)
    mixed = []
    for head in range(recovery.heads):
        part = slice(head * width, (head + 1) * width)
        scores = q[..., part] @ k[..., part].transpose(1, 2) / math.sqrt(width)
        if recovery.local:
            slope = 2 ** (1 - 3 * head / max(recovery.heads - 1, 1))
            away = (torch.arange(q.shape[1], device=index.device)[:, None] - index[:, None]).abs().to(scores.dtype)
            scores = scores - slope * away * index.shape[1] / q.shape[1]
        mixed.append(scores.softmax(-1) @ v[..., part])
    return recovery.query + recovery.proj(torch.cat(mixed, -1))


def _nearest(kept: Tensor, numbers: list[int], frames: int) -> Tensor:
    ranks = [min(range(len(numbers)), key=lambda rank: (abs(numbers[rank] - frame), rank)) for frame in range(frames)]
    return kept[ranks]


def _linear(kept: Tensor, numbers: list[int], frames: int) -> Tensor:
    found = []
    for frame in range(frames):
        before = max((rank for rank, number in enumerate(numbers) if number <= frame), default=0)
        after = min((rank for rank, number in enumerate(numbers) if number >= frame), default=len(numbers) - 1)
        apart = numbers[after] - numbers[before]
        share = (frame - numbers[before]) / apart if apart > 0 else 0.0
        found.append(kept[before] + (kept[after] - kept[before]) * share)
    return torch.stack(found)
