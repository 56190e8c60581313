"""Files with several persons: one entry a track, and nothing that joins two."""

from __future__ import annotations

import json
import logging
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from cycledistill.integrations.human36m.data.keypoints.files import choose_persons, read_keypoints, read_persons
from cycledistill.integrations.human36m.errors import LiftingDataError
from tests.human36m.people import coco_person

LEFT, RIGHT = coco_person(6), coco_person(8, first=2) + np.array([150, 0, 0], np.float32)


def alphapose(**changes: Any) -> list[dict[str, Any]]:
    """Results as AlphaPose's tracker writes them: one person in pictures 0 to 5, one in 4 to 11, missed in 7."""
    entries = []
    for track, (start, frames) in {1: (0, LEFT), 2: (4, RIGHT)}.items():
        for number, keypoints in enumerate(frames):
            if (track, number) != (2, 3):
                entries.append(
                    {"image_id": f"{start + number}.jpg", "category_id": 1, "keypoints": keypoints.ravel().tolist(),
                     "score": 2.9, "idx": track}
                )  # fmt: skip
    return [{**entry, **changes} for entry in sorted(entries, key=lambda entry: entry["image_id"])]


def stored(folder: Path, entries: list[dict[str, Any]]) -> Path:
    (folder / "results.json").write_text(json.dumps(entries))
    return folder / "results.json"


@pytest.mark.parametrize("name", ["idx", "track_id", "track", "person_id"])
@pytest.mark.parametrize("form", ["number", "float", "list", "text"])
def test_each_track_is_a_person(tmp_path: Path, name: str, form: str) -> None:
    entries = alphapose()
    for entry in entries:
        track = entry.pop("idx")
        entry[name] = {"number": track, "float": float(track), "list": [track], "text": f"person {track}"}[form]
    second, first = read_persons(stored(tmp_path, entries))
    np.testing.assert_allclose(first.pixels, LEFT, rtol=1e-6)
    assert first.frames is not None and second.frames is not None
    assert first.frames.tolist() == list(range(6)) and second.frames.tolist() == list(range(4, 12))
    np.testing.assert_allclose(np.delete(second.pixels, 3, 0), np.delete(RIGHT, 3, 0), rtol=1e-6)
    assert not second.pixels[3].any(), "a picture in which the other was seen is a gap all the same"
    assert str(first.track).endswith("1") and str(second.track).endswith("2")


def test_one_is_asked_for(tmp_path: Path) -> None:
    file = stored(tmp_path, alphapose())
    assert len(read_keypoints(file, track="1").pixels) == 6
    assert len(read_keypoints(file, person=1).pixels) == 8, "the one with the most results"
    with pytest.raises(LiftingDataError, match=r"has 2 tracks: 2 \(8 frames\), 1 \(6 frames\); give track or person"):
        read_keypoints(file)
    with pytest.raises(LiftingDataError, match="has no track 3; it has 2 tracks: 2"):
        choose_persons(read_persons(file), file, track="3")
    with pytest.raises(LiftingDataError, match="has no person 3; it has 2 tracks"):
        choose_persons(read_persons(file), file, person=3)


def test_two_persons_without_tracks(tmp_path: Path) -> None:
    for entries in ([{k: v for k, v in each.items() if k != "idx"} for each in alphapose()], alphapose(idx=0)):
        with pytest.raises(LiftingDataError, match=r"picture 4\.jpg has several persons, and nothing tells .*track_id"):
            read_persons(stored(tmp_path, entries))


def test_a_table_says_where_it_begins(tmp_path: Path) -> None:
    np.savez(tmp_path / "a.npz", keypoints=LEFT, width=640, height=480, fps=25.0, first_frame=90)
    found = read_keypoints(tmp_path / "a.npz")
    assert found.frames is not None and found.frames.tolist() == list(range(90, 96))
    assert (found.width, found.height, found.frame_rate) == (640, 480, 25)
    np.savez(tmp_path / "a.npz", keypoints=LEFT, first_frame=np.nan)
    with pytest.raises(LiftingDataError, match="first_frame=.*a whole number"):
        read_keypoints(tmp_path / "a.npz")


def test_results_without_a_track_beside_others(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    entries = alphapose()
    entries[0]["idx"] = None
    with caplog.at_level(logging.WARNING):
        assert [len(each.pixels) for each in read_persons(stored(tmp_path, entries))] == [8, 5]
    assert "1 of 13 results have no track and are left out" in caplog.text


def test_ids_that_count_far_take_no_memory(tmp_path: Path) -> None:
    entries = alphapose()
    for entry, number in zip(entries, (0, 10**12, *range(2, 13)), strict=True):
        entry["image_id"] = number
    with pytest.raises(LiftingDataError, match="only 13 of these 1000000000001 pictures"):
        read_persons(stored(tmp_path, entries))
