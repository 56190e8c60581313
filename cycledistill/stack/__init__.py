"""Find the stack of blocks that a model runs, and say why when there is none to take."""

from cycledistill.stack.choose import choose_stack
from cycledistill.stack.find import Stack, find_stacks

__all__ = ["Stack", "choose_stack", "find_stacks"]
