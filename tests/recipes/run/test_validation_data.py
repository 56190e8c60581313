"""Validation data that cannot be read ends a run before its first step, not after its first epoch."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest

pytest.importorskip("accelerate")
pytest.importorskip("pyarrow")
pytest.importorskip("pycocotools")
pytest.importorskip("timm")

from cycledistill.integrations.coco.recipe import load_recipe as coco_recipe
from cycledistill.integrations.coco.train import train as train_coco
from cycledistill.integrations.human36m.recipe import load_recipe as human36m_recipe
from cycledistill.integrations.human36m.train import train as train_human36m
from cycledistill.integrations.human36m.training import session as human36m_session
from cycledistill.integrations.imagenet.recipe import load_recipe as imagenet_recipe
from cycledistill.integrations.imagenet.train import train as train_imagenet
from cycledistill.recipes.errors import DataError
from cycledistill.recipes.run.session import TrainingSession
from tests.coco.figures import SIZE, write_dots
from tests.imagenet.pictures import picture


@pytest.fixture(autouse=True)
def no_step(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(TrainingSession, "save", lambda self: pytest.fail("an epoch was trained"))


def run_section(folder: Path) -> dict[str, object]:
    return {"output": str(folder / "run"), "device": "cpu", "progress": False}


@pytest.mark.parametrize(
    ("broken", "policy"), [("missing", "stop"), ("second", "stop"), ("all", "skip")], ids=lambda word: word
)
def test_persons(tmp_path: Path, broken: str, policy: str) -> None:
    root = write_dots(tmp_path / "dots")
    shutil.copytree(root / "pictures", root / "others")
    first, second, *_ = sorted((root / "others").iterdir())
    if broken == "second":
        second.write_bytes(second.read_bytes()[:50])
    for file in {"missing": [first], "second": [], "all": (root / "others").iterdir()}[broken]:
        file.unlink()
    recipe = coco_recipe(
        {
            "model": {"name": "sdpose_s_v1", "options": {"image_size": list(SIZE), "backbone": "none",
                                                         "patch_size": [8, 8], "dim": 16, "depth": 2, "heads": 2}},
            "data": {"root": str(root), "train_annotations": "annotations/train.json", "train_images": "pictures",
                     "val_annotations": "annotations/val.json", "val_images": "others", "detections": None,
                     "broken_images": policy, "batch_size": 3, "workers": 0},
            "evaluate": {"every": 1, "exits": [1], "batch_size": 4}, "run": run_section(tmp_path),
        }
    )  # fmt: skip
    with pytest.raises(DataError, match=rf"others/{second.name if broken == 'second' else first.name}"):
        train_coco(recipe)


def test_images(tmp_path: Path) -> None:
    for split in ("train", "val"):
        for label, name in enumerate(("dark", "pale")):
            place = tmp_path / "images" / split / name
            place.mkdir(parents=True)
            for number in range(3):
                (place / f"{number}.jpg").write_bytes(picture(label, number)[: 9 if split == "val" else None])
    recipe = imagenet_recipe(
        {
            "model": {"name": "test_vit", "img_size": 24, "kwargs": {"patch_size": 8, "depth": 2}},
            "data": {"dir": str(tmp_path / "images"), "batch_size": 2, "workers": 0, "repeats": 1},
            "schedule": {"epochs": 1, "warmup_epochs": 0}, "run": run_section(tmp_path),
        }
    )  # fmt: skip
    with pytest.raises(DataError, match=r"val/dark/0\.jpg"):
        train_imagenet(recipe)


def test_clips(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    opened = human36m_session.open_clips
    monkeypatch.setattr(human36m_session, "open_clips", lambda data: [opened(data)[0], []])
    recipe = human36m_recipe(
        {
            "model": {"name": "frame_lifter", "options": {"dim": 8, "depth": 2, "heads": 2}},
            "data": {"source": "generated", "sequences": 2, "length": 18, "views": 2, "frames": 9, "batch_size": 2},
            "schedule": {"epochs": 1}, "run": run_section(tmp_path),
        }
    )  # fmt: skip
    with pytest.raises(DataError, match="no clips"):
        train_human36m(recipe)
    assert "train" not in json.dumps((tmp_path / "run" / "log.jsonl").read_text())
