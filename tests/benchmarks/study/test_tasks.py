"""Mazes, curves and pictures are what they are said to be."""

from __future__ import annotations

import io
import json
import re
import zipfile
from collections import deque
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from torch.nn import functional

pytest.importorskip("timm")
pytest.importorskip("sklearn")

from mazes import START, WALL, boards
from study.errors import StudyError
from study.load import load_plan
from study.plan import Network
from study.tasks import open_task
from study.tasks.curves import pictures
from study.tasks.figures import figures
from study.tasks.keypoints import heatmaps
from study.tasks.persons import mirror_order
from study.tasks.pictures import resized_crops

from tests.scripts import ROOT

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
    right = task.right(heatmaps(joints, 32, 16), joints)
    assert right["pck"].eq(1).all()
    assert right["oks"].min() > 0.75  # half a pixel of the map is one of the picture, on each axis
    assert task.right(heatmaps(joints.flip(0), 32, 16), joints)["pck"].mean() < 0.3
    assert task.loss(heatmaps(joints, 32, 16), joints) == 0
    # By their places alone the two elbows cannot be told apart: each is the left one in half of the figures.
    assert 0.3 < (joints[:, 2, 0] < joints[:, 4, 0]).float().mean() < 0.7


@pytest.fixture
def archive(tmp_path: Path) -> Path:
    """Eight black photographs of 90 x 60 with a red dot at the left hand and a blue one at the right, in a zip."""
    entries: dict[str, Any] = {"images": [], "annotations": []}
    (tmp_path / "dots").mkdir()
    with zipfile.ZipFile(tmp_path / "dots" / "dots.zip", "w") as opened:
        for number in range(8):
            left, right = (20 + 4 * number, 20), (50, 40)
            picture = np.zeros((60, 90, 3), dtype=np.uint8)
            picture[18:23, left[0] - 2 : left[0] + 3, 0] = 255
            picture[38:43, 48:53, 2] = 255
            file = io.BytesIO()
            Image.fromarray(picture).save(file, "png")
            opened.writestr(f"images/{number}.png", file.getvalue())
            entries["images"].append({"id": number, "file_name": f"{number}.png"})
            keypoints = [*left, 2, *right, 2, 0, 0, 0]
            entries["annotations"].append(
                {"image_id": number, "bbox": [15, 15, 40, 30], "keypoints": keypoints, "num_keypoints": 2}
            )
        entries["annotations"].append({"image_id": 0, "bbox": [0, 0, 1, 1], "keypoints": [0] * 9, "num_keypoints": 0})
        entries["categories"] = [{"keypoints": ["left_hand", "right_hand", "head"]}]
        for part in ("train", "val"):
            opened.writestr(f"annotations/{part}.json", json.dumps(entries))
    return tmp_path


PERSONS = {"kind": "persons", "set": "dots", "side": 64, "patch": 16, "loss": "mse", "turn": 30.0, "scale": 0.2}


def test_joints_stay_on_what_is_seen_of_them(archive: Path) -> None:
    """The oracle: where the dots are in the pictures, however these are turned, scaled and mirrored."""
    task = open_task(PERSONS, archive, CPU)
    _, shown, (places, labelled, length) = next(iter(task.test()))
    assert len(shown) == 8 and labelled.tolist() == [[True, True, False]] * 8
    assert length.tolist() == pytest.approx([64 / 1.25] * 8)
    mirrored = 0
    drawn = [task.batch(0, step, 8) for step in range(9)]
    for several, (joints, seen) in [(shown, (places, labelled)), *drawn]:
        for picture, (first, second, _), known in zip(several, joints, seen, strict=True):
            assert known.tolist() == [True, True, False]
            red, _, blue = picture
            found = [_centre(colour) for colour in (red, blue)]
            apart = [(spot - joint).norm() for spot, joint in zip(found, (first, second), strict=True)]
            crossed = [(spot - joint).norm() for spot, joint in zip(found, (second, first), strict=True)]
            assert max(apart) < 1.0 or max(crossed) < 1.0  # a mirrored left hand is a right one
            mirrored += max(crossed) < 1.0
    assert 20 < mirrored < 52


def _centre(colour: torch.Tensor) -> torch.Tensor:
    weight = ((colour + 1) / 2).clamp(min=0)
    along = torch.arange(len(colour)) + 0.5
    return torch.stack([(weight * along).sum(), (weight * along[:, None]).sum()]) / weight.sum()


def test_persons_are_measured_by_their_labelled_joints(archive: Path) -> None:
    task = open_task(PERSONS, archive, CPU)
    _, _, target = next(iter(task.test()))
    maps = heatmaps(target[0], 64, 32)
    assert task.right(maps, *target)["pck"].tolist() == [1.0] * 8
    maps[:, 2] = maps[:, 0]  # what nobody labelled does not count
    maps[0, 1] = maps[0, 0]
    assert task.right(maps, *target)["pck"].tolist() == [0.5] + [1.0] * 7
    assert task.loss(heatmaps(target[0], 64, 32), *target[:2]) == 0


MANY = [0, -1, 3.0, "4", None, True]
LISTS = [[], [0], [4, 4], [4.0], 4, None]


