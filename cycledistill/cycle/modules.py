"""The plug-ins on a wrapped model's modules: blocks, and modules before them, that are recorded and then answer."""

from __future__ import annotations

import logging
from dataclasses import dataclass
from typing import Any

import torch
from torch import nn

from cycledistill.cycle.call import EarlyArguments
from cycledistill.cycle.recording import Phase, Recording
from cycledistill.cycle.replay import Replay
from cycledistill.plugin.handle import CYCLE_STATE, KINDS, handle_of
from cycledistill.plugin.running import is_eager
from cycledistill.plugin.swap import Swapped
from cycledistill.plugin.torch_private import forward_hooks, is_transformed, recomputing

_logger = logging.getLogger(__name__)


@dataclass
class Recorder:
    """Shared by the swapped modules of one model: what its forward in progress records or replays, if one runs."""

    running: Recording | Replay | None = None
    exit: int = 1
    """The cycle that eval answers after."""
    told: bool = False
    """Whether it was said that blocks are called past it."""
    told_of_part: bool = False
    """Whether it was said that a part of the model is trained on its own."""
    told_of_untrained: bool = False
    """Whether it was said that blocks are run and not trained."""

    def __getstate__(self) -> dict[str, Any]:
        """A copy that is made in the middle of a forward is in none."""
        return {**vars(self), "running": None}

    @property
    def phase(self) -> Phase | None:
        """What the forward in progress is doing."""
        return self.running.phase if self.running is not None else None

    @property
    def is_past_first_pass(self) -> bool:
        """Whether the first pass is done: further cycles run, and replays."""
        return isinstance(self.running, Replay)

    def tell_of_call_outside(self) -> None:
        """Say once that an eval forward runs one cycle, where a later exit is set and its method is no way in."""
        if self.exit == 1 or self.told or torch.compiler.is_compiling() or recomputing():
            return
        self.told = True
        _logger.warning(
            "blocks of a wrapped model were called outside its forward methods, so they run once, as at exit 1, and "
            "not the %d times that model.cyclic.exit asks for. Call the model, or a method of it whose name begins "
            "with 'forward' or 'get_intermediate_layers'",
            self.exit,
        )

    def tell_of_part(self, part: nn.Module) -> None:
        """Say once that a part of a wrapped model was called on its own in training, and runs one cycle."""
        if self.told_of_part or not torch.is_grad_enabled() or torch.compiler.is_compiling() or recomputing():
            return
        self.told_of_part = True
        _logger.warning(
            "this %s is a part of the model that wrap_cyclic was given, and was called on its own while training, so "
            "it runs one cycle and returns what it always did. Call the whole model; if this part was taken out of "
            "it, as unload() of PEFT does, call unwrap_cyclic(part), then wrap_cyclic(part)",
            type(part).__name__,
        )

    def tell_of_untrained(self, recording: Recording) -> None:
        """Say once that a block trains nothing though its parameters ask for gradients: what it returned has none.

        Reentrant checkpointing inside a block does that where what enters the block needs no gradient, as behind frozen
        embeddings; the plain model has the same fault, and is as silent.
        """
        if not recording.grad_enabled or self.told_of_untrained or not is_eager() or is_transformed():
            return
        for index, (call, output) in enumerate(zip(recording.calls, recording.outputs, strict=True)):
            tensors = [leaf for leaf in output.leaves if isinstance(leaf, torch.Tensor)]
            if any(tensor.requires_grad for tensor in tensors):
                continue
            if any(parameter.requires_grad for parameter in call.block.parameters()):
                self.told_of_untrained = True
                merged = any(getattr(module, "merged", None) is True for module in call.block.modules())
                _logger.warning(
                    'blocks="%s": parameters of block %d require gradients, and its output has none, so they are not '
                    "trained, with cycles or without. %s",
                    recording.path,
                    index,
                    _MERGED if merged else _REENTRANT,
                )
                return


