"""Animations read back by other code: how many frames, how large, how fast, and who is where in them."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
from PIL import Image

from cycledistill.integrations.human36m.data.motion import generate_motion
from cycledistill.integrations.human36m.errors import LiftingDataError
from cycledistill.integrations.human36m.written import animate
from cycledistill.integrations.human36m.written.pictures import check_video_rate, read_pictures
from tests.human36m.people import h36m_person

POSES = generate_motion(1, 12)[0].world.astype(np.float64)
PIXELS = h36m_person(12, (160, 120))
ORANGE, BLUE = (255, 140, 0), (0, 150, 240)


def video_frames(path: Path) -> tuple[list[np.ndarray], float]:
    """All frames, RGB, and frames a second."""
    capture, found = cv2.VideoCapture(str(path)), []
    while (read := capture.read())[0]:
        found.append(read[1][..., ::-1])
    rate = capture.get(cv2.CAP_PROP_FPS)
    capture.release()
    return found, rate


def near(picture: np.ndarray, colour: tuple[int, int, int], off: int = 60) -> np.ndarray:
    """Where (N, 2), x and y, a picture has a colour."""
    return np.argwhere(np.abs(picture.astype(int) - colour).max(axis=-1) < off)[:, ::-1]


def test_a_video_has_every_frame_at_its_rate(tmp_path: Path) -> None:
    animate(POSES, tmp_path / "a.mp4", 30, keypoints=PIXELS, size=(160, 120), height=121)
    frames, rate = video_frames(tmp_path / "a.mp4")
    assert (len(frames), rate, frames[0].shape) == (12, 30, (120, 160 + 120 + 120, 3))


@pytest.mark.parametrize(("rate", "shown", "milliseconds"), [(60, 4, 200), (50, 6, 240), (30, 6, 400), (25, 12, 480)])
def test_a_gif_is_as_long_as_the_clip_and_no_faster_than_browsers(
    tmp_path: Path, rate: float, shown: int, milliseconds: int
) -> None:
    animate(POSES, tmp_path / "a.gif", rate, height=80)
    with Image.open(tmp_path / "a.gif") as image:
        assert (image.n_frames, image.size, image.info["loop"]) == (shown, (160, 80), 0)  # type: ignore[attr-defined]
        delays = []
        for frame in range(shown):
            image.seek(frame)
            delays.append(image.info["duration"])
    assert sum(delays) == milliseconds and min(delays) >= 40


def test_keypoints_are_where_the_picture_has_them(tmp_path: Path) -> None:
    """A picture with a mark at the left wrist: the skeleton's orange is around it, in each frame."""
    pictures = []
    for pose in PIXELS[:4]:
        picture = np.full((120, 160, 3), 40, np.uint8)
        cv2.circle(picture, tuple(round(float(value)) for value in pose[13]), 6, (255, 0, 255), -1)
        pictures.append(picture)
    animate(POSES[:4], tmp_path / "a.mp4", 30, keypoints=PIXELS[:4], size=(160, 120), pictures=pictures, height=240)
    frames, _ = video_frames(tmp_path / "a.mp4")
    for frame, pose in zip(frames, PIXELS[:4], strict=True):
        panel = frame[:, :320]
        mark = near(panel, (255, 0, 255), 90)
        assert len(mark) and np.abs(mark.mean(axis=0) - 2 * pose[13]).max() < 8
        orange, blue = near(panel, ORANGE), near(panel, BLUE)
        left, right = (2 * pose[list(joints)].mean(axis=0) for joints in ((4, 5, 6, 11, 12, 13), (1, 2, 3, 14, 15, 16)))
        assert np.abs(orange.mean(axis=0) - left).max() < 40 and np.abs(blue.mean(axis=0) - right).max() < 40
        assert np.median(panel) < 60  # the picture is behind it


