"""Whole runs: the loss falls, resume bit for bit, missing views, cycles, and what weights are loaded from."""

from __future__ import annotations

import json
import math
from pathlib import Path

import pytest
import torch

pytest.importorskip("cv2")
pytest.importorskip("accelerate")

from cycledistill.integrations.human36m.multiview.weights import save_multiview_weights
from cycledistill.integrations.multiview.data.generated import generate_moments
from cycledistill.integrations.multiview.data.moments import Moment, MultiViewSet
from cycledistill.integrations.multiview.data.samples import MultiViewSamples
from cycledistill.integrations.multiview.evaluation.measure import EvalSettings, evaluate
from cycledistill.integrations.multiview.recipe import Recipe, load_recipe
from cycledistill.integrations.multiview.train import main, train
from cycledistill.integrations.multiview.trained import evaluate_trained, load_trained
from cycledistill.integrations.multiview.training.build import create_model, start_weights
from cycledistill.integrations.multiview.training.schedules import learning_rate
from cycledistill.integrations.multiview.training.task import MultiViewTask, flat
from cycledistill.recipes.errors import CheckpointError, DataError, RecipeError
from tests.multiview.scenes import SMALL, write_recording
from tests.recipes.run_checks import assert_graphs_change_nothing, assert_same_state, changing, in_graphs, last, rows

change = changing(load_recipe)


@pytest.fixture
def tiny(tmp_path: Path) -> Recipe:
    """Two epochs of two steps of two moments, the last of one."""
    return load_recipe(
        {
            "model": {"options": SMALL},
            "data": {"source": "generated", "moments": 3, "views": 2, "size": 64, "batch_size": 2},
            "schedule": {"epochs": 2, "milestones": [1]},
            "ema": {"enabled": True, "decay": 0.9},
            "evaluate": {"every": 2, "head_size": 6.0},
            "run": {"output": str(tmp_path / "run"), "device": "cpu", "log_every": 1, "progress": False},
        }
    )


def lacking(moments: MultiViewSet) -> MultiViewSet:
    """The second moment without its last view."""
    second = moments.moments[1]
    fewer = Moment(second.name, dict(list(second.views.items())[:-1]), second.pose)
    return MultiViewSet([moments.moments[0], fewer, *moments.moments[2:]], moments.pictures)


@pytest.mark.slow
def test_resume_is_bit_exact(tiny: Recipe, tmp_path: Path) -> None:
    """From inside the second epoch; all other places: tests/recipes/run/test_resume.py."""
    whole, parts = (change(tiny, run__output=str(tmp_path / name)) for name in ("whole", "parts"))
    summary = train(whole)
    assert summary["finished"] and set(summary["exits"]) == {1}
    assert train(change(parts, run__max_steps=3))["step"] == 3
    torch.manual_seed(123)  # a new process has other generators
    train(parts, resume="auto")
    assert_same_state(last(whole), last(parts))
    assert rows(parts) == rows(whole)
    assert evaluate_trained(whole, whole.run.output)["exits"] == summary["exits"]


@pytest.mark.slow
def test_graphs_change_nothing(tiny: Recipe, monkeypatch: pytest.MonkeyPatch) -> None:
    """The last of each epoch's batches is smaller."""
    assert_graphs_change_nothing(train, change(tiny, data__moments=5), in_graphs(monkeypatch), stop=4)


def test_cycles_are_trained(tiny: Recipe) -> None:
    summary = train(change(tiny, cyclic__cycles=2, schedule__epochs=1, ema__enabled=False, schedule__milestones=[]))
    assert set(summary["exits"]) == {1, 2, 3}
    (row, *_) = rows(tiny)
    assert {"task_1", "task_2"} < set(row) and math.isfinite(row["loss"])
    assert load_trained(tiny.run.output).cyclic.cycles == 2


def test_a_batch_with_a_missing_view_is_the_mean_over_its_moments(tiny: Recipe) -> None:
    """The loss of the batch, and its gradients, are those of its moments one by one."""
    torch.manual_seed(0)
    model = create_model(tiny, 17).eval()  # no statistics of a batch
    task, moments = MultiViewTask(model, tiny.loss), lacking(generate_moments(3, 3, 64))
    samples = MultiViewSamples(moments, model.config)
    batch = samples.__getitems__([0, 1, 2])
    assert [tuple(views.pixels.shape[:2]) for views in batch] == [(3, 2), (2, 1)]
    losses = [task(*flat(samples[number], torch.device("cpu")))["loss"] for number in range(3)]
    together = task(*flat(batch, torch.device("cpu")))["loss"]
    assert together.item() == pytest.approx(sum(map(torch.Tensor.item, losses)) / 3, rel=1e-5)
    together.backward()
    assert model.keypoint_token.grad is not None and model.keypoint_token.grad.abs().sum() > 0


@pytest.mark.slow
def test_a_few_scenes_are_learned(tiny: Recipe) -> None:
    """By heart, from pictures of 64 pixels, of which one is 36 mm at the person."""
    patches = {"backbone": "none", "image_size": [64, 64], "patch_size": [8, 8], "stage1_width": 64, "dim": 48}
    recipe = change(
        tiny,
        model__options={**SMALL, **patches},
        data__views=3,
        data__batch_size=1,
        loss__sigma=1.0,
        schedule__epochs=100,
        schedule__milestones=[],
        schedule__cosine=True,
        optim__lr=3e-3,
        optim__clip=1.0,
        ema__enabled=False,
        evaluate__every=100,
        run__log_every=50,
    )
    before = evaluate(create_model(recipe, 17), generate_moments(3, 3, 64), EvalSettings(head_size=6.0))[1]
    train(recipe)
    losses = [row["loss"] for row in rows(recipe)]
    found = evaluate(load_trained(recipe.run.output), generate_moments(3, 3, 64), EvalSettings(head_size=6.0))[1]
    assert losses[-1] < 0.3 * losses[0]
    assert found["jdr"] > 80 and found["mpjpe"] < 110 < 300 < before["mpjpe"]


