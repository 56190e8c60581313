"""Whether a plug-in already acts in a stack: what drops tokens and what drops frames cannot share blocks."""

from __future__ import annotations

from torch import nn

from cycledistill.plugin.handle import KINDS, handle_of
from cycledistill.stack.find import Stack


def is_taken(model: nn.Module, stack: Stack, kind: str) -> bool:
    """Whether the plug-in ``kind`` acts in blocks of ``stack``, also where it changes nothing in these very ones.

    It goes by the stacks of all handles in ``model``. A handle on a module around ``model`` is not seen from there;
    its states are, in those blocks that have one.

    Example:
        >>> stack = choose_stack(wrap_hourglass(vit, blocks="blocks", layer=1), "blocks[2:3]")
        >>> is_taken(vit, stack, "hourglass")
        True
    """
    handles = ((module, handle_of(module, kind)) for module in model.modules())
    taken = [block for module, handle in handles if handle is not None for block in handle.stack.modules(module)]
    key = KINDS[kind].state
    return any(key in vars(block) or any(block is each for each in taken) for block in stack.modules(model))
