"""Checkpoints are whole or not there, and say what is wrong with them."""

from __future__ import annotations

import json
import os
import shutil
from pathlib import Path

import numpy as np
import pytest
import timm
import torch
from safetensors.torch import save_file

from cycledistill import files
from cycledistill.recipes.errors import CheckpointError, PickledCodeError
from cycledistill.recipes.weights import files as weight_files
from cycledistill.recipes.weights import read_weights
from cycledistill.recipes.weights.checkpoint import (
    CheckpointStore,
    find_checkpoint,
    load_weights,
    read_recipe,
    read_state,
)

RECIPE: dict[str, object] = {"command": "toy", "recipe": {}}


def save(store: CheckpointStore, step: int, top1: float | None = None) -> Path:
    weights = {"a": torch.full((3,), float(step)), "b": torch.ones(2)}
    metrics = {} if top1 is None else {"exits": {1: {"top1": top1}}}
    return store.save(
        step, weights, {"a": weights["a"] / 2, "b": weights["b"]}, {"step": step}, RECIPE | {"metrics": metrics}
    )


def assert_whole(path: Path, step: int) -> None:
    assert read_weights(path / "model.safetensors")["a"].tolist() == [step] * 3
    assert read_weights(path / "ema.safetensors")["a"].tolist() == [step / 2] * 3
    assert read_state(path / "state.pt") == {"step": step}
    read_recipe(path)


def test_keeps_the_last_and_the_best(tmp_path):
    store = CheckpointStore(tmp_path, keep=2, best_by=("exits", "1", "top1"))
    for step, top1 in ((1, 10.0), (2, 50.0), (3, 20.0), (4, None), (5, 30.0)):
        save(store, step, top1)
    assert [path.name for path in store.complete()] == ["step-00000002", "step-00000004", "step-00000005"]
    assert (store.best().name, store.last().name) == ("step-00000002", "step-00000005")
    assert sorted(os.listdir(tmp_path)) == [path.name for path in store.complete()]
    assert_whole(store.last(), 5)


def test_what_was_measured_may_be_numbers_of_numpy_and_pytorch(tmp_path):
    store = CheckpointStore(tmp_path, keep=2, best_by=("exits", "1", "top1"))
    save(store, 1)
    left = store.folder / "step-00000001" / ".new-00ff00ff-recipe.json"
    left.touch()  # by a process that was killed while it did the same
    store.record(1, {"exits": {"1": {"top1": np.float32(50.0), "loss": torch.tensor(0.5)}}})
    assert not left.exists()
    assert read_recipe(store.last())["metrics"] == {"exits": {"1": {"top1": 50.0, "loss": 0.5}}}
    with pytest.raises(CheckpointError, match="JSON cannot hold 'metrics'"):
        store.record(1, {"exits": object()})
    assert read_recipe(store.last())["metrics"] == {"exits": {"1": {"top1": 50.0, "loss": 0.5}}}


class Killed(BaseException):
    """Stands for the process's death: nothing may catch it."""


@pytest.mark.slow
@pytest.mark.parametrize("again", [False, True], ids=["a new step", "the same step again"])
def test_killed_at_any_moment_the_last_complete_one_loads(tmp_path, monkeypatch, again):
    """Die before each of the writer's calls in turn, then halfway through each file."""
    calls = 0  # a process that was killed cleans nothing up: once dead, every call dies

    def dying(function, at, half):
        def call(*args, **kwargs):
            nonlocal calls
            calls += 1
            if calls > at:
                if calls - 1 == at and half and function in originals[:1]:
                    Path(args[1]).write_bytes(b"half")
                raise Killed
            return function(*args, **kwargs)

        return call

    originals = [weight_files.save_file, files._sync, os.replace, os.mkdir, torch.save, shutil.rmtree]
    targets = [
        (weight_files, "save_file"),
        (files, "_sync"),
        (os, "replace"),
        (os, "mkdir"),
        (torch, "save"),
        (shutil, "rmtree"),
    ]
    died = 0
    for at in range(100):
        folder = tmp_path / str(at)
        store = CheckpointStore(folder, keep=1)
        save(store, 1)
        calls = 0
        with monkeypatch.context() as patch:
            for (owner, name), original in zip(targets, originals, strict=True):
                patch.setattr(owner, name, dying(original, at, half=at % 2))
            try:
                save(store, 1 if again else 2)
                finished = True
            except Killed:
                finished = False
                died += 1
        last = CheckpointStore(folder, keep=1).last()
        assert last is not None, f"nothing left after dying at call {at}"
        step = int(last.name[-8:])
        assert step in (1, 1 if again else 2)
        assert_whole(last, step)
        save(CheckpointStore(folder, keep=1), 3)  # the next run is not in the way of what is left over
        assert os.listdir(folder) == ["step-00000003"]
        if finished:
            break
    assert died >= 10
    assert finished


