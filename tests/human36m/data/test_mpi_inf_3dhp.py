"""MPI-INF-3DHP's files as their users have them, and its figures against its evaluation, written out in NumPy."""

from __future__ import annotations

import json
import logging
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from cycledistill.integrations.human36m.data.dataset import LiftWindows
from cycledistill.integrations.human36m.data.mpi_inf_3dhp.files import MpiInf3dhp
from cycledistill.integrations.human36m.data.mpi_inf_3dhp.joints import NAMES, OF_28
from cycledistill.integrations.human36m.data.npz import main as make_plain
from cycledistill.integrations.human36m.data.skeleton import JOINTS
from cycledistill.integrations.human36m.errors import LiftingDataError
from cycledistill.integrations.human36m.evaluation.measure import EvalSettings, evaluate
from tests.human36m.data.mpi_inf_3dhp_files import (
    NAMES_17,
    NAMES_28,
    OTHERWISE,
    write_test,
    write_test_folder,
    write_train,
)


class Still(nn.Module):
    """Says that everyone stands in a heap at the root."""

    def __init__(self) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.zeros(1))

    def forward(self, inputs: Tensor) -> Tensor:
        return self.weight * inputs[..., :1].expand(*inputs.shape[:-1], 3)


def read(path: Path, split: Any, **more: Any) -> list[Any]:
    return MpiInf3dhp(path, split, allow_pickle=True).clips(**more)


def test_orders_of_joints_are_those_of_the_data_sets_names() -> None:
    assert list(NAMES) == NAMES_17 == [NAMES_28[place] for place in OF_28]


def test_training_files(tmp_path: Path) -> None:
    data = write_train(tmp_path / "train.npz")
    clips = read(tmp_path / "train.npz", "train")
    assert [(clip.subject, clip.action) for clip in clips] == [("S1", "Seq1")] * 3 + [("S1", "Seq2")] * 3 + [
        ("S2", "Seq1")
    ] * 3
    assert [clip.recording for clip in clips] == ["S1/Seq1"] * 3 + ["S1/Seq2"] * 3 + ["S2/Seq1"] * 3
    raw = data["S1 Seq2"][0]["8"]
    clip = clips[5]
    assert clip.name.endswith("train.npz: S1/Seq2, camera 8") and clip.valid is None
    for joint, name in enumerate(JOINTS):
        own = NAMES_17.index(OTHERWISE.get(name, name))
        np.testing.assert_allclose(clip.inputs[:, joint], raw["data_2d"][:, own] / 1024 - 1, atol=1e-6, err_msg=name)
        np.testing.assert_allclose(
            1000 * clip.targets[:, joint], raw["data_3d"][:, own] - raw["data_3d"][:, 14], atol=1e-3, err_msg=name
        )
    assert clip.root is not None
    np.testing.assert_allclose(clip.root, raw["data_3d"][:, 14] / 1000)
    assert (read(tmp_path / "train.npz", "train", confidence=True)[0].inputs[..., 2] == 1).all()


def test_plain_files_say_the_same_without_running_anything(tmp_path: Path) -> None:
    write_train(tmp_path / "train.npz", cameras=(0,))
    with pytest.raises(LiftingDataError, match="pickled objects"):
        MpiInf3dhp(tmp_path / "train.npz", "train")
    assert make_plain([str(tmp_path / "train.npz"), str(tmp_path / "plain.npz"), "--allow-pickle"]) == 0
    plain, pickled = MpiInf3dhp(tmp_path / "plain.npz", "train").clips(), read(tmp_path / "train.npz", "train")
    assert all(np.array_equal(a.inputs, b.inputs) for a, b in zip(plain, pickled, strict=True))


def test_pictures_of_two_sizes(tmp_path: Path) -> None:
    data = write_test(tmp_path / "test.npz")
    for clip in read(tmp_path / "test.npz", "test"):
        raw, (width, height) = data[clip.action], (1920, 1080) if clip.action in ("TS5", "TS6") else (2048, 2048)
        counted = raw["valid"] == 1
        expected = raw["data_2d"][counted, 14] / width * 2 - [1, height / width]
        np.testing.assert_allclose(clip.inputs[counted, 0], expected, atol=1e-6)
        assert np.array_equal(clip.valid, counted)
        assert np.isfinite(clip.inputs).all() and (np.ptp(clip.inputs[..., 0], axis=1) > 0).all(), "context is filled"


