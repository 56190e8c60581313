"""Every packaged recipe loads and builds; recipes and data that cannot be used are refused with what to do."""

from __future__ import annotations

import copy
import json
import math
from pathlib import Path
from typing import Any

import pytest
import torch
import yaml

pytest.importorskip("accelerate")
pytest.importorskip("pycocotools")

from cycledistill import CycleOutput, Distill
from cycledistill.integrations.coco.recipe import PruneSection, Recipe, RecipeError, list_recipes, load_recipe
from cycledistill.integrations.coco.train import main
from cycledistill.integrations.coco.training.build import create_model
from cycledistill.integrations.coco.training.schedules import keep_fraction, learning_rate
from cycledistill.integrations.coco.training.task import PoseTask
from tests.coco.figures import write_dots

CONFIGS = Path(__file__).parents[2] / "integrations" / "coco" / "configs"


@pytest.mark.slow
@pytest.mark.parametrize("name", list_recipes())
def test_packaged_recipes_build_and_say_what_they_are(name: str) -> None:
    recipe = load_recipe(name)
    model = _on_meta(recipe)
    assert model.config.num_keypoints == {"coco": 17, "crowdpose": 14}[recipe.data.joints]
    handle: Any = getattr(model, "cyclic", None)
    if "sdpose" in name or name.startswith(("ablation", "lspet")):
        assert handle.cycles == (recipe.cyclic.cycles or {"sdpose_t": 3}.get(name, 2))
        with torch.device("meta"):
            out = model.train()(torch.zeros(2, 3, *model.config.image_size))
        assert isinstance(out, CycleOutput) and len(out) == handle.cycles
    else:
        assert handle is None
    assert hasattr(model, "pruning") == ("ppt" in name)
    text = (CONFIGS / f"{name}.yaml").read_text()
    header = [line for line in text.splitlines() if line.startswith("#")]
    assert any(f"--config {name} " in line for line in header)
    assert isinstance(yaml.safe_load(text), dict)


def test_defaults_are_sdposes() -> None:
    recipe = load_recipe(None)
    named = load_recipe("sdpose_s_v1", {"run.seed": 0, "cyclic.cycles": None})
    assert named == recipe == Recipe()
    assert (recipe.optim.name, recipe.optim.lr, recipe.data.batch_size) == ("adam", 1e-3, 64)
    assert (recipe.schedule.epochs, recipe.schedule.milestones) == (300, [200, 260])


def test_the_ablations_are_those_of_the_paper() -> None:
    def distill(name: str) -> Distill:
        model = _on_meta(load_recipe(name, {"model.options.depth": 1}))
        assert isinstance(model.cyclic.distill, Distill)
        return model.cyclic.distill

    assert distill("ablation_last_x3") == Distill.preset("mct")
    assert distill("ablation_exits") == Distill.preset("exits")
    assert distill("ablation_keypoint_tokens").token_weight == {"keypoint": 5e-6}
    assert distill("ablation_visual_tokens").token_weight == {"visual": 5e-6}
    assert distill("ablation_tokens_alone") == Distill(task_weights="last", token_weight=5e-6)


def _on_meta(recipe: Recipe) -> Any:
    with torch.device("meta"):
        return create_model(recipe)


def test_one_token_loss_alone_is_logged_alone() -> None:
    options = {
        "model.options": {"image_size": [64, 32], "backbone": "none", "patch_size": [8, 8], "dim": 16, "heads": 2}
    }
    recipe = load_recipe("ablation_visual_tokens", options | {"loss.scale": 0.5})
    task = PoseTask(create_model(recipe), recipe.loss)
    batch = torch.randn(2, 3, 64, 32), torch.rand(2, 17, 2) * 32, torch.ones(2, 17)
    terms = task(*batch)
    assert set(terms) == {"loss", "task_1", "task_2", "token_visual"}
    task.scale = 1.0
    assert task(*batch)["task_1"].item() == pytest.approx(2 * terms["task_1"].item())