@pytest.mark.parametrize(
    ("owner", "writer", "error"),
    [
        (weight_files, "save_file", weight_files.SafetensorError("No space left on device")),
        (files, "_sync", OSError(28, "No space left on device")),
    ],
)
def test_a_full_disk_leaves_the_old_checkpoint(tmp_path, monkeypatch, owner, writer, error):
    store = CheckpointStore(tmp_path)
    old = save(store, 1)

    def full(*args, **kwargs):
        raise error

    with monkeypatch.context() as patch:
        patch.setattr(owner, writer, full)
        with pytest.raises(CheckpointError, match=r"step 2 cannot be written.*No space left.*step-00000001"):
            save(store, 2)
    assert os.listdir(tmp_path) == [old.name]
    assert_whole(old, 1)


def test_a_full_disk_in_torch_save(tmp_path):
    """A real one: /dev/full refuses every byte."""
    if not os.path.exists("/dev/full"):
        pytest.skip("no /dev/full here")
    store = CheckpointStore(tmp_path)
    old = save(store, 1)
    original = os.mkdir

    def mkdir(path, *args, **kwargs):
        original(path, *args, **kwargs)
        os.symlink("/dev/full", os.path.join(path, "state.pt"))

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(os, "mkdir", mkdir)
        with pytest.raises(CheckpointError, match="step 2 cannot be written"):
            store.save(2, {"a": torch.ones(1)}, None, {"x": torch.zeros(10_000)}, {})
    assert os.listdir(tmp_path) == [old.name]


def test_weights_that_share_memory_are_saved(tmp_path):
    shared = torch.arange(6.0)
    path = CheckpointStore(tmp_path).save(1, {"a": shared, "b": shared[:3]}, None, {}, {})
    assert read_weights(path / "model.safetensors")["b"].tolist() == [0, 1, 2]