@pytest.mark.parametrize(
    ("settings", "key", "values"),
    [
        (MAZES, "side", MANY),
        (MAZES, "walls", [3.0, -1, 1, "0.3", None, True, float("nan")]),
        (MAZES, "sides", LISTS),
        (MAZES, "test_boards", [*MANY, -5]),
        (CURVES, "side", [*MANY, 1]),
        (CURVES, "length", [0, -1.5, "2", None, float("inf")]),
        (CURVES, "sides", LISTS),
        (CURVES, "test_pictures", MANY),
        (FIGURES, "loss", ["mae", None, 1, ["mse"]]),
        (FIGURES, "test_figures", MANY),
        (DIGITS, "set", ["", "../digits", "..", 3, None]),
        (DIGITS, "size", MANY),
        (DIGITS, "patch", [*MANY, 3, 16]),
        (DIGITS, "shift", [-1, 8, 1.0, None]),
        (DIGITS, "flip", [1, "no", None]),
        (DIGITS, "smoothing", [-0.1, 1, "0.1", None]),
        (DIGITS, "area", [0, -1, 1.5, None]),
        (DIGITS, "held_out", [-1, 1000, 5000, 2.0, None]),
        (PERSONS, "set", ["a/b", 3]),
        (PERSONS, "side", [*MANY, 1]),
        (PERSONS, "patch", [*MANY, 7]),
        (PERSONS, "loss", ["mae", None]),
        (PERSONS, "turn", [-1, 181, "30", None]),
        (PERSONS, "scale", [-0.1, 1, "0.2", None]),
    ],
    ids=lambda given: given if isinstance(given, str) else None,
)
def test_settings_out_of_range_are_named(settings: dict[str, Any], key: str, values: list[Any]) -> None:
    for value in values:
        with pytest.raises(StudyError, match=rf"^task\.{key}: got {re.escape(repr(value))}, .+"):
            open_task({**settings, key: value}, None, CPU)


def test_settings_that_are_missing_or_unknown_are_named() -> None:
    for settings in (MAZES, CURVES, FIGURES, DIGITS, PERSONS):
        for key in settings.keys() - {"kind"}:
            less = {name: value for name, value in settings.items() if name != key}
            with pytest.raises(StudyError, match=rf"^task\.{key}: .+ is expected, and a task of kind {less['kind']}"):
                open_task(less, None, CPU)
    with pytest.raises(StudyError, match=r"unknown key 'task\.wals'\. Did you mean 'walls'\? A task of kind mazes has"):
        open_task({**MAZES, "wals": 0.3}, None, CPU)
    for kind in (None, ["mazes"], "maze"):
        with pytest.raises(StudyError, match=r"task\.kind: .*: one of mazes, curves"):
            open_task({"kind": kind}, None, CPU)


def test_files_of_pictures_that_are_broken_are_named(tmp_path: Path) -> None:
    (tmp_path / "dots").mkdir()
    for name in ("dots.zip", "train.parquet", "test.parquet"):
        (tmp_path / "dots" / name).write_bytes(b"no such thing")
    with pytest.raises(StudyError, match=r"dots\.zip: cannot be read as a zip file"):
        open_task(PERSONS, tmp_path, CPU)
    with pytest.raises(StudyError, match=r"train\.parquet: cannot be read as a Parquet image set"):
        open_task({**DIGITS, "set": "dots"}, tmp_path, CPU)


def test_joints_of_one_side_alone_are_named() -> None:
    assert mirror_order(["left_hand", "head", "right_hand"]) == [2, 1, 0]
    with pytest.raises(StudyError, match="joint 'left_hand' has none on the other side; they are left_hand, head"):
        mirror_order(["left_hand", "head"])


def test_photographs_that_are_not_there(tmp_path: Path) -> None:
    for data in (None, tmp_path):
        with pytest.raises(StudyError, match=r"give --data, with dots/dots\.zip in it"):
            open_task(PERSONS, data, CPU)
    with pytest.raises(StudyError, match="mse or ce"):
        open_task({**PERSONS, "loss": "mae"}, tmp_path, CPU)


def test_a_crop_shows_a_part_of_its_picture() -> None:
    ramp = torch.linspace(-1, 1, 16).expand(40, 1, 16, 16)
    crops = resized_crops(ramp, 0.3, torch.Generator().manual_seed(0))
    widths = (crops[:, 0, 8, -1] - crops[:, 0, 8, 0]) / 2  # of the ramp's 2: the share of the width that is shown
    assert 0.3 < widths.min() < 0.7 and widths.max() <= 1
    assert torch.equal(resized_crops(ramp, 0.3, torch.Generator().manual_seed(0)), crops)
    torch.testing.assert_close(
        resized_crops(ramp, 1.0, torch.Generator())[:, :, :, 8], ramp[:, :, :, 8], atol=0.3, rtol=0
    )


def test_a_rule_that_looks_at_neighbours_alone_solves_as_many_mazes_as_the_guide_says() -> None:
    """Every free cell beside a free one is reached."""
    task, solved = open_task(load_plan("mazes").task, None, CPU), []
    for name, cells, target in task.test():
        if name == "8x8":
            free = functional.pad((cells != WALL).float(), (1, 1, 1, 1))
            beside = free[:, 2:, 1:-1] + free[:, :-2, 1:-1] + free[:, 1:-1, 2:] + free[:, 1:-1, :-2]
            reached = (beside > 0) & (cells != WALL) | (cells == START)
            solved.append(task.right(torch.stack([~reached, reached], 1).float(), *target)["solved"])
    guide = (ROOT / "docs" / "when.md").read_text(encoding="utf-8")
    assert f"A rule that looks at neighbours alone solves {100 * torch.cat(solved).mean():.1f} % of the mazes" in guide
