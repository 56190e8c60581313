"""Whether weights fit a model, name by name and shape by shape, and are of its network, in words for an error."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict
from typing import Any

from torch import Tensor

_SHOWN = 6


def mismatch(state: Mapping[str, Tensor], expected: Mapping[str, tuple[int, ...]]) -> str:
    """What keeps weights from fitting, in words; empty where they fit.

    Example:
        >>> mismatch({"a": torch.zeros(2)}, {"a": (3,), "b": (1,)})
        '1 missing: b; 1 of another shape: a (2,), expected (3,)'
    """
    missing = [name for name in expected if name not in state]
    unknown = [name for name in state if name not in expected]
    shaped = [
        f"{name} {tuple(state[name].shape)}, expected {shape}"
        for name, shape in expected.items()
        if name in state and tuple(state[name].shape) != shape
    ]
    parts = (("missing", missing), ("unknown", unknown), ("of another shape", shaped))
    return "; ".join(f"{len(names)} {what}: {shorten(names)}" for what, names in parts if names)


def shorten(names: Sequence[str]) -> str:
    """The first few names, and how many more there are."""
    more = f" and {len(names) - _SHOWN} more" if len(names) > _SHOWN else ""
    return ", ".join(names[:_SHOWN]) + more


def other_network(stored: Mapping[str, Any], config: Any, names: Sequence[str]) -> str:
    """In which fields weights of the same shapes are of another network than ``config``; empty where in none.

    Example:
        >>> other_network({"heads": 4}, TokenPoseConfig(), ["heads", "scale"])
        'heads=4 there, 8 here'
    """
    own = asdict(config)
    return "; ".join(
        f"{name}={stored[name]!r} there, {own[name]!r} here"
        for name in names
        if name in stored and stored[name] != own[name]
    )
