"""The packaged recipes: complete, readable, and of the models whose figures their heads quote."""

from __future__ import annotations

import re
from importlib import resources
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest
import torch

pytest.importorskip("accelerate")

from cycledistill.integrations.human36m.models.registry import create_lifter
from cycledistill.integrations.human36m.recipe import Recipe, RecipeError, list_recipes, load_recipe
from cycledistill.integrations.human36m.train import main
from cycledistill.integrations.human36m.training.build import create_model
from cycledistill.integrations.human36m.training.schedules import learning_rate

CONFIGS = resources.files("cycledistill.integrations.human36m") / "configs"
PARAMETERS = re.compile(r"([\d.]+) M parameters")


@pytest.mark.parametrize("name", list_recipes())
def test_every_recipe_builds_the_model_its_head_speaks_of(name: str) -> None:
    recipe = load_recipe(name)
    with torch.device("meta"):
        model = create_model(recipe)
    head = (CONFIGS / f"{name}.yaml").read_text(encoding="utf-8").split("\nmodel:")[0]
    assert f"--config {name}" in head
    quoted = PARAMETERS.search(" ".join(head.split()))
    if quoted:
        millions = sum(parameter.numel() for parameter in model.parameters()) / 1e6
        digits = len(quoted[1].partition(".")[2])
        assert round(millions, digits) == pytest.approx(float(quoted[1]), abs=1.1 * 10**-digits)
        assert "\npublished:" in head and "reproduced here" in head
    assert recipe.run.output == f"runs/{name}"


def test_the_defaults_are_mixstes() -> None:
    mixste = load_recipe("mixste").to_dict()
    default = Recipe().to_dict()
    assert mixste.pop("run") | {"output": "runs/human36m", "seed": 0} == default.pop("run")
    assert mixste == default


def test_rates() -> None:
    mixste, mhformer = load_recipe("mixste").schedule, load_recipe("mhformer").schedule
    assert [learning_rate(step, 2, 1.0, mixste) for step in (0, 1, 2, 5)] == pytest.approx([1, 1, 0.99, 0.99**2])
    rates = [learning_rate(epoch, 1, 1.0, mhformer) for epoch in range(12)]
    ratios = [after / before for before, after in pairwise(rates)]
    assert ratios == pytest.approx([0.95] * 4 + [0.5] + [0.95] * 4 + [0.5, 0.95])
    cosine = load_recipe("frame_token_small", ["schedule.epochs=2", "schedule.warmup_steps=2"]).schedule
    assert [learning_rate(step, 4, 1.0, cosine) for step in (0, 1, 4)] == pytest.approx([0.5, 0.9619398, 0.5])


def test_a_published_name_brings_its_hourglass() -> None:
    model = create_model(load_recipe("mixste", ["model.name=hot_mixste", "data.frames=27", "cyclic.cycles=2"]))
    assert model.hourglass.layers == (3,) and model.hourglass.keep == (9,)
    assert model.cyclic.stack.depth == 5, "the levels after the prune point"
    with pytest.raises(RecipeError, match=r"model\.options\.keep: set hourglass\.keep instead"):
        create_model(load_recipe("mixste", {"model.options": {"keep": 9}}))


@pytest.mark.parametrize(
    ("name", "kept"),
    [
        ("hot_mixste", {243: 81, 81: 27, 27: 9}),
        ("tpc_mixste", {243: 61, 81: 20, 27: 7}),
        ("hot_motionbert", {243: 81, 81: 27, 27: 9}),
        ("tpc_mhformer", {351: 117, 81: 27, 27: 9}),
    ],
)
def test_what_is_kept_scales_with_the_window_as_in_the_registry(name: str, kept: dict[int, int]) -> None:
    published = load_recipe(name)
    assert published.data.frames == max(kept)
    with torch.device("meta"):
        for frames, keep in kept.items():
            model = create_model(load_recipe(name, [f"data.frames={frames}"]))
            assert model.hourglass.keep == (keep,)
            assert model.hourglass.settings == create_lifter(name, frames=frames).hourglass.settings
        # what is set explicitly stays
        assert create_model(load_recipe(name, ["data.frames=81", "hourglass.keep=5"])).hourglass.keep == (5,)


