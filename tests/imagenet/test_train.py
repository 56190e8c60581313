"""Whole runs: resume bit for bit, logs, evaluation, several processes, and the command line."""

from __future__ import annotations

import json
import math
import shutil
from dataclasses import replace
from pathlib import Path

import pytest
import timm
import torch
from safetensors.torch import load_file

from cycledistill.integrations.imagenet.recipe import load_recipe
from cycledistill.integrations.imagenet.train import main, train
from cycledistill.integrations.imagenet.trained import load_trained
from cycledistill.integrations.imagenet.training.optim import Schedule, create_optimizer
from cycledistill.metadata.told import report_file
from cycledistill.recipes.commands.held import command_of
from cycledistill.recipes.errors import CheckpointError, DataError, NonFiniteLossError
from cycledistill.recipes.weights.checkpoint import read_recipe, read_state
from tests.imagenet.pictures import SIZE
from tests.recipes.run_checks import (
    assert_graphs_change_nothing,
    assert_same_state,
    changing,
    in_graphs,
    last,
    launch,
    rows,
)

COMMAND = "cycledistill.integrations.imagenet.train"
change = changing(load_recipe)


@pytest.mark.parametrize("decoder", ["pillow", pytest.param("torchcodec", marks=pytest.mark.slow)])
def test_resume_is_bit_exact(tiny, tmp_path, decoder):
    """From inside the second epoch, with other workers; all other places: tests/recipes/run/test_resume.py."""
    if decoder == "torchcodec":
        pytest.importorskip("torchcodec")
    tiny = change(tiny, data__decoder=decoder)
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
def test_resume_with_everything_else_on(tiny, tmp_path):
    """fp16 scaler, clipping, one random exit a step, early stochastic depth."""
    recipe = change(
        tiny,
        run__precision="fp16",
        optim__clip=0.5,
        cyclic__distill="elt",
        cyclic__cycles=3,
        schedule__drop_path_epochs=1,
        ema__warmup=True,
    )
    whole, parts = (change(recipe, run__output=str(tmp_path / name)) for name in ("whole", "parts"))
    train(whole)
    train(change(parts, run__max_steps=3))
    train(parts, resume="auto")
    assert_same_state(last(whole), last(parts))
    assert read_state(last(whole) / "state.pt")["scaler"]["scale"] > 0


def test_terms_of_the_log_sum_to_the_loss(tiny):
    recipe = change(tiny, run__log_every=1, run__max_steps=2)
    train(recipe)
    assert [row["step"] for row in rows(recipe)] == [1, 2]
    for row in rows(recipe):
        terms = [row[name] for name in ("task_1", "task_2", "token_prefix", "token_patch")]
        assert row["loss"] == pytest.approx(sum(terms), rel=1e-6)
        assert row["token_task_ratio"] == pytest.approx(sum(terms[2:]) / sum(terms[:2]), rel=1e-6)


def test_the_result_is_the_plain_model(tiny):
    summary = train(tiny)
    assert list(summary["exits"]) == list(summary["ema_exits"]) == [1, 2, 3]
    folder = Path(summary["checkpoint"])
    bare = timm.create_model("test_vit", img_size=SIZE, patch_size=8, depth=2, num_classes=2)
    images = torch.randn(2, 3, SIZE, SIZE)
    for name, ema in (("model.safetensors", False), ("ema.safetensors", True)):
        bare.load_state_dict(load_file(folder / name), strict=True)
        trained = load_trained(tiny.run.output, ema=ema)
        assert torch.equal(trained(images), bare.eval()(images))
    stored = read_recipe(folder)
    assert (stored["cycles"], stored["distill"], stored["classes"]) == (2, "sdpose", ["dark", "pale"])
    assert load_recipe(stored["recipe"]) == tiny
    report = report_file(folder / "model.safetensors")
    assert report.missing == () and report.words["model"] == "test_vit"
    assert load_trained(tiny.run.output).pretrained_cfg["label_names"] == ("dark", "pale")
    told = str(report)
    for words in ("2 cycles, scheme sdpose", f"{SIZE} x {SIZE} pixels", "mean [0.485, 0.456, 0.406]", "2: dark, pale"):
        assert words in told


