"""Keypoints that cannot be a person in the picture are refused, with the mistake that they look like."""

from __future__ import annotations

import logging
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from cycledistill.integrations.human36m.data.cameras import normalize_screen
from cycledistill.integrations.human36m.data.keypoints.inputs import model_input
from cycledistill.integrations.human36m.data.keypoints.person import Keypoints
from cycledistill.integrations.human36m.data.keypoints.plausible import check_normalised
from cycledistill.integrations.human36m.data.skeleton import coco_to_h36m
from cycledistill.integrations.human36m.errors import LiftingDataError
from tests.human36m.people import coco_person, h36m_person

SIZE = (1920, 1080)


def taken(pixels: np.ndarray, size: tuple[float, float] = SIZE, **options: Any) -> np.ndarray:
    return model_input(Keypoints(pixels.astype(np.float32)), "here", "coco", *size, **options)


@pytest.fixture(scope="module")
def person() -> np.ndarray:
    """Near the right edge of a wide picture."""
    return coco_person(12, SIZE) + np.array([500, 0, 0], np.float32)


def moved(person: np.ndarray, what: str) -> np.ndarray:
    xy, rest = person[..., :2], person[..., 2:]
    changed = {
        "shares": xy / SIZE,
        "normalised": normalize_screen(xy, *SIZE),
        "exchanged": xy[..., ::-1],
        "upside down": [0, SIZE[1]] + xy * [1, -1],
        "middle": xy * [1, 0.6] - np.array(SIZE) / 2 - [0, 100],
        "turned": [400, 0] + (xy - xy.mean(axis=(0, 1)))[..., ::-1] * [1, 1] + [400, 500],
        "tiny": 500 + xy / 400,
    }[what]
    return np.concatenate([changed, rest], axis=-1)


@pytest.mark.parametrize(
    ("what", "message"),
    [
        ("shares", "no pixels of a person; they look like shares of the picture: multiply x by its width"),
        ("normalised", "look like normalised already: give pixels"),
        ("exchanged", "inside once x and y are exchanged: they look exchanged in the file"),
        ("upside down", "the shoulders are below the legs all the time: is y counted upwards"),
        ("middle", "inside once counted from its middle"),
        ("turned", "the person lies all the time: are x and y exchanged, or is the picture turned"),
        ("tiny", r"the person is [\d.]+ pixels large"),
    ],
)
def test_what_coordinates_look_like(person: np.ndarray, what: str, message: str) -> None:
    wrong = moved(person, what)
    with pytest.raises(LiftingDataError, match=f"here: .*{message}.*--unchecked"):
        taken(wrong)
    assert taken(wrong, checked=False).shape == (12, 17, 2), "who knows better can"


def test_sizes_of_another_picture(person: np.ndarray) -> None:
    assert taken(person).shape == (12, 17, 2)
    with pytest.raises(LiftingDataError, match=r"inside one of 1920 x 1080: width and height look exchanged"):
        taken(person, (1080, 1920))
    with pytest.raises(LiftingDataError, match=r"far outside of a picture of 640 x 360 .*give the size of the picture"):
        taken(person, (640, 360))


def test_a_smaller_picture_is_told(person: np.ndarray, caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.WARNING):
        taken(person * [0.33, 0.33, 1])
    assert "upper left quarter of 1920 x 1080: were they found in a smaller picture?" in caplog.text
    caplog.clear()
    taken(person, (2 * SIZE[0], 2 * SIZE[1]))
    assert "were they found in a smaller picture?" in caplog.text
    with pytest.raises(
        LiftingDataError, match=r"[89] % of a picture of 19200 x 10800: they look found in a smaller one"
    ):
        taken(person, (10 * SIZE[0], 10 * SIZE[1]))
    assert taken(person, (10 * SIZE[0], 10 * SIZE[1]), checked=False).shape == (12, 17, 2)


def test_who_may_be_partly_outside_or_lie_for_a_while(person: np.ndarray) -> None:
    close = person - np.array([700, -450, 0], np.float32)  # feet below the picture, guessed
    assert (close[..., 1] > 1080).any()
    assert taken(close).shape == (12, 17, 2)
    falls = person.copy()
    falls[6:] = moved(person, "turned")[6:]
    assert taken(falls).shape == (12, 17, 2)


