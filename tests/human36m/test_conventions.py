"""What the numbers of weights mean: said by every file, and followed where models are measured and used."""

from __future__ import annotations

import json
import logging
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn

pytest.importorskip("accelerate")

from safetensors import safe_open

from cycledistill.commands.frame import main
from cycledistill.integrations.human36m import create_lifter, load_lifter_weights, save_lifter_weights
from cycledistill.integrations.human36m.data.cameras import Camera
from cycledistill.integrations.human36m.data.clips import Clip, make_clip
from cycledistill.integrations.human36m.data.motion import generate_motion
from cycledistill.integrations.human36m.errors import LiftingDataError
from cycledistill.integrations.human36m.evaluation.measure import EvalSettings, evaluate
from cycledistill.integrations.human36m.lift import lift, prepare
from cycledistill.integrations.human36m.models.convention import H36M, MOTIONBERT, Convention
from cycledistill.integrations.human36m.recipe import load_recipe
from cycledistill.integrations.human36m.train import train
from cycledistill.integrations.human36m.trained import evaluate_trained, load_trained
from cycledistill.integrations.human36m.training.build import eval_settings
from cycledistill.integrations.human36m.weights.key_map import to_official
from cycledistill.recipes.errors import CheckpointError
from tests.human36m.people import coco_person

FRAMES = 9
SMALL: dict[str, Any] = {"frames": FRAMES, "dim": 16, "depth": 2, "heads": 2, "dim_rep": 16}
FOCAL, WIDTH, HEIGHT = 1145.0, 1000, 1002


def walk_to_the_camera() -> tuple[Clip, np.ndarray]:
    """A clip whose person comes nearer, and what MotionBERT's labels of it are, from their definition.

    The labels: x and y in pixels by a pinhole, the depth in pixels as a rectangle of two metres at the root's distance
    is drawn (mmpose's ``camera_to_image_coord``), all over half the width, relative to the root.
    """
    (motion,) = generate_motion(1, 25, first=0)
    points = (motion.world - motion.world[:, :1]).astype(float) * [1, -1, -1]
    points += np.stack([np.linspace(-0.8, 0.6, 25), np.full(25, 0.2), np.linspace(6, 3, 25)], axis=-1)[:, None]
    camera = Camera("one", np.eye(3), np.zeros(3), [FOCAL, FOCAL], [512.0, 515.0], (WIDTH, HEIGHT))
    clip = make_clip("S", "walking", "walk", np.random.default_rng(0).random((25, 17, 2)), points, camera)
    labels = np.empty_like(points)
    for frame, joints in enumerate(points):
        left, right = (FOCAL * (joints[0, 0] + side) / joints[0, 2] for side in (-1, 1))
        labels[frame, :, :2] = FOCAL * joints[:, :2] / joints[:, 2:]
        labels[frame, :, 2] = (right - left) / 2.0 * joints[:, 2]
    labels = (labels - labels[:, :1]) / (WIDTH / 2)
    return clip, labels.astype(np.float32)


class Answers(nn.Module):
    """Gives each frame of a clip the pose it is told."""

    def __init__(self, clip: Clip, poses: np.ndarray, convention: Convention) -> None:
        super().__init__()
        self.weight, self.convention = nn.Parameter(torch.zeros(())), convention
        self.known = {seen.tobytes(): torch.from_numpy(pose) for seen, pose in zip(clip.inputs, poses, strict=True)}

    def forward(self, inputs: Tensor) -> Tensor:
        return torch.stack([torch.stack([self.known[frame.numpy().tobytes()] for frame in clip]) for clip in inputs])


@pytest.mark.parametrize("mode", ["sequence", "centre"])
@pytest.mark.parametrize("border", ["mask", "official"])
def test_a_perfect_output_in_picture_units_scores_zero(mode: Any, border: Any) -> None:
    clip, labels = walk_to_the_camera()
    settings = EvalSettings(FRAMES, mode, flip=False, border=border)
    found = evaluate(Answers(clip, labels, MOTIONBERT), [clip], settings=settings)[1]
    assert found["mpjpe_frame_mean"] < 0.01 and found["velocity_frame_mean"] < 0.01
    taken_for_metres = evaluate(Answers(clip, labels, H36M), [clip], settings=settings)[1]
    assert taken_for_metres["mpjpe_frame_mean"] > 100
    # off by a pixel of x: millimetres as far as a pixel is at the person, which authors multiply errors by
    off = labels.copy()
    off[:, 1:, 0] += 2 / WIDTH
    found = evaluate(Answers(clip, off, MOTIONBERT), [clip], settings=settings)[1]
    frames = np.arange(25) if mode == "centre" or border == "mask" else np.clip(np.arange(-1, 26), 0, 24)
    millimetres = 1000 * np.linspace(6, 3, 25)[frames] / FOCAL * 16 / 17
    assert found["mpjpe_frame_mean"] == pytest.approx(millimetres.mean(), rel=1e-3)


