"""What a source is: its pictures in order, what is left out, and what is refused in words."""

from __future__ import annotations

import logging
import shutil
import struct
import zipfile
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest

from cycledistill.integrations.coco.data.images import PoseDataError
from cycledistill.integrations.coco.prediction.sources import Turned, open_source
from cycledistill.recipes.errors import DataError
from cycledistill.recipes.prediction.sources import PictureFiles
from tests.coco.prediction.conftest import Write


@pytest.fixture
def photos(dots: Path, tmp_path: Path) -> Path:
    """Pictures in folders of folders, with what lies among pictures in real life."""
    folder = tmp_path / "photos"
    for place, name in enumerate(("10.png", "2.png", "a/été.PNG", "a/b/x.jpeg", ".hidden.png", "__MACOSX/._2.png")):
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        if name.endswith("jpeg"):
            pixels = np.full((8, 6, 3), (200, 100, 0), np.uint8)  # BGR
            cv2.imwrite(str(folder / name), pixels)
        else:
            shutil.copy(dots / "pictures" / f"{place % 3 + 1}.png", folder / name)
    (folder / "notes.txt").write_text("no picture")
    (folder / "a" / "b").rename(tmp_path / "elsewhere")
    (folder / "a" / "b").symlink_to(tmp_path / "elsewhere")
    (tmp_path / "elsewhere" / "back").symlink_to(folder)
    return folder


NAMES = ["2.png", "10.png", "a/b/x.jpeg", "a/été.PNG"]


def test_a_folder_a_zip_file_and_a_glob_are_the_same_pictures(
    photos: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    caplog.set_level(logging.INFO)
    with zipfile.ZipFile(tmp_path / "photos.zip", "w") as archive:
        for name in [*NAMES, ".hidden.png", "notes.txt", "../up.png"]:
            archive.writestr(f"in/{name}", (photos / (name if name != "../up.png" else "2.png")).read_bytes())
    folder = open_source(photos)
    assert "3 files are left out, no pictures by their names, such as " in caplog.text
    frames = list(folder.frames())
    assert [each.name for each in frames] == NAMES and folder.total == 4
    red, green, blue = frames[2].pixels[4, 3]
    assert red < 60 and 60 < green < 140 and blue > 160 and frames[2].size == (6, 8)  # RGB, whatever OpenCV has
    for other in (f"{tmp_path}/photos.zip/in", f"{photos}/**/[!_]*.*"):
        again = list(open_source(other).frames())
        assert [each.name for each in again] == NAMES
        for one, two in zip(frames, again, strict=True):
            np.testing.assert_array_equal(one.pixels, two.pixels)
    assert [each.name for each in open_source(tmp_path / "photos.zip").frames()] == [f"in/{name}" for name in NAMES]
    monkeypatch.chdir(photos)
    assert [each.name for each in open_source("*.png").frames()] == NAMES[:2]
    assert [each.name for each in open_source("10.png").frames()] == ["10.png"]
    assert [each.name for each in open_source(".", limit=3).frames()] == NAMES[:3]


@pytest.mark.parametrize(
    ("names", "ids"),
    [
        (("000000000785.jpg", "a/12.jpg"), [785, 12]),
        (("1.jpg", "a/1.jpg"), [1, 2]),
        (("x.jpg", "12.jpg"), [1, 2]),
        ((f"{2**53}.jpg",), [1]),
    ],
)
def test_cocos_numbers_are_kept_where_all_are_named_by_them(names: tuple[str, ...], ids: list[int]) -> None:
    assert PictureFiles("s", Path(), names, Turned()).ids == ids


@pytest.mark.parametrize(
    ("source", "message"),
    [
        ("nothing", "nothing: there is no such picture, folder, zip file or video; a glob"),
        ("*.jpg", r"\*.jpg: no file"),
        ("empty", "empty: no file"),
        ("texts", "texts: 1 files, none of them named like a picture"),
        ("clips", r"clips: 1 files, none .*; there are 1 videos: give one, such as clips.a.mp4"),
        ("notes.txt", r"notes.txt: a picture \(.bmp, .*\), a video \(.avi, .*\) or a zip file"),
        ("broken.zip", "broken.zip: cannot be read as a zip file"),
        ("none.zip", "none.zip: there is no folder and no zip file here"),
        ("77", "camera 77 is not there, or another program has it; cameras are numbered from 0"),
        ("broken.mp4", "broken.mp4: cannot be read as a video: it is broken, or in a format"),
    ],
)
def test_what_is_no_source_is_said(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, source: str, message: str) -> None:
    monkeypatch.chdir(tmp_path)
    for folder in ("empty", "texts", "clips"):
        Path(folder).mkdir()
    for file in ("texts/a.txt", "clips/a.mp4", "notes.txt", "broken.zip", "broken.mp4"):
        Path(file).write_bytes(b"not what it seems")
    with pytest.raises(DataError, match=message):
        open_source(source)
    with pytest.raises(DataError, match="limit=0"):
        open_source(source, limit=0)


def test_broken_pictures_stop_or_are_skipped_and_counted(photos: Path, caplog: pytest.LogCaptureFixture) -> None:
    (photos / "3.png").write_bytes(b"\x89PNG cut off")
    with pytest.raises(PoseDataError, match=r"3.png: not a picture, or a broken one"):
        list(open_source(photos).frames())
    frames = list(open_source(photos).frames("skip"))
    assert [each.name for each in frames] == NAMES
    assert [each.number for each in frames] == [1, 3, 4, 5]  # the place of a broken one stays free
    assert "1 of 5 pictures could not be read and were skipped" in caplog.text


def test_frames_of_a_video_are_those_that_were_written(write_video: Write, caplog: pytest.LogCaptureFixture) -> None:
    frames = np.random.default_rng(0).integers(0, 255, (5, 48, 64, 3), dtype=np.uint8)
    path = write_video(frames, "noise.avi", "HFYU")
    video = open_source(path)
    assert (video.total, video.fps, list(video.folders), list(video.files)) == (5, 12.5, [], [path])
    found = list(video.frames())
    assert [(each.name, each.number) for each in found] == [(f"{n:06d}", n) for n in range(5)]
    for one, two in zip(frames, found, strict=True):
        assert np.abs(one.astype(int) - two.pixels).mean() < 40  # HuffYUV halves the colours' columns
    assert len(list(open_source(path, limit=2).frames())) == 2
    assert not caplog.text
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])
    assert 0 < len(list(open_source(path).frames())) < 5
    assert "and says that it has about 5" in caplog.text