def its_evaluation(errors: np.ndarray) -> dict[str, float]:
    """As its MATLAB code counts (T, 17) millimetres: 14 joints below the threshold, and the mean curve of 0:5:150."""
    fourteen = errors[:, :14]  # top of the head, neck, arms, legs; pelvis, spine and head are the last three
    curve = [(fourteen < threshold).mean() for threshold in range(0, 151, 5)]
    return {"mpjpe": errors.mean(), "pck150": (fourteen < 150).mean(), "auc": float(np.mean(curve))}


@pytest.mark.parametrize("mode", ["sequence", "centre"])
def test_figures_are_those_of_its_evaluation(tmp_path: Path, mode: Any) -> None:
    data = write_test(tmp_path / "test.npz")
    clips = read(tmp_path / "test.npz", "test")
    found: dict[str, Any] = evaluate(Still(), clips, settings=EvalSettings(9, mode, batch_size=64))[1]
    errors, steps = {}, {}
    for name, raw in data.items():
        poses, valid = raw["data_3d"], raw["valid"] == 1
        relative = poses - poses[:, 14:15]
        errors[name] = np.linalg.norm(relative, axis=-1)[valid]
        both = valid[1:] & valid[:-1]
        steps[name] = np.linalg.norm(np.diff(relative, axis=0), axis=-1)[both].mean()
    assert sorted(found["actions"]) == sorted(data), "by sequence"
    assert found["frames"] == sum(len(one) for one in errors.values())
    for name, one in errors.items():
        for figure, value in its_evaluation(one).items():
            assert found["actions"][name][figure] == pytest.approx(value, rel=1e-5, abs=1e-6), (name, figure)
        assert found["actions"][name]["velocity"] == pytest.approx(steps[name], rel=1e-4), "no step over a gap"
    for figure, value in its_evaluation(np.concatenate(list(errors.values()))).items():
        assert found[f"{figure}_frame_mean"] == pytest.approx(value, rel=1e-5, abs=1e-6), "over all frames"
        mean = np.mean([its_evaluation(one)[figure] for one in errors.values()])
        assert found[f"{figure}_action_mean"] == pytest.approx(mean, rel=1e-5, abs=1e-6), "of the sequences"
    assert 0.1 < found["pck150_frame_mean"] < 0.9
    json.dumps(found, allow_nan=False)


def test_frames_that_do_not_count_are_not_trained_on(tmp_path: Path) -> None:
    write_test(tmp_path / "test.npz")
    (clip, *_) = read(tmp_path / "test.npz", "test")
    windows = LiftWindows([clip], 81)
    assert int(windows[0]["inside"].sum()) == int(clip.valid.sum()) == len(clip) - 5


def test_the_folder_of_the_test_set(tmp_path: Path) -> None:
    pytest.importorskip("h5py")
    data = write_test(tmp_path / "test.npz")
    write_test_folder(tmp_path / "test_set", data)
    folder, file = MpiInf3dhp(tmp_path / "test_set", "test").clips(), read(tmp_path / "test.npz", "test")
    for one, other in zip(folder, file, strict=True):
        assert one.action == other.action
        assert np.array_equal(one.inputs, other.inputs) and np.array_equal(one.targets, other.targets)
        assert np.array_equal(one.valid, other.valid)  # type: ignore[arg-type]
    own = MpiInf3dhp(tmp_path / "test_set", "test", annotation="annotated").clips()
    np.testing.assert_allclose(own[2].targets, 1.1 * folder[2].targets, rtol=1e-5)
    with pytest.raises(LiftingDataError, match="annotation='annotated' chooses in the data set's folder"):
        MpiInf3dhp(tmp_path / "test.npz", "test", annotation="annotated", allow_pickle=True)


