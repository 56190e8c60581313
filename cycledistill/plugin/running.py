"""How the present forward runs: eagerly, where values may be looked at, or under something that only follows it."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import torch

from cycledistill.plugin.torch_private import is_tracing, is_vmapped

_hidden = 0


@contextmanager
def values_hidden() -> Iterator[None]:
    """Forwards in the context look at no values, as while a CUDA graph is captured: for what runs before one."""
    global _hidden
    _hidden += 1
    try:
        yield
    finally:
        _hidden -= 1


def is_eager() -> bool:
    """Whether values can be looked at: not compiled, nor traced, nor under vmap, nor captured in a CUDA graph."""
    if (
        torch.compiler.is_compiling() or is_tracing() or is_vmapped()
    ):  # first: no compiler can follow what is asked next
        return False
    return not _hidden and not (torch.cuda.is_initialized() and torch.cuda.is_current_stream_capturing())


def has_autocast(kind: str) -> bool:
    """Whether autocast knows devices of this kind, such as ``"cuda"``; it does not know the meta device."""
    if torch.compiler.is_compiling():  # Dynamo of torch 2.11 cannot ask, and what it compiles runs on devices
        return kind != "meta"
    return torch.amp.is_autocast_available(kind)
