"""What every lifting network is told."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

Lengths = Literal["exact", "shorter", "any"]


@dataclass(frozen=True)
class NetworkConfig:
    """What every lifting network is told.

    Args:
        frames: Frames of a clip, F, for which the temporal positions are learned.
        joints: Joints of the skeleton, J.
        in_channels: Numbers a joint comes with: 2 (x, y), or 3 with the detector's confidence.
        dim: Channels of a token, C.
        heads: Attention heads, which divide ``dim``.
        lengths: Clips of other lengths than ``frames`` are refused ("exact"), taken if shorter, with the first of the
            temporal positions ("shorter"), or all taken, with the positions interpolated along time ("any").

    Raises:
        ValueError: A number below 1, ``dim`` that ``heads`` do not divide, an unknown word.
    """

    frames: int = 243
    joints: int = 17
    in_channels: int = 2
    dim: int = 512
    heads: int = 8
    lengths: Lengths = "exact"

    def __post_init__(self) -> None:
        for name in ("frames", "joints", "in_channels", "dim", "heads"):
            self.check_count(name)
        if self.dim % self.heads:
            raise ValueError(f"dim={self.dim} is not divisible by heads={self.heads}")
        if self.lengths not in ("exact", "shorter", "any"):
            raise ValueError(f'lengths={self.lengths!r}: "exact", "shorter" or "any" is expected')

    def check_count(self, name: str, least: int = 1) -> None:
        """Refuse a field that is no whole number of at least ``least``."""
        value = getattr(self, name)
        if type(value) is not int or value < least:
            raise ValueError(f"{name}={value!r}: a whole number of at least {least} is expected")

    def check_rate(self, name: str) -> None:
        """Refuse a field that is no share below 1."""
        value = getattr(self, name)
        if isinstance(value, bool) or not isinstance(value, (int, float)) or not 0 <= value < 1:
            raise ValueError(f"{name}={value!r}: a share of at least 0 and below 1 is expected")