def test_folders_that_cannot_be_used(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    h5py = pytest.importorskip("h5py")
    with pytest.raises(LiftingDataError, match=r"has no TS1/annot_data\.mat"):
        MpiInf3dhp(tmp_path, "test")
    with pytest.raises(LiftingDataError, match="is a folder: of the training set"):
        MpiInf3dhp(tmp_path, "train")
    file = tmp_path / "TS1" / "annot_data.mat"
    file.parent.mkdir()
    file.write_bytes(b"MATLAB 5.0 MAT-file")
    with pytest.raises(LiftingDataError, match=r"annot_data\.mat: cannot be read as an HDF5 file"):
        MpiInf3dhp(tmp_path, "test")
    with h5py.File(tmp_path / "other.h5", "w") as other:
        other["annot2"] = np.zeros((5, 1, 17, 2))
    with h5py.File(file, "w") as made:
        made["annot2"], made["univ_annot3"] = np.zeros((5, 1, 17, 2)), np.zeros((5, 1, 28, 3))
    with pytest.raises(LiftingDataError, match="has no array valid_frame; it has annot2, univ_annot3"):
        MpiInf3dhp(tmp_path, "test")
    with h5py.File(file, "a") as made:
        made["valid_frame"] = np.ones((5, 1))
    with pytest.raises(LiftingDataError, match="univ_annot3: 28 joints a frame"):
        MpiInf3dhp(tmp_path, "test")
    with h5py.File(file, "a") as made:
        del made["annot2"]
        made["annot2"] = h5py.ExternalLink(str(tmp_path / "other.h5"), "annot2")
    with pytest.raises(LiftingDataError, match="has no array annot2"):  # another file is not read for it
        MpiInf3dhp(tmp_path, "test")
    monkeypatch.setitem(__import__("sys").modules, "h5py", None)
    with pytest.raises(LiftingDataError, match=r"pip install cycledistill\[hdf5\]"):
        MpiInf3dhp(tmp_path, "test")


def test_damaged_files_of_the_folder_are_refused_or_read(tmp_path: Path) -> None:
    pytest.importorskip("h5py")
    write_test_folder(tmp_path, {"TS1": write_test(tmp_path / "test.npz", frames=45)["TS1"]})
    file = tmp_path / "TS1" / "annot_data.mat"
    whole, rng, refused = file.read_bytes(), np.random.default_rng(0), 0
    for number in range(40):
        damaged = bytearray(whole[: rng.integers(len(whole))] if number % 2 else whole)
        damaged[rng.integers(600, min(6000, max(len(damaged), 601))) % len(damaged)] ^= 0xFF
        file.write_bytes(damaged)
        try:
            MpiInf3dhp(tmp_path, "test").clips()
        except LiftingDataError as error:
            refused += "TS1" in str(error)
    assert refused >= 20


_INVERSE = [14, 8, 9, 10, 11, 12, 13, 15, 1, 16, 0, 5, 6, 7, 2, 3, 4]


def both(raw: dict[str, Any], change: Callable[[Any], Any]) -> None:
    raw.update(data_2d=change(raw["data_2d"]), data_3d=change(raw["data_3d"]))


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda r: r.pop("valid"), "TS3 has no valid; it has data_2d, data_3d"),
        (lambda r: (r.pop("data_2d"), r.pop("valid")), "TS3 has no data_2d and no valid; it has data_3d"),
        (lambda r: r.update(valid=0 * r["valid"]), "TS3: no frame is valid"),
        (lambda r: r.update(valid=r["valid"][:9]), r"valid has shape \(9,\).* each of 63 frames"),
        (lambda r: r.update(valid=r["valid"] + 1), "a 0 or 1 for each"),
        (lambda r: both(r, lambda p: np.repeat(p, 2, 1)[:, :28]), r"28 joints a frame.* take \[7, 5, 14, 15, 16, 9"),
        (lambda r: both(r, lambda p: p[:, :14]), "14 joints a frame.* lack pelvis, spine and head"),
        (lambda r: both(r, lambda p: p[:, :13]), r"13 joints a frame, MPI-INF-3DHP's 17 are expected \(head_top"),
        (lambda r: both(r, lambda p: p[:, _INVERSE]), "stand in Human3.6M's order"),
        (lambda r: r.update(data_3d=r["data_3d"] / 1000), "is .* long, 800 to 2600 millimetres .*are these metres"),
        (lambda r: r.update(data_3d=r["data_3d"] * 50), "another unit"),
        (lambda r: r.update(data_2d=r["data_2d"][:40]), "40 frames of data_2d, 63 of data_3d"),
        (lambda r: r.update(data_2d=r["data_2d"] / 1024 - 1), "normalised, or shares of the picture"),
        (lambda r: r.update(data_2d=r["data_2d"] + 1500), "lie outside the picture of 2048 x 2048"),
        (lambda r: r.update(data_2d=r["data_2d"][:, _INVERSE]), "joints in two orders"),
        (lambda r: r.update(data_2d=r["data_2d"] * [-1, 1] + [2048, 0]), "x of data_2d or of data_3d is mirrored"),
        (lambda r: r["data_2d"].__setitem__((5, 3), 0), "1 of 58 frames lack"),
        (lambda r: r["data_3d"].__setitem__((5, 3), np.nan), "3D poses of 1 frames that count are NaN"),
        (lambda r: r.update(data_2d=r["data_2d"][..., :1]), r"data_2d is float64 of shape \(63, 17, 1\)"),
    ],
    ids=["valid", "keys", "none", "short", "values", "28", "14", "13", "order", "metres", "unit", "length",
         "normalised", "outside", "orders", "mirrored", "joint", "nan", "channels"],
)  # fmt: skip
def test_files_that_cannot_be_used(tmp_path: Path, change: Callable[[Any], Any], message: str) -> None:
    data = write_test(tmp_path / "test.npz")
    change(data["TS3"])
    np.savez(tmp_path / "wrong.npz", data=data)  # type: ignore[arg-type]
    with pytest.raises(LiftingDataError, match=message):
        read(tmp_path / "wrong.npz", "test")


