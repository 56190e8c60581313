"""The plug-ins of the hourglass: blocks that drop frames before they run, a module after which all frames return.

One forward of an hourglass, in the names of this package:

1. The outermost :class:`HourglassRoot` begins a :class:`Pass` (``handle.forward_pass``), which lives as long as the
   forward. Roots further in (an encoder between model and blocks) find it and begin none.
2. Blocks before the first prune point run on all F frames.
3. A block with a prune point in front (:class:`HourglassBlock`, ``state.point``) is given the tokens of all frames that
   are left. ``drop_frames`` finds them in the arguments (:class:`Tokens`), lays them out as a grid (B, F, J, C), and
   ``choose_frames`` says which stay: :class:`KeptFrames`, added to ``Pass.kept``. Learned positions by rank are added
   (:class:`RankPositions`), and the block runs on these frames alone. For ``select="attention"`` the block before it
   left on the pass what its ``qkv`` returned (:class:`QkvRecorder`).
4. The last block (``state.ends``) sets ``Pass.due``: frames are to be recovered.
5. The module of ``recover_after`` (``state.returns``) returns, and ``recover_frames`` makes all F frames of its output:
   by a learned attention (:class:`FrameRecovery`), or by interpolation along time.
6. The root ends the pass, checks that all prune points were passed and nothing is due, and ``handle.show`` keeps the
   numbers of the kept frames for ``model.hourglass.index``.

With cycles, the first one chooses and the later ones start from the kept frames: cycled blocks drop nothing where they
run again (``Phase.CYCLE``) or answer without running (``Phase.REPLAY``), and a prune point outside them that is passed
again takes the choice of the first (``Pass.repeats``). In the recomputation of a checkpointed module there is no pass:
what was kept travels on its input (see `frames.py`).

All of this acts in ``__call__``, outside all hooks and outside the recorder of cycles: it is no part of a block's own
function.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import wraps
from typing import Any

import torch
from torch import nn

from cycledistill.cycle.modules import CycledBlock
from cycledistill.cycle.recording import Phase
from cycledistill.errors import StackError
from cycledistill.hourglass.frames import HourglassState, check_returned, drop_frames, recover_frames
from cycledistill.hourglass.handle import Hourglass
from cycledistill.hourglass.kept_frames import Pass
from cycledistill.plugin.handle import CYCLE_STATE, HOURGLASS_STATE, KINDS
from cycledistill.plugin.install import ON_THE_FULL_GRID, Role, refuse_replica
from cycledistill.plugin.parts import act_in, acts_in, refuse_compiled, submodule
from cycledistill.plugin.saved import saving_of
from cycledistill.plugin.swap import Swapped
from cycledistill.plugin.torch_private import recomputing


class HourglassBlock(Swapped):
    """A block in front of which frames are dropped, the last block, or the module after which frames return."""

    swap_order = KINDS["hourglass"].swap_order

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        """Drop frames, run, recover frames, as the state asks."""
        state: HourglassState | None = self.__dict__.get(HOURGLASS_STATE)
        if state is None:
            return super().__call__(*args, **kwargs)  # type: ignore[misc]
        refuse_replica(self, "hourglass")
        if state.attention:
            record_attention(self, state)  # type: ignore[arg-type]
        # Later cycles start from the kept frames, and answer for blocks with tokens that are already pruned.
        phase = _phase(self)  # type: ignore[arg-type]
        if state.point is not None and (phase is None or phase is Phase.RECORD):
            args, kwargs = drop_frames(state, args, kwargs)
        output = super().__call__(*args, **kwargs)  # type: ignore[misc]
        forward_pass = state.handle.forward_pass
        if state.point is not None and forward_pass is not None:
            check_returned(state, (args, kwargs), output)
        if state.ends and phase is not Phase.CYCLE and forward_pass is not None:
            forward_pass.due = len(forward_pass.kept) == len(state.handle.layers)
        return recover_frames(state, args, kwargs, output) if state.returns and phase is not Phase.CYCLE else output

    def __prepare_scriptable__(self) -> nn.Module:
        raise StackError(
            "torch.jit.script cannot compile an hourglass, and would drop no frames: use torch.jit.trace, torch.export "
            "or ONNX"
        )


@dataclass
class QkvState:
    """What a ``qkv`` in front of a prune point knows: the handle, and the attention that it belongs to."""

    handle: Hourglass
    attention: nn.Module


class QkvRecorder(Swapped):
    """The projection to queries, keys and values of an attention in front of a prune point: records its output."""

    swap_order = KINDS["hourglass"].swap_order

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        """Project, and record the result for ``select="attention"``."""
        output = super().__call__(*args, **kwargs)  # type: ignore[misc]
        state: QkvState | None = self.__dict__.get(HOURGLASS_STATE)
        forward_pass = state.handle.forward_pass if state is not None else None
        if state is not None and forward_pass is not None and state.handle.given is None and not forward_pass.repeats():
            forward_pass.attention.append((state.attention, output.detach()))
        return output


def attention_over_frames(model: nn.Module, path: str, number: int) -> tuple[str, ...]:
    """Paths, inside the block at ``path`` that stands before block ``number``, of its attention over frames."""
    block = model.get_submodule(path)
    found = {
        name: module
        for name, module in block.named_modules()
        if isinstance(getattr(module, "qkv", None), nn.Module) and hasattr(module, "num_heads")
    }
    # Lifting models say with `axis` what an attention mixes: 1 is frames.
    temporal = tuple(name for name, module in found.items() if getattr(module, "axis", 1) == 1)
    if not temporal:
        raise StackError(
            f'select="attention": the block before {number}, a {type(block).__name__}, has no attention over frames '
            'with num_heads and a qkv layer, whose output tells who attends to whom. Use select="tpc", or a callable'
        )
    return temporal


def attention_roles(block: nn.Module, state: HourglassState) -> Iterator[Role]:
    """What is recorded of the attention in a block."""
    for path in state.attention:
        attention: Any = block.get_submodule(path)
        yield attention.qkv, QkvRecorder, QkvState(state.handle, attention)


def record_attention(block: nn.Module, state: HourglassState) -> None:
    """Record what now stands at the ``qkv`` of the attention in a block, which another tool may have replaced since."""
    for path in state.attention:
        attention, qkv = submodule(block, path), submodule(block, f"{path}.qkv".lstrip("."))
        if attention is None or qkv is None:
            raise StackError(
                f'select="attention" reads {state.path}.{path}.qkv, which is there no more: another tool put a '
                f"{type(attention or block).__name__} in its place after wrap_hourglass, or the block was edited. Undo "
                "that, or call unwrap_hourglass(model)"
            )
        known = vars(qkv).get(HOURGLASS_STATE)
        own = isinstance(known, QkvState) and known.handle is state.handle and known.attention is attention
        if not own or not isinstance(qkv, QkvRecorder):
            refuse_compiled(f"{state.path}.{path}.qkv")
            act_in(qkv, QkvRecorder, HOURGLASS_STATE, QkvState(state.handle, attention))


class HourglassRoot(Swapped):
    """The wrapped model, and the modules between it and its blocks: where a forward begins and ends."""

    swap_order = KINDS["hourglass"].swap_order

    @classmethod
    def namespace(cls, below: type) -> dict[str, Any]:
        """Wrap every method by which users enter the blocks; names, signatures and docs stay the base's."""
        names = [name for name in dir(below) if name.startswith("forward") or name in ON_THE_FULL_GRID]
        methods = {name: getattr(below, name) for name in names if inspect.isfunction(getattr(below, name))}
        return saving_of(below) | {
            name: _on_all_frames(name, method) if name in ON_THE_FULL_GRID else _entry(name, method)
            for name, method in methods.items()
        }