@pytest.mark.slow
def test_training_learns(tiny):
    easy = change(
        tiny, augment__auto=None, augment__mixup=0.0, augment__cutmix=0.0, augment__erase=0.0, model__drop_path=0.0
    )
    easy = change(
        easy, augment__color_jitter=0.0, optim__lr=0.2, schedule__epochs=8, ema__enabled=False, run__log_every=1
    )
    summary = train(easy)
    losses = [row["task_1"] for row in rows(easy) if row["kind"] == "train"]
    assert sum(losses[-4:]) < 0.8 * sum(losses[:4])
    assert summary["exits"][1]["top1"] == 100
    assert "ema_exits" not in summary


def test_early_stochastic_depth_and_rates(tiny):
    model = timm.create_model("test_vit", drop_path_rate=0.2, depth=3)
    rates = []
    for shape in ("linear", "constant"):
        recipe = change(tiny, schedule__epochs=4, schedule__drop_path_epochs=2, schedule__drop_path_shape=shape)
        schedule = Schedule(create_optimizer(model, recipe, 512), model, recipe, steps_per_epoch=10)
        for place in ((0, 0), (1, 0), (1, 9), (2, 0), (3, 9), (0, 0)):
            schedule.set(*place)
            rates.append([round(block.drop_path1.drop_prob, 4) for block in model.blocks[1:]])
    linear = [[0.1, 0.2], [0.05, 0.1], [0.005, 0.01], [0, 0], [0, 0], [0.1, 0.2]]
    assert rates == [*linear, *[[0.1, 0.2]] * 3, [0, 0], [0, 0], [0.1, 0.2]]


def test_deits_rates_and_weight_decay_groups():
    recipe = load_recipe("deit_tiny")
    model = timm.create_model("deit_tiny_patch16_224")
    optimizer = create_optimizer(model, recipe, 1024)
    schedule = Schedule(optimizer, model, recipe, steps_per_epoch=1251)
    expected = {0: 1e-6, 1: 1e-6 + (1e-3 - 1e-6) / 5, 150: 1e-5 + (1e-3 - 1e-5) / 2, 299: None}
    for epoch, rate in expected.items():
        rate = rate or 1e-5 + (1e-3 - 1e-5) * (1 + math.cos(math.pi * epoch / 300)) / 2
        assert schedule.set(epoch, 700) == pytest.approx(rate)
    decay = {id(p): group["weight_decay"] for group in optimizer.param_groups for p in group["params"]}
    for name, parameter in model.named_parameters():
        free = parameter.ndim == 1 or name in ("cls_token", "pos_embed")
        assert decay[id(parameter)] == (0.0 if free else 0.05), name


def test_a_loss_that_is_not_finite_stops_the_run(tiny):
    with pytest.raises(NonFiniteLossError) as error:
        train(change(tiny, optim__lr=1e30, schedule__warmup_epochs=0))
    for part in ("at step 1 (epoch 0, batch 1)", "task_1", "not updated", "no checkpoint was saved"):
        assert part in str(error.value)


@pytest.mark.slow
def test_a_compiled_run_leaves_the_same_files(tiny, tmp_path):
    torch._dynamo.reset()
    eager, compiled = (
        change(tiny, run__output=str(tmp_path / n), evaluate__exits=[1, 2]) for n in ("eager", "compiled")
    )
    eager, compiled = (change(c, model__drop=0.0, model__drop_path=0.0, run__max_steps=4) for c in (eager, compiled))
    results = [train(eager), train(change(compiled, run__compile="default", run__compile_backend="eager"))]
    weights = [load_file(last(recipe) / "model.safetensors") for recipe in (eager, compiled)]
    assert list(weights[0]) == list(weights[1])
    for name, tensor in weights[0].items():
        torch.testing.assert_close(weights[1][name], tensor, atol=1e-4, rtol=1e-3)
    for number, values in results[0]["exits"].items():
        assert results[1]["exits"][number]["loss"] == pytest.approx(values["loss"], abs=1e-3)
    assert train(change(compiled, run__max_steps=5), resume="auto")["step"] == 5  # an eager run goes on from it


@pytest.mark.parametrize(
    "overrides",
    [
        {},
        pytest.param(
            {
                "cyclic__distill": "elt",
                "cyclic__cycles": 3,
                "optim__clip_mode": "agc",
                "ema__warmup": True,
                "schedule__drop_path_epochs": 1,
                "schedule__drop_path_shape": "constant",
                "run__precision": "bf16",
            },
            marks=pytest.mark.slow,
        ),
    ],
    ids=["mixup", "everything else"],
)
def test_graphs_change_nothing(tiny, overrides, monkeypatch):
    recipe = change(tiny, optim__clip=1.0, optim__lr=0.01, **overrides)
    assert_graphs_change_nothing(train, recipe, in_graphs(monkeypatch), stop=6)


