"""The kinds of plug-ins, and what one leaves on a model: its handle, and states under a key in swapped modules."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, ClassVar

from torch import nn

from cycledistill.plugin.torch_private import compiled_from


@dataclass(frozen=True)
class Kind:
    """What is settled for all plug-ins in one place, since they share modules and do not know each other."""

    state: str
    """The key in the ``__dict__`` of swapped modules."""
    swap_order: int
    """How the classes nest on one module: the lowest number is outermost. ``cycle/README.md`` says why."""


KINDS = {
    "cyclic": Kind("_cycle_state", 10),
    "pruning": Kind("_prune_state", 20),
    "hourglass": Kind("_hourglass_state", 5),
}
"""Every kind of handle, by the attribute of the model that holds it."""

CYCLE_STATE, PRUNE_STATE, HOURGLASS_STATE = (KINDS[kind].state for kind in ("cyclic", "pruning", "hourglass"))


class Handle:
    """Base of ``model.cyclic``, ``.pruning`` and ``.hourglass``. A handle holds no parameters and no module."""

    kind: ClassVar[str]
    """The attribute of the model that holds it, one of `KINDS`."""

    def __init_subclass__(cls) -> None:
        kind = getattr(cls, "kind", None)
        if kind not in KINDS:
            raise TypeError(
                f"{cls.__name__}.kind={kind!r}: one of {', '.join(map(repr, KINDS))} is expected; a new kind is added "
                "to KINDS in cycledistill/plugin/handle.py"
            )

    def owns(self, state: Any) -> bool:
        """Whether the state of a swapped module belongs to this handle."""
        return getattr(state, "handle", None) is self

    def described(self, model: nn.Module) -> dict[str, Any]:
        """How ``model`` was wrapped, as plain data: arguments of the verb, by which it is wrapped again, and ``depth``.

        What no file can hold, a function say, stands there by its name (see `plain_value` of ``plugin/plain.py``).
        """
        raise NotImplementedError


def handle_of(model: nn.Module, kind: str) -> Any:
    """The handle of a wrapped model, or ``None``.

    A module or a value of the model's own, under the same name, is no handle. A model that ``torch.compile`` returned
    has the handle of the model it was made from; a data-parallel wrapper has none, its ``.module`` has.

    Args:
        model: Any module.
        kind: One of `KINDS`, such as ``"cyclic"``.

    Example:
        >>> handle_of(wrap_cyclic(vit, cycles=3), "cyclic").cycles
        3
    """
    found = vars(compiled_from(model)).get(kind)
    return found if isinstance(found, Handle) and found.kind == kind else None
