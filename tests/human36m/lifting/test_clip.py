"""Clips of other frame rates, and what does not fit a model."""

from __future__ import annotations

import logging
import re
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from cycledistill.integrations.human36m import create_lifter
from cycledistill.integrations.human36m.errors import LiftingDataError
from cycledistill.integrations.human36m.evaluation.measure import EvalSettings
from cycledistill.integrations.human36m.lift import lift
from cycledistill.integrations.human36m.models.convention import Convention

F = 9
SETTINGS = EvalSettings(F, flip=False)


class Speed(nn.Module):
    """Gives x and y as they are, and how fast x is, a second, as a model trained on 50 frames a second sees it."""

    def __init__(self, rate: float | None = 50.0) -> None:
        super().__init__()
        self.weight, self.convention = nn.Parameter(torch.zeros(())), Convention(frame_rate=rate)

    def forward(self, inputs: Tensor) -> Tensor:
        assert inputs.shape[1] == F
        speed = torch.gradient(inputs[..., 0], dim=1)[0] * 50
        return torch.cat([inputs, speed[..., None]], dim=-1)


def waves(rate: float) -> tuple[np.ndarray, np.ndarray]:
    """Three seconds of keypoints (T, 17, 2) on sines of 0.2 to 1 hertz, and how fast x is, from its derivative."""
    times, rng = np.arange(round(3 * rate)) / rate, np.random.default_rng(1)
    turns, phases = 2 * np.pi * rng.uniform(0.2, 1, (17, 2)), rng.uniform(0, 2 * np.pi, (17, 2))
    at = turns * times[:, None, None] + phases
    return (0.5 * np.sin(at)).astype(np.float32), (0.5 * turns * np.cos(at))[..., 0]


@pytest.mark.parametrize("rate", [25.0, 30.0, 50.0, 60.0, 120.0])
def test_a_clip_of_another_rate_moves_as_fast_as_it_does(rate: float) -> None:
    seen, speed = waves(rate)
    poses = lift(Speed(), seen, SETTINGS, frame_rate=rate, overlap=4)
    assert poses.shape == (len(seen), 17, 3) and not poses[:, 0].any()
    np.testing.assert_allclose(poses[:, 1:, :2], seen[:, 1:], atol=3e-3)
    inner = slice(int(rate * 0.1), -int(rate * 0.1))
    # the model's own differences are off at the ends of its windows, where the blend counts them least
    assert np.abs(poses[inner, 1:, 2] - speed[inner, 1:]).max() < 0.05 * np.abs(speed).max()
    if rate != 50:
        as_it_is = lift(Speed(), seen, SETTINGS, overlap=4)
        np.testing.assert_allclose(as_it_is[inner, 1:, 2] * rate / 50, speed[inner, 1:], atol=0.4)
        assert np.abs(as_it_is[inner, 1:, 2] - speed[inner, 1:]).max() > 0.15 * np.abs(speed).max()


def test_rates_that_are_near_or_not_known_change_nothing(caplog: pytest.LogCaptureFixture) -> None:
    seen, _ = waves(48)
    caplog.set_level("INFO")
    plain = lift(Speed(), seen, SETTINGS, progress=True)
    assert re.search(r"lift: 0 of \d+ batches", caplog.text)
    assert np.array_equal(lift(Speed(), seen, SETTINGS, frame_rate=48.0), plain)
    assert np.array_equal(lift(Speed(None), seen, SETTINGS, frame_rate=10.0), plain)


def test_a_delay_looks_ahead_no_further_for_another_rate(caplog: pytest.LogCaptureFixture) -> None:
    seen, _ = waves(25)
    with caplog.at_level(logging.WARNING):
        found = lift(Speed(), seen, SETTINGS, frame_rate=25, delay=0)
    assert "motion looks 2 times as fast" in caplog.text
    assert np.array_equal(found, lift(Speed(), seen, SETTINGS, delay=0))


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"frame_rate": 0}, "frame_rate=0: frames a second, a number from 1"),
        ({"frame_rate": 1 / 60}, "is it a frame's time in seconds"),
        ({"frame_rate": -25.0}, "frame_rate=-25: frames a second"),
        ({"delay": 9}, "delay=9: a whole number of frames from 0"),
        ({"delay": 2, "overlap": 3}, "overlap=3: with delay=2 there is a window for every frame already"),
        ({"every": 2}, "every=2 without a delay"),
    ],
)
def test_options_that_are_none(options: dict[str, Any], message: str) -> None:
    with pytest.raises(LiftingDataError, match=message):
        lift(Speed(), waves(50)[0], SETTINGS, **options)


def test_models_of_other_joints_or_numbers() -> None:
    seen = waves(50)[0][:F]
    other = create_lifter("mixste", frames=F, joints=16, dim=16, depth=1, heads=2)
    with pytest.raises(LiftingDataError, match="the model is of 16 joints; here Human3.6M's 17"):
        lift(other, seen, SETTINGS)
    confident = create_lifter("mixste", frames=F, in_channels=3, dim=16, depth=1, heads=2)
    with pytest.raises(LiftingDataError, match=r"keypoints of 2 numbers a joint, and the model takes 3"):
        lift(confident, seen, SETTINGS)


@pytest.mark.parametrize("length", [1, 4, 9, 40])
def test_a_clip_of_any_length_at_another_rate(length: int) -> None:
    seen = waves(25)[0][:length]
    assert lift(Speed(), seen, SETTINGS, frame_rate=25).shape == (length, 17, 3)
