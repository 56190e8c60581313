"""Two and four processes train as one does on the whole batch, and a run goes on in another number of them.

Compared are the weights, and Adam's running means of the gradients, which are those of all processes together.
"""

from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import pytest
import torch
from safetensors.torch import load_file
from torch import Tensor, nn

pytest.importorskip("accelerate")
pytest.importorskip("pyarrow")
pytest.importorskip("pycocotools")
pytest.importorskip("timm")

from cycledistill.integrations.coco import recipe as coco
from cycledistill.integrations.coco.training.session import Session as CocoSession
from cycledistill.integrations.human36m import recipe as human36m
from cycledistill.integrations.human36m.training.session import Session as Human36MSession
from cycledistill.integrations.imagenet import recipe as imagenet
from cycledistill.integrations.imagenet.training.session import Session as ImagenetSession
from cycledistill.recipes.run.loop import run_training
from cycledistill.recipes.run.seeding import STEP, derive_seed, seed_all
from cycledistill.recipes.weights.checkpoint import read_state
from tests.coco.figures import SIZE, write_dots
from tests.imagenet.pictures import picture, write_parquet
from tests.recipes.run_checks import last
from tests.spawn import run

pytestmark = pytest.mark.slow

WORLDS = (2, 4)
GRADIENTS, WEIGHTS = 1e-5, 1e-5
"""Of the largest gradient, and absolute; docs/distributed.md states them."""


class FrozenNorms(CocoSession):
    """BatchNorm normalises by its running statistics, as it does where it is frozen."""

    def prepare(self) -> tuple[float, dict[str, float]]:
        for module in self.task.modules():
            if isinstance(module, nn.BatchNorm2d):
                module.eval()
        return super().prepare()


class MixedByShares(ImagenetSession):
    """One process that mixes its batch as ``shares`` processes do: each its own images, by its own random numbers."""

    shares = 1

    def inputs(self, batch: tuple[Tensor, Tensor]) -> tuple[Tensor, Tensor]:
        parts = []
        for rank in range(self.shares):
            seed_all(derive_seed(self.recipe.run.seed, STEP, self.step, rank))
            images, target = (each[rank :: self.shares].contiguous() for each in batch)
            parts.append(super().inputs((images, target)))
        return torch.cat([images for images, _ in parts]), torch.cat([target for _, target in parts])


def shared_by(shares: int) -> type[ImagenetSession]:
    return type("MixedByShares", (MixedByShares,), {"shares": shares})


