"""What every lifting network is told."""

from __future__ import annotations

from dataclasses import dataclass, fields
from typing import Literal

Lengths = Literal["exact", "shorter", "any"]


@dataclass(frozen=True)
class NetworkConfig:
    """What every lifting network is told. Here and in those derived, whole numbers are counts and floats are shares.

    Args:
        frames: Frames of a clip, F, for which the temporal positions are learned.
        joints: Joints of the skeleton, J.
        in_channels: Numbers a joint comes with: 2 (x, y), or 3 with the detector's confidence.
        dim: Channels of a token, C.
        heads: Attention heads, which divide ``dim``.
        lengths: Clips of other lengths than ``frames`` are refused ("exact"), taken if shorter, with the first of the
            temporal positions ("shorter"), or all taken, with the positions interpolated along time ("any").

    Raises:
        ValueError: A count below 1, a share not in [0, 1), ``dim`` that ``heads`` do not divide, an unknown word.
    """

    frames: int = 243
    joints: int = 17
    in_channels: int = 2
    dim: int = 512
    heads: int = 8
    lengths: Lengths = "exact"

    def __post_init__(self) -> None:
        for each in fields(self):
            value = getattr(self, each.name)
            if isinstance(each.default, int) and (type(value) is not int or value < 1):
                raise ValueError(f"{each.name}={value!r}: a whole number of at least 1 is expected")
            number = isinstance(value, (int, float)) and not isinstance(value, bool)
            if isinstance(each.default, float) and not (number and 0 <= value < 1):
                raise ValueError(f"{each.name}={value!r}: a share of at least 0 and below 1 is expected")
        if self.dim % self.heads:
            raise ValueError(f"dim={self.dim} is not divisible by heads={self.heads}")
        if self.lengths not in ("exact", "shorter", "any"):
            raise ValueError(f'lengths={self.lengths!r}: "exact", "shorter" or "any" is expected')
