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

from cycledistill import unwrap_cyclic, unwrap_hourglass
from cycledistill.integrations.human36m.errors import LiftingDataError
from cycledistill.integrations.human36m.models.registry import create_lifter
from cycledistill.integrations.human36m.recipe import Recipe, load_recipe
from cycledistill.integrations.human36m.train import train
from cycledistill.integrations.human36m.trained import evaluate_trained, load_trained, recorded_card
from cycledistill.recipes.errors import CheckpointError, NonFiniteLossError, RecipeError
from cycledistill.recipes.weights.checkpoint import read_recipe
from tests.human36m.data.mpi_inf_3dhp_files import write_test, write_train
from tests.recipes.run_checks import (
    assert_graphs_change_nothing,
    assert_same_state,
    changing,
    in_graphs,
    last,
    launch,
    rows,
)

PLAIN = {"hourglass__layer": None, "hourglass__keep": None, "cyclic__cycles": None, "evaluate__exits": None}


@pytest.fixture
def tiny(tmp_path: Path) -> Recipe:
    """Two epochs of five steps of five windows, the last of four."""
    return load_recipe(
        {
            "model": {"name": "frame_lifter", "options": {"dim": 16, "depth": 3, "heads": 2, "dropout": 0.1}},
            "hourglass": {"layer": 1, "keep": 3},
            "cyclic": {"cycles": 2},
            "data": {
                "source": "generated", "sequences": 4, "length": 18, "views": 3, "frames": 9, "flip": "random",
                "batch_size": 5,
            },
            "optim": {"lr": 1e-3},
            "schedule": {"epochs": 2, "decay": 0.5, "warmup_steps": 2},
            "ema": {"enabled": True, "decay": 0.9},
            "evaluate": {"every": 1, "exits": [1, 2]},
            "run": {"output": str(tmp_path / "run"), "device": "cpu", "log_every": 3, "progress": False},
        }
    )  # fmt: skip


COMMAND = "cycledistill.integrations.human36m.train"
change = changing(load_recipe)


def test_resume_is_bit_exact(tiny: Recipe, tmp_path: Path) -> None:
    """From inside the second epoch, with other workers; all other places: tests/recipes/run/test_resume.py."""
    whole = change(tiny, run__output=str(tmp_path / "whole"))
    parts = change(tiny, run__output=str(tmp_path / "parts"), data__workers=2)
    assert train(whole)["finished"]
    summary = train(change(parts, run__max_steps=8))
    assert (summary["step"], summary["finished"]) == (8, False)
    torch.manual_seed(123)  # a new process has other generators
    train(parts, resume="auto")
    assert_same_state(last(whole), last(parts))
    assert rows(parts) == rows(whole)
    assert [row for row in rows(parts, "eval") if row["step"] != 8] == rows(whole, "eval")


@pytest.mark.slow
def test_a_run_on_mpi_inf_3dhp(tiny: Recipe, tmp_path: Path) -> None:
    write_train(tmp_path / "train.npz", frames=18, cameras=(0,))
    write_test(tmp_path / "test.npz", frames=45)
    there = {"train_data": str(tmp_path / "train.npz"), "test_data": str(tmp_path / "test.npz"), "allow_pickle": True}
    recipe = change(tiny, **PLAIN, data__source="3dhp", **{f"data__{key}": value for key, value in there.items()})
    summary = train(change(recipe, schedule__epochs=1))
    assert sorted(summary["exits"][1]["actions"]) == [f"TS{number}" for number in range(1, 7)]
    model = load_trained(recipe.run.output)
    assert model.convention.frame_rate is None, "it was recorded at two"
    again = evaluate_trained(recipe, recipe.run.output)
    assert again["exits"][1] == summary["exits"][1]
    assert (
        "MPI-INF-3DHP, valid frames, annotated 2D, universal 3D (test.npz)"
        in recorded_card(recipe.run.output)["evaluation"]
    )


