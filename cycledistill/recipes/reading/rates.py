"""Frame rates of recordings."""

from __future__ import annotations

SAME_RATE = 0.02
"""By which two frame rates of one recording may differ: 29.97 is written as 30, while 24 and 25 are two."""


def is_same_rate(one: float, other: float) -> bool:
    """Whether two frame rates are one, rounded."""
    return abs(one / other - 1) <= SAME_RATE
