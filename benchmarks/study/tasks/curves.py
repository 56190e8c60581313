"""Do two marks lie on one curve? A question about a picture whose answer has to be followed along the curve."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import ClassVar

import torch
from mazes import GridNetwork  # in examples/
from torch import Tensor, nn
from torch.nn import functional as F

from ..expected import Settings, number, several, whole
from ..plan import Network
from .mazes import surest_cells
from .task import TEST_SEED, Drawn, Inputs, draw

_STEPS = ((-1, 0), (1, 0), (0, -1), (0, 1))


def pictures(count: int, side: int, length: int, generator: torch.Generator) -> tuple[Tensor, Tensor]:
    """Pictures (count, side, side, 2) of curves and of two marks, and whether the marks are on one curve.

    Two curves that neither cross nor touch (after Linsley et al., arXiv 1805.08315, "Pathfinder") wander over the grid,
    each of at most ``length`` cells. A mark is at the end of the first curve; the other at its other end, or at one of
    the second's, in half of the pictures each.
    """
    device = generator.device
    curves = torch.zeros(count, side, side, device=device)
    rows = torch.arange(count, device=device)
    ends = []
    for _ in range(2):
        first, last, own = _walk(curves, length, generator)
        curves = torch.maximum(curves, own)
        ends.append((first, last))
    same = torch.rand(count, generator=generator, device=device) < 0.5
    marks = torch.zeros(count, side * side, device=device)
    marks[rows, ends[0][0]] = 1
    marks[rows, torch.where(same, ends[0][1], ends[1][1])] = 1
    return torch.stack([curves, marks.view(count, side, side)], dim=-1), same


def _walk(taken: Tensor, length: int, generator: torch.Generator) -> tuple[Tensor, Tensor, Tensor]:
    """A self-avoiding walk on every picture that stays one cell away from what is taken; its ends and its cells.

    Of many first cells one is taken at random that is away from other curves. At each step the walk goes on straight
    three times as readily as it turns, and stops where no free cell is left.
    """
    count, side, _ = taken.shape
    device, rows = taken.device, torch.arange(len(taken), device=taken.device)
    around = F.max_pool2d(taken[:, None], 3, 1, 1)[:, 0].flatten(1)
    scores = torch.rand(count, side * side, generator=generator, device=device) - 2 * around
    first = here = scores.argmax(1)
    own = torch.zeros(count, side * side, device=device)
    own[rows, here] = 1
    heading = torch.full((count,), -1, device=device)
    moves = torch.tensor(_STEPS, device=device)
    for _ in range(length - 1):
        y, x = here // side + moves[:, :1], here % side + moves[:, 1:]  # (4, count)
        inside = (y >= 0) & (y < side) & (x >= 0) & (x < side)
        cell = (y.clamp(0, side - 1) * side + x.clamp(0, side - 1)).T
        # A cell may touch the walk in the cell it comes from, and nowhere else.
        touching = _neighbours(own.view(count, side, side)).flatten(1).gather(1, cell)
        free = inside.T & (around.gather(1, cell) == 0) & (own.gather(1, cell) == 0) & (touching == 1)
        weight = torch.where(torch.arange(4, device=device) == heading[:, None], 3.0, 1.0)
        chance = torch.rand(count, 4, generator=generator, device=device) ** (1 / weight) * free
        best, turn = chance.max(1)
        goes = best > 0
        here = torch.where(goes, cell.gather(1, turn[:, None])[:, 0], here)
        heading = torch.where(goes, turn, heading)
        own[rows, here] = 1
    return first, here, own.view(count, side, side)


def _neighbours(cells: Tensor) -> Tensor:
    """How many of the four cells beside each are set."""
    cross = torch.tensor([[0.0, 1, 0], [1, 0, 1], [0, 1, 0]], device=cells.device)[None, None]
    return F.conv2d(cells[:, None], cross, padding=1)[:, 0]


class Curves:
    """A token a cell; each mark's token is asked whether the other mark is on its curve.

    Args:
        side: Cells of a side, in training.
        length: Most cells of a curve, for each cell of a side.
        sides: Pictures that are tested.
        test_pictures: Of each.
    """

    blocks = "blocks"
    confidence = staticmethod(surest_cells)
    settings: ClassVar[Settings] = {
        "side": whole(2),
        "length": number("above 0", lambda cells: cells > 0),
        "sides": several(2),
        "test_pictures": whole(1),
    }

    def __init__(
        self, *, side: int, length: float, sides: list[int], test_pictures: int, data: Path | None, device: torch.device
    ) -> None:
        self.side, self.length, self.sides, self.test_pictures = side, length, sides, test_pictures
        self.device = device
        self.example = (torch.zeros(1, side, side, 2),)
        most = round(length * side)
        self._drawn = Drawn(lambda count, generator: pictures(count, side, most, generator), device)

    def network(self, size: Network) -> nn.Module:
        """See `Task`."""
        return GridNetwork(nn.Linear(2, size.width), size.width, size.depth, size.heads)

    def batch(self, seed: int, step: int, size: int) -> tuple[Tensor, Inputs]:
        """See `Task`."""
        shown, same = self._drawn.batch(seed, step, size)
        return shown, (shown, same)

    def loss(self, output: Tensor, *target: Tensor) -> Tensor:
        """Cross-entropy of the mean answer of the two marks."""
        return F.cross_entropy(self._answer(output, target[0]), target[1].long())

    def test(self) -> Iterator[tuple[str, Tensor, Inputs]]:
        """See `Task`; a set is named by its side."""
        for side in self.sides:
            generator = draw(TEST_SEED, side, device=self.device)
            made = pictures(self.test_pictures, side, round(self.length * side), generator)
            for shown, same in zip(*(each.split(250) for each in made), strict=True):
                yield f"{side}x{side}", shown, (shown, same)

    def right(self, output: Tensor, *target: Tensor) -> dict[str, Tensor]:
        """Whether the answer is right (``top1``)."""
        return {"top1": (self._answer(output, target[0]).argmax(1) == target[1].long()).float()}

    @staticmethod
    def _answer(output: Tensor, shown: Tensor) -> Tensor:
        marks = shown[..., 1][:, None]
        return (output.float() * marks).sum((2, 3)) / marks.sum((2, 3))
