"""The command that lifts a user's file, and what it refuses."""

from __future__ import annotations

import json
import logging
import os
import re
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest

pytest.importorskip("accelerate")

from safetensors.torch import load_file, save_file

from cycledistill.commands.frame import main
from cycledistill.integrations.human36m.data.cameras import normalize_screen
from cycledistill.integrations.human36m.data.skeleton import coco_to_h36m
from cycledistill.integrations.human36m.errors import LiftingDataError
from cycledistill.integrations.human36m.lift import lift, prepare, write_poses
from cycledistill.integrations.human36m.lifting.models import open_model
from cycledistill.integrations.human36m.recipe import load_recipe
from cycledistill.integrations.human36m.train import train
from cycledistill.recipes.errors import RecipeError
from tests.human36m.people import coco_person


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run of two steps."""
    folder = tmp_path_factory.mktemp("lift") / "run"
    recipe = load_recipe(
        "frame_token_small",
        {
            "model.options": {"dim": 16, "depth": 2},
            "data.frames": 9,
            "data.sequences": 4,
            "data.length": 18,
            "data.views": 1,
            "run.max_steps": 2,
            "run.output": str(folder),
            "run.progress": False,
        },
    )
    train(recipe)
    return folder


@pytest.fixture
def person() -> np.ndarray:
    """COCO keypoints of 20 frames, 640 x 480."""
    return coco_person()


def error_of(capsys: pytest.CaptureFixture[str], *arguments: Any) -> str:
    try:
        code = main(["predict", "human36m", *map(str, arguments)])
    except SystemExit as asked:  # of an option's value, by argparse
        code = int(asked.code or 0)
    assert code == 2
    return capsys.readouterr().err


def test_lift_a_json_file(run: Path, person: np.ndarray, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    source = tmp_path / "keypoints.json"
    source.write_text(json.dumps({"keypoints": person.tolist(), "width": 640, "height": 480}))
    target, figure = tmp_path / "poses.npz", tmp_path / "figures" / "poses.png"
    assert main(["predict", "human36m", str(run), str(source), "--output", str(target), "--figure", str(figure)]) == 0
    assert "20 poses in" in capsys.readouterr().out
    with np.load(target) as found:
        poses = found["poses"]
    assert poses.shape == (20, 17, 3) and np.isfinite(poses).all() and not poses[:, 0].any()
    assert figure.stat().st_size > 10_000
    # the same from Human3.6M's order, another format, and to JSON
    np.savez(tmp_path / "h36m.npz", keypoints=coco_to_h36m(person))
    options = ["--layout", "h36m", "--width", "640", "--height", "480"]
    assert (
        main(
            [
                "predict",
                "human36m",
                str(run),
                str(tmp_path / "h36m.npz"),
                "--output",
                str(tmp_path / "p.json"),
                *options,
            ]
        )
        == 0
    )
    again = np.array(json.loads((tmp_path / "p.json").read_text())["poses"])
    np.testing.assert_allclose(again, poses, atol=2e-5)


def test_what_the_model_sees(person: np.ndarray, tmp_path: Path) -> None:
    np.savez(tmp_path / "a.npz", keypoints=person)
    joints = coco_to_h36m(person)
    plain = prepare(tmp_path / "a.npz", "coco", 640, 480)
    np.testing.assert_allclose(plain, normalize_screen(joints[..., :2], 640, 480))
    confident = prepare(tmp_path / "a.npz", "coco", 640, 480, confidence=True)
    np.testing.assert_allclose(confident[..., 2], 0.9)
    np.savez(tmp_path / "b.npz", keypoints=person[..., :2])
    assert (prepare(tmp_path / "b.npz", "coco", 640, 480, confidence=True)[..., 2] == 1).all()


def test_single_keypoints_that_were_not_detected(person: np.ndarray, tmp_path: Path) -> None:
    lost = person.copy()
    lost[4:6, 9] = 0  # the left wrist
    lost[:, 3:5] = 0  # the ears, which no joint is made of
    np.savez(tmp_path / "a.npz", keypoints=lost, width=640, height=480)
    with pytest.raises(
        LiftingDataError, match="2 of 20 frames lack some .* 2 in all, the first is frame 4; --fill-gaps"
    ):
        prepare(tmp_path / "a.npz")
    found = prepare(tmp_path / "a.npz", fill=True, confidence=True)
    seen = prepare_of(person, tmp_path)
    assert np.array_equal(np.delete(found, 13, axis=1), np.delete(seen, 13, axis=1)), "all else is as it was"
    np.testing.assert_allclose(found[4, 13, :2], (2 * seen[3, 13, :2] + seen[6, 13, :2]) / 3, rtol=1e-4)
    assert found[:, 13, 2].tolist() == pytest.approx([0.9] * 4 + [0, 0] + [0.9] * 14)
    # a file without confidences gives those of what was filled all the same
    np.savez(tmp_path / "b.npz", keypoints=lost[..., :2], width=640, height=480)
    assert prepare(tmp_path / "b.npz", fill=True, confidence=True)[:, 13, 2].tolist() == [1] * 4 + [0, 0] + [1] * 14
    assert prepare(tmp_path / "b.npz", fill=True).shape == (20, 17, 2)
    lost[:, 9] = 0
    np.savez(tmp_path / "a.npz", keypoints=lost, width=640, height=480)
    with pytest.raises(LiftingDataError, match=r"left_wrist \(keypoint 9\) was detected in no frame"):
        prepare(tmp_path / "a.npz", fill=True)


def prepare_of(person: np.ndarray, folder: Path) -> np.ndarray:
    np.savez(folder / "whole.npz", keypoints=person, width=640, height=480)
    return prepare(folder / "whole.npz", confidence=True)


def test_pictures_without_a_person_keep_their_time(
    run: Path, person: np.ndarray, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    results = [
        {"image_id": f"frame_{number}.jpg", "keypoints": frame.ravel().tolist()}
        for number, frame in enumerate(person)
        if number not in (7, 8)
    ]
    (tmp_path / "a.json").write_text(json.dumps(results))
    options = [run, tmp_path / "a.json", "--output", tmp_path / "p.npz", "--width", 640, "--height", 480]
    assert "2 of 20 frames have no person, the first is frame 7; --fill-gaps" in error_of(capsys, *options)
    assert main(["predict", "human36m", *map(str, options), "--fill-gaps"]) == 0
    with np.load(tmp_path / "p.npz") as found:
        assert found["poses"].shape == (20, 17, 3)


def test_short_clips_are_said_to_be_short(
    run: Path, person: np.ndarray, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    np.savez(tmp_path / "a.npz", keypoints=person[:4], width=640, height=480)
    with caplog.at_level(logging.WARNING):
        main(["predict", "human36m", str(run), str(tmp_path / "a.npz"), "--output", str(tmp_path / "p.npz")])
    assert "shorter than the window of 9 frames (the shortest: 4)" in caplog.text
    with np.load(tmp_path / "p.npz") as found:
        assert found["poses"].shape == (4, 17, 3)


def changed(person: np.ndarray, what: str) -> np.ndarray:
    keypoints = person.copy()
    if what == "nan":
        keypoints[3, 5, 0] = np.nan
    elif what == "zero":
        keypoints[:] = 0
    elif what == "gap":
        keypoints[[0, 7, 8]] = 0
    elif what == "wrist":
        keypoints[[4, 6], 9] = keypoints[4, 10] = 0
    elif what == "joints":
        keypoints = keypoints[:, :14]
    elif what == "empty":
        keypoints = keypoints[:0]
    return keypoints


@pytest.mark.parametrize(
    ("what", "message"),
    [
        ("nan", "NaN or infinite, the first at frame 3"),
        ("zero", "every 2D keypoint is 0"),
        ("gap", "3 of 20 frames have no person, the first is frame 0; --fill-gaps"),
        (
            "wrist",
            "2 of 20 frames lack some of the keypoints (x = y = 0, or hardly any confidence: not detected), 3 in all, "
            "the first is frame 4",
        ),
        ("joints", "14 joints a frame, the models know 17"),
        ("empty", "empty clip"),
    ],
)
def test_bad_keypoints(
    run: Path, person: np.ndarray, tmp_path: Path, capsys: pytest.CaptureFixture[str], what: str, message: str
) -> None:
    np.savez(tmp_path / "a.npz", keypoints=changed(person, what), width=640, height=480)
    assert message in error_of(capsys, run, tmp_path / "a.npz", "--output", tmp_path / "p.npz")
    assert not (tmp_path / "p.npz").exists()


def test_other_errors(run: Path, person: np.ndarray, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    source = tmp_path / "a.npz"
    np.savez(source, keypoints=person)
    assert "how large the picture is" in error_of(capsys, run, source, "--output", tmp_path / "p.npz")
    size = ["--width", 640, "--height", 480]
    assert "does not exist" in error_of(capsys, tmp_path / "no", source, "--output", tmp_path / "p.npz", *size)
    # before any work: neither the checkpoint nor the keypoints are there
    early = [tmp_path / "none", tmp_path / "none.npz", "--output", tmp_path / "p.txt"]
    assert ".npz or .json is expected" in error_of(capsys, *early)
    early[3] = tmp_path / "none" / "p.npz"
    assert "there is no folder" in error_of(capsys, *early)
    np.savez(tmp_path / "objects.npz", keypoints=np.array([{}], dtype=object))
    message = error_of(capsys, run, tmp_path / "objects.npz", "--output", tmp_path / "p.npz", *size)
    assert "save the keypoints as an array of numbers" in message and "allow_pickle" not in message
    with pytest.raises(LiftingDataError, match="cannot be written"):
        write_poses(np.zeros((1, 17, 3), np.float32), tmp_path / "none" / "p.npz")
    weights = next((run / "checkpoints").glob("step-*/model.safetensors"))
    message = error_of(capsys, weights, source, "--output", tmp_path / "p.npz", "--config", "mixste", *size)
    assert "model.safetensors" in message
    bare = tmp_path / "bare.safetensors"
    save_file(load_file(weights), bare)  # without metadata
    message = error_of(capsys, bare, source, "--output", tmp_path / "p.npz", *size)
    assert "bare.safetensors holds weights only" in message and "--config NAME" in message
    message = error_of(capsys, run, source, "--output", tmp_path / "p.npz", "--device", "cud", *size)
    assert "cycledistill: --device='cud' is not here; there is: cpu" in message
    for option in ("--frame-rate", "--width", "--height"):
        for value in ("0", "-25", "nan", "fast"):
            message = error_of(capsys, run, source, "--output", tmp_path / "p.npz", option, value)
            assert f"argument {option}: {value!r}: a number above 0 is expected" in message
    np.savez(source, keypoints=person, fps=0)
    message = error_of(capsys, run, source, "--output", tmp_path / "p.npz", *size)
    assert "fps=0," in message and "a number above 0 is expected" in message
    (tmp_path / "empty.json").write_bytes(b"")
    assert "empty.json" in error_of(capsys, run, tmp_path / "empty.json", "--output", tmp_path / "p.npz", *size)
    np.savez(source, keypoints=person[:1])
    assert "one frame" in error_of(capsys, run, source, "--output", tmp_path / "p.npz", *size)
    assert not (tmp_path / "p.npz").exists()


def test_another_rate_and_a_delay(run: Path, person: np.ndarray, tmp_path: Path, capsys: Any, caplog: Any) -> None:
    found = {}
    for name, facts, options in (
        ("plain", {}, []),
        ("same", {"fps": 50}, []),
        ("file", {"fps": 25}, []),
        ("flag", {"fps": 50}, ["--frame-rate", "25"]),
        ("late", {"fps": 50}, ["--delay", "2"]),
        ("past", {"fps": 50}, ["--delay", "0", "--device", "cpu"]),
    ):
        np.savez(tmp_path / "a.npz", keypoints=person, width=640, height=480, **facts)
        caplog.clear()
        with caplog.at_level(logging.INFO):
            assert (
                main(
                    [
                        "predict",
                        "human36m",
                        str(run),
                        str(tmp_path / "a.npz"),
                        "--output",
                        str(tmp_path / "p.npz"),
                        *options,
                    ]
                )
                == 0
            )
        assert re.search(r"lifted on cpu, [\d.]+ frames a second\n", capsys.readouterr().out)
        assert ("taken for the 50" in caplog.text) == (name == "plain")
        assert ("20 frames are lifted as 39" in caplog.text) == (name in ("file", "flag"))
        with np.load(tmp_path / "p.npz") as poses:
            found[name] = poses["poses"]
    assert np.array_equal(found["plain"], found["same"]) and np.array_equal(found["file"], found["flag"])
    names = ("plain", "file", "late", "past")
    assert all(not np.allclose(found[one], found[two]) for one in names for two in names if one < two)
    model, settings = open_model(run)
    inputs = prepare(tmp_path / "a.npz")
    assert np.array_equal(found["late"], lift(model, inputs, settings, delay=2))
    assert np.array_equal(found["file"], lift(model, inputs, settings, frame_rate=25))
    asked = [run, tmp_path / "a.npz", "--output", tmp_path / "p.npz"]
    assert "--fill-gaps looks at later frames" in error_of(capsys, *asked, "--delay", "0", "--fill-gaps")
    assert "delay=9: a whole number of frames from 0" in error_of(capsys, *asked, "--delay", "9")
    assert "overlap=2: with delay=1" in error_of(capsys, *asked, "--delay", "1", "--overlap", "2")


def test_an_old_picture_survives_a_new_one_that_fails(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    figure = pytest.importorskip("matplotlib.figure")
    from cycledistill.integrations.human36m.draw import draw_sequences

    poses, path = {"a": np.zeros((3, 17, 3), np.float32)}, tmp_path / "a.png"
    draw_sequences(poses, path)
    old = path.read_bytes()

    def full(_: object, file: Path, **__: object) -> None:
        file.write_bytes(b"half")
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(figure.Figure, "savefig", full)
    with pytest.raises(OSError, match="No space left"):
        draw_sequences(poses, path)
    assert (path.read_bytes(), os.listdir(tmp_path)) == (old, ["a.png"])


def test_a_picture_needs_matplotlib(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from cycledistill.integrations.human36m.draw import draw_sequences

    poses = np.zeros((3, 17, 3), np.float32)
    with pytest.raises(ValueError, match="no poses"):
        draw_sequences({}, tmp_path / "a.png")
    monkeypatch.setitem(sys.modules, "matplotlib.figure", None)
    with pytest.raises(RecipeError, match="pip install matplotlib"):
        draw_sequences({"a": poses}, tmp_path / "a.png")
    assert not (tmp_path / "a.png").exists()


def test_a_result_for_each_track(
    run: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], caplog: pytest.LogCaptureFixture
) -> None:
    people = {7: (3, coco_person(12)), 9: (0, coco_person(20, first=2)), 11: (2, coco_person(5, first=3))}
    people[11][1][:, 0] = 0  # whose nose is never seen
    entries = [
        {"image_id": f"{start + n}.jpg", "keypoints": pose.ravel().tolist(), "idx": track}
        for track, (start, poses) in people.items()
        for n, pose in enumerate(poses)
    ]
    (tmp_path / "alphapose-results.json").write_text(json.dumps(entries))
    lifting, size = ["predict", "human36m", str(run)], ["--width", "640", "--height", "480"]
    target = tmp_path / "poses.npz"
    with caplog.at_level(logging.WARNING):
        assert main([*lifting, str(tmp_path / "alphapose-results.json"), "--output", str(target), *size]) == 0
    assert "track 11: nose (keypoint 0) was detected in no frame" in caplog.text and "not lifted" in caplog.text
    assert sorted(file.name for file in tmp_path.glob("*.npz")) == ["poses.track7.npz", "poses.track9.npz"]
    for track in (7, 9):
        start, pixels = people[track]
        np.savez(tmp_path / "alone.npz", keypoints=pixels)
        assert main([*lifting, str(tmp_path / "alone.npz"), "--output", str(tmp_path / "one.npz"), *size]) == 0
        with np.load(tmp_path / f"poses.track{track}.npz") as found, np.load(tmp_path / "one.npz") as alone:
            np.testing.assert_allclose(found["poses"], alone["poses"], atol=1e-5)
            assert found["frames"].tolist() == list(range(start, start + len(pixels)))
    source, json_file = tmp_path / "alphapose-results.json", tmp_path / "p.json"
    for option in (["--track-id", "7"], ["--person", "2"]):
        assert main([*lifting, str(source), "--output", str(json_file), *size, *option]) == 0
        assert len(json.loads(json_file.read_text())["poses"]) == 12
    message = error_of(capsys, run, tmp_path / "alphapose-results.json", "--output", target, *size, "--track-id", "11")
    assert "nose (keypoint 0) was detected in no frame" in message and not target.exists()


def test_options_of_the_command(run: Path, person: np.ndarray, tmp_path: Path, capsys: Any) -> None:
    np.savez(tmp_path / "a.npz", keypoints=person[..., [1, 0, 2]], width=480, height=640)
    asked = [run, tmp_path / "a.npz", "--output", tmp_path / "p.npz"]
    message = error_of(capsys, *asked)
    assert "are x and y exchanged" in message and "--unchecked" in message
    assert (
        main(["predict", "human36m", *map(str, asked), "--unchecked", "--person-height", "1.8", "--overlap", "0"]) == 0
    )
    with np.load(tmp_path / "p.npz") as found:
        lengths = [
            np.linalg.norm(np.diff(found["poses"][:, chain], axis=1), axis=-1).sum(axis=1)
            for chain in ([4, 5, 6], [1, 2, 3], [0, 7, 8, 9, 10])
        ]
    np.testing.assert_allclose((lengths[0] + lengths[1]) / 2 + lengths[2], 0.961 * 1.8, rtol=1e-4)
    assert "overlap=9: a whole number of frames from 0 to 8" in error_of(capsys, *asked, "--overlap", "9")
