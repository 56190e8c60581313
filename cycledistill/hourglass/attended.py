"""Which attention ``select="attention"`` reads, in the block before a prune point, and how what it paid is recorded."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from torch import nn

from cycledistill.errors import StackError
from cycledistill.hourglass.frames import HourglassState
from cycledistill.hourglass.handle import Hourglass
from cycledistill.plugin.handle import HOURGLASS_STATE, KINDS
from cycledistill.plugin.install import Role
from cycledistill.plugin.parts import act_in, refuse_compiled, submodule
from cycledistill.plugin.swap import Swapped


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
        if not isinstance(known, QkvState) or known.handle is not state.handle or known.attention is not attention:
            refuse_compiled(f"{state.path}.{path}.qkv")
            act_in(qkv, QkvRecorder, HOURGLASS_STATE, QkvState(state.handle, attention))
