"""How pictures go through a classifier, apart from how they are prepared."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal


@dataclass(frozen=True)
class EvalSettings:
    """How pictures go through a classifier.

    Attributes:
        batch_size: Pictures at once.
        precision: ``"fp32"``, ``"bf16"`` or ``"fp16"``.
        broken: Whether a picture that cannot be read stops all, or is left out and counted.
    """

    batch_size: int = 64
    precision: str = "fp32"
    broken: Literal["stop", "skip"] = "stop"


DEFAULT = EvalSettings()