def test_a_root_that_is_given_a_place_is_subtracted() -> None:
    clip, labels = walk_to_the_camera()
    moved = labels + np.array([0.3, -0.2, 1.0], np.float32)
    settings = EvalSettings(FRAMES, flip=False)
    given = Convention(unit="picture", root="given")
    assert evaluate(Answers(clip, moved, given), [clip], settings=settings)[1]["mpjpe_frame_mean"] < 0.01
    zero = evaluate(Answers(clip, moved, MOTIONBERT), [clip], settings=settings)[1]
    assert zero["mpjpe_frame_mean"] > 1000


def test_picture_units_need_a_camera() -> None:
    clip, labels = walk_to_the_camera()
    bare = Clip(clip.subject, clip.action, clip.name, clip.inputs, clip.targets)
    with pytest.raises(LiftingDataError, match="walk: the weights give poses in picture units .* this clip has none"):
        evaluate(Answers(clip, labels, MOTIONBERT), [bare], settings=EvalSettings(FRAMES))


def test_lifting_in_picture_units_needs_a_height() -> None:
    clip, labels = walk_to_the_camera()
    model, settings = Answers(clip, labels, MOTIONBERT), EvalSettings(FRAMES, flip=False)
    with pytest.raises(LiftingDataError, match=r"half widths of the picture.*--person-height"):
        lift(model, clip.inputs, settings)
    bones = [np.linalg.norm(np.diff(clip.targets[:, chain], axis=1), axis=-1).sum(axis=1) for chain in
             ([4, 5, 6], [1, 2, 3], [0, 7, 8, 9, 10])]  # fmt: skip
    height = float(
        ((bones[0] + bones[1]) / 2 + bones[2]).mean() / 0.961
    )  # the figure's bones are as long in all frames
    poses = lift(model, clip.inputs, settings, person_height=height)
    # right up to perspective, which picture units keep: a few centimetres at three metres, whatever the distance
    assert np.linalg.norm(poses - clip.targets, axis=-1).mean() < 0.03
    with pytest.raises(LiftingDataError, match="170 metres tall"):
        lift(model, clip.inputs, settings, person_height=170)


# ------------------------------------------------------------------------------------------------------ files
def words(path: Path) -> dict[str, Any]:
    with safe_open(path, "pt") as file:
        found: dict[str, Any] = json.loads((file.metadata() or {})["convention"])
    return found


def official(folder: Path, name: str, **options: Any) -> Path:
    model = create_lifter(name, **options)
    torch.save({"model_pos": to_official(model.state_dict(), model)}, folder / f"{name}.bin")
    return folder / f"{name}.bin"


def run_convert(source: Path, target: Path, name: str, options: dict[str, Any], *more: str) -> int:
    return main(
        [
            "convert",
            "human36m",
            str(source),
            str(target),
            f"--model={name}",
            *(f"--option={k}={v}" for k, v in options.items()),
            *more,
        ]
    )


MIXSTE = {"frames": FRAMES, "dim": 16, "depth": 2, "heads": 2}