def test_truncated_files_are_named(tmp_path):
    path = save(CheckpointStore(tmp_path), 1)
    for name, read in (("model.safetensors", read_weights), ("state.pt", read_state), ("recipe.json", None)):
        data = (path / name).read_bytes()
        for length in (0, 5, len(data) // 2, len(data) - 1):
            (path / name).write_bytes(data[:length])
            with pytest.raises(CheckpointError, match=rf"{name}: (broken or )?(truncated|missing or cut)"):
                read(path / name) if read else read_recipe(path)


class Evil:
    def __reduce__(self):
        return print, ("this must never run",)


def test_pickled_code_is_refused(tmp_path, capsys):
    for value in (Evil(), {"model": Evil()}, {"model": timm.create_model("test_vit")}):
        torch.save(value, tmp_path / "evil.pth")
        for read in (read_state, read_weights):
            with pytest.raises(PickledCodeError, match=r"evil.pth holds a pickled \S+ .*could run code"):
                read(tmp_path / "evil.pth")
    assert capsys.readouterr().out == ""


def test_weights_files_of_others(tmp_path):
    weights = {"a": torch.ones(2)}
    for number, content in enumerate((weights, {"model": weights}, {"state_dict": weights, "epoch": 3})):
        torch.save(content, tmp_path / f"{number}.pth")
        assert torch.equal(read_weights(tmp_path / f"{number}.pth")["a"], weights["a"])
    torch.save({"epoch": 3}, tmp_path / "none.pth")
    with pytest.raises(CheckpointError, match="is expected; found: epoch"):
        read_weights(tmp_path / "none.pth")
    torch.save([1], tmp_path / "list.pth")
    with pytest.raises(CheckpointError, match="is expected; found: list"):
        read_weights(tmp_path / "list.pth")
    (tmp_path / "notes.pth").write_text("# weights\nof no kind\n")
    with pytest.raises(CheckpointError, match=r"notes.pth is broken, or no PyTorch checkpoint"):
        read_weights(tmp_path / "notes.pth")
    with pytest.raises(CheckpointError, match="there is no such file"):
        read_weights(tmp_path / "absent.safetensors")


def test_another_models_weights_change_nothing(tmp_path):
    model = timm.create_model("test_vit", img_size=32, num_classes=5, depth=2)
    before = {name: value.clone() for name, value in model.state_dict().items()}
    other = timm.create_model("test_vit", img_size=32, num_classes=3, depth=3).state_dict()
    del other["cls_token"]
    save_file(other, tmp_path / "other.safetensors")
    with pytest.raises(CheckpointError) as error:
        load_weights(model, read_weights(tmp_path / "other.safetensors"), "other.safetensors", "check the recipe")
    message = str(error.value)
    for part in (
        "other.safetensors",
        "1 missing: cls_token",
        "unknown: blocks.2.",
        "head.weight (3, 64), expected (5, 64)",
    ):
        assert part in message
    assert all(torch.equal(before[name], value) for name, value in model.state_dict().items())


@pytest.mark.parametrize(
    ("damaged", "name"),
    [
        ({"network": None}, "network"),
        ({"classes": 7}, "classes"),
        ({"recipe": []}, "recipe"),
        ({"recipe": None}, "recipe"),
        ({"metrics": 5}, "metrics"),
        ({"metrics": {"exits": 5}}, "exits"),
        ({"metrics": {"ema_exits": {"1": 5}}}, "1"),
    ],
)
def test_what_is_no_object_or_list_where_one_belongs_is_named(tmp_path, damaged, name):
    path = save(CheckpointStore(tmp_path), 1)
    whole = RECIPE | {"network": {}, "classes": [], "metrics": {"exits": {"1": {"AP": 0.5}}}}
    (path / "recipe.json").write_text(json.dumps(whole))
    assert read_recipe(path) == whole
    (path / "recipe.json").write_text(json.dumps(whole | damaged))
    with pytest.raises(CheckpointError, match=rf"recipe\.json is damaged: '{name}' is .*is expected"):
        read_recipe(path)


@pytest.mark.parametrize("key", ["command", "recipe"])
def test_what_lacks_the_command_or_the_recipe_is_no_checkpoint_of_ours(tmp_path, key):
    path = save(CheckpointStore(tmp_path), 1)
    (path / "recipe.json").write_text(json.dumps({name: value for name, value in RECIPE.items() if name != key}))
    for command in (None, "toy"):
        with pytest.raises(CheckpointError, match=rf"recipe\.json .*the key '{key}' is missing"):
            read_recipe(path, command)


@pytest.mark.parametrize("damage", ["", "[]", "{}", '{"command": "toy", "recipe": {}, "metrics": 5}'])
def test_a_damaged_checkpoint_ends_no_run_and_is_not_the_best(tmp_path, caplog, damage):
    store = CheckpointStore(tmp_path, keep=3, best_by=("exits", "1", "top1"))
    damaged = save(store, 1, 90.0)
    (damaged / "recipe.json").write_text(damage)
    best = save(store, 2, 50.0)
    assert store.best() == best
    assert str(damaged) in caplog.text
    for step in (3, 4, 5):
        save(store, step, 10.0)
    assert store.complete()[0] == best


@pytest.mark.parametrize("score", [float("nan"), float("inf"), float("-inf")])
def test_a_score_that_is_not_finite_is_not_the_best(tmp_path, score):
    store = CheckpointStore(tmp_path, keep=1, best_by=("exits", "1", "top1"))
    save(store, 1, score)
    assert store.best() is None
    best = save(store, 2, 0.9)
    save(store, 3, score)
    assert store.best() == best


def test_finding_checkpoints(tmp_path):
    for path, reason in ((tmp_path / "absent", "does not exist"), (tmp_path, "holds no complete checkpoint")):
        with pytest.raises(CheckpointError, match=reason):
            find_checkpoint(path)
    store = CheckpointStore(tmp_path / "checkpoints")
    path = save(store, 7)
    assert find_checkpoint(tmp_path) == find_checkpoint(store.folder) == find_checkpoint(path) == path
    (tmp_path / "checkpoints" / "step-00000009").mkdir()  # not one of ours: no recipe
    assert store.last() == path
    assert json.loads((path / "recipe.json").read_text()) == RECIPE | {"metrics": {}}