def test_checkpoints_that_do_not_fit(tiny, tmp_path):
    train(change(tiny, run__max_steps=2))
    with pytest.raises(CheckpointError, match=r"inside an epoch with 4 images a step, this run has 2"):
        train(change(tiny, data__batch_size=2), resume="auto")
    with pytest.raises(CheckpointError, match=r"not those of this .* missing: blocks\.2\."):
        train(change(tiny, model__kwargs={"patch_size": 8, "depth": 3}), resume="auto")
    with pytest.raises(CheckpointError, match="does not exist"):
        train(tiny, resume=str(tmp_path / "absent"))
    state = last(tiny) / "state.pt"
    state.write_bytes(state.read_bytes()[:-100])
    with pytest.raises(CheckpointError, match=r"state.pt: truncated"):
        train(tiny, resume="auto")
    torch.save({"optimizer": test_checkpoints_that_do_not_fit}, state)
    with pytest.raises(CheckpointError, match=r"pickled \S*test_checkpoints_that_do_not_fit .*could run code"):
        train(tiny, resume="auto")


def test_changed_recipes_are_told(tiny, caplog):
    train(change(tiny, run__max_steps=1))
    train(change(tiny, run__max_steps=2, cyclic__cycles=3), resume="auto")
    assert "cyclic.cycles: 2 -> 3" in caplog.text


@pytest.mark.slow
def test_two_processes_agree_and_resume(tiny, tmp_path):
    recipe = change(tiny, data__batch_size=2, run__output=str(tmp_path / "whole"))
    ranks = launch(COMMAND, recipe, tmp_path)
    assert last(recipe).name == "step-00000008"
    assert all(torch.equal(ranks[0][name], ranks[1][name]) for name in ranks[0])
    parts = change(recipe, run__output=str(tmp_path / "parts"))
    launch(COMMAND, parts, tmp_path, "--max-steps", "3")
    launch(COMMAND, parts, tmp_path, "--resume", "auto")
    assert_same_state(last(recipe), last(parts))


def command(capsys, *argv: str) -> tuple[int, str]:
    try:
        code = main(list(argv))
    except SystemExit as end:
        code = int(end.code or 0)
    output = capsys.readouterr()
    return code, output.out if code == 0 else output.err


def test_the_command(tiny, tmp_path, capsys):
    (tmp_path / "mine.yaml").write_text(json.dumps(tiny.to_dict()))
    common = ("--config", str(tmp_path / "mine.yaml"), "--output", str(tmp_path / "cli"))
    code, text = command(capsys, *common, "--max-steps", "1", "--distill", "exits", "--set", "optim.lr=1e-3")
    assert (code, json.loads(text)["step"]) == (0, 1)
    code, text = command(capsys, *common, "--resume", "auto", "--set", "ema.enabled=false")
    trained = json.loads(text)
    assert (code, trained["finished"]) == (0, True)
    code, text = command(capsys, "--evaluate", str(tmp_path / "cli"))
    assert (code, json.loads(text)["exits"]) == (0, trained["exits"])
    file = str(Path(trained["checkpoint"]) / "model.safetensors")
    code, text = command(capsys, "--evaluate", file, *common)
    assert (code, json.loads(text)["exits"]) == (0, trained["exits"])


def test_a_size_that_the_model_does_not_take_leaves_nothing(tiny, tmp_path, capsys):
    (tmp_path / "mine.yaml").write_text(json.dumps(tiny.to_dict()))
    common = ("--config", str(tmp_path / "mine.yaml"), "--output", str(tmp_path / "cli"))
    code, text = command(capsys, *common, "--set", "model.img_size=20")
    assert code == 2 and text.splitlines()[-1].startswith(
        "error: model.name='test_vit' does not run on RGB images of 20"
    )
    assert not (tmp_path / "cli").exists()


