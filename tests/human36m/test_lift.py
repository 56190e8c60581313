"""The command that lifts a user's file, the files it reads, and what it refuses."""

from __future__ import annotations

import json
import logging
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest

pytest.importorskip("accelerate")

from cycledistill.integrations.human36m.cameras import normalize_screen
from cycledistill.integrations.human36m.errors import LiftingDataError
from cycledistill.integrations.human36m.keypoint_files import fill_gaps, read_keypoints
from cycledistill.integrations.human36m.lift import main, prepare, write_poses
from cycledistill.integrations.human36m.recipe import load_recipe
from cycledistill.integrations.human36m.skeleton import coco_to_h36m
from cycledistill.integrations.human36m.train import train
from cycledistill.recipes.errors import ConfigError


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
    rng = np.random.default_rng(0)
    steps = rng.normal(0, 2, (20, 17, 2)).cumsum(axis=0)
    return np.concatenate([rng.uniform(100, 400, (1, 17, 2)) + steps, np.full((20, 17, 1), 0.9)], -1).astype(np.float32)


def error_of(capsys: pytest.CaptureFixture[str], *arguments: Any) -> str:
    with pytest.raises(SystemExit) as raised:
        main([str(argument) for argument in arguments])
    assert raised.value.code == 2
    return capsys.readouterr().err


def test_lift_a_json_file(run: Path, person: np.ndarray, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    source = tmp_path / "keypoints.json"
    source.write_text(json.dumps({"keypoints": person.tolist(), "width": 640, "height": 480}))
    target, figure = tmp_path / "poses.npz", tmp_path / "figures" / "poses.png"
    assert main([str(source), str(target), "--checkpoint", str(run), "--figure", str(figure)]) == 0
    assert "20 poses in" in capsys.readouterr().out
    with np.load(target) as found:
        poses = found["poses"]
    assert poses.shape == (20, 17, 3) and np.isfinite(poses).all() and not poses[:, 0].any()
    assert figure.stat().st_size > 10_000
    # the same from Human3.6M's order, another format, and to JSON
    np.savez(tmp_path / "h36m.npz", keypoints=coco_to_h36m(person))
    options = ["--layout", "h36m", "--width", "640", "--height", "480"]
    assert main([str(tmp_path / "h36m.npz"), str(tmp_path / "p.json"), "--checkpoint", str(run), *options]) == 0
    again = np.array(json.loads((tmp_path / "p.json").read_text())["poses"])
    np.testing.assert_allclose(again, poses, atol=2e-5)


def test_files_of_every_form_read_the_same(person: np.ndarray, tmp_path: Path) -> None:
    results = [
        {"image_id": 2 * number, "category_id": 1, "keypoints": frame.ravel().tolist(), "score": 1.0}
        for number, frame in enumerate(person)
    ]
    forms = {"results": results[::-1], "bare": person.tolist(), "flat": {"keypoints": person.reshape(20, 51).tolist()}}
    for name, value in forms.items():
        (tmp_path / f"{name}.json").write_text(json.dumps(value))
        np.testing.assert_allclose(read_keypoints(tmp_path / f"{name}.json").pixels, person, rtol=1e-6)
    np.savez(tmp_path / "a.npz", keypoints=person, width=640, height=480)
    found = read_keypoints(tmp_path / "a.npz")
    assert (found.width, found.height) == (640, 480)
    assert np.array_equal(found.pixels, person)


def test_what_the_model_sees(person: np.ndarray, tmp_path: Path) -> None:
    np.savez(tmp_path / "a.npz", keypoints=person)
    joints = coco_to_h36m(person)
    plain = prepare(tmp_path / "a.npz", "coco", 640, 480)
    np.testing.assert_allclose(plain, normalize_screen(joints[..., :2], 640, 480))
    confident = prepare(tmp_path / "a.npz", "coco", 640, 480, confidence=True)
    np.testing.assert_allclose(confident[..., 2], 0.9)
    np.savez(tmp_path / "b.npz", keypoints=person[..., :2])
    assert (prepare(tmp_path / "b.npz", "coco", 640, 480, confidence=True)[..., 2] == 1).all()


def test_short_clips_are_said_to_be_short(
    run: Path, person: np.ndarray, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    np.savez(tmp_path / "a.npz", keypoints=person[:4], width=640, height=480)
    with caplog.at_level(logging.WARNING):
        main([str(tmp_path / "a.npz"), str(tmp_path / "p.npz"), "--checkpoint", str(run)])
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
        ("gap", "3 of 20 frames have no person (all keypoints 0), the first is frame 0; --fill-gaps"),
        ("joints", "14 joints a frame, the models know 17"),
        ("empty", "empty clip"),
    ],
)
def test_bad_keypoints(
    run: Path, person: np.ndarray, tmp_path: Path, capsys: pytest.CaptureFixture[str], what: str, message: str
) -> None:
    np.savez(tmp_path / "a.npz", keypoints=changed(person, what), width=640, height=480)
    assert message in error_of(capsys, tmp_path / "a.npz", tmp_path / "p.npz", "--checkpoint", run)
    assert not (tmp_path / "p.npz").exists()


