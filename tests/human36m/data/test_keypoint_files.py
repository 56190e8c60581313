"""Files of 2D keypoints: their forms, the order of their pictures, what is missing in them."""

from __future__ import annotations

import json
import logging
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from cycledistill.integrations.human36m.data.keypoints.files import read_keypoints
from cycledistill.integrations.human36m.data.keypoints.gaps import fill_gaps
from cycledistill.integrations.human36m.errors import LiftingDataError


@pytest.fixture
def person() -> np.ndarray:
    """COCO keypoints of 20 frames."""
    return np.random.default_rng(0).uniform(0.1, 400, (20, 17, 3)).astype(np.float32)


def test_files_of_every_form_read_the_same(person: np.ndarray, tmp_path: Path) -> None:
    results = [
        {"image_id": 2 * number, "category_id": 1, "keypoints": frame.ravel().tolist(), "score": 1.0}
        for number, frame in enumerate(person)
    ]
    forms = {"results": results[::-1], "bare": person.tolist(), "flat": {"keypoints": person.reshape(20, 51).tolist()}}
    for name, value in forms.items():
        (tmp_path / f"{name}.json").write_text(json.dumps(value))
        np.testing.assert_allclose(read_keypoints(tmp_path / f"{name}.json").pixels, person, rtol=1e-6)
    np.savez(tmp_path / "a.npz", keypoints=person, width=640, height=480)
    found = read_keypoints(tmp_path / "a.npz")
    assert (found.width, found.height) == (640, 480)
    assert np.array_equal(found.pixels, person)


def test_gaps_are_filled_on_request(person: np.ndarray, caplog: pytest.LogCaptureFixture) -> None:
    gap = person.copy()
    gap[[0, 7, 8]] = 0
    with caplog.at_level(logging.WARNING):
        filled = fill_gaps(gap, "here")
    assert "3 of 20 frames have no person" in caplog.text
    assert np.array_equal(filled[0, :, :2], person[1, :, :2]), "the first person seen"
    np.testing.assert_allclose(filled[7, :, :2], (person[6] + (person[9] - person[6]) / 3)[:, :2], rtol=1e-5)
    assert not filled[[0, 7, 8], :, 2].any(), "what was not seen has no confidence"
    kept = [1, 2, 3, 4, 5, 6, *range(9, 20)]
    assert np.array_equal(filled[kept], person[kept])
    nan = person.copy()
    nan[3, 5, 0] = np.nan
    np.testing.assert_allclose(fill_gaps(nan, "here")[3, 5, :2], (person[2, 5] + person[4, 5])[:2] / 2, rtol=1e-5)
    assert np.array_equal(np.delete(fill_gaps(nan, "here")[3], 5, 0), np.delete(person[3], 5, 0)), "that one alone"
    with pytest.raises(LiftingDataError, match="no frame has a person"):
        fill_gaps(0 * person, "here")


@pytest.mark.parametrize(
    ("name", "text", "message"),
    [
        ("a.csv", "", "npy or .txt file of keypoints is expected"),
        ("a.json", "{", "cannot be read as JSON"),
        ("a.json", '{"joints": []}', "no 'keypoints'; it has joints"),
        ("a.json", "[[[1, 2], [3, 4]], [[1, 2]]]", "the same for every frame"),
        ("a.json", '[{"keypoints": [1, 2, 3]}]', "image_id and keypoints"),
        (
            "a.json",
            '[{"image_id": 1, "keypoints": []}, {"image_id": 1, "keypoints": []}]',
            "picture 1 has several persons",
        ),
        ("a.json", '{"keypoints": [], "width": "wide"}', "width='wide'"),
        ("none.json", None, "there is no such file"),
        ("none.npz", None, "there is no such file"),
    ],
)
def test_files_that_cannot_be_read(tmp_path: Path, name: str, text: str | None, message: str) -> None:
    if text is not None:
        (tmp_path / name).write_text(text)
    with pytest.raises(LiftingDataError, match=message):
        read_keypoints(tmp_path / name)


def read_results(folder: Path, ids: list[Any], order: list[int] | None = None) -> list[float]:
    """The x of every frame's keypoints, which is 1 + the id's place in ``ids``; 0 where there is no entry."""
    entries = [{"image_id": name, "keypoints": [1.0 + place, 5.0, 0.9] * 17} for place, name in enumerate(ids)]
    (folder / "results.json").write_text(json.dumps([entries[place] for place in order or range(len(ids))]))
    found: list[float] = read_keypoints(folder / "results.json").pixels[:, 0, 0].tolist()
    return found


@pytest.mark.parametrize(
    "ids",
    [
        [f"frame_{number}.jpg" for number in range(1, 13)],
        [f"{number}.png" for number in range(95, 107)],
        [f"cam2/walk_01/{number:04}_v3.jpg" for number in range(12)],
        [str(number) for number in range(12)],
        list(range(1000, 1012)),
        list(range(0, 120, 10)),
        [float(number) for number in range(12)],
        ["a", "b", "c2", "c10", "d", "e1x1", "e1x2", "e2x1", "f", "g", "h", "i"],
    ],
    ids=["names", "digits", "constant numbers", "text numbers", "numbers", "every tenth", "floats", "no numbers"],
)
def test_pictures_are_in_the_order_of_their_numbers(tmp_path: Path, ids: list[Any]) -> None:
    shuffled = np.random.default_rng(0).permutation(12).tolist()
    assert read_results(tmp_path, ids, shuffled) == [1.0 + place for place in range(12)]


@pytest.mark.parametrize("name", ["{}", "frame_{}.jpg", "clip_7/{:05}.png", 1], ids=str)
@pytest.mark.parametrize("step", [1, 4])
def test_pictures_without_an_entry_are_gaps(tmp_path: Path, name: Any, step: int) -> None:
    numbers = [step * number for number in (8, 9, 10, 13, 14, 16)]
    ids = [number if name == 1 else name.format(number) for number in numbers]
    assert read_results(tmp_path, ids, [5, 0, 3, 1, 4, 2]) == [1, 2, 3, 0, 0, 4, 5, 0, 6]


def test_entries_without_keypoints_are_gaps(person: np.ndarray, tmp_path: Path) -> None:
    entries = [{"image_id": f"{n}", "keypoints": frame.tolist()} for n, frame in enumerate(person)]
    entries[0]["keypoints"], entries[4]["keypoints"] = [], None  # type: ignore[assignment]
    (tmp_path / "a.json").write_text(json.dumps(entries))
    found = read_keypoints(tmp_path / "a.json").pixels
    assert not found[[0, 4]].any()
    np.testing.assert_allclose(found[1:4], person[1:4], rtol=1e-6)


@pytest.mark.parametrize(
    ("ids", "message"),
    [
        ([1, 2, 2], "picture 2 has several persons"),
        (["f_1", "f_2", "f_02"], "picture f_0?2 has several persons"),
        (["a", "b", "a"], "picture a has several persons"),
        ([139, 285, 632, 724], "counts from 139 to 724 in steps of 1, and only 4 of these 586 pictures have a result"),
        ([0, 33, 67, 100], "only 4 of these 101"),
    ],
)
def test_ids_that_are_no_frames(tmp_path: Path, ids: list[Any], message: str) -> None:
    with pytest.raises(LiftingDataError, match=message):
        read_results(tmp_path, ids)
