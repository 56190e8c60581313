"""Mazes, curves and pictures are what they are said to be."""

from __future__ import annotations

from collections import deque

import pytest
import torch

pytest.importorskip("timm")
pytest.importorskip("sklearn")

from mazes import START, WALL, boards
from study.plan import Network
from study.tasks import open_task
from study.tasks.curves import pictures
from study.tasks.figures import figures, heatmaps
from study.tasks.pictures import resized_crops

CPU = torch.device("cpu")
MAZES = {"kind": "mazes", "side": 5, "walls": 0.35, "sides": [5, 7], "test_boards": 300}
CURVES = {"kind": "curves", "side": 9, "length": 1.5, "sides": [9], "test_pictures": 300}
FIGURES = {"kind": "figures", "loss": "mse", "test_figures": 300}
DIGITS = {"kind": "pictures", "set": "digits", "size": 8, "patch": 2, "shift": 1, "flip": False, "smoothing": 0.1}


def walked(open_cells: list[list[bool]], start: tuple[int, int]) -> set[tuple[int, int]]:
    """The cells that a breadth-first search reaches."""
    seen, queue = {start}, deque([start])
    while queue:
        y, x = queue.popleft()
        for cell in ((y - 1, x), (y + 1, x), (y, x - 1), (y, x + 1)):
            inside = 0 <= cell[0] < len(open_cells) and 0 <= cell[1] < len(open_cells[0])
            if inside and open_cells[cell[0]][cell[1]] and cell not in seen:
                seen.add(cell)
                queue.append(cell)
    return seen


def test_what_is_reached_is_what_a_search_reaches() -> None:
    cells, reached = boards(60, 7, 0.35, torch.Generator().manual_seed(0))
    for board, found in zip(cells, reached, strict=True):
        (start,) = (board == START).nonzero().tolist()
        expected = walked((board != WALL).tolist(), tuple(start))
        assert {tuple(cell) for cell in found.nonzero().tolist()} == expected
    assert 0.3 < (cells == WALL).float().mean() < 0.4
    assert (reached & (cells != WALL)).any(0).all()


def test_a_board_is_solved_if_every_free_cell_is_right() -> None:
    task = open_task(MAZES, None, CPU)
    _, _, (cells, reached) = next(iter(task.test()))
    answers = torch.stack([~reached, reached], dim=1).float()
    right = task.right(answers, cells, reached)
    assert right["solved"].eq(1).all() and right["cells"].eq(1).all()
    wrong = answers.clone()
    y, x = (cells[0] != WALL).nonzero()[0].tolist()
    wrong[0, :, y, x] = answers[0, :, y, x].flip(0)
    right = task.right(wrong, cells, reached)
    assert right["solved"][0] == 0 and right["solved"][1:].eq(1).all()
    free = int((cells[0] != WALL).sum())
    assert right["cells"][0] == pytest.approx((free - 1) / free)
    y, x = (cells[0] == WALL).nonzero()[0].tolist()
    answers[0, :, y, x] = answers[0, :, y, x].flip(0)  # what is said of walls does not count
    assert task.right(answers, cells, reached)["solved"][0] == 1


def test_two_curves_do_not_touch_and_marks_are_at_their_ends() -> None:
    shown, same = pictures(200, 10, 12, torch.Generator().manual_seed(0))
    for picture, together in zip(shown, same, strict=True):
        curves, marks = picture[..., 0] > 0, picture[..., 1] > 0
        places = [tuple(cell) for cell in marks.nonzero().tolist()]
        assert all(curves[cell] for cell in places)
        if len(places) == 1:
            continue  # a curve of one cell has one end
        assert (places[1] in walked(curves.tolist(), places[0])) == bool(together)
    assert 0.4 < same.float().mean() < 0.6


@pytest.mark.parametrize("settings", [MAZES, CURVES, DIGITS, FIGURES], ids=lambda settings: settings["kind"])
def test_a_task_hangs_together(settings: dict[str, object]) -> None:
    task = open_task(settings, None, CPU)
    torch.manual_seed(0)
    model = task.network(Network(width=16, depth=1, heads=2)).eval()
    given, target = task.batch(0, 3, 8)
    assert given.shape[0] == 8
    assert task.loss(model(given), *target).ndim == 0
    again = open_task(settings, None, CPU).batch(0, 3, 8)[0]
    assert torch.equal(again, given)
    count = 0
    for _, shown, compared in task.test():
        right = task.right(model(shown), *compared)
        assert all(values.shape == (len(shown),) for values in right.values())
        count += len(shown)
    assert count >= 300
    assert model(task.example[0]).shape[0] == 1
    assert set(dict(model.named_children())) >= {task.blocks}


def test_pictures_are_shifted_copies_and_an_epoch_shows_each_once() -> None:
    task = open_task({**DIGITS, "shift": 0}, None, CPU)
    seen = torch.cat([task.batch(0, step, 100)[0] for step in range(10)]).flatten(1)
    assert len(seen.unique(dim=0)) == len(task.train[0].flatten(1).unique(dim=0))
    shifted = open_task(DIGITS, None, CPU).batch(0, 0, 100)[0]
    assert not torch.equal(shifted, task.batch(0, 0, 100)[0])


def test_held_out_pictures_are_trained_on_by_no_step() -> None:
    task = open_task({**DIGITS, "held_out": 200}, None, CPU)
    assert len(task.tested[1]) == 200 and len(task.train[1]) == 800


def test_heatmaps_are_found_again_and_figures_have_two_sides() -> None:
    shown, joints = figures(200, torch.Generator().manual_seed(0))
    assert shown.shape == (200, 1, 32, 32) and shown.min() >= 0 and shown.max() <= 1
    task = open_task(FIGURES, None, CPU)
    right = task.right(heatmaps(joints), joints)
    assert right["pck"].eq(1).all()
    assert right["oks"].min() > 0.75  # half a pixel of the map is one of the picture, on each axis
    assert task.right(heatmaps(joints.flip(0)), joints)["pck"].mean() < 0.3
    assert task.loss(heatmaps(joints), joints) == 0
    # By their places alone the two elbows cannot be told apart: each is the left one in half of the figures.
    assert 0.3 < (joints[:, 2, 0] < joints[:, 4, 0]).float().mean() < 0.7


def test_a_crop_shows_a_part_of_its_picture() -> None:
    ramp = torch.linspace(-1, 1, 16).expand(40, 1, 16, 16)
    crops = resized_crops(ramp, 0.3, torch.Generator().manual_seed(0))
    widths = (crops[:, 0, 8, -1] - crops[:, 0, 8, 0]) / 2  # of the ramp's 2: the share of the width that is shown
    assert 0.3 < widths.min() < 0.7 and widths.max() <= 1
    assert torch.equal(resized_crops(ramp, 0.3, torch.Generator().manual_seed(0)), crops)
    torch.testing.assert_close(
        resized_crops(ramp, 1.0, torch.Generator())[:, :, :, 8], ramp[:, :, :, 8], atol=0.3, rtol=0
    )