def test_gaps_are_filled_on_request(person: np.ndarray, caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.WARNING):
        filled = fill_gaps(changed(person, "gap"), "here")
    assert "3 of 20 frames had no person" in caplog.text
    assert np.array_equal(filled[0], person[1]), "the first person seen"
    np.testing.assert_allclose(filled[7], person[6] + (person[9] - person[6]) / 3, rtol=1e-5)
    kept = [1, 2, 3, 4, 5, 6, *range(9, 20)]
    assert np.array_equal(filled[kept], person[kept])
    nan = changed(person, "nan")
    np.testing.assert_allclose(fill_gaps(nan, "here")[3], (person[2] + person[4]) / 2, rtol=1e-5)
    with pytest.raises(LiftingDataError, match="no frame has a person"):
        fill_gaps(changed(person, "zero"), "here")


@pytest.mark.parametrize(
    ("name", "text", "message"),
    [
        ("a.txt", "", "a .json or .npz file"),
        ("a.json", "{", "not JSON"),
        ("a.json", '{"joints": []}', "no 'keypoints'; it has joints"),
        ("a.json", "[[[1, 2], [3, 4]], [[1, 2]]]", "the same for every frame"),
        ("a.json", '[{"keypoints": [1, 2, 3]}]', "image_id and keypoints"),
        (
            "a.json",
            '[{"image_id": 1, "keypoints": []}, {"image_id": 1, "keypoints": []}]',
            "picture 1 has several persons",
        ),
        ("a.json", '{"keypoints": [], "width": "wide"}', "width='wide'"),
        ("none.json", None, "cannot be read"),
        ("none.npz", None, "cannot be read"),
    ],
)
def test_files_that_cannot_be_read(tmp_path: Path, name: str, text: str | None, message: str) -> None:
    if text is not None:
        (tmp_path / name).write_text(text)
    with pytest.raises(LiftingDataError, match=message):
        read_keypoints(tmp_path / name)


def test_other_errors(run: Path, person: np.ndarray, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    source = tmp_path / "a.npz"
    np.savez(source, keypoints=person)
    assert "how large the picture is" in error_of(capsys, source, tmp_path / "p.npz", "--checkpoint", run)
    size = ["--width", 640, "--height", 480]
    assert "does not exist" in error_of(capsys, source, tmp_path / "p.npz", "--checkpoint", tmp_path / "no", *size)
    assert ".npz or .json is expected" in error_of(capsys, source, tmp_path / "p.txt", "--checkpoint", run, *size)
    with pytest.raises(LiftingDataError, match="cannot be written"):
        write_poses(np.zeros((1, 17, 3), np.float32), tmp_path / "none" / "p.npz")
    weights = next((run / "checkpoints").glob("step-*/model.safetensors"))
    message = error_of(capsys, source, tmp_path / "p.npz", "--checkpoint", weights, "--config", "mixste", *size)
    assert "model.safetensors" in message


def test_a_picture_needs_matplotlib(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from cycledistill.integrations.human36m.draw import draw_poses

    poses = np.zeros((3, 17, 3), np.float32)
    with pytest.raises(ValueError, match="no poses"):
        draw_poses({}, tmp_path / "a.png")
    monkeypatch.setitem(sys.modules, "matplotlib.figure", None)
    with pytest.raises(ConfigError, match="pip install matplotlib"):
        draw_poses({"a": poses}, tmp_path / "a.png")
    assert not (tmp_path / "a.png").exists()