HOSTS = [
    {"model__name": "mixste", "model__options": {"dim": 16, "heads": 2, "depth": 3}, "run__precision": "bf16"},
    {"model__name": "motionbert", "model__options": {"dim": 16, "heads": 2, "depth": 2, "dim_rep": 16},
     "data__confidence": True, "loss__name": "motionbert", "cyclic__cycles": None, "evaluate__exits": None},
    {"model__name": "mhformer", "model__options": {"dim": 16, "heads": 2, "hidden": 16, "depth": 3},
     "hourglass__recover": False, "evaluate__mode": "centre", "loss__name": "mpjpe", "loss__border": "official",
     "data__centred": True, "data__stride": 3, "data__views": 1, "optim__name": "amsgrad", "data__flip": "both"},
]  # fmt: skip
AUTO = {"cyclic__distill": {"token_weight": "auto", "student": "random"}, "cyclic__cycles": 3}
HOST_NAMES = ["MixSTE, HoT, cycles, bf16", "MotionBERT, HoT", "MHFormer, TPC, cycles, centre frames"]


@pytest.mark.slow
@pytest.mark.parametrize("overrides", HOSTS, ids=HOST_NAMES)
def test_resume_of_every_host(tiny: Recipe, tmp_path: Path, overrides: dict[str, Any]) -> None:
    recipe = change(tiny, **overrides)
    whole, parts = (change(recipe, run__output=str(tmp_path / name), run__max_steps=4) for name in ("whole", "parts"))
    found = train(whole)["exits"]
    train(change(parts, run__max_steps=3))
    train(parts, resume="auto")
    assert_same_state(last(whole), last(parts))
    assert all(math.isfinite(figures["mpjpe_frame_mean"]) for figures in found.values())
    losses = [row["loss"] for row in rows(whole)]
    assert losses and all(map(math.isfinite, losses))


@pytest.mark.parametrize(
    "overrides",
    [{}, *(pytest.param(each, marks=pytest.mark.slow) for each in (AUTO, *HOSTS))],
    ids=["HoT, cycles", "tokens a fraction of the task loss", *HOST_NAMES],
)
def test_graphs_change_nothing(tiny: Recipe, overrides: dict[str, Any], monkeypatch: pytest.MonkeyPatch) -> None:
    """Of two epochs of three batches, whose last is smaller."""
    mirrored_too = overrides.get("data__flip") == "both"
    recipe = change(tiny, evaluate__every=2, **overrides, data__sequences=1 if mirrored_too else 2)
    assert_graphs_change_nothing(train, recipe, in_graphs(monkeypatch), stop=4)
    assert (Path(recipe.run.output) / "b" / "checkpoints" / "step-00000006").is_dir()


@pytest.mark.slow
@pytest.mark.parametrize("layer", [pytest.param(None, marks=pytest.mark.slow), 1], ids=["full", "hourglass"])
def test_the_error_falls_below_the_mean_poses(tiny: Recipe, layer: int | None) -> None:
    recipe = change(
        tiny,
        hourglass__layer=layer,
        hourglass__keep=layer and 3,
        cyclic__cycles=None,
        model__options={"dim": 32, "depth": 3, "heads": 2},
        data__sequences=16,
        data__noise=0.0,
        data__batch_size=16,
        optim__lr=3e-3,
        schedule__epochs=40,
        schedule__cosine=True,
        evaluate__every=40,
        evaluate__exits=None,
        ema__enabled=False,
        run__log_every=10,
    )
    summary = train(recipe)
    losses = [row["loss"] for row in rows(recipe)]
    assert losses[-1] < 0.4 * losses[0]
    found = summary["exits"][1]
    assert found["mpjpe_frame_mean"] < 0.6 * mean_pose_error(recipe)
    # evaluated from its checkpoint it is the same
    assert evaluate_trained(recipe, recipe.run.output)["exits"] == summary["exits"]


def mean_pose_error(recipe: Recipe) -> float:
    """MPJPE of answering with the mean pose of the training clips, millimetres."""
    from cycledistill.integrations.human36m.training.sources import open_clips

    training, test = open_clips(recipe.data)
    mean = torch.cat([torch.from_numpy(clip.targets) for clip in training]).mean(dim=0)
    targets = torch.cat([torch.from_numpy(clip.targets) for clip in test])
    return 1000 * (targets - mean).norm(dim=-1).mean().item()


