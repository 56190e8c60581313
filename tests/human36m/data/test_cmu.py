"""The CMU pack: sequences, cut where they are torn."""

from __future__ import annotations

import logging
from collections import Counter
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from cycledistill.integrations.human36m.data.clips import film
from cycledistill.integrations.human36m.data.cmu import load_cmu, whole_pieces
from cycledistill.integrations.human36m.data.motion import generate_motion
from cycledistill.integrations.human36m.errors import LiftingDataError

CMU = Path(__file__).parents[4] / "shared" / "data" / "motion" / "cmu17_60fps_int16mm.npz"


def test_sequences_are_cut_at_tears(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    torn = np.zeros((100, 17, 3), np.int16)
    torn[60:, 4] = 201  # 348 mm away
    torn[90:, 4, 0] = 500
    short = np.zeros((10, 17, 3), np.int16)
    np.savez(tmp_path / "cmu.npz", **{"train/run/torn": torn, "train/run/short": short, "test/run/a": short})
    assert whole_pieces(torn) == [(0, 60), (60, 90), (90, 100)]
    with caplog.at_level(logging.INFO):
        found = {motion.name: len(motion.world) for motion in load_cmu(tmp_path / "cmu.npz", "train", shortest=27)}
    assert found == {"short": 10, "torn.0": 60, "torn.1": 30}
    motions = generate_motion(1, 9)
    motions += [replace(motions[0], name=f"torn.{number}", sequence="torn") for number in range(2)]
    assert sorted(Counter(clip.recording for clip in film(motions, 3)).values()) == [3, 6], "pieces and views of one"
    assert "10 frames between tears" in caplog.text
    with pytest.raises(LiftingDataError, match=r"no array val/<action>/<name>; it has test/run/a"):
        load_cmu(tmp_path / "cmu.npz", "val")
    np.savez(tmp_path / "wrong.npz", **{"train/run/a": torn[:, :16]})
    with pytest.raises(LiftingDataError, match=r"shape \(100, 16, 3\)"):
        load_cmu(tmp_path / "wrong.npz", "train")


@pytest.mark.skipif(not CMU.is_file(), reason="the CMU pack is not here")
def test_the_cmu_pack() -> None:
    train, test = (load_cmu(CMU, split, shortest=81) for split in ("train", "test"))
    steps = [1000 * np.linalg.norm(np.diff(motion.world, axis=0), axis=-1).max() for motion in train + test]
    assert max(steps) <= 200.1
    assert sum(len(motion.world) for motion in test) > 0.98 * 7042
    assert 0.9 * 26869 < sum(len(motion.world) for motion in train) < 26869
    clips = film(test[:3], cameras=2, noise=0.0)
    assert len(clips) == 6
    assert all(np.abs(clip.inputs).max() < 1 for clip in clips), "everyone is in the picture"
