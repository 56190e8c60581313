"""Keypoints of other moments, of nobody, or of a person whom the camera does not see."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

from cycledistill.integrations.human36m.data.h36m import DAMAGED, TEST_SUBJECTS, Human36M
from cycledistill.integrations.human36m.errors import LiftingDataError


def test_frames_in_which_nobody_was_detected(files: dict[str, Path]) -> None:
    """Zeros in pixels: the models would see a person in the corner of the picture."""
    data = Human36M(**files, allow_pickle=True)
    pixels = data.keypoints["S9"]["Walking"]["2"]
    pixels[[3, 4, 5, 30, 31, 32]] = 0
    with pytest.raises(
        LiftingDataError, match=r"S9/Walking, camera 2: .* in 6 of 90 frames, .* \(frame 3, 4, 5, 30, 31, ...\)"
    ):
        data.clips(["S9"])
    pixels[:] = 0  # not blamed on the camera file
    with pytest.raises(LiftingDataError, match=r"S9/Walking, camera 2: .* in 90 of 90 frames, so nobody was detected"):
        data.clips(["S9"])


def resampled(pixels: np.ndarray, at: np.ndarray) -> np.ndarray:
    """Keypoints (T, 17, 2) at other times, in frames; linear between, repeated outside."""
    columns = pixels.reshape(len(pixels), -1).T
    return np.stack([np.interp(at, np.arange(len(pixels)), one) for one in columns], axis=-1).reshape(len(at), 17, 2)


@pytest.mark.parametrize(
    ("at", "message"),
    [
        (np.arange(0, 93, 0.5), r"of 2\.\d+ times the frame rate.*has 186 frames, the 3D file .* 90"),
        (np.arange(0, 93, 50 / 60), "of 1.2 times the frame rate"),
        (np.arange(90) * 0.5, "of 2 times the frame rate"),
        (np.arange(90) * 2.0, "of 0.5 times the frame rate"),
        (np.arange(93) - 20.0, "20 frames later"),
        (np.arange(93) + 15.0, "15 frames earlier"),
    ],
    ids=["twice as long", "60 for 50", "cut off", "half", "late", "early"],
)
def test_keypoints_of_other_moments(files: dict[str, Path], at: np.ndarray, message: str) -> None:
    data = Human36M(**files, allow_pickle=True)
    noise = np.random.default_rng(0).normal(0, 4, (len(at), 17, 2))  # as detectors are off
    for camera, pixels in data.keypoints["S9"]["Walking"].items():
        data.keypoints["S9"]["Walking"][camera] = resampled(pixels[:90], at) + noise
    with pytest.raises(LiftingDataError, match=rf"S9/Walking, camera \d: frame by frame .*{message}"):
        data.clips(["S9"], ["Walking"])


def test_keypoints_with_noise_are_of_their_moments(files: dict[str, Path]) -> None:
    data = Human36M(**files, allow_pickle=True)
    rng = np.random.default_rng(0)
    for views in data.keypoints["S9"].values():
        for camera, pixels in views.items():
            longer = np.concatenate([pixels[:90], pixels[80:90]])  # some recordings go on a little
            views[camera] = longer + rng.normal(0, 8, longer.shape)
    assert len(data.clips(["S9"])) == 8


def test_single_joints_that_were_not_detected(files: dict[str, Path]) -> None:
    """As ``lift`` refuses them."""
    data = Human36M(**files, allow_pickle=True)
    data.keypoints["S9"]["Walking"]["2"][[3, 4], 13] = 0
    with pytest.raises(LiftingDataError, match=r"camera 2: 2 of 90 frames lack some of the keypoints .* frame 3"):
        data.clips(["S9"])


def test_a_camera_that_does_not_see_the_person(files: dict[str, Path], tmp_path: Path) -> None:
    cameras = json.loads(files["cameras"].read_text())
    first, third = cameras["S9"][0], cameras["S9"][2]
    first["orientation"] = third["orientation"]  # that of the camera opposite: it looks away
    (tmp_path / "cameras.json").write_text(json.dumps(cameras))
    data = Human36M(files["poses"], files["keypoints"], tmp_path / "cameras.json", allow_pickle=True)
    with pytest.raises(LiftingDataError, match=r"in 90 of 90 frames the person is not in front of this camera"):
        data.clips(["S9"])


def test_sequences_known_to_be_displaced_are_told_and_can_be_left_out(
    files: dict[str, Path], caplog: pytest.LogCaptureFixture
) -> None:
    assert DAMAGED == ("S9/Greeting", "S9/SittingDown 1", "S9/Waiting 1")
    data = Human36M(**files, allow_pickle=True)
    for subject in TEST_SUBJECTS:
        data.poses[subject]["Waiting 1"] = data.poses[subject]["Waiting 1"] + np.float32(0.6)
    assert len(data.clips(["S9"])) == 8, "published figures count them"
    messages = [record.getMessage() for record in caplog.records]
    assert len(messages) == 4 and all(
        "S9/Waiting 1" in one and "leave_out.sequences=[damaged]" in one for one in messages
    )
    caplog.clear()
    assert {clip.action for clip in data.clips(["S9"], leave_out=DAMAGED)} == {"Walking"}
    assert not caplog.records
    with pytest.raises(LiftingDataError, match="S11/Waiting 1, camera 0: .*pixels"):
        data.clips(["S11"])
    with pytest.raises(
        LiftingDataError, match=r"no sequence of \['S9'\] in the actions None without S9/Waiting 1, S9/Walk"
    ):
        data.clips(["S9"], leave_out=["S9/Walking", "S9/Waiting 1"])