def test_rate_and_figures_in_the_log(tiny: Recipe) -> None:
    recipe = change(tiny, run__log_every=1)
    summary = train(recipe)
    found = rows(recipe)
    assert [row["lr"] for row in found] == pytest.approx([5e-4, *[1e-3] * 4, *[5e-4] * 5])
    for row in found:
        assert row["loss"] == pytest.approx(row["task_1"] + row["task_2"] + row["token_all"], rel=1e-5)
    with (Path(recipe.run.output) / "eval.csv").open() as file:
        table = list(csv.DictReader(file))
    assert [(row["weights"], row["step"]) for row in table] == [
        (weights, step) for step in ("5", "10") for weights in ("model", "ema")
    ]
    for name in ("mpjpe_frame_mean", "mpjpe_action_mean", "temporal_std_ratio_frame_mean", "velocity_frame_mean"):
        assert float(table[2][f"{name}@2"]) == summary["exits"][2][name]
    assert set(summary["exits"][1]["actions"]) == {"walking", "waving", "squatting", "reaching"}
    assert "best" not in summary, "there is no validation set to choose on"


def test_a_checkpoint_is_a_plain_hosts_and_the_hourglass_tables(tiny: Recipe) -> None:
    train(change(tiny, run__max_steps=3))
    assert read_recipe(last(tiny))["cycles"] == 2
    wrapped = load_trained(tiny.run.output)
    clips = torch.randn(2, 9, 17, 2)
    state = load_file(last(tiny) / "model.safetensors")
    with torch.no_grad():
        expected = wrapped(clips)
        assert torch.equal(unwrap_cyclic(wrapped)(clips), expected)
    plain = create_lifter("frame_lifter", frames=9, dim=16, depth=3, heads=2)
    kept = {name: value for name, value in state.items() if not name.startswith(("prune.", "recover."))}
    assert len(kept) < len(state)
    plain.load_state_dict(kept, strict=True)
    with torch.no_grad():
        assert torch.equal(plain.eval()(clips), unwrap_hourglass(wrapped)(clips))


def test_another_clip_length_is_refused_or_resized(tiny: Recipe, tmp_path: Path) -> None:
    plain = change(tiny, **PLAIN, run__max_steps=2)
    train(plain)
    weights = last(plain) / "model.safetensors"
    longer = change(plain, data__frames=12, model__weights=str(weights), run__output=str(tmp_path / "longer"))
    with pytest.raises(CheckpointError, match="temporal_pos"):
        train(longer)
    assert train(change(longer, model__resize=True))["step"] == 2
    with pytest.raises(CheckpointError, match=r"temporal_pos \(1, 9, 16\), expected \(1, 12, 16\).*model\.resize"):
        train(change(plain, data__frames=12), resume="auto")


@pytest.mark.slow
def test_a_confidence_that_the_run_did_not_have_is_refused(tiny: Recipe) -> None:
    train(change(tiny, run__max_steps=1))
    confident = change(tiny, data__confidence=True)
    for file in (tiny.run.output, str(last(tiny) / "model.safetensors")):
        with pytest.raises(CheckpointError, match="shape"):
            evaluate_trained(confident, file)
    with pytest.raises(CheckpointError, match=r"check .*data\.confidence"):
        train(confident, resume="auto")


def test_official_weights_to_start_from(tiny: Recipe, tmp_path: Path) -> None:
    from cycledistill.integrations.human36m.weights.key_map import to_official

    options = {"dim": 16, "heads": 2, "depth": 3}
    model = create_lifter("mixste", frames=9, **options)
    torch.save({"model_pos": to_official(model.state_dict(), model)}, tmp_path / "theirs.pth")
    recipe = change(
        tiny,
        model__name="mixste",
        model__options=options,
        model__weights=str(tmp_path / "theirs.pth"),
        **PLAIN,
    )
    loaded = load_trained(tmp_path / "theirs.pth", recipe=recipe)
    assert all(torch.equal(value, model.state_dict()[name]) for name, value in loaded.state_dict().items())
    assert train(change(recipe, run__max_steps=1))["step"] == 1


def test_nan_names_step_and_terms(tiny: Recipe, monkeypatch: pytest.MonkeyPatch) -> None:
    from cycledistill.integrations.human36m.training import session as module

    train(change(tiny, run__max_steps=2))
    before = load_file(last(tiny) / "model.safetensors")
    original = module.to_device

    def poisoned(*args: Any) -> Any:
        inputs, targets, inside = original(*args)
        return inputs * math.nan, targets, inside

    monkeypatch.setattr(module, "to_device", poisoned)
    with pytest.raises(NonFiniteLossError, match=r"nan at step 2 \(epoch 0, batch 2\).*task_1.*step-00000002"):
        train(tiny, resume="auto")
    assert all(torch.equal(value, before[name]) for name, value in load_file(last(tiny) / "model.safetensors").items())