def test_the_joints_of_the_other_layout() -> None:
    joints = h36m_person(12, SIZE)
    assert model_input(Keypoints(joints), "here", "h36m", *SIZE).shape == (12, 17, 2)
    with pytest.raises(LiftingDataError, match="another order of joints"):
        taken(joints)


def test_undetected_keypoints_say_nothing(person: np.ndarray) -> None:
    lost = person.copy()
    lost[::2, 9] = 0
    assert taken(lost, fill=True).shape == (12, 17, 2)


def test_normalised_keypoints_have_a_range(person: np.ndarray, caplog: pytest.LogCaptureFixture) -> None:
    joints = coco_to_h36m(person)[..., :2]
    normal = normalize_screen(joints, *SIZE)
    check_normalised(normal, "here")
    assert not caplog.text
    with pytest.raises(LiftingDataError, match="coordinates up to .*are they pixels"):
        check_normalised(joints, "here")
    scored = np.concatenate([normal, np.full((*normal.shape[:2], 1), 95, np.float32)], axis=-1)
    with pytest.raises(LiftingDataError, match="here: confidences from 95 to 95, .* per cent"):
        check_normalised(scored, "here", later=True)
    with pytest.raises(LiftingDataError, match="were they normalised twice"):
        check_normalised(normalize_screen(normal, *SIZE), "here")
    with pytest.raises(LiftingDataError, match=r"x beyond 1.5 for \d+ % of all, .*smaller picture"):
        check_normalised(normal * 3, "here")
    check_normalised(normal[:1] + np.array([0.9, 0]), "who leaves the picture")
    check_normalised(normal * [1, 16 / 9], "a tall picture")
    for later in (False, True):
        for wrong in (joints[5:6], normal[5:6] * 3):
            with pytest.raises(LiftingDataError, match="where normalised ones are expected"):
                check_normalised(wrong, "a frame", later=later)
    with caplog.at_level(logging.WARNING):
        check_normalised(joints / np.array(SIZE), "here")
    assert "are they shares of the picture?" in caplog.text


# --------------------------------------------------------------------------------------------- what was not seen
def test_guesses_are_not_seen(person: np.ndarray) -> None:
    hidden = person.copy()
    hidden[4:6, 9] += [300, -200, -0.89]  # the left wrist, guessed elsewhere at .01
    with pytest.raises(LiftingDataError, match="2 of 12 frames lack some of the keypoints .*--fill-gaps"):
        taken(hidden)
    filled = taken(hidden, fill=True, confidence=True)
    np.testing.assert_allclose(filled[4, 13, :2], (2 * taken(person)[3, 13] + taken(person)[6, 13]) / 3, atol=1e-5)
    assert filled[:, 13, 2].tolist() == pytest.approx([0.9] * 4 + [0, 0] + [0.9] * 6)
    used = taken(hidden, least_confidence=0.0)
    assert np.abs(used[4, 13] - taken(person)[4, 13]).max() > 0.2
    hidden[..., 2] = 0.01
    with pytest.raises(LiftingDataError, match="no keypoint has a confidence of 0.05, so nobody was seen"):
        taken(hidden, fill=True)


def test_bodies_that_are_not_whole(person: np.ndarray) -> None:
    for fill in (False, True):
        half = person.copy()
        half[:, 13:] = 0
        with pytest.raises(LiftingDataError, match=r"left_knee \(keypoint 13\), .*only the upper body is seen"):
            taken(half, fill=fill)
        noseless = person.copy()
        noseless[:, 0, 2] = 0
        with pytest.raises(LiftingDataError, match=r"here: nose \(keypoint 0\) was detected in no frame"):
            taken(noseless, fill=fill)
    with pytest.raises(LiftingDataError, match="one frame, and the models lift motion over many"):
        taken(person[:1])
    assert taken(person[:1], checked=False).shape == (1, 17, 2)


