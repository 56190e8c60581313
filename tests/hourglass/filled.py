"""The weights that the golden recovery was made with: a hash of each tensor's name and of the position inside it."""

from __future__ import annotations

import math
import zlib
from collections.abc import Mapping

import numpy as np


def weights(shapes: Mapping[str, tuple[int, ...]]) -> dict[str, np.ndarray]:
    """Matrices ``s * sqrt(3 / fan_in)`` and biases ``0.1 * s`` for hashes s in [-1, 1)."""
    return {name: _tensor(name, shape) for name, shape in shapes.items()}


def _tensor(name: str, shape: tuple[int, ...]) -> np.ndarray:
    low = np.uint64(0xFFFFFFFF)
    number = math.prod(shape)
    h = (np.arange(number, dtype=np.uint64) * np.uint64(0x9E3779B1) + np.uint64(zlib.crc32(name.encode()))) & low
    for shift, factor in ((16, 0x85EBCA6B), (13, 0xC2B2AE35)):
        h = ((h ^ (h >> np.uint64(shift))) * np.uint64(factor)) & low
    unit = (h ^ (h >> np.uint64(16))).astype(np.float64) / 2.0**32
    scale = math.sqrt(3 * shape[0] / number) if len(shape) > 1 else 0.1
    return ((2 * unit - 1) * scale).astype(np.float32).reshape(shape)
