"""What a frame rate can be."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from cycledistill.integrations.human36m.data.keypoints.files import read_keypoints
from cycledistill.integrations.human36m.data.timing import check_rate
from cycledistill.integrations.human36m.errors import LiftingDataError


@pytest.mark.parametrize(
    "rate", [0, -25, float("nan"), float("inf"), 10**400, True, "25", None], ids=lambda rate: f"{rate!r:.9}"
)
def test_what_is_no_rate(rate: Any) -> None:
    with pytest.raises(LiftingDataError, match=r"frames a second, a number from 1 to 1000, is expected, such as 25$"):
        check_rate(rate)


@pytest.mark.parametrize(("time", "rate"), [(1 / 60, "60"), (np.float64(0.04), "25"), (0.002, "500")])
def test_the_time_of_a_frame_is_no_rate(time: Any, rate: str) -> None:
    with pytest.raises(LiftingDataError, match=rf"is it a frame's time in seconds\? 1 / [\d.]+ = {rate}$"):
        check_rate(time)


def test_a_file_that_gives_it_is_named(tmp_path: Path) -> None:
    for value, told in (
        (1 / 60, "fps: frame_rate=0.0166667: .* = 60"),
        (0, "fps=0, a number above 0 is"),
        ("a", "fps='a', "),
    ):
        np.savez(tmp_path / "a.npz", keypoints=np.ones((3, 17, 2)), fps=value)
        with pytest.raises(LiftingDataError, match=rf"a\.npz: {told}"):
            read_keypoints(tmp_path / "a.npz")


@pytest.mark.parametrize("rate", [1, 25, 29.97, np.float32(50), np.int64(1000)])
def test_what_is_one(rate: Any) -> None:
    check_rate(rate)