class Capture:
    """Stands for a camera, or for a backend of OpenCV that hands on frames as they come."""

    def __init__(self, sizes: Any) -> None:
        self.left = list(sizes)

    def isOpened(self) -> bool:
        return True

    def get(self, what: int) -> float:
        return 0.0  # OpenCV's word for: not known

    def set(self, what: int, value: float) -> bool:
        return True

    def read(self) -> tuple[bool, Any]:
        return (True, np.zeros((*self.left.pop(0), 3), np.uint8)) if self.left else (False, None)

    def release(self) -> None:
        pass


def test_a_video_without_frames_or_of_two_sizes_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "a.mp4").touch()
    monkeypatch.setattr(cv2, "VideoCapture", lambda path: Capture([]))
    with pytest.raises(DataError, match=r"a.mp4: cannot be read as a video: no frame of it can be decoded"):
        open_source(tmp_path / "a.mp4")
    monkeypatch.setattr(cv2, "VideoCapture", lambda path: Capture([(4, 6), (4, 6), (6, 4)]))
    frames = open_source(tmp_path / "a.mp4").frames()
    assert [next(frames).size, next(frames).size] == [(6, 4)] * 2
    with pytest.raises(DataError, match="a.mp4: frame 2 is 4 x 6 pixels, those before it 6 x 4"):
        next(frames)


def test_a_camera_ends_when_it_is_told_to(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(cv2, "VideoCapture", lambda number: Capture([(4, 6)] * 9))
    camera: Any = open_source("0")
    assert (camera.name, camera.fps, camera.total) == ("camera 0", 30.0, None)
    frames = camera.frames()
    next(frames)
    camera.stopped = True
    assert list(frames) == []
    assert len(list(open_source("0", limit=4).frames())) == 4
    with pytest.raises(DataError, match="camera 0 gave 9 frames and no more"):
        list(open_source("0").frames())


def test_a_video_of_a_phone_on_its_side_is_turned(write_video: Write) -> None:
    """The matrix in an MP4 file's track header says a quarter turn clockwise, as phones write it."""
    frames = np.zeros((3, 48, 64, 3), np.uint8)
    frames[:, :, :32] = (255, 0, 0)  # the left half is red
    path = write_video(frames, "phone.mp4", "mp4v")
    data = bytearray(path.read_bytes())
    place = data.index(b"tkhd") + 4 + 40
    assert struct.unpack(">9i", data[place : place + 36]) == (65536, 0, 0, 0, 65536, 0, 0, 0, 2**30)
    data[place : place + 36] = struct.pack(">9i", 0, 65536, 0, -65536, 0, 0, 48 * 65536, 0, 2**30)
    path.write_bytes(data)
    frame = next(open_source(path).frames())
    assert frame.size == (48, 64)
    assert frame.pixels[:28, :, 0].mean() > 200 and frame.pixels[36:, :, 0].mean() < 30  # left has become top