def moved(path: Path, change: Callable[[Any], Any]) -> Path:
    """A training file with other 2D."""
    data = write_train(path, cameras=(0,))
    for entry in data.values():
        entry[0]["0"]["data_2d"] = change(entry[0]["0"]["data_2d"])
    np.savez(path, data=data)  # type: ignore[arg-type]
    return path


@pytest.mark.parametrize("lag", [3, -10])
def test_2d_of_other_moments_is_refused(lag: int, tmp_path: Path) -> None:
    path = moved(tmp_path / "a.npz", lambda seen: np.roll(seen, lag, axis=0))
    told = f"not of the same moments: .* {abs(lag)} frames {'later' if lag > 0 else 'earlier'}"
    with pytest.raises(LiftingDataError, match=told):
        read(path, "train")


@pytest.mark.parametrize("noise", [0, 5, 15])
def test_2d_of_the_same_moments_passes_whatever_is_done(noise: float, tmp_path: Path) -> None:
    """Annotated a little wrong in each frame, and each joint always to one side; moving, and standing still."""
    rng = np.random.default_rng(0)

    def off(seen: np.ndarray) -> np.ndarray:
        return seen + rng.normal(0, noise, seen.shape) + rng.normal(0, noise, seen.shape[1:])

    assert read(moved(tmp_path / "a.npz", off), "train")
    data = write_train(tmp_path / "b.npz", cameras=(0,))
    for entry in data.values():
        arrays = entry[0]["0"]
        arrays["data_3d"] = np.repeat(arrays["data_3d"][:1], 60, axis=0)
        arrays["data_2d"] = off(np.repeat(arrays["data_2d"][:1], 60, axis=0))
    np.savez(tmp_path / "b.npz", data=data)  # type: ignore[arg-type]
    assert read(tmp_path / "b.npz", "train")


def test_mirrored_axes_are_named(tmp_path: Path) -> None:
    for signs, axes in (([-1, 1], "x"), ([1, -1], "y"), ([-1, -1], "x and y")):
        path = moved(tmp_path / "a.npz", lambda seen, by=signs: 1024 + (seen - 1024) * by)  # type: ignore[misc]
        with pytest.raises(LiftingDataError, match=f": {axes} of data_2d or of data_3d is mirrored"):
            read(path, "train")


def test_files_of_the_other_split_and_other_forms(tmp_path: Path) -> None:
    write_train(tmp_path / "train.npz", cameras=(0,))
    write_test(tmp_path / "test.npz")
    with pytest.raises(LiftingDataError, match="is this the training set's file"):
        read(tmp_path / "train.npz", "test")
    with pytest.raises(LiftingDataError, match="TS1: a subject and sequence such as 'S1 Seq1'.*the test set's file"):
        read(tmp_path / "test.npz", "train")
    np.savez(tmp_path / "other.npz", positions_3d=np.zeros(3))
    with pytest.raises(LiftingDataError, match="has no 'data'; it has positions_3d"):
        MpiInf3dhp(tmp_path / "other.npz", "train")


def test_views_and_sequences_that_are_not_there_are_told(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    data = write_train(tmp_path / "train.npz")
    del data["S1 Seq2"][0]["1"]
    np.savez(tmp_path / "fewer.npz", data=data)  # type: ignore[arg-type]
    assert len(read(tmp_path / "fewer.npz", "train")) == 8
    assert "left out: S1/Seq2, camera 1" in caplog.text
    tested = write_test(tmp_path / "test.npz")
    del tested["TS2"]
    np.savez(tmp_path / "five.npz", data=tested)  # type: ignore[arg-type]
    with caplog.at_level(logging.WARNING):
        assert len(read(tmp_path / "five.npz", "test", leave_out=["TS6"])) == 4
    assert "measured without TS2, TS6; published figures are of six" in caplog.text
    with pytest.raises(LiftingDataError, match="all sequences are left out"):
        read(tmp_path / "five.npz", "test", leave_out=[f"TS{number}" for number in range(1, 7)])
