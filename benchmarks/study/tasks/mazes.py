"""Which cells of a maze can be reached: a question that takes as many local steps as the way is long."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from ..plan import Network
from .grid import GridNetwork
from .task import Inputs, draw

FREE, WALL, START = 0, 1, 2
_CHUNK = 32  # batches that are made at once
_TEST_SEED = 1_000_000_007  # no seed of a study


def boards(count: int, side: int, walls: float, generator: torch.Generator) -> tuple[Tensor, Tensor]:
    """Boards (count, side, side) of FREE, WALL and one START, and which free cells can be reached from it."""
    device = generator.device
    wall = torch.rand(count, side, side, generator=generator, device=device) < walls
    start = torch.randint(side * side, (count,), generator=generator, device=device)
    rows = torch.arange(count, device=device)
    wall.view(count, -1)[rows, start] = False
    cells = wall.long() * WALL
    cells.view(count, -1)[rows, start] = START
    return cells, flood(cells == START, ~wall)


def flood(start: Tensor, free: Tensor) -> Tensor:
    """The free cells (B, H, W) that are joined to the start by free cells side by side."""
    steps = torch.tensor([[0.0, 1, 0], [1, 1, 1], [0, 1, 0]], device=start.device)[None, None]
    reached, open_cells = start[:, None].float(), free[:, None].float()
    while True:
        further = (F.conv2d(reached, steps, padding=1) > 0).float() * open_cells
        if torch.equal(further, reached):
            return reached[:, 0] > 0
        reached = further


class Mazes:
    """A token a cell; for every free cell the question whether it is reached from the start.

    Args:
        side: Cells of a side, in training.
        walls: Share of the cells.
        sides: Boards that are tested; those above ``side`` ask for longer ways than were trained.
        test_boards: Of each.
    """

    blocks = "blocks"

    def __init__(
        self, *, side: int, walls: float, sides: list[int], test_boards: int, data: Path | None, device: torch.device
    ) -> None:
        self.side, self.walls, self.sides, self.test_boards = side, walls, sides, test_boards
        self.device = device
        self.example = (torch.zeros(1, side, side, dtype=torch.long),)
        self._made: tuple[tuple[int, int, int], tuple[Tensor, Tensor]] | None = None

    def network(self, size: Network) -> nn.Module:
        """See `Task`."""
        return GridNetwork(nn.Embedding(3, size.width), size, outputs=2)

    def batch(self, seed: int, step: int, size: int) -> tuple[Tensor, Inputs]:
        """See `Task`."""
        key = (seed, step // _CHUNK, size)
        if self._made is None or self._made[0] != key:
            generator = draw(seed, step // _CHUNK, device=self.device)
            self._made = key, boards(_CHUNK * size, self.side, self.walls, generator)
        part = slice(step % _CHUNK * size, (step % _CHUNK + 1) * size)
        cells, reached = (each[part] for each in self._made[1])
        return cells, (cells, reached)

    def loss(self, output: Tensor, *target: Tensor) -> Tensor:
        """Cross-entropy over the free cells."""
        cells, reached = target
        each = F.cross_entropy(output.float(), reached.long(), reduction="none")
        free = (cells != WALL).float()
        return (each * free).sum() / free.sum()

    def test(self) -> Iterator[tuple[str, Tensor, Inputs]]:
        """See `Task`; a set is named by its side."""
        for side in self.sides:
            made = boards(self.test_boards, side, self.walls, draw(_TEST_SEED, side, device=self.device))
            for cells, reached in zip(*(each.split(250) for each in made), strict=True):
                yield f"{side}x{side}", cells, (cells, reached)

    def right(self, output: Tensor, *target: Tensor) -> dict[str, Tensor]:
        """Whether all free cells of a board are told right (``solved``), and which share (``cells``)."""
        cells, reached = target
        free = cells != WALL
        good = (output.argmax(dim=1) == reached.long()) & free
        shares = good.flatten(1).sum(1) / free.flatten(1).sum(1)
        return {"solved": (shares == 1).float(), "cells": shares}
