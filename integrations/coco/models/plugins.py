"""A pose model's config with its plug-ins, and the plug-ins put on."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TypeVar

from torch import nn

from cycledistill import Distill, wrap_cyclic
from cycledistill.prune.wrap import wrap_pruning

from .config import TokenPoseConfig

Model = TypeVar("Model", bound=nn.Module)

STACK = "blocks"
"""Path of the stack in a pose model."""
QUERY = "keypoint"
"""The tokens that say which others are dropped."""


@dataclass(frozen=True)
class PoseModelConfig:
    """A pose model: its network, and the plug-ins on it.

    Args:
        network: The TokenPose network.
        cycles: How often the stack runs while training; ``None``: the plain network, without ``wrap_cyclic``.
        distill: What later cycles teach earlier ones, as for ``wrap_cyclic``.
        prune_layers: Layers after whose attention visual tokens are dropped; none: no pruning.
        keep: Fraction of the visual tokens that each of them keeps.
        note: Where the model comes from.
        name: What it is called, where it has a name.

    Raises:
        ValueError: ``cycles`` below 1, a preset that does not exist, ``keep`` out of (0, 1], layers outside the stack.
    """

    network: TokenPoseConfig = field(default_factory=TokenPoseConfig)
    cycles: int | None = None
    distill: str | Distill | None = "sdpose"
    prune_layers: tuple[int, ...] = ()
    keep: float = 0.7
    note: str = ""
    name: str | None = None

    def __post_init__(self) -> None:
        object.__setattr__(self, "prune_layers", tuple(self.prune_layers))
        if self.cycles is not None and (not isinstance(self.cycles, int) or self.cycles < 1):
            raise ValueError(f"cycles={self.cycles!r}: a whole number of at least 1, or None, is expected")
        if isinstance(self.distill, str):
            Distill.preset(self.distill)
        if not isinstance(self.keep, (int, float)) or not 0 < self.keep <= 1:
            raise ValueError(f"keep={self.keep!r}: a fraction of the tokens, above 0 and at most 1, is expected")
        outside = [layer for layer in self.prune_layers if not 0 <= layer < self.network.depth]
        if outside:
            raise ValueError(
                f"prune_layers={self.prune_layers}: {outside[0]} is outside the {self.network.depth} layers of the "
                f"network, counted from 0 to {self.network.depth - 1}"
            )


def add_plugins(model: Model, config: PoseModelConfig) -> Model:
    """Put the pruning and the cycles of ``config`` on a plain pose model, in place, and return it.

    With both, the first cycle prunes and the later ones run on the kept tokens.
    """
    if config.prune_layers:
        wrap_pruning(model, config.prune_layers, config.keep, blocks=STACK, query=QUERY)
    if config.cycles is not None:
        wrap_cyclic(model, config.cycles, config.distill, blocks=STACK)
    return model
