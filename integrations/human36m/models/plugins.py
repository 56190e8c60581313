"""A lifting model's config with its plug-ins, and the plug-ins put on."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Literal, TypeVar

from torch import nn

from cycledistill import Distill, wrap_cyclic, wrap_hourglass

from .config import NetworkConfig

Mode = Literal["seq2seq", "seq2frame"]
Model = TypeVar("Model", bound=nn.Module)

STACK = "levels"
"""Path of the stack in a lifting model."""


@dataclass(frozen=True)
class LifterConfig:
    """A lifting model: its network, and the plug-ins on it.

    Args:
        network: The network.
        mode: "seq2seq", the poses of all frames are wanted, or "seq2frame", that of the centre frame, which is then
            always among the kept ones.
        layer: Numbers of the levels before which frames are dropped; ``None``: without ``wrap_hourglass``.
        keep: Frames that are kept there, or shares of the clip; with several layers, one for each.
        recover: How all frames come back, as for ``wrap_hourglass``; ``False``: the model returns the kept ones.
        cycles: How often the stack runs while training; ``None``: without ``wrap_cyclic``. With an hourglass, the
            levels after its last prune point are the stack.
        distill: What later cycles teach earlier ones, as for ``wrap_cyclic``.
        note: Where the model comes from.
        hourglass: Other arguments of ``wrap_hourglass``: ``{"select": "uniform"}``.
        name: What it is called, where it has a name.

    Raises:
        ValueError: ``cycles`` below 1, a preset that does not exist, an unknown mode, one of ``layer`` and ``keep``
            without the other, arguments of an hourglass without it.
    """

    network: NetworkConfig
    mode: Mode = "seq2seq"
    layer: int | tuple[int, ...] | None = None
    keep: int | float | tuple[int | float, ...] | None = None
    recover: bool | str = True
    cycles: int | None = None
    distill: str | Distill | None = "sdpose"
    note: str = ""
    hourglass: Mapping[str, Any] = field(default_factory=dict)
    name: str | None = None

    def __post_init__(self) -> None:
        if self.mode not in ("seq2seq", "seq2frame"):
            raise ValueError(f'mode={self.mode!r}: "seq2seq" or "seq2frame" is expected')
        if (self.layer is None) != (self.keep is None):
            raise ValueError(
                f"layer={self.layer!r}, keep={self.keep!r}: an hourglass needs both, a plain model neither"
            )
        if self.hourglass and self.layer is None:
            raise ValueError(f"hourglass={dict(self.hourglass)!r}: there is no hourglass without layer and keep")
        if self.cycles is not None and (type(self.cycles) is not int or self.cycles < 1):
            raise ValueError(f"cycles={self.cycles!r}: a whole number of at least 1, or None, is expected")
        if isinstance(self.distill, str):
            Distill.preset(self.distill)


def add_plugins(model: Model, config: LifterConfig) -> Model:
    """Put the hourglass and the cycles of ``config`` on a plain lifting model, in place, and return it."""
    if config.layer is not None and config.keep is not None:
        options = {"centre": config.mode == "seq2frame", **config.hourglass}
        wrap_hourglass(model, layer=config.layer, keep=config.keep, recover=config.recover, **options)
    if config.cycles is not None:
        wrap_cyclic(model, config.cycles, config.distill, blocks=STACK if config.layer is None else "auto")
    return model
