"""Small image sets and a run that takes a second or two."""

from __future__ import annotations

from pathlib import Path

import pytest

pytest.importorskip("timm")
pytest.importorskip("pyarrow")
pytest.importorskip("accelerate")

from cycledistill.integrations.imagenet.recipe import Recipe, load_recipe
from tests.imagenet.pictures import SIZE, picture, write_parquet


@pytest.fixture(scope="session")
def parquet_dir(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("parquet")
    for split, count in (("train", 18), ("validation", 10)):
        labels = [i % 2 for i in range(count)]
        write_parquet(
            folder / f"{split}.parquet", [picture(x, i) for i, x in enumerate(labels)], labels, ["dark", "pale"]
        )
    return folder


@pytest.fixture
def folder_dir(tmp_path: Path) -> Path:
    folder = tmp_path / "images"
    for split, count in (("train", 9), ("val", 5)):
        for label, name in enumerate(("dark", "pale")):
            place = folder / split / name
            place.mkdir(parents=True)
            for number in range(count):
                (place / f"{number}.jpg").write_bytes(picture(label, number))
    return folder


@pytest.fixture
def tiny(parquet_dir: Path, tmp_path: Path) -> Recipe:
    """Two epochs of four steps, with every random thing switched on."""
    return load_recipe(
        {
            "model": {
                "name": "test_vit",
                "img_size": SIZE,
                "drop": 0.1,
                "drop_path": 0.2,
                "kwargs": {"patch_size": 8, "depth": 2},
            },
            "data": {"dir": str(parquet_dir), "batch_size": 4, "workers": 0, "repeats": 2},
            "schedule": {"epochs": 2, "warmup_epochs": 1, "per_step": True},
            "optim": {"lr": 0.1},
            "ema": {"decay": 0.9},
            "run": {"output": str(tmp_path / "run"), "device": "cpu", "log_every": 3, "progress": False},
        }
    )
