"""The report on a lifting run reads its checkpoint, its scores and a file of keypoints."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

pytest.importorskip("accelerate")

from cycledistill.commands.frame import main
from cycledistill.insight.measures import attention_maps
from cycledistill.insight.report import insight_report
from cycledistill.insight.subject import open_subject
from cycledistill.integrations.human36m.errors import LiftingDataError
from cycledistill.integrations.human36m.insight import open_checkpoint
from cycledistill.integrations.human36m.recipe import load_recipe
from cycledistill.integrations.human36m.train import train
from cycledistill.recipes.errors import CheckpointError
from cycledistill.recipes.weights.checkpoint import find_checkpoint
from tests.human36m.people import coco_person

TINY = {
    "model": {"name": "motionbert", "options": {"dim": 16, "depth": 2, "heads": 2, "dim_rep": 16}},
    "cyclic": {"cycles": 2},
    "data": {
        "source": "generated", "sequences": 2, "length": 12, "views": 2, "frames": 9, "batch_size": 4,
        "confidence": True,
    },
    "loss": {"name": "motionbert"},
    "schedule": {"epochs": 1, "warmup_steps": 1},
    "evaluate": {"every": 1, "exits": [1, 2]},
    "run": {"device": "cpu", "progress": False},
}  # fmt: skip


def trained(folder: Path, **overrides: Any) -> Path:
    named = {name.replace("__", "."): value for name, value in overrides.items()}
    train(load_recipe(TINY, {"run.output": str(folder), **named}))
    return folder


def keypoints(file: Path, frames: int = 12, **more: Any) -> Path:
    pixels = coco_person(frames).tolist()
    file.write_text(json.dumps({"keypoints": pixels, **more}))
    return file


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return trained(tmp_path_factory.mktemp("lifting") / "run")


@pytest.mark.slow
def test_attention_over_frames_and_over_joints_by_cycle(run: Path, tmp_path: Path, capsys: Any) -> None:
    pytest.importorskip("matplotlib")
    file, out = keypoints(tmp_path / "a.json", width=640, height=480), tmp_path / "page.html"
    assert main(["insight", str(run), "--image", str(file), "--output", str(out)]) == 0
    page = out.read_text()
    for text in (
        "Attention over 9 frames",
        "Attention over 17 joints",
        "Tokens before and after each cycle",
        "MPJPE (mean over frames), mm, by cycles at inference",
        "generated",
    ):
        assert text in page
    found = open_subject(run)
    inputs, picture = found.prepare(file)
    assert inputs.shape == (1, 9, 17, 3) and picture is None
    recorded = json.loads((find_checkpoint(run) / "recipe.json").read_text())["metrics"]["exits"]
    assert found.scores is not None
    assert dict(found.scores.values) == {int(key): each["mpjpe_frame_mean"] for key, each in recorded.items()}
    # two streams, each over joints and over frames; the gate between them, a softmax too, is no attention
    maps = attention_maps(found.model, inputs, mean=True)
    assert [(m.cycle, m.layer, m.part, m.weights.shape[-1]) for m in maps[:4]] == [
        (1, 0, 0, 17), (1, 0, 1, 9), (1, 0, 2, 9), (1, 0, 3, 17),
    ]  # fmt: skip
    assert len(maps) == 2 * 2 * 4


def test_the_window_is_around_the_middle_and_short_clips_are_filled(run: Path, tmp_path: Path) -> None:
    found = open_checkpoint(run)
    assert found is not None
    size = {"width": 640, "height": 480}
    long = found.prepare(keypoints(tmp_path / "long.json", 21, **size))[0]
    cut = json.loads((tmp_path / "long.json").read_text())["keypoints"][10 - 4 : 10 + 5]
    (tmp_path / "cut.json").write_text(json.dumps({"keypoints": cut, **size}))
    assert (long == found.prepare(tmp_path / "cut.json")[0]).all()
    short = found.prepare(keypoints(tmp_path / "short.json", 3, **size))[0][0]
    assert (short[:4] == short[3]).all() and (short[5:] == short[5]).all()


@pytest.mark.slow
def test_a_plain_run_and_one_with_an_hourglass(tmp_path: Path) -> None:
    pytest.importorskip("matplotlib")
    file = keypoints(tmp_path / "a.json", width=640, height=480)
    plain = trained(tmp_path / "plain", cyclic__cycles=None, evaluate__exits=None)
    page = insight_report(open_subject(plain), [file])
    assert "none, a plain model" in page and "Attention over 9 frames" in page and "by cycles at inference" not in page
    glass = trained(tmp_path / "glass", hourglass__layer=1, hourglass__keep=4)
    assert "Attention over 4 kept frames" in insight_report(open_subject(glass), [file])


def test_what_cannot_be_shown(run: Path, tmp_path: Path) -> None:
    found = open_checkpoint(run)
    assert found is not None
    with pytest.raises(LiftingDataError, match="write `width` and `height`"):
        found.prepare(keypoints(tmp_path / "a.json"))
    with pytest.raises(LiftingDataError, match="file of keypoints is expected"):
        found.prepare(tmp_path / "photo.jpg")
    stored = {"command": "imagenet", "recipe": {"model": {"name": "test_vit"}}}
    (tmp_path / "recipe.json").write_text(json.dumps(stored))
    assert open_checkpoint(tmp_path) is None
    stored = {"command": "human36m", "recipe": {"hourglass": {"layer": "first"}}}
    (tmp_path / "recipe.json").write_text(json.dumps(stored))
    with pytest.raises(CheckpointError, match="no recipe of this library"):
        open_checkpoint(tmp_path)
