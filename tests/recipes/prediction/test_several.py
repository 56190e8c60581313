"""Several sources are one: names, numbers, an end; and what needs OpenCV says so."""

from __future__ import annotations

import sys
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from cycledistill.recipes.errors import DataError
from cycledistill.recipes.prediction.several import find_sources
from cycledistill.recipes.prediction.sources import find_source


def decoder(root: Path) -> Callable[[str], Any]:
    return lambda name: np.full((2, 3, 3), int(Path(name).stem), np.uint8)


@pytest.fixture(autouse=True)
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    for name in ("a/2.png", "a/10.png", "b/c/3.png"):
        Path(name).parent.mkdir(parents=True, exist_ok=True)
        Path(name).touch()


def test_frames_count_through_and_are_called_by_their_source() -> None:
    source = find_sources(["a", "b/c/3.png", "b"], decoder)
    found = list(source.frames())
    assert [each.name for each in found] == ["a/2.png", "a/10.png", "b/c/3.png", "b/c/3.png"]
    assert [each.number for each in found] == [0, 1, 2, 3]
    assert [int(each.pixels[0, 0, 0]) for each in found] == [2, 10, 3, 3]
    assert (source.total, source.fps, source.name) == (4, None, "a, b/c/3.png, b")
    assert {*source.files} == {Path("a/2.png"), Path("a/10.png"), Path("b/c/3.png")}
    assert {*source.folders} == {Path("a"), Path("b"), Path("b/c")}
    limited = find_sources(["a", "b"], decoder, limit=2)
    assert limited.total == 2 and len(list(limited.frames())) == 2


def test_one_source_is_itself() -> None:
    assert [each.name for each in find_sources(["a"], decoder).frames()] == ["2.png", "10.png"]


def test_a_camera_stands_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    cv2 = pytest.importorskip("cv2")

    class Camera:
        def isOpened(self) -> bool:
            return True

        def get(self, what: int) -> float:
            return 0.0

    monkeypatch.setattr(cv2, "VideoCapture", lambda number: Camera())
    with pytest.raises(DataError, match="camera 0 has no end, and stands among other sources: give it alone"):
        find_sources(["a", "0"], decoder)


def test_without_opencv_a_video_says_what_is_missing(monkeypatch: pytest.MonkeyPatch) -> None:
    Path("talk.mp4").touch()
    for name in ("prediction.videos", "reading.videos"):
        monkeypatch.delitem(sys.modules, f"cycledistill.recipes.{name}", raising=False)
    monkeypatch.setitem(sys.modules, "cv2", None)
    with pytest.raises(DataError, match=r"talk.mp4: videos and cameras are read by OpenCV, .* pip install opencv"):
        find_source("talk.mp4", decoder)
    assert find_source("a", decoder).total == 2


def test_no_thread_is_left_when_a_picture_cannot_be_read() -> None:
    """Left to the garbage collector, threads may be waited for by one of them."""

    def broken(root: Path) -> Callable[[str], Any]:
        def read(name: str) -> Any:
            raise DataError(f"{name} is broken")

        return read

    with pytest.raises(DataError, match="2.png is broken") as raised:
        list(find_source("a", broken).frames())
    assert raised.traceback  # which holds the frames of all generators
    assert not [each.name for each in threading.enumerate() if each.name.startswith("pictures")]