def test_parts_of_a_named_hourglass_can_be_set_otherwise() -> None:
    with torch.device("meta"):
        other = create_model(load_recipe("hot_mixste", ["hourglass.select=uniform", "hourglass.recover=linear"]))
        assert (other.hourglass.settings.select, other.hourglass.recover, other.hourglass.keep) == (
            "uniform", "linear", (81,)
        )  # fmt: skip
        # measuring by centre frames does not change which frames a trained model keeps
        centred = create_model(load_recipe("hot_mixste", ["evaluate.mode=centre"]))
        assert centred.hourglass.settings.centre is False
        few = create_model(load_recipe("hot_mixste", ["evaluate.mode=centre", "hourglass.recover=false"]))
        assert few.hourglass.settings.centre is True
        with pytest.raises(RecipeError, match=r"hourglass\.recover=false.*evaluate\.mode=centre"):
            create_model(load_recipe("hot_mixste", ["hourglass.recover=false"]))


@pytest.mark.parametrize(
    "setting",
    [{"select": "uniform"}, {"recover": False}, {"recover": "linear"}, {"keep": 0.5}, {"options": {"neighbours": 3}}],
)
def test_settings_of_an_hourglass_that_is_not_there(setting: dict[str, Any]) -> None:
    (key,) = setting
    recipe = load_recipe("mixste", {f"hourglass.{key}": setting[key]})
    with pytest.raises(RecipeError, match=rf"hourglass\.{key}=.*'mixste' has no hourglass; set hourglass\.layer"):
        create_model(recipe)


def test_several_prune_points() -> None:
    recipe = load_recipe("frame_token_small", {"hourglass.layer": [1, 3], "hourglass.keep": [40, 20]})
    assert create_model(recipe).hourglass.keep == (40, 20)
    shares = load_recipe("frame_token_small", ["hourglass.layer=[1, 3]", "hourglass.keep=[0.5, 0.25]"])
    assert create_model(shares).hourglass.keep == (0.5, 0.25)
    with pytest.raises(RecipeError, match=r"hourglass\.options\.select: set hourglass\.select instead"):
        create_model(load_recipe("hot_mixste", {"hourglass.options": {"select": "tpc"}}))


def test_the_command_says_what_is_wrong(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for arguments, message in (
        (["--config", "hot_mixst"], "neither a file nor one of the packaged recipes"),
        (["--config", "mixste", "--output", str(tmp_path / "a")], "data.pose_3d is not set"),
        (["--set", "optim.rl=1"], "unknown key 'optim.rl'. Did you mean 'optim.lr'"),
        (
            ["--dataset", "/absent"],
            "error: --dataset: data.source: got '/absent' (str), expected one of 'generated', 'cmu', 'h36m', '3dhp'.",
        ),
        (
            ["--dataset", "/absent"],
            " --motion (cmu), --pose-3d, --pose-2d and --calibration (h36m), or --train-data and --test-data (3dhp).\n",
        ),
        (["--evaluate", str(tmp_path)], "holds no complete checkpoint"),
        (["--evaluate", "x", "--resume", "y"], "exclude each other"),
    ):
        assert main(arguments) == 2
        assert message in capsys.readouterr().err


def test_train_and_evaluate_from_the_command(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    sets = ["data.length=18", "data.sequences=4", "model.options={dim: 16, depth: 2}", "run.progress=false"]
    options = [part for each in sets for part in ("--set", each)]
    run = str(tmp_path / "run")
    assert main(["--config", "frame_token_small", "--frames", "9", "--max-steps", "2", "--output", run, *options]) == 0
    trained = capsys.readouterr().out
    assert '"step": 2' in trained
    assert main(["--evaluate", run]) == 0
    evaluated = capsys.readouterr().out
    figure = re.compile(r'"mpjpe_frame_mean": [\d.]+')
    assert figure.findall(trained) == figure.findall(evaluated)
