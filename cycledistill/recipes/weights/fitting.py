"""Whether weights fit a model, name by name and shape by shape, in words for an error message."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from torch import Tensor

_SHOWN = 6


def mismatch(state: Mapping[str, Tensor], expected: Mapping[str, tuple[int, ...]]) -> str:
    """What keeps weights from fitting, in words; empty where they fit.

    Args:
        state: Name -> tensor.
        expected: Name -> shape of all that a model has.

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