def _on_all_frames(name: str, method: Callable[..., Any]) -> Callable[..., Any]:
    @wraps(method)
    def enter(self: Any, *args: Any, **kwargs: Any) -> Any:
        raise StackError(
            f"{name} makes maps of all tokens after single blocks, and this model drops some on the way: "
            "unwrap_hourglass(model) first"
        )

    return enter


def _entry(name: str, method: Callable[..., Any]) -> Callable[..., Any]:
    @wraps(method)
    def enter(self: Any, *args: Any, **kwargs: Any) -> Any:
        state: HourglassState | None = self.__dict__.get(HOURGLASS_STATE)
        if state is None or state.handle.forward_pass is not None:
            return method(self, *args, **kwargs)
        handle = state.handle
        find_acting(self, state)
        recorder = getattr(self.__dict__.get(CYCLE_STATE), "recorder", None)
        forward_pass = handle.forward_pass = Pass(recorder, torch.is_grad_enabled())
        try:
            output = method(self, *args, **kwargs)
        finally:
            handle.forward_pass = None
        if name == "forward" and self.__dict__.get("hourglass") is handle:
            _check_done(handle, forward_pass)
        if forward_pass.kept and not recomputing():
            handle.show(forward_pass)
        return output

    return enter


def find_acting(model: nn.Module, state: HourglassState) -> None:
    """Act in the modules that another tool put in place since, around those that were there or as copies of them."""
    for each in state.acting:
        module = submodule(model, each.path)
        if module is None or acts_in(module, HourglassBlock, HOURGLASS_STATE, each):
            continue
        stood = (vars(inner).get(HOURGLASS_STATE) for inner in module.modules())
        # Another module altogether is an edit, which is refused where frames are missed.
        if any(isinstance(known, HourglassState) and known.path == each.path for known in stood):
            refuse_compiled(each.path)
            act_in(module, HourglassBlock, HOURGLASS_STATE, each)


def _check_done(handle: Hourglass, forward_pass: Pass) -> None:
    if len(forward_pass.kept) != len(handle.layers):
        raise StackError(
            f'blocks="{handle.stack.path}": the forward passed {len(forward_pass.kept)} of {len(handle.layers)} '
            "prune points; the model was edited after wrapping, or skips blocks. Call unwrap_hourglass(model) and wrap "
            "it again"
        )
    if forward_pass.due:
        raise StackError(
            f"{handle.recover_after} did not run after the last block, so no frames were recovered: name with "
            "recover_after a module that does"
        )


def _phase(module: nn.Module) -> Phase | None:
    """The phase of the cycles, if this module is one of the blocks that are cycled."""
    state = module.__dict__.get(CYCLE_STATE)
    return state.recorder.phase if state is not None and isinstance(module, CycledBlock) else None
