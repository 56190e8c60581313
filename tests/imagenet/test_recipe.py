"""Recipes: DeiT's numbers, layering, and messages that name the key."""

from __future__ import annotations

from pathlib import Path

import pytest

from cycledistill import Distill
from cycledistill.integrations.imagenet.recipe import Recipe, RecipeError, load_recipe
from cycledistill.integrations.imagenet.train import COMMAND, train
from cycledistill.integrations.imagenet.training.build import create_model
from cycledistill.recipes.config.distillation import read_distill


def test_defaults_are_the_packaged_deit_recipe():
    recipe = load_recipe("deit_tiny")
    assert recipe == Recipe() == load_recipe(None)
    # facebookresearch/deit main.py
    assert (recipe.optim.lr, recipe.optim.weight_decay, recipe.optim.eps, recipe.optim.clip) == (5e-4, 0.05, 1e-8, None)
    schedule = recipe.schedule
    assert (schedule.epochs, schedule.warmup_epochs, schedule.warmup_lr, schedule.min_lr) == (300, 5, 1e-6, 1e-5)
    assert (recipe.model.drop, recipe.model.drop_path, recipe.ema.decay, recipe.data.repeats) == (0.0, 0.1, 0.99996, 3)
    augment = recipe.augment
    assert (augment.auto, augment.color_jitter, augment.interpolation) == ("rand-m9-mstd0.5-inc1", 0.4, "bicubic")
    assert (augment.mixup, augment.cutmix, augment.mix_switch, augment.smoothing) == (0.8, 1.0, 0.5, 0.1)
    assert (augment.erase, augment.erase_mode, augment.crop_pct) == (0.25, "pixel", 0.875)
    assert (recipe.cyclic.cycles, recipe.cyclic.distill) == (2, "sdpose")


@pytest.mark.parametrize("name", ["deit_tiny", "imagenette_96.yaml", "cifar10_32", "cpu_96"])
def test_packaged_recipes_build_their_model(name):
    model = create_model(load_recipe(name), classes=10)
    assert model.cyclic.cycles == 2
    assert model.num_classes == 10


def test_file_then_overrides(tmp_path: Path):
    file = tmp_path / "mine.yaml"
    file.write_text("optim: {lr: 1e-3, clip: 1}\ncyclic: {cycles: 3}\n")
    recipe = load_recipe(file, ["cyclic.cycles=4", "model.kwargs.depth=6", "run.seed=7"])
    assert (recipe.optim.lr, recipe.optim.clip) == (1e-3, 1.0)  # YAML reads 1e-3 as text
    assert (recipe.cyclic.cycles, recipe.model.kwargs, recipe.run.seed) == (4, {"depth": 6}, 7)
    assert load_recipe(recipe.to_dict()) == recipe


@pytest.mark.parametrize(
    ("override", "parts"),
    [
        ("optim.lrr=1", ["'optim.lrr'", "'optim.lr'"]),
        ("lr=1", ["'lr'", "'optim.lr'"]),
        ("optm.lr=1", ["'optm.lr'", "'optim.lr'"]),
        ("optim.lr.x=1", ["'optim.lr.x'", "'optim.lr'"]),
        ("optim=3", ["optim is a section", "such as optim.name"]),
        ("optim.lr=fast", ["optim.lr", "'fast'", "a number"]),
        ("optim.lr=true", ["optim.lr", "True (bool)", "a number"]),
        ("data.batch_size=3.5", ["data.batch_size", "3.5 (float)", "a whole number"]),
        ("ema.enabled=2", ["ema.enabled", "2 (int)", "true or false"]),
        ("run.precision=bf61", ["run.precision", "'fp32', 'bf16', 'fp16'", "Did you mean 'bf16'"]),
        ("optim.betas=[0.9, x]", ["optim.betas[1]", "'x'"]),
        ("augment.scale=[0.1]", ["augment.scale", "2 numbers"]),
        ("cyclic.cycles=0", ["cyclic.cycles=0", "at least 1"]),
        ("cyclic.cycles=2.0", ["cyclic.cycles", "2.0 (float)"]),
        ("model.drop_path=1.5", ["model.drop_path", "1.5"]),
        ("schedule.warmup_epochs=400", ["schedule.warmup_epochs", "400", "300"]),
        ("data.batch_size=255", ["data.batch_size", "even"]),
        ("optim.lr", ["section.key=value"]),
        ("optim.lr=[", ["not plain YAML"]),
    ],
)
def test_bad_overrides_name_the_key(override, parts):
    with pytest.raises(RecipeError) as error:
        load_recipe(None, [override])
    for part in parts:
        assert part in str(error.value)


def test_bad_files(tmp_path: Path):
    with pytest.raises(RecipeError, match=r"neither a file nor one of the packaged recipes.*'deit_tiny'"):
        load_recipe("deit_tiyn")
    code = tmp_path / "code.yaml"
    code.write_text("optim: !!python/object/apply:os.system ['true']\n")
    with pytest.raises(RecipeError, match="no code"):
        load_recipe(code)
    code.write_text("- 1\n")
    with pytest.raises(RecipeError, match="expected sections"):
        load_recipe(code)
    code.write_text("optim: 3\n")
    with pytest.raises(RecipeError, match="optim: got 3"):
        load_recipe(code)
    code.write_text("optim: {learning_rate: 3}\n")
    with pytest.raises(RecipeError, match=r"unknown key 'optim.learning_rate'"):
        load_recipe(code)