def test_the_rate_over_the_published_schedule() -> None:
    schedule = Recipe().schedule
    rate = [learning_rate(step, 100, 1e-3, schedule) for step in range(300 * 100)]
    assert rate[0] == pytest.approx(1e-6)
    assert rate[250] == pytest.approx(1e-3 * (1 - 0.5 * 0.999))
    assert rate[500] == rate[19_999] == 1e-3
    assert rate[20_000] == pytest.approx(1e-4) and rate[26_000] == pytest.approx(1e-5)


def test_keep_over_ppts_schedule() -> None:
    prune = PruneSection(start_epochs=10, anneal_epochs=100)
    keep = [keep_fraction(step, 10, 0.7, prune) for step in range(1200)]
    assert keep[:101] == [1.0] * 101
    assert keep[600] == pytest.approx(0.85)
    assert keep[1100:] == [0.7] * 100
    assert keep == sorted(keep, reverse=True)
    assert keep_fraction(0, 10, 0.7, PruneSection()) == 0.7


@pytest.mark.parametrize(
    ("override", "parts"),
    [
        ("optim.lrr=1", ["'optim.lrr'", "'optim.lr'"]),
        ("prune.keep=0", ["prune.keep=0", "above 0"]),
        ("prune.keep=1.5", ["prune.keep=1.5", "at most 1"]),
        ("schedule.milestones=[260, 200]", ["schedule.milestones", "ascending"]),
        ("data.joints=halpe", ["data.joints='halpe'", "crowdpose"]),
        ("evaluate.exits=[2, 3]", ["evaluate.best_exit=1", "[2, 3]"]),
        ("run.precision=fp61", ["run.precision", "'fp16'"]),
        ("augment.rotation=much", ["augment.rotation", "'much'", "a number"]),
        ("cyclic.cycles=0", ["cyclic.cycles=0"]),
        ("augment.flip_probability=1.5", ["augment.flip_probability=1.5", "from 0 to 1"]),
        ("augment.rotation_probability=-0.1", ["augment.rotation_probability=-0.1"]),
        ("augment.half_body_joints=-1", ["augment.half_body_joints=-1"]),
        ("augment.shift=2", ["augment.shift=2"]),
        ("augment.scale=1", ["augment.scale=1", "below 1"]),
        ("augment.scale=.nan", ["augment.scale=", "a finite number"]),
        ("augment.rotation=-10", ["augment.rotation=-10", "180"]),
        ("evaluate.keypoint_threshold=20", ["evaluate.keypoint_threshold=20"]),
        ("evaluate.nms=0", ["evaluate.nms=0", "no NMS"]),
        ("evaluate.nms=90", ["evaluate.nms=90", "at most 1"]),
        ("data.detection_threshold=-1", ["data.detection_threshold=-1"]),
    ],
)
def test_bad_values_name_the_key(override: str, parts: list[str]) -> None:
    with pytest.raises(RecipeError) as error:
        load_recipe(None, [override])
    for part in parts:
        assert part in str(error.value)


@pytest.mark.parametrize(
    ("override", "parts"),
    [
        ("model.name=sdpose_s_v3", ["sdpose_s_v3", "sdpose_s_v2"]),
        ("model.options={image_size: [250, 192]}", ["image_size", "250", "divisible"]),
        ("model.options={num_keypoints: 14}", ["model.options.num_keypoints", "data.joints"]),
        ("model.options={dept: 3}", ["dept", "'depth'"]),
        ("prune.layers=[3, 12]", ["prune_layers", "12", "11"]),
        ("prune.keep=0.5", ["prune.keep=0.5", "prune.layers", "'sdpose_s_v1'"]),
        ("prune.anneal_epochs=5", ["prune.anneal_epochs=5", "has no layers"]),
        ("prune.start_epochs=5", ["prune.start_epochs=5"]),
        ("cyclic.distill=sdpos", ["sdpos"]),
        ("cyclic.distill=elt", ["cyclic.distill", "output_loss", "mse"]),
        ("cyclic.distill={token_wieght: 1}", ["cyclic.distill.token_wieght", "token_weight"]),
        ("cyclic.distill={preset: sdpose, token_weight: {patch: 1.0}}", ["'patch'", "keypoint"]),
    ],
)
def test_recipes_that_no_model_can_follow(override: str, parts: list[str]) -> None:
    with pytest.raises(RecipeError) as error:
        create_model(load_recipe(None, [override]))
    for part in parts:
        assert part in str(error.value)


