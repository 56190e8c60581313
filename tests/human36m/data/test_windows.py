"""Windows of clips, the data set made of them, and the order in which a loader gives them."""

from __future__ import annotations

import logging
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from cycledistill.integrations.human36m.data.clips import Clip, film
from cycledistill.integrations.human36m.data.dataset import LiftWindows, WindowBatches, window_loader
from cycledistill.integrations.human36m.data.motion import generate_motion
from cycledistill.integrations.human36m.data.skeleton import mirror
from cycledistill.integrations.human36m.data.windows import centred_bounds, chunk_bounds, window_frames
from cycledistill.integrations.human36m.errors import LiftingDataError

GOLDEN = Path(__file__).parents[2] / "golden" / "metrics.npz"


@pytest.mark.parametrize("length", [200, 243, 500, 1000, 1383])
def test_golden_windows(length: int) -> None:
    with np.load(GOLDEN) as golden:
        assert np.array_equal(chunk_bounds(length, 243), golden[f"bounds_T{length}"])


@pytest.mark.parametrize("length", [1, 26, 27, 28, 100])
@pytest.mark.parametrize("stride", [1, 9, 27])
def test_windows_cover_every_frame_and_repeat_the_edges(length: int, stride: int) -> None:
    frames, inside = window_frames(chunk_bounds(length, 27, stride), length)
    assert set(frames[inside].tolist()) == set(range(length))
    assert set(frames[~inside].tolist()) <= {0, length - 1}
    if stride == 27:
        assert inside.sum() == length, "each frame once"


def test_centred_windows_have_their_frame_in_the_middle() -> None:
    frames, inside = window_frames(centred_bounds(50, 9), 50)
    assert frames[:, 4].tolist() == list(range(50))
    assert inside[:, 4].all()
    assert frames[0].tolist() == [0, 0, 0, 0, 0, 1, 2, 3, 4]
    assert centred_bounds(10, 8, 3)[:, 0].tolist() == [-3, 0, 3, 6], "(frames - 1) // 2 before the centre"


@pytest.mark.parametrize(
    ("length", "frames", "stride"), [(0, 27, 27), (10, 0, 1), (10, 27, 0), (10, 27, 2.5), (10, 9.0, 1)]
)
def test_impossible_windows(length: int, frames: Any, stride: Any) -> None:
    for bounds in (chunk_bounds, centred_bounds):
        with pytest.raises(LiftingDataError, match="empty clip" if not length else "at least 1"):
            bounds(length, frames, stride)


@pytest.fixture
def clips() -> list[Clip]:
    return film(generate_motion(2, 50) + generate_motion(1, 12, first=9), 1)


def test_windows_of_a_data_set(clips: list[Clip], caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.WARNING):
        windows = LiftWindows(clips, frames=27)
    assert "1 of 3 clips are shorter than the window of 27 frames (the shortest: 12)" in caplog.text
    assert len(windows) == 2 + 2 + 1
    batch = windows.__getitems__([(0, 0), (0, 4)])
    assert batch["inputs"].shape == (2, 27, 17, 2) and batch["targets"].shape == (2, 27, 17, 3)
    assert batch["inside"].sum(dim=1).tolist() == [25, 12]  # 50 frames in two windows: two repeated in front
    own = batch["inputs"][1][batch["inside"][1]]
    assert np.array_equal(own.numpy(), clips[2].inputs)
    assert torch.equal(batch["targets"][1, 0], torch.from_numpy(clips[2].targets[0])), "the edge, repeated"
    assert len(LiftWindows(clips, frames=27, stride=9)) == 4 + 4 + 1
    assert len(LiftWindows(clips, frames=27, stride=2, centred=True)) == 25 + 25 + 6
    with pytest.raises(LiftingDataError, match="no clips"):
        LiftWindows([], frames=27)


def test_mirrored_windows(clips: list[Clip]) -> None:
    both = LiftWindows(clips, frames=27, flip="both")
    assert len(both) == 10
    plain, flipped = both[(0, 1)], both[(0, 6)]
    assert np.array_equal(flipped["inputs"].numpy(), mirror(plain["inputs"].numpy()))
    assert np.array_equal(flipped["targets"].numpy(), mirror(plain["targets"].numpy()))
    chance = LiftWindows(clips, frames=27, flip="random", seed=5)
    drawn = [torch.equal(chance[(epoch, 0)]["inputs"], LiftWindows(clips, frames=27)[(0, 0)]["inputs"])
             for epoch in range(40)]  # fmt: skip
    assert 8 < sum(drawn) < 32
    again = LiftWindows(clips, frames=27, flip="random", seed=5)
    assert torch.equal(again[(7, 2)]["inputs"], chance[(7, 2)]["inputs"])


@pytest.mark.parametrize("workers", [0, 2])
def test_loader_order_is_a_function_of_seed_epoch_and_rank(clips: list[Clip], workers: int) -> None:
    windows = LiftWindows(clips, frames=27, stride=9, flip="both")
    batches = WindowBatches(len(windows), 4, shuffle=True, seed=3)
    loader = window_loader(windows, batches, workers)
    first = [batch["inputs"] for batch in loader]
    assert [len(one) for one in first] == [4, 4, 4, 4, 2]
    batches.start = 3
    assert torch.equal(next(iter(loader))["inputs"], first[3])
    batches.epoch, batches.start = 1, 0
    assert not torch.equal(next(iter(loader))["inputs"], first[0])
    ranks = [list(WindowBatches(18, 4, shuffle=True, seed=3, rank=rank, world_size=2)) for rank in range(2)]
    seen = [key for keys in ranks[0] + ranks[1] for key in keys]
    assert len(seen) == 24 and set(seen) == {(0, index) for index in range(18)}


def test_windows_by_number(clips: list[Clip]) -> None:
    windows = LiftWindows(clips, frames=27, flip="both")
    assert torch.equal(windows[3]["inputs"], windows[0, 3]["inputs"])
    assert torch.equal(windows.__getitems__([1, 6])["inputs"], windows.__getitems__([(0, 1), (0, 6)])["inputs"])
    assert len(list(windows)) == len(windows) == 10
    for number in (10, -1):
        with pytest.raises(IndexError, match=rf"window {number}: there are 10"):
            windows[number]


def test_windows_that_do_not_cover_a_clip_are_said_to(clips: list[Clip], caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.WARNING):
        LiftWindows(clips, frames=9, stride=9)
        LiftWindows(clips, frames=9, stride=15, centred=True)
    assert "are in none" not in caplog.text
    with caplog.at_level(logging.WARNING):
        windows = LiftWindows(clips, frames=9, stride=15)
    seen = sum(int(windows[number]["inside"].sum()) for number in range(len(windows)))
    assert f"windows of 9 frames are 15 apart: {112 - seen} of 112 frames are in none" in caplog.text


def test_settings_of_windows_that_are_none(clips: list[Clip]) -> None:
    wrong: Any
    for wrong, message in (
        ({"stride": 2.5}, "27 frames, 2.5 frames apart: both must be whole"),
        ({"stride": 0}, "0 frames apart"),
        ({"stride": 0, "centred": True}, "0 frames apart"),
        ({"flip": "all"}, "flip='all': one of 'none', 'random', 'both'"),
    ):
        with pytest.raises(LiftingDataError, match=message):
            LiftWindows(clips, frames=27, **wrong)