def test_three_dimensions_are_seen_from_front_and_side(tmp_path: Path) -> None:
    """Somebody with one arm stretched to the viewer: only from the side it is long."""
    pose = np.zeros((17, 3))
    pose[[7, 8, 9, 10], 1] = [0.25, 0.5, 0.6, 0.7]
    for side, (hip, knee, ankle, shoulder, elbow, wrist) in ((1, (4, 5, 6, 11, 12, 13)), (-1, (1, 2, 3, 14, 15, 16))):
        pose[[hip, knee, ankle]] = [[0.1 * side, 0, 0], [0.1 * side, -0.4, 0], [0.1 * side, -0.8, 0]]
        pose[[shoulder, elbow, wrist]] = [[0.2 * side, 0.5, 0], [0.2 * side, 0.25, 0], [0.2 * side, 0, 0]]
    pose[[12, 13]] = [[0.2, 0.5, 0.3], [0.2, 0.5, 0.6]]
    animate(np.repeat(pose[None], 2, axis=0), tmp_path / "a.mp4", 25, height=300)
    frame = video_frames(tmp_path / "a.mp4")[0][0]
    front, side = (near(panel, ORANGE) for panel in (frame[:, :300], frame[:, 300:]))
    reach = [np.ptp(seen[seen[:, 1] < 150, 0]) for seen in (front, side)]  # the upper half: the arm
    assert reach[1] > 1.6 * reach[0]
    blue = near(frame[:, :300], BLUE)
    assert blue[:, 0].mean() < front[:, 0].mean()  # the right side is on the left of somebody who looks at us


def test_what_is_not_known_is_left_out(tmp_path: Path) -> None:
    poses = POSES.copy()
    poses[:, [4, 5, 6, 11, 12, 13]] = np.nan
    poses[3] = np.nan
    animate(poses, tmp_path / "a.mp4", 25, height=200)
    frames, _ = video_frames(tmp_path / "a.mp4")
    assert len(frames) == 12
    assert not len(near(frames[0], ORANGE, 40)) and len(near(frames[0], BLUE)) and not len(near(frames[3], BLUE))


@pytest.fixture
def numbered(tmp_path: Path) -> Path:
    """Pictures 4 to 9 in a folder, and all from 0 in a video: each as bright as its number says."""
    folder = tmp_path / "frames"
    folder.mkdir()
    video = cv2.VideoWriter(str(tmp_path / "v.mp4"), cv2.VideoWriter.fourcc(*"mp4v"), 25, (64, 48))
    for number in range(12):
        picture = np.full((48, 64, 3), 20 * number, np.uint8)
        video.write(picture)
        if 4 <= number < 10:
            cv2.imwrite(str(folder / f"frame_{number}.png"), picture)
    video.release()
    return tmp_path


def brightness(source: Path, numbers: list[int] | int, first: int = 0) -> list[int | None]:
    return [None if one is None else round(float(one.mean()) / 20) for one in read_pictures(source, numbers, first)]


def test_pictures_are_those_of_their_numbers(numbered: Path) -> None:
    assert brightness(numbered / "v.mp4", [2, 3, 3, 7, 11]) == [2, 3, 3, 7, 11]
    assert brightness(numbered / "frames", [5, 6, 9, 10]) == [5, 6, 9, None]
    assert brightness(numbered / "frames", 6) == [4, 5, 6, 7, 8, 9]  # keypoints without numbers: in their order
    assert brightness(numbered / "v.mp4", 3) == [0, 1, 2]
    assert brightness(numbered / "v.mp4", [1, 3, 12], first=1) == [0, 2, 11]  # YOLO's labels count from 1
    (numbered / "frames" / "frame_5.png").write_bytes(b"no picture")
    for source, numbers, told in (
        (numbered / "v.mp4", [10, 12], "has 12 pictures, counted from 0, and the keypoints are of picture 12 too"),
        (numbered / "none.mp4", [0], "there is no such file"),
        (numbered / "frames", 5, "has 6 pictures, and there are 5 frames of keypoints without numbers"),
        (numbered / "frames", [0, 1], "none has a number from 0 to 1"),
        (numbered / "frames", [3000, 3001], "none has a number from 3000 to 3001"),
        (numbered / "frames", [5], "frame_5.png: not a picture"),
        (numbered / "frames", [6, 5], "in ascending order"),
        (numbered, [0], "no picture is in this folder"),
    ):
        with pytest.raises(LiftingDataError, match=told):
            brightness(source, numbers)