def test_a_run_is_not_written_over(tiny: Recipe) -> None:
    train(change(tiny, run__max_steps=2))
    with pytest.raises(RecipeError, match="holds a run already"):
        train(tiny)
    with pytest.raises(CheckpointError, match=r"not those of this .*levels\.3"):
        train(change(tiny, model__options__depth=4), resume="auto")
    with pytest.raises(CheckpointError, match="5 windows a step, this run has 4"):
        train(change(tiny, data__batch_size=4), resume="auto")


@pytest.mark.parametrize(
    ("overrides", "message"),
    [
        ({"hourglass__keep": 10}, "hourglass: .*keep=10.*9"),
        ({"hourglass__keep": 0}, "hourglass: .*keep=0"),
        ({"hourglass__keep": 9}, "hourglass.keep=9: all 9 frames of a window .* nothing pruned"),
        ({"hourglass__layer": [1, 2], "hourglass__keep": [9, 1.0]}, "all 9 frames of a window"),
        ({"hourglass__layer": None}, "hourglass.keep=3: model.name='frame_lifter' has no hourglass; .*hot_mixste"),
        ({"hourglass__keep": None}, "hourglass.layer=1 without hourglass.keep"),
        ({"hourglass__layer": 7}, "hourglass: .*layer=7"),
        ({"hourglass__options": {"neighbors": 2}}, "hourglass: .*neighbors"),
        ({"hourglass__recover": False}, "hourglass.recover=false .* evaluate.mode=centre"),
        ({"model__name": "mixstee"}, "model: 'mixstee' is no lifting model; nearest: mixste"),
        ({"model__name": "mhformer"}, "mhformer answers for the centre frame of a window alone"),
        ({"model__options": {"depht": 3}}, "model: .*depht.*depth"),
        ({"model__options": {"frames": 27}}, "model.options.frames: set data.frames instead"),
        ({"cyclic__distill": "sdpse"}, "sdpse"),
        ({"evaluate__exits": [2], "cyclic__cycles": None}, "a model without cycles has exit 1 only"),
        ({"optim__lr": 0}, "optim.lr=0"),
        ({"data__source": "h36n"}, "data.source: got 'h36n'.*h36m"),
    ],
)
def test_recipes_that_cannot_be_used(tiny: Recipe, overrides: dict[str, Any], message: str) -> None:
    with pytest.raises(RecipeError, match=message):
        train(change(tiny, **overrides))


def test_data_that_is_not_there(tiny: Recipe, tmp_path: Path) -> None:
    with pytest.raises(
        LiftingDataError, match=r"data\.pose_3d is not set: .* needs --pose-3d, --pose-2d and --calibration;"
    ):
        train(change(tiny, data__source="h36m"))
    with pytest.raises(LiftingDataError, match=r"data\.motion is not set: .* needs --motion;"):
        train(change(tiny, data__source="cmu"))
    with pytest.raises(LiftingDataError, match="there is no such file"):
        train(change(tiny, data__source="cmu", data__motion=str(tmp_path / "none.npz")))
    assert not (Path(tiny.run.output) / "checkpoints").exists()


@pytest.mark.slow
def test_two_processes_are_one_of_twice_the_batch(tiny: Recipe, tmp_path: Path) -> None:
    """24 windows in two processes of three are those of one of six. Going on in two: tests/coco/test_train.py."""
    recipe = change(tiny, data__batch_size=3, ema__enabled=False, model__options__dropout=0.0)
    two = change(recipe, run__output=str(tmp_path / "two"))
    ranks = launch(COMMAND, two, tmp_path)
    assert all(torch.equal(value, ranks[1][name]) for name, value in ranks[0].items())
    one = change(recipe, run__output=str(tmp_path / "one"), data__batch_size=6)
    train(one)
    weights, alone = load_file(last(two) / "model.safetensors"), load_file(last(one) / "model.safetensors")
    for name, value in weights.items():
        torch.testing.assert_close(value, alone[name], rtol=1e-3, atol=2e-4)
    measured = [rows(each, "eval")[-1] for each in (two, one)]
    assert measured[0]["mpjpe_frame_mean@1"] == pytest.approx(measured[1]["mpjpe_frame_mean@1"], rel=1e-2)
