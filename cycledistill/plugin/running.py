"""How the present forward runs: eagerly, where values may be looked at, or under something that only follows it."""

from __future__ import annotations

import torch

from cycledistill.plugin.torch_private import is_tracing


def is_eager() -> bool:
    """Whether values can be looked at: neither compiled, nor traced, nor captured in a CUDA graph."""
    if torch.compiler.is_compiling() or is_tracing():  # first: no compiler can follow what is asked next
        return False
    return not (torch.cuda.is_initialized() and torch.cuda.is_current_stream_capturing())


def has_autocast(kind: str) -> bool:
    """Whether autocast knows devices of this kind, such as ``"cuda"``; it does not know the meta device."""
    if torch.compiler.is_compiling():  # Dynamo of torch 2.11 cannot ask, and what it compiles runs on devices
        return kind != "meta"
    return torch.amp.is_autocast_available(kind)
