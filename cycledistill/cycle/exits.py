"""Answer at another exit for a while: any-time inference as a context."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from torch import nn

from cycledistill.cycle.handle import Cyclic
from cycledistill.errors import StackError
from cycledistill.plugin.install import check_module, handle_of


@contextmanager
def at_exit(model: nn.Module, n: int) -> Iterator[None]:
    """Let a wrapped model in eval mode answer after cycle ``n`` inside the context, and as before after it.

    It sets ``model.cyclic.exit`` and puts it back, also after an exception; contexts may be nested. Where ``model`` is
    a data-parallel wrapper, a compiled model (which compiles once for each exit), or a larger model with wrapped parts,
    it does so for every wrapped model inside. Training forwards run all their cycles, whatever the exit.

    Args:
        model: A wrapped model, or one that holds wrapped models. A plain one has exit 1 only.
        n: The cycle whose output the model returns, at least 1; it may exceed the cycles trained.

    Raises:
        StackError: ``model`` is no module, or ``n`` is no whole number of at least 1, or more than 1 where nothing is
            wrapped.

    Example:
        >>> with torch.no_grad(), at_exit(model.eval(), 2):
        ...     logits = model(images)

    Source: more cycles of the same weights where there is time, as in ELT (arXiv 2604.09168).
    """
    check_module(model, "at_exit")
    handles = cyclic_handles(model)
    if not handles and (type(n) is not int or n != 1):
        raise StackError(
            f"n={n!r}: nothing in this {type(model).__name__} is wrapped, so it has exit 1 only; call "
            "wrap_cyclic(model) first"
        )
    before = [handle.exit for handle in handles]
    try:
        for handle in handles:
            handle.exit = n
        yield
    finally:
        for handle, exit in zip(handles, before, strict=True):
            handle.exit = exit


def cyclic_handles(model: nn.Module) -> list[Cyclic]:
    """The handles of a wrapped model, and of all wrapped models inside it."""
    found = (handle_of(module, "cyclic") for module in model.modules())
    return [handle for handle in found if handle is not None]