@pytest.mark.parametrize("how", ["default", "graph"])
def test_annealing_and_compile_exclude_each_other(how: str) -> None:
    with pytest.raises(RecipeError, match=rf"prune\.anneal_epochs with run\.compile={how}.*run\.compile=none"):
        load_recipe("ppt_s_original", [f"run.compile={how}"])
    assert load_recipe("ppt_s_original", [f"run.compile={how}", "prune.anneal_epochs=0"]).run.compile == how


SMALL = "model.options={image_size: [64, 32], backbone: none, patch_size: [8, 8], dim: 16, depth: 2, heads: 2}"
FILES = (
    "data.train_annotations=annotations/train.json",
    "data.train_images=pictures",
    "data.val_annotations=annotations/val.json",
    "data.val_images=pictures",
    "data.detections=detections.json",
    "run.progress=false",
)


def command(root: Path, *extra: str) -> list[str]:
    settings = [word for text in (SMALL, *FILES) for word in ("--set", text)]
    given = ["--data", str(root), "--output", str(root / "run"), "--device", "cpu", "--workers", "0"]
    return [*given, "--batch-size", "4", "--epochs", "1", *settings, *extra]


def fails(capsys: pytest.CaptureFixture[str], arguments: list[str]) -> str:
    assert main(arguments) == 2
    message = capsys.readouterr().err.splitlines()[-1]
    assert message.startswith("error: ")
    return message


