"""Which cells of a maze can be reached: a question that takes as many local steps as the way is long."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import ClassVar

import torch
from mazes import GridNetwork, boards, maze_loss, share_right  # in examples/
from torch import Tensor, nn

from ..expected import Settings, number, several, whole
from ..plan import Network
from .task import TEST_SEED, Drawn, Inputs, draw


def surest_cells(output: Tensor) -> Tensor:
    """How sure answers (B, 2, H, W) are: the mean over cells of the larger share's logarithm, as a share."""
    return output.float().log_softmax(1).amax(1).flatten(1).mean(1).exp()


class Mazes:
    """A token a cell; for every free cell the question whether it is reached from the start.

    Args:
        side: Cells of a side, in training.
        walls: Share of the cells.
        sides: Boards that are tested; those above ``side`` ask for longer ways than were trained.
        test_boards: Of each.
    """

    blocks = "blocks"
    confidence = staticmethod(surest_cells)
    settings: ClassVar[Settings] = {
        "side": whole(1),
        "walls": number("from 0 to below 1", lambda share: 0 <= share < 1),
        "sides": several(1),
        "test_boards": whole(1),
    }

    def __init__(
        self, *, side: int, walls: float, sides: list[int], test_boards: int, data: Path | None, device: torch.device
    ) -> None:
        self.side, self.walls, self.sides, self.test_boards = side, walls, sides, test_boards
        self.device = device
        self.example = (torch.zeros(1, side, side, dtype=torch.long),)
        self._drawn = Drawn(lambda count, generator: boards(count, side, walls, generator), device)

    def network(self, size: Network) -> nn.Module:
        """See `Task`."""
        return GridNetwork(nn.Embedding(3, size.width), size.width, size.depth, size.heads)

    def batch(self, seed: int, step: int, size: int) -> tuple[Tensor, Inputs]:
        """See `Task`."""
        cells, reached = self._drawn.batch(seed, step, size)
        return cells, (cells, reached)

    def loss(self, output: Tensor, *target: Tensor) -> Tensor:
        """Cross-entropy over the free cells."""
        return maze_loss(output, *target)

    def test(self) -> Iterator[tuple[str, Tensor, Inputs]]:
        """See `Task`; a set is named by its side."""
        for side in self.sides:
            made = boards(self.test_boards, side, self.walls, draw(TEST_SEED, side, device=self.device))
            for cells, reached in zip(*(each.split(250) for each in made), strict=True):
                yield f"{side}x{side}", cells, (cells, reached)

    def right(self, output: Tensor, *target: Tensor) -> dict[str, Tensor]:
        """Whether all free cells of a board are told right (``solved``), and which share (``cells``)."""
        shares = share_right(output, *target)
        return {"solved": (shares == 1).float(), "cells": shares}