class Case(NamedTuple):
    """A run, by its recipe in one process."""

    load: Callable[..., Any]
    session: type[Any]
    recipe: dict[str, Any]
    batch: int = 8

    def at(self, folder: Path, processes: int, **keys: Any) -> Any:
        overrides = {name.replace("__", "."): value for name, value in keys.items()}
        return self.load(
            self.recipe, {"data.batch_size": self.batch // processes, "run.output": str(folder), **overrides}
        )


def cases(data: Path) -> dict[str, Case]:
    once = {"every": 10, "exits": [1]}
    run_ = {"device": "cpu", "log_every": 1, "progress": False, "max_steps": 3}
    return {
        "imagenet": Case(imagenet.load_recipe, ImagenetSession, {
            "model": {"name": "test_vit", "img_size": 24, "drop": 0.0, "drop_path": 0.0,
                      "kwargs": {"patch_size": 8, "depth": 2}},
            "data": {"dir": str(data / "images"), "workers": 0, "repeats": 2},
            "schedule": {"epochs": 2, "warmup_epochs": 0, "per_step": True},
            "optim": {"lr": 0.05}, "ema": {"enabled": False}, "evaluate": {**once}, "run": run_,
        }),
        "human36m": Case(human36m.load_recipe, Human36MSession, {
            "model": {"name": "frame_lifter", "options": {"dim": 16, "depth": 2, "heads": 2, "dropout": 0.0}},
            "cyclic": {"cycles": 2},
            # of clips of 11 frames every second window repeats the last frame, and counts for less
            "data": {"source": "generated", "sequences": 3, "length": 11, "views": 2, "frames": 9, "flip": "both"},
            "optim": {"lr": 1e-3}, "schedule": {"epochs": 2, "warmup_steps": 0}, "evaluate": once, "run": run_,
        }),
        "coco": Case(coco.load_recipe, FrozenNorms, {
            "model": {"name": "sdpose_s_v1", "options": {"image_size": list(SIZE), "patch_size": [4, 4], "dim": 16,
                                                         "depth": 2, "heads": 2}},
            "data": {"root": str(data / "dots"), "train_annotations": "annotations/train.json",
                     "train_images": "pictures", "val_annotations": "annotations/val.json", "val_images": "pictures",
                     "detections": None, "workers": 0},
            "optim": {"lr": 1e-3}, "schedule": {"epochs": 2, "warmup_steps": 0},
            "evaluate": {**once, "batch_size": 8}, "run": run_,
        }),
    }  # fmt: skip


def all_runs(rank: int, world: int, data: Path, folder: Path) -> dict[str, dict[str, Tensor]]:
    """Every case, then one that stops and one that goes on; the task's state at the end of each."""
    found: dict[str, dict[str, Tensor]] = {}

    def go(name: str, case: Case, output: Path, resume: str | None = None, **keys: Any) -> None:
        class Kept(case.session):  # type: ignore[misc, name-defined]
            def save(self) -> Path | None:
                found[name] = {key: value.clone() for key, value in self.task.state_dict().items()}
                return super().save()  # type: ignore[no-any-return]

        run_training(Kept, case.at(output, world, **keys), resume)

    for name, case in cases(data).items():
        go(name, case, folder / f"{name}-{world}")
    case = cases(data)["human36m"]
    go("cut", case, folder / f"cut-{world}", run__max_steps=2)
    go("gone on", case, folder / f"one-cut-{world}", "auto")
    return found


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("data")
    write_dots(folder / "dots", pictures=12)
    (folder / "images").mkdir()
    for split, count in (("train", 24), ("validation", 8)):
        labels = [i % 2 for i in range(count)]
        images = [picture(label, i) for i, label in enumerate(labels)]
        write_parquet(folder / "images" / f"{split}.parquet", images, labels, ["dark", "pale"])
    return folder


@pytest.fixture(scope="module")
def alone(data: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The runs of one process; of imagenet one for each number of shares."""
    folder = tmp_path_factory.mktemp("runs")
    for name, case in cases(data).items():
        for world in WORLDS if name == "imagenet" else (1,):
            session = shared_by(world) if name == "imagenet" else case.session
            run_training(session, case.at(folder / f"{name}-alone-{world}", 1), None)
    run_training(Human36MSession, cases(data)["human36m"].at(folder / "one-cut-2", 1, run__max_steps=2), None)
    shutil.copytree(folder / "one-cut-2", folder / "one-cut-4")
    return folder


@pytest.fixture(scope="module", params=WORLDS)
def several(request: pytest.FixtureRequest, data: Path, alone: Path) -> tuple[int, list[dict[str, dict[str, Tensor]]]]:
    """The runs of several processes: how many, and each one's states."""
    torch.set_num_threads(1)
    return request.param, run(all_runs, data, alone, world=request.param)


def assert_equal_training(one: Any, other: Any) -> None:
    states = [read_state(last(recipe) / "state.pt")["optimizer"]["state"] for recipe in (one, other)]
    assert states[0].keys() == states[1].keys()
    largest = max(float(each["exp_avg"].abs().max()) for each in states[0].values())
    off = max(float((each["exp_avg"] - states[1][key]["exp_avg"]).abs().max()) for key, each in states[0].items())
    assert 0 < off / largest <= GRADIENTS
    weights = [load_file(last(recipe) / "model.safetensors") for recipe in (one, other)]
    for name, value in weights[0].items():
        apart = (value - weights[1][name]).abs()
        if name.endswith("qkv.bias"):  # a softmax does not see the keys' bias: its gradient is rounding, and Adam's
            query, key, value = apart.chunk(3)  # steps of it are anything up to the learning rate
            assert key.max() <= 3 * one.optim.lr
            apart = torch.cat([query, value])
        assert apart.max() <= WEIGHTS, name


@pytest.mark.parametrize("name", ["imagenet", "human36m", "coco"])
def test_several_processes_are_one_of_the_whole_batch(name: str, several: Any, data: Path, alone: Path) -> None:
    world, ranks = several
    for rank in ranks[1:]:
        assert all(torch.equal(value, rank[name][key]) for key, value in ranks[0][name].items())
    case = cases(data)[name]
    one = case.at(alone / f"{name}-alone-{world if name == 'imagenet' else 1}", 1)
    assert_equal_training(one, case.at(alone / f"{name}-{world}", world))


def test_a_run_goes_on_in_another_number_of_processes(several: Any, data: Path, alone: Path) -> None:
    world, _ = several
    case = cases(data)["human36m"]
    one = case.at(alone / "human36m-alone-1", 1)
    assert_equal_training(one, case.at(alone / f"one-cut-{world}", world))
    cut = case.at(alone / f"cut-{world}", 1)
    run_training(Human36MSession, cut, "auto")
    assert_equal_training(one, cut)
