"""Poses of a stream: those of windows cut by hand, and of nothing that had not come yet."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch

pytest.importorskip("accelerate")

from cycledistill.integrations.human36m import Lifter, create_lifter
from cycledistill.integrations.human36m.data.cameras import normalize_screen
from cycledistill.integrations.human36m.errors import LiftingDataError
from cycledistill.integrations.human36m.evaluation.measure import EvalSettings
from cycledistill.integrations.human36m.lift import lift
from cycledistill.integrations.human36m.lifting.stream import LiftStream
from cycledistill.integrations.human36m.models.convention import MOTIONBERT
from tests.human36m.people import h36m_person

F, LENGTH = 9, 14


@pytest.fixture(scope="module")
def model() -> Lifter:
    torch.manual_seed(0)
    return create_lifter("mixste", frames=F, dim=16, depth=1, heads=2).eval()


@pytest.fixture(scope="module")
def seen() -> np.ndarray:
    return normalize_screen(h36m_person(LENGTH)[..., :2], 640, 480)


def streamed(stream: LiftStream, seen: np.ndarray) -> tuple[np.ndarray, list[int]]:
    """All poses, and how many each push and the flush gave."""
    found = [*(stream.push(frame) for frame in seen), stream.flush()]
    return np.concatenate(found), [len(poses) for poses in found]


def by_hand(model: Lifter, seen: np.ndarray, delay: int, every: int, centre: bool) -> np.ndarray:
    """Frame by frame from the clip cut off where it may not be seen, its edges repeated, without the library."""
    poses = []
    for t in range(len(seen)):
        clip = seen[: t // every * every + delay + 1]
        if centre:
            padded = np.concatenate([clip[:1]] * (F // 2) + [clip] + [clip[-1:]] * F)
            window, place = padded[t : t + F], F // 2
        else:
            padded = np.concatenate([clip[:1]] * (F - 1) + [clip])
            window, place = padded[-F:], F - 1 - (len(clip) - 1 - t)
        with torch.no_grad():
            pose = model(torch.from_numpy(window)[None])[0, place].numpy()
        pose[0] = 0
        poses.append(pose)
    return np.stack(poses)


@pytest.mark.parametrize("mode", ["sequence", "centre"])
@pytest.mark.parametrize(("delay", "every"), [(0, 1), (3, 1), (3, 2), (4, 5)])
def test_a_stream_a_clip_and_windows_cut_by_hand(
    model: Lifter, seen: np.ndarray, delay: int, every: int, mode: Any
) -> None:
    settings = EvalSettings(F, mode, flip=False)
    stream = LiftStream(model, settings, delay=delay, every=every)
    poses, counts = streamed(stream, seen)
    np.testing.assert_allclose(poses, by_hand(model, seen, delay, every, mode == "centre"), atol=1e-5)
    np.testing.assert_allclose(poses, lift(model, seen, settings, delay=delay, every=every), atol=1e-5)
    done = np.cumsum(counts)
    for newest, there in enumerate(done[:-1]):
        assert newest - delay < there <= newest + 1, "no pose waits longer than the delay, none comes before its frame"
    assert counts[-1] <= delay
    again, _ = streamed(stream, seen)  # another clip: nothing is left of the first
    assert np.array_equal(again, poses)


def test_one_window_at_a_time_is_the_stream_bit_for_bit(model: Lifter, seen: np.ndarray) -> None:
    settings = EvalSettings(F, batch_size=1)
    poses, _ = streamed(LiftStream(model, settings, delay=2), seen)
    assert np.array_equal(poses, lift(model, seen, settings, delay=2))


@pytest.mark.parametrize("mode", ["sequence", "centre"])
def test_what_comes_later_changes_nothing(model: Lifter, seen: np.ndarray, mode: Any) -> None:
    for delay in (0, 2):
        before = lift(model, seen, EvalSettings(F, mode), delay=delay)
        other = seen.copy()
        other[8 + delay :] += 0.1
        after = lift(model, other, EvalSettings(F, mode), delay=delay)
        assert np.array_equal(before[:8], after[:8]) and not np.allclose(before[8:], after[8:])
    assert not np.allclose(lift(model, seen, EvalSettings(F, mode))[:8], before[:8], atol=1e-4), "all are seen without"


def test_the_whole_future_that_a_centre_frame_has_is_the_usual_answer(model: Lifter, seen: np.ndarray) -> None:
    settings = EvalSettings(F, "centre")
    np.testing.assert_allclose(lift(model, seen, settings, delay=F // 2), lift(model, seen, settings), atol=1e-6)


def test_a_stream_without_end_keeps_a_window_and_the_delay(model: Lifter, seen: np.ndarray) -> None:
    stream = LiftStream(model, EvalSettings(F, flip=False), delay=2)
    for _ in range(4):
        for frame in seen:
            stream.push(frame)
    assert len(stream._kept) == F + 2


def test_bad_frames_are_as_if_they_had_not_come(model: Lifter, seen: np.ndarray) -> None:
    settings = EvalSettings(F, flip=False)
    stream, poses = LiftStream(model, settings), []
    lost = seen[3].copy()
    lost[13] = np.nan
    for number, frame in enumerate(seen):
        if number == 3:
            with pytest.raises(LiftingDataError, match=r"frame 3 of the stream: .* NaN"):
                stream.push(lost)
            with pytest.raises(LiftingDataError, match="frame 3 of the stream: .* are they pixels"):
                stream.push(h36m_person(4)[3, :, :2])
            with pytest.raises(LiftingDataError, match="frame 3 of the stream: 16 joints"):
                stream.push(frame[:16])
            with pytest.raises(LiftingDataError, match="keypoints of 3 numbers a joint, and the model takes 2"):
                stream.push(np.concatenate([frame, np.ones((17, 1), np.float32)], axis=-1))
        poses.append(stream.push(frame))
    np.testing.assert_allclose(np.concatenate(poses), lift(model, seen, settings, delay=0), atol=1e-5)
    with pytest.raises(LiftingDataError, match="are they pixels"):
        LiftStream(model, settings).push(h36m_person(2)[0, :, :2])
    with pytest.raises(LiftingDataError, match="delay=9"):
        LiftStream(model, settings, delay=F)
    assert LiftStream(model, settings).flush().shape == (0, 17, 3)


def test_a_height_is_needed_and_kept_as_for_clips(seen: np.ndarray) -> None:
    model = create_lifter("mixste", frames=F, dim=16, depth=1, heads=2).eval()
    model.convention = MOTIONBERT
    settings = EvalSettings(F, batch_size=1)
    with pytest.raises(LiftingDataError, match="--person-height"):
        LiftStream(model, settings)
    poses, _ = streamed(LiftStream(model, settings, person_height=1.7), seen)
    assert np.array_equal(poses, lift(model, seen, settings, delay=0, person_height=1.7))