def test_converted_weights_say_what_their_numbers_mean(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    file, ours = official(tmp_path, "motionbert", **SMALL), tmp_path / "ours.safetensors"
    assert run_convert(file, ours, "motionbert", SMALL) == 0
    assert "unit picture" in capsys.readouterr().out
    assert words(ours) == {"unit": "picture", "root": "zero", "joints": "h36m", "coco": "midpoints", "confidence": True,
                           "normalisation": "width", "frame_rate": 50.0}  # fmt: skip
    mixste = official(tmp_path, "mixste", **MIXSTE)
    assert run_convert(mixste, tmp_path / "mixste.safetensors", "mixste", MIXSTE) == 0
    found = words(tmp_path / "mixste.safetensors")
    assert (found["unit"], found["coco"], found["confidence"]) == ("metres", "extrapolated", False)
    given = ["--convention=root=given", "--convention=frame_rate=25"]
    assert run_convert(file, ours, "motionbert", SMALL, *given) == 0
    assert (words(ours)["root"], words(ours)["frame_rate"]) == ("given", 25)
    for wrong, message in (("unit=feet", "unit='feet'"), ("units=metres", "unknown: units"), ("unit", "KEY=VALUE")):
        assert run_convert(file, ours, "motionbert", SMALL, f"--convention={wrong}") == 2
        assert message in capsys.readouterr().err
    # back: a PyTorch file cannot say the unit, so it holds only what its readers take it for
    model = create_lifter("motionbert", **SMALL)
    save_lifter_weights(model, tmp_path / "metres.safetensors")
    metres, theirs = tmp_path / "metres.safetensors", tmp_path / "theirs.pth"
    assert run_convert(metres, theirs, "motionbert", SMALL, "--to=motionbert") == 2
    assert "'picture', these weights give 'metres'" in capsys.readouterr().err
    theirs = tmp_path / "theirs.safetensors"
    assert run_convert(metres, theirs, "motionbert", SMALL, "--to=motionbert") == 0
    load_lifter_weights(model, theirs)
    assert model.convention.unit == "metres"
    load_lifter_weights(model, file)
    assert model.convention == MOTIONBERT
    with pytest.raises(CheckpointError, match="tensors alone, and not that poses are in the unit 'picture'"):
        save_lifter_weights(model, tmp_path / "ours.pth")
    assert run_convert(file, tmp_path / "ours.pth", "motionbert", SMALL) == 2


def test_files_that_say_nothing_or_something_else(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    from cycledistill.recipes.weights.files import network_metadata, write_weights

    model = create_lifter("motionbert", **SMALL)
    file = tmp_path / "a.safetensors"
    write_weights(model.state_dict(), file, network_metadata(model.config))
    with caplog.at_level(logging.WARNING):
        load_lifter_weights(model, file)
    assert "does not say in which unit" in caplog.text and model.convention.unit == "metres"
    for text in ("{", "[]", '{"unit": "feet"}', '{"normalisation": "box"}', '{"scale": 1}', '{"frame_rate": 0.02}'):
        write_weights(model.state_dict(), file, network_metadata(model.config) | {"convention": text})
        with pytest.raises(CheckpointError, match=r"a\.safetensors: what it says of its unit and input is not known"):
            load_lifter_weights(model, file)


def test_the_hub_keeps_it() -> None:
    model = create_lifter("motionbert", **SMALL)
    model.convention = MOTIONBERT
    plain = json.loads(json.dumps(model.hub_config()))
    assert type(model).from_hub_config(plain).convention == MOTIONBERT
    assert "in half widths of the picture" in model.hub_facts().does
    del plain["convention"]  # published before there was one
    assert type(model).from_hub_config(plain).convention == Convention()
    assert "in metres, relative to the root" in create_lifter("mixste", **MIXSTE).hub_facts().does
    with pytest.raises(ValueError, match="unit='feet'"):
        type(model).from_hub_config(plain | {"convention": {"unit": "feet"}})


def recipe(folder: Path, overrides: Sequence[str] = (), **more: Any) -> Any:
    made = {
        "model.name": "motionbert", "model.options": {k: v for k, v in SMALL.items() if k != "frames"},
        "data.confidence": True, "data.frames": FRAMES, "data.sequences": 4, "data.length": 18, "data.views": 1,
        "run.max_steps": 1, "run.output": str(folder), "run.progress": False, "evaluate.batch_size": 4,
    }  # fmt: skip
    return load_recipe("frame_token_small", made | more)


@pytest.mark.slow
def test_a_run_gives_metres_whatever_it_started_from(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, capsys: pytest.CaptureFixture[str]
) -> None:
    start = official(tmp_path, "motionbert", **SMALL)
    with caplog.at_level(logging.WARNING):
        train(recipe(tmp_path / "run", **{"model.weights": str(start)}))
    assert "gives poses in the unit 'picture' and is trained on in 'metres'" in caplog.text
    (weights,) = (tmp_path / "run").glob("checkpoints/*/model.safetensors")
    assert (words(weights)["unit"], words(weights)["confidence"]) == ("metres", True)
    assert load_trained(tmp_path / "run").convention == Convention(frame_rate=50.0)
    # --evaluate and lift ask the file
    measured = evaluate_trained(recipe(tmp_path / "none"), str(start))
    assert measured["unit"] == "picture" and np.isfinite(measured["exits"][1]["mpjpe_frame_mean"])
    assert evaluate_trained(recipe(tmp_path / "none"), str(tmp_path / "run"))["unit"] == "metres"
    np.savez(tmp_path / "a.npz", keypoints=coco_person(), width=640, height=480, fps=25)
    (tmp_path / "r.yaml").write_text(json.dumps(recipe(tmp_path / "none").to_dict()))
    asked = ["predict", "human36m", str(start), str(tmp_path / "a.npz"), "--output", str(tmp_path / "p.npz")]
    asked += ["--config", str(tmp_path / "r.yaml")]
    assert main(asked) == 2
    assert "--person-height" in capsys.readouterr().err and not (tmp_path / "p.npz").exists()
    caplog.clear()
    with caplog.at_level(logging.INFO):
        assert main([*asked, "--person-height", "1.7"]) == 0
    assert "25 frames a second, and the model was trained on 50: 20 frames are lifted as 39" in caplog.text
    settings, seen = recipe(tmp_path / "none"), {"confidence": True, "coco": "midpoints"}
    inputs = prepare(tmp_path / "a.npz", **seen)
    model = load_trained(start, recipe=settings)
    by_hand = lift(model, inputs, eval_settings(settings), person_height=1.7, frame_rate=25)
    with np.load(tmp_path / "p.npz") as found:
        np.testing.assert_allclose(found["poses"], by_hand, atol=1e-6)  # the mapping is that of the weights
        legs = np.linalg.norm(np.diff(found["poses"][:, [0, 7, 8, 9, 10]], axis=1), axis=-1).sum(axis=1)
    assert (0.1 < legs).all() and (legs < 1.7).all(), "metres"
    assert main([*asked, "--person-height", "1.7", "--coco-mapping", "extrapolated"]) == 0
    with np.load(tmp_path / "p.npz") as found:
        assert not np.allclose(found["poses"], by_hand, atol=1e-4)