def test_pictures_of_folders_that_count_otherwise(numbered: Path, caplog: pytest.LogCaptureFixture) -> None:
    folder = numbered / "frames"
    for number in range(4, 10):  # as ffmpeg numbers those of a video whose keypoints count from 0
        (folder / f"frame_{number}.png").rename(folder / f"{number - 3:06d}_cam1.png")
    assert brightness(folder, [2, 3, 4]) == [5, 6, 7]
    assert brightness(folder, [0, 1, 6]) == [4, 5, None]
    assert "its pictures count from 1, as ffmpeg's do" in caplog.text
    caplog.set_level("INFO")
    (folder / "000001_cam1.png").rename(folder / "000000.png")
    assert brightness(folder, [1, 2], first=1) == [4, 5]
    assert "names do not number the pictures, which are taken in their order from 1 on" in caplog.text
    (folder / "000000.png").rename(folder / "000002_cam1.jpg")
    with pytest.raises(LiftingDataError, match="two pictures have one number"):
        brightness(folder, [2])


def test_a_video_of_another_frame_rate_is_refused(numbered: Path, caplog: pytest.LogCaptureFixture) -> None:
    video = numbered / "v.mp4"  # 25 frames a second
    for rate, numbers in ((25, None), (24.975, [3, 4, 5]), (12.5, [0, 2, 4]), (None, None)):
        check_video_rate(video, rate, numbers)
    check_video_rate(numbered / "frames", 50)
    assert not caplog.text
    for rate, numbers, told in ((50, [0, 1], "25"), (24, None, "25"), (25, [0, 2, 4], "12.5")):
        with pytest.raises(LiftingDataError, match=f"has 25 frames .* keypoints {rate:g}.*--frame-rate {told}$"):
            check_video_rate(video, rate, numbers)
    check_video_rate(video, 240, insisted=True)  # slow motion
    assert "v.mp4 has 25 frames a second, and the keypoints 240" in caplog.text


@pytest.mark.parametrize(
    ("told", "other"),
    [
        ("ends in .gif or .mp4", {"path": "a.avi"}),
        ("no folder", {"path": "no/a.gif"}),
        ("there is no frame", {"poses": POSES[:0]}),
        ("finite numbers", {"poses": POSES * np.nan}),
        (r"shape \(12, 16, 3\)", {"poses": POSES[:, :16]}),
        ("frames a second", {"frame_rate": -25}),
        ("64 to 2160 pixels", {"height": 10}),
        (r"keypoints of shape \(11, 17, 2\) for 12 poses", {"keypoints": PIXELS[:11], "size": (160, 120)}),
        ("size=None: width and height", {"keypoints": PIXELS}),
        ("pictures without keypoints", {"pictures": []}),
        (
            "there are 2 pictures for 12 poses",
            {"keypoints": PIXELS, "size": (160, 120), "pictures": [np.zeros((12, 16, 3), np.uint8)] * 2},
        ),
        (
            "picture 0 is 12 x 16 pixels.*was it turned",
            {"keypoints": PIXELS, "size": (160, 120), "pictures": [np.zeros((16, 12, 3), np.uint8)] * 12},
        ),
    ],
    ids=lambda value: json.dumps(value)[:24] if isinstance(value, str) else "",
)
def test_what_cannot_be_shown_is_refused_and_leaves_no_file(tmp_path: Path, told: str, other: dict[str, Any]) -> None:
    arguments: dict[str, Any] = {"poses": POSES, "path": "a.gif", "frame_rate": 25} | other
    with pytest.raises(LiftingDataError, match=told):
        animate(arguments.pop("poses"), tmp_path / arguments.pop("path"), arguments.pop("frame_rate"), **arguments)
    assert not list(tmp_path.iterdir())