@pytest.mark.slow
def test_the_commands_errors(tiny, tmp_path, folder_dir, capsys):
    (tmp_path / "mine.yaml").write_text(json.dumps(tiny.to_dict()))
    common = ("--config", str(tmp_path / "mine.yaml"), "--output", str(tmp_path / "cli"))
    broken = folder_dir / "train" / "pale" / "3.jpg"
    broken.write_bytes(b"no image")
    shutil.copytree(folder_dir, tmp_path / "other")
    for split in ("train", "val"):
        (tmp_path / "other" / split / "dark").rename(tmp_path / "other" / split / "black")
    train(change(tiny, run__max_steps=1))
    for argv, expected in (
        (("--set", "optim.lrr=1"), "error: unknown key 'optim.lrr'. Did you mean 'optim.lr'?\n"),
        (("--cycles", "0"), "error: --cycles: cyclic.cycles=0: expected"),
        (("--data", str(tmp_path / "absent")), "error: data folder"),
        (("--data", str(folder_dir), "--workers", "1"), f"error: broken image {broken}"),
        (("--resume", str(tmp_path / "absent")), "does not exist"),
        (("--set", "optim.lr=1e30", "--set", "schedule.warmup_epochs=0"), "error: the loss is"),
        (("--device", "cuda"), "error: run.device='cuda'"),
        (("--output", str(tmp_path / "mine.yaml")), "cannot be written to"),
        (("--device", "gpu"), "error: --device: run.device='gpu'"),
        (("--evaluate", tiny.run.output, "--data", str(tmp_path / "other")), "would mean nothing"),
    ):
        if argv == ("--device", "cuda") and torch.cuda.is_available():
            continue
        code, text = command(capsys, *common, *argv)
        assert code == 2, argv
        assert expected in text
        assert "Traceback" not in text


def test_data_errors_reach_python_users(tiny, folder_dir):
    (folder_dir / "train" / "pale" / "3.jpg").write_bytes(b"no image")
    with pytest.raises(DataError, match=r"pale/3\.jpg"):
        train(replace(tiny, data=replace(tiny.data, dir=str(folder_dir), workers=1)))


@pytest.fixture
def renamed(folder_dir: Path, tmp_path: Path) -> Path:
    """The pictures of ``folder_dir`` with another name for the dark ones, which turns the order of classes around."""
    for split in ("train", "val"):
        shutil.copytree(folder_dir / split, tmp_path / "renamed" / split)
        (tmp_path / "renamed" / split / "dark").rename(tmp_path / "renamed" / split / "quite dark")
    return tmp_path / "renamed"


@pytest.mark.slow
def test_a_run_does_not_go_on_with_classes_in_another_order(tiny, folder_dir, renamed):
    recipe = change(tiny, data__dir=str(folder_dir), run__max_steps=1)
    train(recipe)
    before = (last(recipe) / "recipe.json").read_bytes()
    with pytest.raises(CheckpointError, match="class 0: 'dark' in the training, and here 'pale' .*renamed"):
        train(change(recipe, data__dir=str(renamed), run__max_steps=2), resume="auto")
    assert (last(recipe) / "recipe.json").read_bytes() == before
    assert train(change(recipe, run__max_steps=2), resume="auto")["step"] == 2


@pytest.mark.slow
def test_weights_are_measured_on_their_own_classes(tiny, folder_dir, renamed, tmp_path, capsys, caplog):
    """A run, a checkpoint's file, and that file alone; of the file in its checkpoint no recipe is named."""
    recipe = change(tiny, data__dir=str(folder_dir), run__max_steps=1, augment__crop_pct=0.75)
    train(recipe)
    (tmp_path / "mine.yaml").write_text(json.dumps(change(recipe, augment__crop_pct=0.9).to_dict()))
    within, alone = last(recipe) / "model.safetensors", tmp_path / "alone.safetensors"
    shutil.copy(within, alone)
    measured = []
    for file, how in ((recipe.run.output, ()), (within, ()), (alone, ("--config", str(tmp_path / "mine.yaml")))):
        code, text = command(capsys, "--evaluate", str(file), *how, "--data", str(renamed))
        assert code == 2 and "class 0: 'dark' in the training, and here 'pale'" in text and "mean nothing" in text
        code, text = command(capsys, "--evaluate", str(file), *how)
        assert code == 0
        measured.append(json.loads(text)["exits"])
    assert measured[0] == measured[1]
    assert "alone.safetensors says crop_pct 0.75, and is measured by augment.crop_pct=0.9" in caplog.text
    code, text = command(capsys, "--evaluate", str(alone), "--data", str(folder_dir), "--workers", "0")
    assert code == 0, text  # it says how its model is built, its cycles too
    assert json.loads(text)["exits"] == measured[0]
    assert command_of(str(alone)) == "imagenet"
    images = torch.randn(2, 3, SIZE, SIZE)
    assert torch.equal(load_trained(alone)(images), load_trained(recipe.run.output)(images))
    command(capsys, "--evaluate", recipe.run.output, "--set", "augment.mean=[0.1, 0.1, 0.1]")
    assert "measuring by another recipe than it was trained by: augment.mean" in caplog.text