@pytest.mark.slow
def test_the_command_trains_and_evaluates_in_detected_boxes(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    root = write_dots(tmp_path / "set")
    assert main(command(root)) == 0
    summary = json.loads(capsys.readouterr().out)
    assert summary["finished"] and list(summary["exits"]) == ["1", "2", "3"]
    assert "oks" not in summary["exits"]["1"]  # detections have no labels
    assert main(["--evaluate", str(root / "run")]) == 0
    again = json.loads(capsys.readouterr().out)
    assert again["persons"] == 12 and again["exits"] == summary["exits"]
    weights = f"{summary['checkpoint']}/model.safetensors"
    assert main(command(root, "--evaluate", weights, "--config", "sdpose_s_v1", "--set", "data.detections=null")) == 0
    assert 0 <= json.loads(capsys.readouterr().out)["exits"]["1"]["oks"] < 1
    # a checkpoint of another variant
    other = command(root, "--evaluate", weights, "--config", "sdpose_s_v1", "--set", "model.options.depth=3")
    assert "blocks.2" in fails(capsys, other)


def test_no_detections_give_zero(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    root = write_dots(tmp_path / "set")
    (root / "detections.json").write_text("[]")
    assert main(command(root, "--max-steps", "1")) == 0
    assert json.loads(capsys.readouterr().out)["exits"]["1"]["AP"] == 0


@pytest.mark.parametrize(
    ("extra", "parts"),
    [
        (
            ["--data", "/absent"],
            ["data.root", "/absent does not exist: give the folder or zip file of the data set by --data"],
        ),
        (["--set", "data.train_annotations=absent.json"], ["data.train_annotations", "absent.json"]),
        (["--set", "data.val_images=absent"], ["data.val_images", "absent", "no folder"]),
        (["--set", "data.train_images=annotations"], ["1.png", "there is no such file"]),
        (["--set", "data.detections=absent.json"], ["data.detections", "null"]),
        (["--set", "data.joints=crowdpose"], ["51 keypoint numbers", "42", "data.joints='crowdpose'"]),
        (["--config", "sdpose_s_v11"], ["sdpose_s_v11", "'sdpose_s_v1'"]),
        (["--resume", "/absent"], ["/absent", "does not exist"]),
        (["--set", "model.weights=/absent.safetensors"], ["/absent.safetensors"]),
        (["--evaluate", "/absent.pth", "--config", "sdpose_s_v1"], ["/absent.pth"]),
        (["--evaluate", "x", "--resume", "auto"], ["exclude"]),
        (["--output", "/dev/null/x"], ["run.output", "cannot be written"]),
        (["--model", "tokenpose_s_v1", "--set", "evaluate.exits=[1, 2]"], ["exit 1 only", "cyclic.cycles=1"]),
    ],
)
def test_bad_input_ends_without_a_traceback(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], extra: list[str], parts: list[str]
) -> None:
    message = fails(capsys, command(write_dots(tmp_path / "set", pictures=2), *extra))
    for part in parts:
        assert part in message


@pytest.mark.parametrize(
    ("spoil", "parts"),
    [
        (lambda data: data["annotations"][0].pop("keypoints") and None, []),
        (
            lambda data: data["annotations"][0]["keypoints"].__setitem__(0, math.nan),
            ["no plain list of finite numbers"],
        ),
        (lambda data: data.pop("annotations") and None, ["no list 'annotations'"]),
        (lambda data: [entry.pop("keypoints") for entry in data["annotations"]] and None, ["none of 4 annotations"]),
    ],
    ids=["one person without keypoints", "nan", "no annotations", "no keypoints at all"],
)
def test_broken_training_annotations(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], spoil: Any, parts: list[str]
) -> None:
    root = write_dots(tmp_path / "set", pictures=2)
    file = root / "annotations" / "train.json"
    data = json.loads(file.read_text())
    spoil(data)
    file.write_text(json.dumps(data))
    if not parts:  # left out, as a crowd is
        assert main(command(root, "--max-steps", "1")) == 0
        return
    message = fails(capsys, command(root))
    for part in ["data.train_annotations", *parts]:
        assert part in message
    file.write_text("{")
    assert "cannot be read as JSON" in fails(capsys, command(root))


def test_a_full_disk_leaves_the_old_checkpoint(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    from cycledistill.recipes.weights import files

    root = write_dots(tmp_path / "set")
    main(command(root, "--max-steps", "1"))
    capsys.readouterr()

    def full(*args: Any, **kwargs: Any) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(files, "save_file", full)
    message = fails(capsys, command(root, "--resume", "auto"))
    assert "No space left" in message and "step-00000001" in message
    assert [path.name for path in (root / "run" / "checkpoints").iterdir()] == ["step-00000001"]


def test_recipes_share_nothing_with_what_they_were_read_from() -> None:
    base = {"model": {"options": {"depth": 3}}, "schedule": {"milestones": [3, 5]}}
    given = {"model.options": {"heads": 2}, "evaluate.exits": [1, 2]}
    pairs: list[Any] = [("model.options", {"dim": 8}), "model.options.depth=2"]
    before = copy.deepcopy((base, given, pairs))
    for overrides in (given, pairs, ["model.options.depth=9"]):
        first, second = load_recipe(base, overrides), load_recipe(base, overrides)
        assert first == second
        first.model.options["depth"] = 99
        first.schedule.milestones.append(8)
        assert first != second and load_recipe(base, overrides) == second
    assert (base, given, pairs) == before
    recipe = load_recipe(None, {"data.categories": [3, "horse"], "data.exif": "ignore"})
    assert recipe.data.categories == [3, "horse"] and load_recipe(recipe.to_dict()) == recipe
    for wrong in ("data.categories=[]", "data.categories=horse", "data.exif=turn"):
        with pytest.raises(RecipeError, match=wrong.partition("=")[0]):
            load_recipe(None, [wrong])