def test_a_hidden_ear_does_not_matter(person: np.ndarray) -> None:
    level = person.copy()
    level[:, 3:5] = level[:, 1:3]  # ears where the eyes are
    earless = level.copy()
    earless[:, 3:5] = 0
    np.testing.assert_allclose(taken(earless)[:, 10], taken(level)[:, 10], atol=1e-5)
    # where gaps are filled, an ear is one like any other: the head does not jump when it comes and goes
    still = person[:1].repeat(6, axis=0)
    for lost in (np.s_[2, 3], np.s_[2]):  # an ear, the whole person
        gone = still.copy()
        gone[lost] = 0
        np.testing.assert_allclose(taken(gone, fill=True), taken(still), atol=1e-6)


@pytest.mark.parametrize(("scale", "guess"), [(100, "per cent"), (None, "visibility"), (-1, "another score")])
def test_confidences_that_are_none(person: np.ndarray, scale: int | None, guess: str) -> None:
    wrong = person.copy()
    wrong[..., 2] = np.arange(17) % 2 + 1 if scale is None else wrong[..., 2] * scale
    for confidence in (True, False):
        with pytest.raises(LiftingDataError, match=guess):
            taken(wrong, confidence=confidence)
    assert taken(wrong, checked=False, least_confidence=-np.inf).shape == (12, 17, 2)
    wrong[3:5, 9], wrong[..., 2] = [0, 0, 95], np.where(np.arange(12)[:, None] == 3, 95, 0.9)
    wrong[3] = [0, 0, 95]  # what was not detected says nothing
    assert taken(wrong, fill=True).shape == (12, 17, 2)


# ---------------------------------------------------------------------------------------------- COCO to Human3.6M
def test_the_authors_mapping() -> None:
    """What MHFormer's own preprocess.py makes of this person (run once, its numbers)."""
    coco = np.array(
        [[320, 110], [328, 102], [312, 101], [340, 106], [301, 105], [362, 170], [281, 168], [380, 240], [262, 238],
         [390, 300], [250, 302], [345, 310], [298, 309], [350, 400], [292, 402], [352, 485], [288, 488]], np.float32,
    )  # fmt: skip
    joints = coco_to_h36m(coco)
    assert joints[[0, 7, 8, 9, 10]].tolist() == [
        [321.5, 309.5], [322.0, 239.25], [321.0, 155.0], [320.375, 124.75], [320.25, 93.0],
    ]  # fmt: skip
    limbs = {1: 12, 2: 14, 3: 16, 4: 11, 5: 13, 6: 15, 11: 5, 12: 7, 13: 9, 14: 6, 15: 8, 16: 10}
    assert np.array_equal(joints[list(limbs)], coco[list(limbs.values())])
    heads = {}
    for mapping in ("extrapolated", "midpoints"):
        found = coco_to_h36m(coco, mapping)
        heads[mapping] = np.linalg.norm(found[10] - found[9]) / np.linalg.norm(found[8] - found[0])
    assert heads["extrapolated"] > 0.2 > 3 * heads["midpoints"]
    with pytest.raises(LiftingDataError, match="mapping='mean': one of 'extrapolated', 'midpoints'"):
        coco_to_h36m(coco, "mean")


def test_confidences_of_joints_made_of_several() -> None:
    coco = np.full((1, 17, 3), 0.9, np.float32)
    coco[0, 3, 2], coco[0, 0, 2] = 0.2, 0.5  # an ear, the nose
    found = coco_to_h36m(coco)[0, :, 2]
    assert found[[8, 9, 10]].tolist() == pytest.approx([0.5, 0.5, 0.2]) and (np.delete(found, [8, 9, 10]) > 0.8).all()


def test_files_reach_the_same_checks(person: np.ndarray, tmp_path: Path) -> None:
    from cycledistill.integrations.human36m.lift import prepare

    np.savez(tmp_path / "a.npz", keypoints=person / np.array([*SIZE, 1]), width=SIZE[0], height=SIZE[1])
    with pytest.raises(LiftingDataError, match=r"a\.npz: coordinates from 0\.\d+ to 0\.\d+ are no pixels"):
        prepare(tmp_path / "a.npz")
