"""The handle ``model.hourglass``: its settings and the frames kept."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import fields, replace
from itertools import pairwise
from typing import Any

import torch
from torch import Tensor, nn

from cycledistill.cycle.segments import Segmented
from cycledistill.errors import StackError
from cycledistill.hourglass.kept_frames import Pass, check_index
from cycledistill.hourglass.layout import GivenLayout
from cycledistill.hourglass.settings import Settings, TokenAxis, check_noise
from cycledistill.plugin.handle import HOURGLASS_STATE, Handle
from cycledistill.plugin.plain import plain_value
from cycledistill.plugin.running import is_eager
from cycledistill.plugin.torch_private import is_vmapped
from cycledistill.stack.find import Stack

Index = Tensor | tuple[Tensor, ...]


class Hourglass(Handle, Segmented):
    """The handle ``model.hourglass`` of a wrapped model. It holds no parameters and no module."""

    kind = "hourglass"

    def __init__(self, stack: Stack, settings: Settings, axis: TokenAxis, end: int, recover_after: str | None) -> None:
        self.axis = axis
        """What the token axis of the blocks holds."""
        self._stack, self._settings, self._recover_after, self._end = stack, settings, recover_after, end
        self._given: tuple[Tensor, ...] | None = None
        self._last: tuple[Tensor, ...] | None = None
        self._clip = 0  # frames of the last clip; 0 before the first
        self.forward_pass: Pass | None = None
        """The forward that is running, for the plug-ins."""

    def __getstate__(self) -> dict[str, Any]:
        """A copy that is made in the middle of a forward is in none."""
        return {**vars(self), "forward_pass": None}

    @property
    def stack(self) -> Stack:
        """The blocks: ``.path`` and ``.depth``."""
        return self._stack

    @property
    def layers(self) -> tuple[int, ...]:
        """Numbers of the blocks before which frames are dropped, ascending."""
        return self._settings.layers

    @property
    def keep(self) -> tuple[int | float, ...]:
        """What each prune point keeps, a number of frames or a share of the clip's."""
        return self._settings.keep

    @property
    def recover(self) -> bool | str:
        """How all frames come back, as for ``wrap_hourglass``; ``False``: they do not."""
        return self._settings.recover

    @property
    def settings(self) -> Settings:
        """Everything that the model was wrapped with."""
        return self._settings

    @property
    def end(self) -> int:
        """Number of the block after which frames may return: the last, but where ``recover_after`` is one before it."""
        return self._end

    @property
    def recover_after(self) -> str | None:
        """Path of the module whose output all frames come back in; ``None`` where they do not."""
        return self._recover_after

    @property
    def noise(self) -> str | Tensor | torch.Generator | None:
        """What decides between equal densities beside ``exact``; settable, see :func:`wrap_hourglass`."""
        return self._settings.noise

    @noise.setter
    def noise(self, noise: str | Tensor | torch.Generator | None) -> None:
        self._settings = replace(self._settings, noise=check_noise(noise))

    @property
    def index(self) -> Index | None:
        """Frames kept in the last forward: (B, K) numbers in the clip, ascending; one tensor a prune point if several.

        Set it, and the forwards that follow keep just those frames, (B, K) or (1, K), until it is set to ``None``: the
        flipped pass of test-time augmentation then keeps those of the first.
        """
        index = self._given or self._last
        return index[0] if index is not None and len(index) == 1 else index

    @index.setter
    def index(self, index: Index | Sequence[Tensor] | None) -> None:
        if index is None:
            self._given = self._last = None
            return
        given = (index,) if isinstance(index, Tensor) else tuple(index) if isinstance(index, (tuple, list)) else ()
        if len(given) != len(self.layers):
            raise StackError(
                f"index={index!r}: {len(self.layers)} tensor(s) of frame numbers are expected, one a prune point"
            )
        before = None
        for each in given:
            before = check_index(each, before)
        self._given = tuple(each.long() for each in given)

    @property
    def given(self) -> tuple[Tensor, ...] | None:
        """The index that was set, one tensor a prune point; ``None`` where frames are chosen."""
        return self._given

    def show(self, forward_pass: Pass) -> None:
        """Keep what a forward kept, for :attr:`index`."""
        index = tuple(kept.index for kept in forward_pass.kept)
        # While a model is exported, or under vmap, what arrives here is a stand-in without data.
        self._last = index if all(type(each) is Tensor for each in index) and not is_vmapped() else None
        self._clip = forward_pass.frames

    def segments(self, model: nn.Module) -> list[str]:
        """Paths of the runs of blocks of ``model`` with one number of frames: those that cycles can be around."""
        span, _ = self._stack.span(model)
        if span is None:
            return [self._stack.path]
        container, start = self._stack.path.split("[")[0], span[0]
        bounds = [0, *(number for number in self.layers if number), self._end + 1]
        return [f"{container}[{start + a}:{start + b}]" for a, b in pairwise(bounds)]

    def check_cycled(self, model: nn.Module, cycled: Stack) -> None:
        """Refuse to cycle blocks between which the number of frames changes.

        Raises:
            StackError: It names the segments that can be cycled.
        """
        own, others = self._stack.modules(model), cycled.modules(model)
        drops = [own[number] for number in self.layers]
        last = own[self._end]
        changes = any(drop is each for drop in drops for each in others[1:])
        changes |= any(last is each for each in others[:-1])
        back = model.get_submodule(self._recover_after) if self._recover_after else None
        for block in others:
            inside = {id(each) for each in block.modules()} - {id(block)}
            changes |= any(id(drop) in inside for drop in drops) and id(back) not in inside
        if changes:
            counts = zip(self.layers, self.keep, strict=True)
            kept = " and ".join(f"{keep} frames before block {number}" for number, keep in counts)
            segments = [f'blocks="{each}"' for each in self.segments(model)]
            raise StackError(
                f'blocks="{cycled.path}": the hourglass keeps {kept}, so these blocks do not return the frames they '
                f"take and cannot run on their own output. Cycle {' or '.join(segments)} (the last is the default)"
            )

    def chooses_behind(self, model: nn.Module, cycled: Stack) -> bool:
        """Whether a prune point stands behind the last cycled block, so that cycle 1 chooses there for all cycles."""
        inside = {id(each) for block in cycled.modules(model) for each in block.modules()}
        after = max((n for n, block in enumerate(self._stack.modules(model)) if id(block) in inside), default=-1)
        return any(number > after for number in self.layers)

    def take(self, target: Tensor) -> Tensor:
        """The part of a (B, F, ...) target that belongs to the frames kept in the last forward, (B, K, ...).

        Raises:
            StackError: No forward has run, or the target is not of that clip's length.
        """
        index = self.index
        if index is None:
            raise StackError("no frames were chosen yet: run the model, then take the target's frames")
        index = index[-1] if isinstance(index, tuple) else index
        other = target.ndim < 2 or len(index) not in (1, len(target))
        other = other or (is_eager() and int(index.max()) >= target.shape[1])
        if other or (self._clip and self._clip != target.shape[1]):
            frames = self._clip or "F"
            raise StackError(
                f"a target of shape {tuple(target.shape)}: (B, {frames}, ...) is expected, of the clips whose frames "
                f"were kept, {tuple(index.shape)}"
            )
        index = index.expand(len(target), -1).reshape(len(target), -1, *([1] * (target.ndim - 2)))
        return target.gather(1, index.expand(-1, -1, *target.shape[2:]))

    def sequence(self, output: Tensor) -> Tensor:
        """``output`` itself where the model returns all frames.

        Raises:
            StackError: It returns the kept frames alone, so a whole sequence cannot be had from it in one pass.
        """
        if self._settings.recover is False:
            raise StackError(
                "this model returns only the frames it keeps (recover=False), and was asked for the whole sequence: "
                'wrap with recover=True, "linear" or "nearest", or run it on a window around every frame and read '
                "the centre with model.hourglass.centre_frame(output)"
            )
        return output

    def centre_frame(self, output: Tensor) -> Tensor:
        """The centre frame (B, ...) of an output (B, K, ...) of kept frames, or (B, F, ...) of all of them.

        Raises:
            StackError: No forward has run, no frame is always kept (``centre=False``), or an index without it was set.
        """
        if self.index is None or not self._clip or not isinstance(output, Tensor):
            raise StackError("no frames were chosen yet: run the model, and pass what it returned")
        centre = self._settings.centre_of(self._clip)
        if centre is None and self._settings.recover is False:
            raise StackError("no frame is always kept: wrap with centre=True, or with the number of a frame")
        if self._settings.recover is not False:
            return output[:, (self._clip - 1) // 2 if centre is None else centre]
        index = self.index[-1] if isinstance(self.index, tuple) else self.index
        found = index.eq(centre or 0)
        if not bool(found.any(dim=1).all()):
            raise StackError(
                f"model.hourglass.index was set to frames without the centre, {centre}: it has no answer to read"
            )
        rank = found.int().argmax(dim=1).expand(len(output))
        return output[torch.arange(len(output), device=output.device), rank.to(output.device)]

    def described(self, model: nn.Module) -> dict[str, Any]:
        """Arguments of ``wrap_hourglass``."""
        own, recovery = self._settings, getattr(model, "recover", None)
        block = self._stack.modules(model)[own.layers[0]]
        layout = vars(block)[HOURGLASS_STATE].layout
        learned = {"heads": recovery.heads, "width": recovery.query.shape[-1]} if own.learns and recovery else {}
        settings = {field.name: getattr(own, field.name) for field in fields(own)}
        settings["layer"] = settings.pop("layers")
        return {
            "blocks": self._stack.path,
            "depth": self._stack.depth,
            "recover_after": self._recover_after,
            "layout": plain_value(layout) if isinstance(layout, GivenLayout) else None,
            **{name: plain_value(value) for name, value in (settings | learned).items()},
        }

    def __repr__(self) -> str:
        points = ", ".join(f"{keep} before {layer}" for layer, keep in zip(self.layers, self.keep, strict=True))
        return f"Hourglass({self._stack.path} x{self._stack.depth}: {points}; recover={self.recover!r})"
