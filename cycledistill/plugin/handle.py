"""What a plug-in leaves on a model: its handle, and the key under which a swapped module finds its state."""

from __future__ import annotations

from typing import Any, ClassVar

from torch import nn

from cycledistill.plugin.torch_private import compiled_from

CYCLE_STATE, PRUNE_STATE, HOURGLASS_STATE = "_cycle_state", "_prune_state", "_hourglass_state"
"""Keys in the ``__dict__`` of swapped modules."""


class Handle:
    """Base of ``model.cyclic``, ``.pruning`` and ``.hourglass``. A handle holds no parameters and no module."""

    kind: ClassVar[str]
    """The attribute of the model that holds it: ``"cyclic"``, ``"pruning"`` or ``"hourglass"``."""

    def owns(self, state: Any) -> bool:
        """Whether the state of a swapped module belongs to this handle."""
        return getattr(state, "handle", None) is self


def handle_of(model: nn.Module, kind: str) -> Any:
    """The handle of a wrapped model, or ``None``.

    A module or a value of the model's own, under the same name, is no handle. A model that ``torch.compile`` returned
    has the handle of the model it was made from; a data-parallel wrapper has none, its ``.module`` has.

    Args:
        model: Any module.
        kind: ``"cyclic"``, ``"pruning"`` or ``"hourglass"``.

    Example:
        >>> handle_of(wrap_cyclic(vit, cycles=3), "cyclic").cycles
        3
    """
    found = vars(compiled_from(model)).get(kind)
    return found if isinstance(found, Handle) and found.kind == kind else None
