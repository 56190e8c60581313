"""Clips: motions filmed by cameras, and keypoints that no model should see."""

from __future__ import annotations

import numpy as np
import pytest

from cycledistill.integrations.human36m.data.clips import check_keypoints, film
from cycledistill.integrations.human36m.data.motion import generate_motion
from cycledistill.integrations.human36m.errors import LiftingDataError


def test_film_depends_on_seed_and_name_alone() -> None:
    motions = generate_motion(3, 30)
    one, two = film(motions, 2, seed=1), film(motions[2:], 2, seed=1)
    assert np.array_equal(one[4].inputs, two[0].inputs)
    assert not np.array_equal(one[4].inputs, film(motions[2:], 2, seed=2)[0].inputs)
    clean, noisy = film(motions, 2, noise=0.0, seed=1), one
    off = np.std(np.concatenate([a.inputs - b.inputs for a, b in zip(clean, noisy, strict=True)]))
    assert off == pytest.approx(5 * 2 / 1000, rel=0.05), "5 pixels of 1000"
    assert np.array_equal(clean[0].targets, noisy[0].targets)
    for clip in clean:
        assert np.abs(clip.inputs).max() < 1
    with pytest.raises(LiftingDataError, match="cameras=0"):
        film(motions, 0)


def test_keypoints_no_model_should_see() -> None:
    good = np.random.default_rng(0).normal(size=(5, 17, 2))
    check_keypoints(good, "here")
    bad = good.copy()
    bad[3, 2, 1] = np.nan
    for keypoints, message in (
        (bad, "here: keypoints of 1 of 5 frames are NaN or infinite, the first at frame 3"),
        (0 * good, "every 2D keypoint is 0"),
        (np.dstack([0 * good, np.ones((5, 17, 1))]), "every 2D keypoint is 0"),
        (np.full((5, 17, 2), -1.0), "all joints lie at one point in 5 of 5 frames"),
        (np.concatenate([good, good[:, :1].repeat(17, axis=1)]), r"one point in 5 of 10 .*frame 5, 6, 7, 8, 9\)"),
        (good[:, :16], "16 joints a frame, the models know 17"),
        (good[:0], "empty clip"),
        (good[0], r"shape \(17, 2\)"),
    ):
        with pytest.raises(LiftingDataError, match=message):
            check_keypoints(keypoints, "here")
