"""What a refusal is: the errors that every plug-in raises."""

from __future__ import annotations


class StackError(ValueError):
    """A model has no stack to cycle, several, one that changes shape, or was edited after wrapping."""


class ChainError(StackError):
    """The blocks that were named do not run on each other's output; other candidates may."""
