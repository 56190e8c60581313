"""The three recipes on a GPU, in bfloat16, eager and in graphs: stopped and gone on with, they end in the same bits."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import pytest
import torch

from tests.recipes.run_checks import assert_same_state, changing, in_graphs, last, rows

pytestmark = pytest.mark.gpu


class Run(NamedTuple):
    """How a recipe is trained, changed and read, and a small one with every random thing on: two epochs of steps."""

    train: Callable[..., dict[str, Any]]
    load: Callable[..., Any]
    recipe: dict[str, Any]


def imagenet(folder: Path) -> Run:
    pytest.importorskip("pyarrow")
    from cycledistill.integrations.imagenet.recipe import load_recipe
    from cycledistill.integrations.imagenet.train import train
    from tests.imagenet.pictures import SIZE, picture, write_parquet

    for split, count in (("train", 40), ("validation", 10)):
        labels = [number % 2 for number in range(count)]
        pictures = [picture(label, number) for number, label in enumerate(labels)]
        write_parquet(folder / f"{split}.parquet", pictures, labels, ["dark", "pale"])
    options = {"patch_size": 8, "depth": 2}
    return Run(
        train,
        load_recipe,
        {
            "model": {"name": "test_vit", "img_size": SIZE, "drop": 0.1, "drop_path": 0.2, "kwargs": options},
            "data": {"dir": str(folder), "batch_size": 8, "workers": 2},
            "schedule": {"epochs": 2, "warmup_epochs": 1, "per_step": True},
            "ema": {"decay": 0.9},
        },
    )


def coco(folder: Path) -> Run:
    pytest.importorskip("pycocotools")
    from cycledistill.integrations.coco.recipe import load_recipe
    from cycledistill.integrations.coco.train import train
    from tests.coco.figures import SIZE, write_dots

    write_dots(folder / "dots", pictures=12)
    places = {f"{part}_{kind}": f"annotations/{part}.json" for part in ("train", "val") for kind in ["annotations"]}
    places |= {"train_images": "pictures", "val_images": "pictures"}
    options = {"image_size": list(SIZE), "patch_size": [4, 2], "dim": 16, "depth": 2, "heads": 2}
    return Run(
        train,
        load_recipe,
        {
            "model": {"name": "sdpose_s_v1", "options": options},
            "data": {"root": str(folder / "dots"), **places, "detections": None, "batch_size": 5, "workers": 2},
            "schedule": {"epochs": 2, "milestones": [1], "warmup_steps": 2},
            "ema": {"enabled": True, "decay": 0.9},
            "evaluate": {"every": 1, "exits": [1, 2], "batch_size": 8},
        },
    )


def human36m(folder: Path) -> Run:
    from cycledistill.integrations.human36m.recipe import load_recipe
    from cycledistill.integrations.human36m.train import train

    data = {"sequences": 4, "length": 18, "views": 3, "frames": 9, "flip": "random", "batch_size": 5}
    return Run(
        train,
        load_recipe,
        {
            "model": {"name": "mixste", "options": {"dim": 16, "depth": 3, "heads": 2}},
            "hourglass": {"layer": 1, "keep": 3},
            "cyclic": {"cycles": 2},
            "data": {"source": "generated", **data},
            "schedule": {"epochs": 2, "decay": 0.5, "warmup_steps": 2},
            "ema": {"enabled": True, "decay": 0.9},
            "evaluate": {"every": 1, "exits": [1, 2]},
        },
    )


@pytest.mark.parametrize("step", ["none", "graph"])
@pytest.mark.parametrize("kind", [imagenet, coco, human36m], ids=lambda kind: kind.__name__)
def test_a_stopped_run_ends_as_one_that_was_not(
    kind: Callable[[Path], Run],
    step: str,
    tmp_path: Path,
    device: torch.device,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    pytest.importorskip("accelerate")
    if device.type != "cuda":
        in_graphs(monkeypatch)  # tapes stand in for them
    run = kind(tmp_path)
    change = changing(run.load)
    general = {"device": device.type, "precision": "bf16", "compile": step, "log_every": 1, "progress": False}
    recipe = run.load({**run.recipe, "run": general})
    whole, parts = (change(recipe, run__output=str(tmp_path / name)) for name in ("whole", "parts"))
    assert run.train(whole)["finished"]
    stop = len(rows(whole)) // 2 + 1  # inside the second epoch
    assert run.train(change(parts, run__max_steps=stop))["step"] == stop
    torch.manual_seed(123)  # a new process has other generators
    run.train(parts, resume="auto")
    assert "steps run eagerly" not in caplog.text  # a run that can have no graphs goes on without them
    assert_same_state(last(whole), last(parts))
    assert rows(parts) == rows(whole)
    assert [row for row in rows(parts, "eval") if row["step"] != stop] == rows(whole, "eval")
    weights = torch.cat([each.flatten() for each in _weights(last(whole)).values() if each.is_floating_point()])
    assert bool(torch.isfinite(weights).all())


def _weights(checkpoint: Path) -> dict[str, torch.Tensor]:
    from safetensors.torch import load_file

    return load_file(checkpoint / "model.safetensors")
