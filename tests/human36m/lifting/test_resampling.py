"""Resampling against motions that are known at every time: sums of sines."""

from __future__ import annotations

import numpy as np
import pytest

from cycledistill.integrations.human36m.lifting.resampling import (
    is_near,
    resample,
    resample_keypoints,
    resampled_length,
)

FASTEST = 2.0
"""Of the sines, hertz."""


def sines(times: np.ndarray) -> np.ndarray:
    """(T, 17, 2): of each number a sine of its own, amplitude 1, at most `FASTEST`."""
    rng = np.random.default_rng(0)
    rates, phases = rng.uniform(0.2, FASTEST, (17, 2)), rng.uniform(0, 2 * np.pi, (17, 2))
    return np.sin(2 * np.pi * rates * times[:, None, None] + phases).astype(np.float32)


@pytest.mark.parametrize("rate", [20.0, 25.0, 29.97, 60.0, 120.0])
def test_sines_of_another_rate(rate: float) -> None:
    """The error of cubic splines on a grid of step h is at most 5/384 h^4 max|f''''| (Hall and Meyer 1976)."""
    seconds = 3.0
    times = np.arange(round(seconds * rate)) / rate
    length = resampled_length(len(times), rate, 50.0)
    new = np.linspace(times[0], times[-1], length)
    assert abs((length - 1) / (times[-1] - times[0]) - 50) < 0.5 / (times[-1] - times[0]) + 1e-9
    found, bound = resample(sines(times), length), 5 / 384 * (2 * np.pi * FASTEST / rate) ** 4
    error = np.abs(found - sines(new))
    inner = (new > times[6]) & (new < times[-7])
    assert error[inner].max() < bound + 1e-6
    assert error.max() < 20 * bound + 1e-6, "the ends, where a side is missing"
    back = resample(found, len(times))
    worst = bound + 5 / 384 * (2 * np.pi * FASTEST / 50) ** 4
    assert np.abs(back - sines(times))[8:-8].max() < 2 * worst + 1e-6
    assert np.array_equal(found[[0, -1]], sines(times)[[0, -1]]), "the ends stay"


def test_a_confidence_stays_one() -> None:
    keypoints = np.concatenate([sines(np.arange(9) / 25), np.ones((9, 17, 1), np.float32)], axis=-1)
    keypoints[4, 3, 2] = 0
    found = resample_keypoints(keypoints, 17)
    assert found[..., 2].min() == 0 and found[..., 2].max() == 1
    assert found[:, 3, 2].tolist() == [1] * 7 + [0.5, 0, 0.5] + [1] * 7
    np.testing.assert_array_equal(found[..., :2], resample(keypoints[..., :2], 17))


@pytest.mark.parametrize("length", [1, 2, 3])
def test_the_shortest_clips(length: int) -> None:
    motion = np.arange(length, dtype=np.float32)[:, None]
    count = resampled_length(length, 25, 50)
    assert count == max(2 * length - 1, 1)
    np.testing.assert_allclose(resample(motion, count)[:, 0], np.linspace(0, length - 1, count), atol=1e-6)
    assert resampled_length(2, 240, 50) == 2, "a first and a last frame"


def test_rates_that_count_as_one() -> None:
    assert is_near(50, 50) and is_near(29.97, 30) and is_near(48, 50)
    assert not is_near(60, 50) and not is_near(50, 60) and not is_near(25, 50)
