"""Windows that see a bounded number of frames ahead."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from cycledistill.integrations.human36m.errors import LiftingDataError
from cycledistill.integrations.human36m.lifting.causal import causal_windows, check_delay, newest_frames


@pytest.mark.parametrize("centre", [False, True])
@pytest.mark.parametrize(("delay", "every"), [(0, 1), (2, 1), (2, 3), (2, 2)])
@pytest.mark.parametrize("length", [1, 3, 5, 17])
def test_each_frame_is_where_it_is_said_to_be_and_sees_no_more_than_it_may(
    length: int, delay: int, every: int, centre: bool
) -> None:
    times, frames = np.arange(length), 5
    newest = newest_frames(times, delay, every, length)
    assert (newest >= times).all() and (newest <= times + delay).all() and newest[-1] == length - 1
    places, window, place = causal_windows(times, newest, frames, centre)
    assert places.shape[1] == frames and places.min() >= 0
    assert (places[window].max(axis=1) == newest if not centre else places[window].max(axis=1) <= newest).all()
    answered = places[window, (frames - 1) // 2] if centre else places[window, place]
    assert (answered == times).all()
    assert (np.diff(places, axis=1) >= 0).all() and (np.diff(places, axis=1) <= 1).all()


@pytest.mark.parametrize(
    ("delay", "every", "centre", "message"),
    [
        (-1, 1, False, "delay=-1: a whole number of frames from 0, the past alone, to 4"),
        (5, 1, False, "to 4 is expected, for windows of 5$"),
        (3, 1, True, "to 2 is expected, for windows of 5, whose centre frame"),
        (1.0, 1, False, r"delay=1\.0"),
        (True, 1, False, "delay=True"),
        (1, 3, False, r"every=3: a whole number of frames from 1 to delay \+ 1 = 2"),
        (1, 0, False, "every=0"),
    ],
)
def test_what_is_no_delay(delay: Any, every: Any, centre: bool, message: str) -> None:
    with pytest.raises(LiftingDataError, match=message):
        check_delay(delay, every, 5, centre)
