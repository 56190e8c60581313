"""The plug-ins on a wrapped model's modules: blocks and early modules that note their calls, or answer from notes."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
from torch import nn

from cycledistill.cycle.recording import BYPASS, LOOP, Recording
from cycledistill.cycle.snapshot import Snapshot, plain
from cycledistill.plugin.state import CYCLE_STATE
from cycledistill.plugin.swap import Swapped
from cycledistill.plugin.torch_private import forward_hooks, versions


@dataclass
class Recorder:
    """Shared by the swapped modules of one model: the run in progress, if any."""

    recording: Recording | None = None


@dataclass
class BlockState:
    """The place of one swapped module: its recorder and its number among the blocks, or among the early modules."""

    recorder: Recorder
    index: int
    parameters: tuple[str, ...] = ()
    """Names of a block's arguments in the order of its signature."""

    def ordered(self, kwargs: dict[str, Any]) -> dict[str, Any]:
        """Keyword arguments in the order of the signature, whatever the order of the call."""
        known = {name: kwargs[name] for name in self.parameters if name in kwargs}
        return {**known, **kwargs}


class CycledBlock(Swapped):
    """A block of the stack. Noting happens in ``__call__``, outside all hooks: some replace tensors (FSDP2's do)."""

    swap_order = 10

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        """Recording, note or answer, as the phase of the run asks."""
        state: BlockState | None = getattr(self, CYCLE_STATE, None)
        recording = state.recorder.recording if state is not None else None
        if state is None or recording is None or recording.phase == LOOP:
            return super().__call__(*args, **kwargs)  # type: ignore[misc]
        if recording.phase == BYPASS:
            output = recording.answer_block(state.index, args, state.ordered(kwargs))
            _show_to_collectors(self, args, output)  # type: ignore[arg-type]
            return output
        recording.note(self, state.index, args, state.ordered(kwargs))  # type: ignore[arg-type]
        output = super().__call__(*args, **kwargs)  # type: ignore[misc]
        recording.record_output(output)
        return output


class EarlyModule(Swapped):
    """A module outside the stack. Called before it, it notes its output once and answers from the note in replays.

    So stems are not run twice, their BatchNorm moves once, and their random masks are the same in every cycle.
    """

    swap_order = 10

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        """Recording, note or answer, as the phase of the run asks."""
        state: BlockState | None = getattr(self, CYCLE_STATE, None)
        recording = state.recorder.recording if state is not None else None
        if state is None or recording is None or not recording.is_before_stack():
            return super().__call__(*args, **kwargs)  # type: ignore[misc]
        if recording.phase == BYPASS:
            return recording.answer_early(state.index, (*args, *kwargs.values()))
        containers = [
            (place, each, Snapshot(plain(each)))
            for place, each in enumerate((*args, *kwargs.values()))
            if isinstance(each, (list, dict))
        ]
        given = [leaf for leaf in (*args, *kwargs.values()) if isinstance(leaf, torch.Tensor)]
        before = versions(given)
        recording.inside_early = True
        try:
            output = super().__call__(*args, **kwargs)  # type: ignore[misc]
        finally:
            recording.inside_early = False
        # Nothing is known of either in compiled code.
        changed = [tensor for tensor, was, now in zip(given, before, versions(given), strict=False) if was != now]
        if changed:
            recording.refresh(changed)
        fills = [(place, Snapshot(plain(each))) for place, each, was in containers if not was.holds(plain(each))]
        recording.record_early(state.index, output, fills)
        return output


def _show_to_collectors(block: nn.Module, args: tuple[Any, ...], output: Any) -> None:
    # Hugging Face collects hidden states by forward hooks that are only active inside the model's own forward. A
    # by-passed block runs no hooks, so these (and only these, the others ran in the loop) are shown its output.
    for hook in forward_hooks(block).values():
        if getattr(hook, "__module__", None) == "transformers.utils.output_capturing":
            hook(block, args, output)
