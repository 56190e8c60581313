"""Whole runs: the loss falls, resume bit for bit, several processes, what is logged, and what checkpoints hold."""

from __future__ import annotations

import csv
import math
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file

pytest.importorskip("accelerate")
pytest.importorskip("pycocotools")

from cycledistill.integrations.coco.data.images import PoseDataError
from cycledistill.integrations.coco.models.tokenpose import TokenPose
from cycledistill.integrations.coco.recipe import Recipe, load_recipe
from cycledistill.integrations.coco.train import train
from cycledistill.integrations.coco.trained import evaluate_trained, load_trained
from cycledistill.recipes.errors import CheckpointError, NonFiniteLossError, RecipeError
from cycledistill.recipes.weights.checkpoint import read_recipe, read_state
from tests.coco.figures import SIZE, write_dots
from tests.recipes.run_checks import (
    assert_graphs_change_nothing,
    assert_same_state,
    changing,
    in_graphs,
    last,
    launch,
    rows,
)


@pytest.fixture(scope="session")
def dots(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_dots(tmp_path_factory.mktemp("dots") / "set")


@pytest.fixture
def tiny(dots: Path, tmp_path: Path) -> Recipe:
    """Two epochs of four steps of three persons."""
    return load_recipe(
        {
            "model": {
                "name": "sdpose_s_v1",
                "options": {
                    "image_size": list(SIZE),
                    "backbone": "none",
                    "patch_size": [8, 8],
                    "dim": 16,
                    "depth": 2,
                    "heads": 2,
                },
            },
            "data": {
                "root": str(dots),
                "train_annotations": "annotations/train.json",
                "train_images": "pictures",
                "val_annotations": "annotations/val.json",
                "val_images": "pictures",
                "detections": None,
                "batch_size": 3,
                "workers": 0,
            },
            "schedule": {"epochs": 2, "milestones": [1], "warmup_steps": 2},
            "ema": {"enabled": True, "decay": 0.9},
            "evaluate": {"every": 1, "exits": [1, 2], "batch_size": 8},
            "run": {"output": str(tmp_path / "run"), "device": "cpu", "log_every": 3, "progress": False},
        }
    )


COMMAND = "cycledistill.integrations.coco.train"
change = changing(load_recipe)


def test_resume_is_bit_exact(tiny: Recipe, tmp_path: Path) -> None:
    """From inside the second epoch, with other workers; all other places: tests/recipes/run/test_resume.py."""
    whole = change(tiny, run__output=str(tmp_path / "whole"))
    parts = change(tiny, run__output=str(tmp_path / "parts"), data__workers=2)
    assert train(whole)["finished"]
    summary = train(change(parts, run__max_steps=7))
    assert (summary["step"], summary["finished"]) == (7, False)
    torch.manual_seed(123)  # a new process has other generators
    train(parts, resume="auto")
    assert_same_state(last(whole), last(parts))
    assert rows(parts) == rows(whole)
    assert [row for row in rows(parts, "eval") if row["step"] != 7] == rows(whole, "eval")


@pytest.mark.slow
@pytest.mark.parametrize(
    "overrides",
    [
        {
            "model__name": "sdpose_reg",
            "optim__clip": 0.5,
            "run__precision": "bf16",
            "cyclic__cycles": 3,
            "cyclic__distill": {"token_weight": "auto", "student": "random"},
        },
        {"model__name": "sdpose_s_v1_ppt", "prune__layers": [1], "prune__start_epochs": 1, "prune__anneal_epochs": 1},
        {"model__name": "distilpose_s", "evaluate__exits": [1], "optim__name": "adamw", "run__precision": "fp16"},
    ],
    ids=["regression, its flow, bf16, a random exit", "pruning, annealed", "DistilPose's head, fp16"],
)
def test_resume_of_every_kind_of_model(tiny: Recipe, tmp_path: Path, overrides: dict[str, Any]) -> None:
    recipe = change(tiny, **overrides)
    whole, parts = (change(recipe, run__output=str(tmp_path / name)) for name in ("whole", "parts"))
    train(whole)
    train(change(parts, run__max_steps=6))
    train(parts, resume="auto")
    assert_same_state(last(whole), last(parts))
    losses = [row["loss"] for row in rows(whole)]
    assert losses and all(map(math.isfinite, losses))
    if recipe.model.name == "sdpose_reg":
        flow = read_state(last(whole) / "state.pt")["task_loss"]
        assert sum(value.numel() for name, value in flow.items() if ".weight" in name or ".bias" in name) == 53_784


def test_keep_is_annealed_step_by_step_and_evaluated_at_its_end(tiny: Recipe) -> None:
    overrides = {"prune__layers": [1], "prune__anneal_epochs": 1, "run__log_every": 1, "prune__keep": 0.5}
    recipe = change(tiny, model__name="sdpose_s_v1_ppt", **overrides)
    train(recipe)
    keeps = [row["keep"] for row in rows(recipe)]
    assert keeps[:5] == pytest.approx([0.5 + 0.25 * (1 + math.cos(math.pi * i / 4)) for i in range(4)] + [0.5])
    assert keeps[4:] == [0.5] * 4


@pytest.mark.slow
def test_the_loss_falls_and_the_dots_are_found(tiny: Recipe) -> None:
    still = {f"augment__{name}": 0.0 for name in ("shift", "flip_probability", "half_body_probability", "scale")}
    recipe = change(
        tiny,
        **still,
        augment__rotation=0.0,
        model__options__dim=48,
        data__batch_size=12,
        optim__lr=5e-3,
        schedule__epochs=160,
        schedule__milestones=[120],
        run__log_every=20,
        evaluate__every=200,
        evaluate__flip=False,
        ema__enabled=False,
    )
    summary = train(recipe)
    losses = [row["loss"] for row in rows(recipe)]
    assert losses[-1] < 0.2 * losses[0]
    found = summary["exits"][1]
    assert found["oks"] > 0.6 and found["pck"] > 0.6
    assert found["AP"] > 0.5
    # evaluated from its checkpoint it is the same
    again = evaluate_trained(recipe, recipe.run.output)["exits"]
    assert again == summary["exits"]


def test_rate_and_measures_in_the_log(tiny: Recipe) -> None:
    recipe = change(tiny, run__log_every=1)
    train(recipe)
    found = rows(recipe)
    rates = [1e-3 * (0.001 + 0.999 * i / 2) for i in (0, 1)] + [1e-3] * 2 + [1e-4] * 4
    assert [row["lr"] for row in found] == pytest.approx(rates)
    for row in found:
        assert row["loss"] == pytest.approx(row["task_1"] + row["task_2"] + row["token_keypoint"] + row["token_visual"])
        assert row["token_task_ratio_1"] == pytest.approx(
            (row["token_keypoint"] + row["token_visual"]) / row["task_1"], rel=1e-3
        )
        assert {"token_rms_1", "token_rms_2"} <= row.keys()
    with (Path(recipe.run.output) / "eval.csv").open() as file:
        table = list(csv.DictReader(file))
    assert [(row["weights"], row["step"]) for row in table] == [
        ("model", "4"),
        ("ema", "4"),
        ("model", "8"),
        ("ema", "8"),
    ]
    assert {"AP@1", "AP@2", "oks@1", "pck@2"} <= table[0].keys()


@pytest.mark.parametrize("weight", [5e-6, pytest.param("auto", marks=pytest.mark.slow)])
def test_three_cycles_have_a_ratio_each(tiny: Recipe, weight: Any) -> None:
    recipe = change(tiny, cyclic__cycles=3, run__log_every=1, run__max_steps=2, evaluate__exits=None)
    recipe = change(recipe, cyclic__distill={"token_weight": weight, "token_fraction": 0.3})
    assert list(train(recipe)["exits"]) == [1, 2, 3, 4]
    for row in rows(recipe):
        tokens = sum(row[f"token_task_ratio_{cycle}"] * row[f"task_{cycle}"] for cycle in (1, 2))
        if weight == "auto":
            assert tokens == pytest.approx(0.3 * sum(row[f"task_{cycle}"] for cycle in (1, 2, 3)), rel=0.1)
        assert tokens == pytest.approx(row["token_keypoint"] + row["token_visual"], rel=1e-3)


def test_a_checkpoint_is_a_plain_tokenposes(tiny: Recipe) -> None:
    train(change(tiny, run__max_steps=3))
    recipe = read_recipe(last(tiny))
    assert recipe["cycles"] == 2 and recipe["step"] == 3
    wrapped = load_trained(tiny.run.output)
    plain = TokenPose(wrapped.config).eval()
    plain.load_state_dict(load_file(last(tiny) / "model.safetensors"), strict=True)
    images = torch.randn(2, 3, *SIZE)
    with torch.no_grad():
        assert torch.equal(plain(images), wrapped(images))
    average = load_trained(tiny.run.output, ema=True).state_dict()
    assert any(not torch.equal(average[name], value) for name, value in plain.state_dict().items())


@pytest.mark.slow
def test_compiled_training_is_the_same(tiny: Recipe, tmp_path: Path) -> None:
    results = []
    for name, compiled in (("eager", "none"), ("compiled", "default")):
        recipe = change(tiny, run__compile=compiled, run__compile_backend="aot_eager", run__max_steps=4)
        recipe = change(recipe, run__output=str(tmp_path / name), run__log_every=2)
        train(recipe)
        results.append([row["loss"] for row in rows(recipe)])
    assert results[0] == pytest.approx(results[1], rel=1e-5)


@pytest.mark.parametrize(
    "overrides",
    [
        {},
        pytest.param(
            {"model__name": "sdpose_reg", "optim__clip": 0.5, "run__precision": "bf16", "cyclic__cycles": 3,
             "cyclic__distill": {"token_weight": 1e-3, "student": "random"}},
            marks=pytest.mark.slow,
        ),
        pytest.param(
            {"model__name": "distilpose_s", "evaluate__exits": [1], "optim__name": "adamw"}, marks=pytest.mark.slow
        ),
        pytest.param({"model__name": "sdpose_s_v1_ppt", "prune__layers": [1]}, marks=pytest.mark.slow),
    ],
    ids=["SDPose", "RLE, a random exit, bf16", "DistilPose", "pruned"],
)  # fmt: skip
def test_graphs_change_nothing(tiny: Recipe, overrides: dict[str, Any], monkeypatch: pytest.MonkeyPatch) -> None:
    assert_graphs_change_nothing(train, change(tiny, **overrides), in_graphs(monkeypatch), stop=6)


def test_nan_names_step_and_terms(tiny: Recipe, monkeypatch: pytest.MonkeyPatch) -> None:
    from cycledistill.integrations.coco.training import session as module

    train(change(tiny, run__max_steps=2))
    before = load_file(last(tiny) / "model.safetensors")
    original = module.to_device
    calls = iter(range(10))

    def poisoned(*args: Any) -> Any:
        images, joints, visible = original(*args)
        return (images * math.nan if next(calls) == 1 else images), joints, visible

    monkeypatch.setattr(module, "to_device", poisoned)
    with pytest.raises(NonFiniteLossError, match=r"nan at step 3 \(epoch 0, batch 3\).*task_1.*step-00000002"):
        train(tiny, resume="auto")
    assert all(torch.equal(value, before[name]) for name, value in load_file(last(tiny) / "model.safetensors").items())


@pytest.mark.slow
def test_unreadable_pictures_are_counted_or_stop(tiny: Recipe, tmp_path: Path) -> None:
    root = write_dots(tmp_path / "broken")
    (root / "pictures" / "3.png").write_bytes(b"no picture")
    recipe = change(tiny, data__root=str(root))
    with pytest.raises(PoseDataError, match=r"3\.png"):
        train(recipe)
    for workers in (0, 2):
        recipe = change(
            recipe, data__broken_images="skip", data__workers=workers, run__output=str(tmp_path / f"{workers}")
        )
        summary = train(recipe)
        assert summary["skipped"] == 4  # two persons, two epochs
        assert summary["finished"]


def test_batches_of_broken_pictures_do_not_stop_a_run_that_skips_them(tiny: Recipe, tmp_path: Path) -> None:
    root = write_dots(tmp_path / "broken")
    for number in range(2, 7):
        (root / "pictures" / f"{number}.png").write_bytes(b"no picture")
    # six batches of two persons, each of one picture
    recipe = change(tiny, data__root=str(root), data__broken_images="skip", data__batch_size=2)
    summary = train(recipe)
    assert (summary["finished"], summary["step"], summary["skipped"]) == (True, 12, 20)


def test_a_run_is_not_written_over(tiny: Recipe) -> None:
    train(change(tiny, run__max_steps=2))
    with pytest.raises(RecipeError, match="holds a run already"):
        train(tiny)
    with pytest.raises(CheckpointError, match=r"not those of this TokenPose.*blocks\.2.*data\.joints"):
        train(change(tiny, model__options__depth=3), resume="auto")
    with pytest.raises(CheckpointError, match="3 persons a step, this run has 4"):
        train(change(tiny, data__batch_size=4), resume="auto")


@pytest.mark.slow
def test_two_processes_have_equal_weights_and_the_batch_of_one(tiny: Recipe, tmp_path: Path) -> None:
    """Regression, so that the loss has parameters; two processes of two persons are one of four."""
    recipe = change(tiny, model__name="sdpose_reg", data__batch_size=2, ema__enabled=False, run__device="auto")
    two = change(recipe, run__output=str(tmp_path / "two"))
    ranks = launch(COMMAND, two, tmp_path)
    assert all(torch.equal(value, ranks[1][name]) for name, value in ranks[0].items())
    one = change(recipe, run__output=str(tmp_path / "one"), data__batch_size=4)
    train(one)
    weights, alone = load_file(last(two) / "model.safetensors"), load_file(last(one) / "model.safetensors")
    for name, value in weights.items():
        torch.testing.assert_close(value, alone[name], rtol=1e-3, atol=1e-4)
    measured = [rows(each, "eval")[-1] for each in (two, one)]
    assert measured[0]["oks@1"] == pytest.approx(measured[1]["oks@1"], abs=1e-3)