_REENTRANT = (
    "Reentrant activation checkpointing does that where nothing that enters the block needs gradients, as behind "
    "frozen embeddings (LoRA): checkpoint with use_reentrant=False (for transformers "
    "gradient_checkpointing_kwargs={'use_reentrant': False}), or call model.enable_input_require_grads()"
)
_MERGED = (
    "Its adapters are merged into weights that are frozen, and take no part themselves: call model.unmerge_adapter() "
    "before training (PEFT)"
)


@dataclass
class BlockState:
    """The state of a block: its recorder, and its number among the blocks."""

    recorder: Recorder
    index: int
    parameters: tuple[str, ...]
    """Names of the block's arguments in the order of its signature."""

    def ordered(self, kwargs: dict[str, Any]) -> dict[str, Any]:
        """Keyword arguments in the order of the signature, whatever the order of the call."""
        known = {name: kwargs[name] for name in self.parameters if name in kwargs}
        return {**known, **kwargs}


@dataclass
class EarlyState:
    """The state of a module outside the blocks: its recorder, and what tells it from the others in a recording."""

    recorder: Recorder
    key: int


class CycledBlock(Swapped):
    """A block of the stack. Recording happens in ``__call__``, outside all hooks: some replace tensors (FSDP2's do)."""

    swap_order = KINDS["cyclic"].swap_order

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        """Run, record or answer, as the phase of the forward asks."""
        state: BlockState | None = self.__dict__.get(CYCLE_STATE)
        running = state.recorder.running if state is not None else None
        if state is None or running is None or running.phase is Phase.CYCLE:
            if state is not None and running is None and not self.training:  # type: ignore[attr-defined]
                state.recorder.tell_of_call_outside()
            return super().__call__(*args, **kwargs)  # type: ignore[misc]
        if isinstance(running, Replay):
            output = running.answer_block(state.index, args, state.ordered(kwargs))
            _show_to_collectors(self, args, output)  # type: ignore[arg-type]
            return output
        running.record_call(self, state.index, args, state.ordered(kwargs))  # type: ignore[arg-type]
        output = super().__call__(*args, **kwargs)  # type: ignore[misc]
        running.record_output(output)
        return output


class EarlyModule(Swapped):
    """A module outside the stack. Called before it, its output is recorded once, and is its answer in replays."""

    swap_order = KINDS["cyclic"].swap_order

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        """Run, record or answer, as the phase of the forward asks."""
        state: EarlyState | None = self.__dict__.get(CYCLE_STATE)
        running = state.recorder.running if state is not None else None
        if state is None or running is None or not running.is_before_stack():
            return super().__call__(*args, **kwargs)  # type: ignore[misc]
        given = (*args, *kwargs.values())
        if isinstance(running, Replay):
            return running.answer_early(state.key, given)
        before = EarlyArguments(given)
        running.inside_early = True
        try:
            output = super().__call__(*args, **kwargs)  # type: ignore[misc]
        finally:
            running.inside_early = False
        running.record_early(state.key, before, output)
        return output


def adopt_copies(model: nn.Module, recorder: Recorder) -> None:
    """Let copies that another tool made of single modules before the stack, and runs for them, record and answer too.

    PEFT's modules to save are such copies: of the recorder they hold a copy as well, which no forward runs by.
    """
    if not is_eager():
        return
    states = [state for state in (vars(module).get(CYCLE_STATE) for module in model.modules()) if state is not None]
    strays = [state for state in states if isinstance(state, EarlyState) and state.recorder is not recorder]
    if strays:
        # Those of another wrapped model that was put into this one since know their own.
        handles = [handle for handle in (handle_of(module, "cyclic") for module in model.modules()) if handle]
        for state in strays:
            if not any(handle.owns(state) for handle in handles):
                state.recorder = recorder


def _show_to_collectors(block: nn.Module, args: tuple[Any, ...], output: Any) -> None:
    # Hugging Face collects hidden states by forward hooks that are only active inside the model's own forward. A
    # block that answers runs no hooks, so these (and only these, the others ran in the cycle) are shown its output.
    for hook in forward_hooks(block).values():
        if getattr(hook, "__module__", None) == "transformers.utils.output_capturing":
            hook(block, args, output)