@pytest.mark.slow
def test_weights_come_from_runs_files_and_hub_folders(tiny: Recipe, tmp_path: Path) -> None:
    train(change(tiny, run__max_steps=2))
    model = load_trained(tiny.run.output)
    averaged = load_trained(tiny.run.output, ema=True)
    save_multiview_weights(model, tmp_path / "own.safetensors")
    model.save_pretrained(tmp_path / "hub")
    checkpoint = last(tiny) / "model.safetensors"  # a run's file says of itself how it is built
    for path in (tmp_path / "own.safetensors", tmp_path / "hub", tmp_path / "hub" / "model.safetensors", checkpoint):
        other = load_trained(path)
        assert other.config == model.config and not other.training
        pairs = zip(other.state_dict().values(), model.state_dict().values(), strict=True)
        assert all(torch.equal(one, own) for one, own in pairs)
        with pytest.raises(CheckpointError, match="holds one set of weights, and no average"):
            load_trained(path, ema=True)
    assert not torch.equal(averaged.keypoint_token, model.keypoint_token)
    torch.save({"a": torch.zeros(1)}, tmp_path / "other.pth")
    with pytest.raises(CheckpointError, match=r"other\.pth"):
        load_trained(tmp_path / "other.pth")


@pytest.mark.slow
def test_a_run_is_of_its_layouts_joints(tiny: Recipe, tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    """17 of Human3.6M or 17 of COCO: the shapes do not tell them apart."""
    train(change(tiny, run__max_steps=1))
    checkpoint, other = last(tiny), change(tiny, data__layout="coco", run__max_steps=2)
    said = r"data.layout=h36m, and data.layout=coco is asked for: joint 0 is 'pelvis' there and 'nose' here"
    with pytest.raises(CheckpointError, match=said):
        train(other, resume="auto")
    with pytest.raises(CheckpointError, match=r"data.layout=h36m, and data.layout=other .*keep their names"):
        train(change(tiny, data__layout="other", run__max_steps=2), resume="auto")
    assert last(tiny) == checkpoint
    for model in (tiny.run.output, checkpoint / "model.safetensors"):
        with pytest.raises(CheckpointError, match=said):
            evaluate_trained(other, str(model))
    unnamed = change(tiny, data__layout="other")  # the same joints, with the checks of a person turned off
    assert evaluate_trained(unnamed, str(checkpoint / "model.safetensors"))["exits"]
    fresh = {"model__weights": str(checkpoint / "model.safetensors"), "run__output": str(tmp_path / "b")}
    for layout, warned in (("h36m", 0), ("coco", 1)):
        caplog.clear()
        model = create_model(change(tiny, data__layout=layout), 17)
        start_weights(model, change(tiny, data__layout=layout, **fresh))
        assert caplog.text.count("finds the joints of data.layout=h36m") == warned


def test_the_command_trains_on_folders(tiny: Recipe, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    folder = write_recording(tmp_path / "sets" / "a", generate_moments(2, 2, 64))
    (tmp_path / "recipe.yaml").write_text(json.dumps(tiny.to_dict()))
    flags = ["--config", str(tmp_path / "recipe.yaml"), "--dataset", "folders", "--train-data", str(tmp_path / "sets")]
    assert main([*flags, "--test-data", str(folder), "--unit", "mm", "--max-steps", "1"]) == 0
    assert '"mpjpe"' in capsys.readouterr().out
    assert main([*flags, "--unit", "mm", "--output", str(tmp_path / "b")]) == 2
    assert "data.test is not set: data.source='folders' needs --train-data and --test-data" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("key", "value", "kind", "said"),
    [
        ("data__source", "human36m", DataError, "data.root is not set"),
        ("model__name", "mixste", RecipeError, "model.name='mixste': expected 'multiview_ppt'"),
        ("model__options", {"num_keypoints": 5}, RecipeError, r"num_keypoints=5: expected 17"),
        ("model__options", {"depht": 5}, RecipeError, "model.options: .*depth"),
        ("model__weights", "gone.safetensors", CheckpointError, "gone.safetensors"),
        ("evaluate__exits", [2], RecipeError, "a model without cycles has exit 1 only"),
        ("data__views", 1, RecipeError, "data.views=1: expected at least 2"),
        ("model__from_coco", True, RecipeError, "model.weights beside it"),
    ],
)
def test_recipes_that_cannot_be(tiny: Recipe, key: str, value: object, kind: type[Exception], said: str) -> None:
    with pytest.raises(kind, match=said):
        train(change(tiny, **{key: value}))


def test_the_rate_falls_at_the_authors_epochs() -> None:
    schedule = load_recipe("ppt").schedule
    rates = [learning_rate(epoch * 7, 7, 1e-3, schedule) for epoch in (0, 9, 10, 14, 15, 19)]
    assert rates == pytest.approx([1e-3, 1e-3, 1e-4, 1e-4, 1e-5, 1e-5])
