"""What a study asks of a task."""

from __future__ import annotations

import functools
from collections.abc import Callable, Iterator
from typing import Any, ClassVar, Protocol

import torch
from torch import Tensor, nn

from ..expected import Settings
from ..plan import Network

Inputs = tuple[Tensor, ...]

TEST_SEED = 1_000_000_007
"""No seed of a study: what is drawn with it is tested, and trained on by none."""
_AT_ONCE = 32
"""Batches that are drawn together."""
_KEPT = 128
"""How often so many are kept."""


class Task(Protocol):
    """Data, a network for it, a loss, and measures.

    Every batch is a function of the seed and the number of the step: all arms of a seed see the same, and a run that
    was stopped goes on with the next.
    """

    blocks: str
    """The stack of the network, as ``wrap_cyclic`` is told."""
    example: tuple[Any, ...]
    """Arguments of the network for one sample, by which its cost is counted."""
    confidence: str | Callable[[Any], Tensor]
    """How sure an output is, as `cycledistill.adaptive.AdaptiveExit` takes it."""
    settings: ClassVar[Settings]
    """What a plan says of it under ``task``, beside its kind."""

    def __init__(self, **settings: Any) -> None: ...

    def network(self, size: Network) -> nn.Module:
        """A new network, its weights drawn by torch's generator."""

    def batch(self, seed: int, step: int, size: int) -> tuple[Tensor, Inputs]:
        """What the network and what the loss are given at a step."""

    def loss(self, output: Tensor, *target: Tensor) -> Tensor:
        """Of one cycle's output."""

    def test(self) -> Iterator[tuple[str, Tensor, Inputs]]:
        """Test data in batches: name of the set, what the network is given, what is compared with its answer."""

    def right(self, output: Tensor, *target: Tensor) -> dict[str, Tensor]:
        """Measures of every sample (B,) by their names; their means over a set are reported, times 100."""


def draw(*numbers: int, device: torch.device | str = "cpu") -> torch.Generator:
    """A generator of its own for a few whole numbers, such as a seed and a step."""
    mixed = 0
    for number in numbers:
        mixed = (mixed * 1_000_003 + number + 1) % (2**61 - 1)
    return torch.Generator(device).manual_seed(mixed)


class Drawn:
    """Batches of samples that are drawn, many at once; what one arm of a seed has seen is kept for the next.

    Args:
        make: Draws so many samples: what the network is given, and what the answer should be.
        device: Where.
    """

    def __init__(self, make: Callable[[int, torch.Generator], tuple[Tensor, Tensor]], device: torch.device) -> None:
        self.make, self.device = make, device
        self._chunk = functools.lru_cache(maxsize=_KEPT)(self._draw)

    def batch(self, seed: int, step: int, size: int) -> tuple[Tensor, Tensor]:
        """The samples of a step."""
        place = step % _AT_ONCE * size
        given, answer = self._chunk(seed, step // _AT_ONCE, _AT_ONCE * size)
        return given[place : place + size], answer[place : place + size]

    def _draw(self, seed: int, chunk: int, count: int) -> tuple[Tensor, Tensor]:
        return self.make(count, draw(seed, chunk, device=self.device))