@pytest.mark.parametrize("how", ["default", "graph"])
def test_compile_refuses_a_drop_path_that_moves_every_step(how):
    moving = [f"run.compile={how}", "schedule.drop_path_epochs=50"]
    with pytest.raises(RecipeError, match=f"run.compile={how}.*'constant'.*run.compile=none"):
        load_recipe(None, moving)
    assert load_recipe(None, [*moving, "schedule.drop_path_shape=constant"]).run.compile == how
    load_recipe(None, [*moving, "run.compile=none"])


def test_distill_as_plain_data():
    recipe = load_recipe(None, ["cyclic.distill.token_weight=0.1", "cyclic.distill.normalize=true"])
    expected = Distill(token_weight=0.1, normalize=True)
    assert recipe.cyclic.distill == {"preset": "sdpose", "token_weight": 0.1, "normalize": True}
    assert read_distill(recipe.cyclic.distill) == expected
    assert read_distill({"task_weights": [1, 0.1]}) == Distill(task_weights=(1, 0.1))
    assert read_distill("elt") == Distill.preset("elt")
    assert read_distill(None) is None


@pytest.mark.parametrize(
    ("overrides", "parts"),
    [
        (["model.name=deit_tiny_patch16_244"], ["deit_tiny_patch16_244", "deit_tiny_patch16_224"]),
        (["model.kwargs.dept=3"], ["model.kwargs", "dept"]),
        (["model.kwargs.num_heads=5"], ["model.kwargs", "num_heads", "divisible"]),
        (["model.name=resnet18", "model.kwargs={}"], ["cyclic:"]),
        (["cyclic.blocks=block"], ["cyclic:", "block"]),
        (["cyclic.distill=sdpos"], ["sdpos", "'sdpose'"]),
        (["cyclic.distill.token_wieght=1"], ["cyclic.distill.token_wieght", "token_weight"]),
        (["cyclic.distill.detach=true"], ["cyclic.distill", "diverges"]),
        (["cyclic.distill.token_weight=-1"], ["cyclic.distill", "-1"]),
    ],
)
def test_recipes_that_no_model_can_follow(overrides, parts):
    with pytest.raises(RecipeError) as error:
        create_model(load_recipe("cpu_96", ["model.img_size=null", *overrides]), classes=10)
    for part in parts:
        assert part in str(error.value)


def parse(*argv: str) -> Recipe:
    return COMMAND.recipe(COMMAND.parser().parse_args(argv))


def test_command_line_options():
    recipe = parse(
        "--config", "cpu_96", "--cycles", "3", "--distill", "none", "--max-steps", "5", "--set", "optim.lr=1e-3"
    )
    assert (recipe.cyclic.cycles, recipe.cyclic.distill, recipe.run.max_steps) == (3, None, 5)
    assert (recipe.optim.lr, recipe.model.img_size) == (1e-3, 96)
    # --set has the last word, and can refine a preset named by an option
    recipe = parse("--distill", "exits", "--set", "cyclic.distill.token_weight=0.5")
    assert recipe.cyclic.distill == {"preset": "exits", "token_weight": 0.5}
    with pytest.raises(RecipeError, match="exclude"):
        parse("--evaluate", "a.safetensors", "--resume", "auto")


def test_an_unknown_preset_is_refused_with_the_recipe_and_an_unknown_model_before_the_images():
    with pytest.raises(RecipeError, match=r"cyclic.distill='sdpos'"):
        load_recipe(None, ["cyclic.distill=sdpos"])
    with pytest.raises(RecipeError, match="model.name"):
        train(load_recipe(None, ["model.name=deit_tinny", "data.dir=no/such/folder", "run.device=cpu"]))


def test_an_unknown_device_lists_the_known():
    with pytest.raises(RecipeError, match="'cpu', 'cuda'"):
        load_recipe(None, ["run.device=tpu"])
    with pytest.raises(RecipeError, match=r"run.device='cuda:1'.*CUDA_VISIBLE_DEVICES"):
        load_recipe(None, ["run.device=cuda:1"])


def test_options_and_set_are_checked_together():
    recipe = parse("--epochs", "1", "--set", "schedule.warmup_epochs=0")
    assert (recipe.schedule.epochs, recipe.schedule.warmup_epochs) == (1, 0)


def test_keys_of_the_first_release_are_taken_for_todays(tmp_path: Path, caplog):
    file = tmp_path / "old.yaml"
    file.write_text("run: {eval_every: 5}\ncyclic: {cycles: 3, exits: [1, 2]}\ndata: {eval_batch_size: 8}\n")
    recipe = load_recipe(file, ["run.eval_every=7"])
    assert (recipe.evaluate.every, recipe.evaluate.exits, recipe.evaluate.batch_size) == (7, [1, 2], 8)
    assert (recipe.cyclic.cycles, recipe.eval_batch_size) == (3, 8)
    assert "run.eval_every is called evaluate.every now" in caplog.text
    given = {"cyclic": {"exits": [1]}, "evaluate": {"exits": [2]}}
    with pytest.raises(RecipeError, match=r"cyclic.exits is called evaluate.exits now: give one"):
        load_recipe(given)
    assert given == {"cyclic": {"exits": [1]}, "evaluate": {"exits": [2]}}  # a caller's mapping stays as it is
    with pytest.raises(RecipeError, match=r"evaluate.exits"):
        load_recipe(None, ["cyclic.exits=[]"])
