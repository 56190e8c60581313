"""``cycledistill predict MODEL`` and ``evaluate MODEL``: whose a model is, and who takes what it cannot be given."""

from __future__ import annotations

import dataclasses
import importlib
import json
from pathlib import Path
from typing import Any

import pytest
import torch

pytest.importorskip("timm")

from cycledistill.commands.frame import main, parse
from cycledistill.plugin.swap import Swapped
from cycledistill.recipes.commands.held import command_of
from cycledistill.recipes.config.packaged import training_commands
from cycledistill.recipes.errors import CheckpointError
from cycledistill.recipes.hub.described import built_from_words
from cycledistill.recipes.hub.model import HubModel
from cycledistill.recipes.weights.files import network_metadata, read_weights, write_weights
from cycledistill.terminal.flags import MEASURED, TRAINED
from tests.commands.announcing import Announce
from tests.scripts import exit_code

Lines = pytest.CaptureFixture[str]
PREDICTING = ("coco", "human36m", "imagenet", "multiview")


def run_of(command: str, folder: Path) -> str:
    folder.mkdir()
    (folder / "recipe.json").write_text(json.dumps({"command": command, "recipe": {}}))
    return str(folder)


def published(name: str, folder: Path) -> str:
    folder.mkdir()
    (folder / "config.json").write_text(json.dumps({"library": "cycledistill", "model_class": name}))
    write_weights({"a": torch.ones(1)}, folder / "model.safetensors")
    return str(folder)


def command_called(*words: str) -> str:
    more = ["--calibration", "c.yml"] if "multiview" in words[1] else []
    target = ["photos", "--output", "out", *more] if words[0] == "predict" else []
    entry, _, args = parse([*words, *target])
    assert words[1] in vars(args).values()
    return entry.name


@pytest.mark.parametrize("command", PREDICTING)
def test_a_run_says_whose_it_is(command: str, tmp_path: Path) -> None:
    run = run_of(command, tmp_path / command)
    assert command_called("predict", run) == f"predict.{command}"
    assert command_called("evaluate", run) == f"evaluate.{command}"


def test_a_file_beside_a_recipe_is_that_recipes(tmp_path: Path) -> None:
    run = run_of("imagenet", tmp_path / "run")
    write_weights({"a": torch.ones(1)}, Path(run, "model.safetensors"))
    assert command_of(f"{run}/model.safetensors") == "imagenet"


def models() -> list[type[Any]]:
    """Every class of the library that is published, by its own subclasses and not by our lists."""
    for module in ("coco.models.tokenpose", "human36m.models.registry", "human36m.multiview.model"):
        importlib.import_module(f"cycledistill.integrations.{module}")
    found, seen = [HubModel], list[type[Any]]()
    while found:
        each = found.pop()
        # Of the library alone: not what tests define, nor classes of models that tests wrapped, which have their names.
        below = [
            sub
            for sub in each.__subclasses__()
            if sub.__module__.startswith("cycledistill.integrations") and not issubclass(sub, Swapped)
        ]
        found += below
        published = each is not HubModel and vars(each).get("is_published", True)
        if published and (not below or each.__name__ == "TokenPose"):  # not what stands between
            seen.append(each)
    return seen


def test_every_model_that_can_be_published_is_some_commands(tmp_path: Path) -> None:
    names = {each.__name__: each.__module__.split(".")[2] for each in models()}
    assert len(names) >= 6
    for number, (name, integration) in enumerate(names.items()):
        command = "multiview" if name == "MultiViewPPT" else integration
        assert command_of(published(name, tmp_path / str(number))) == command, name
    claimed = [name for each in training_commands().values() for name in each.holds]
    assert len(claimed) == len(set(claimed))


def test_what_timm_publishes_is_a_classifier(tmp_path: Path, capsys: Lines) -> None:
    folder = published("", tmp_path / "timms")
    Path(folder, "config.json").write_text(json.dumps({"architecture": "test_vit", "num_classes": 2}))
    assert command_called("predict", folder) == "predict.imagenet"
    file = Path(folder, "model.safetensors")
    write_weights({"a": torch.ones(1)}, file)  # timm's say nothing themselves
    assert command_of(str(file)) == "imagenet"
    Path(folder, "config.json").write_text(json.dumps({"architectures": ["ViTModel"], "model_type": "vit"}))
    assert exit_code(main, ["predict", folder, "photos"]) == 2
    assert "config.json: a model whose class is not named, which is of none of the commands" in capsys.readouterr().err
    assert command_of(str(file), "cpu_96") == "imagenet"  # what another library published is as its recipe says
    with pytest.raises(CheckpointError, match="does not say of which model its weights are"):
        command_of(str(file))


@dataclasses.dataclass
class TokenPoseConfig:  # of that name, as the file has it
    dim: int = 3


def test_a_file_of_weights_says_whose_it_is(tmp_path: Path) -> None:
    said, built = tmp_path / "said.safetensors", tmp_path / "built.safetensors"
    write_weights({"a": torch.ones(1)}, said, network_metadata(TokenPoseConfig()))
    write_weights({"a": torch.ones(1)}, built, built_from_words({"model_class": "MixSTE"}))
    assert (command_of(str(said)), command_of(str(built))) == ("coco", "human36m")
    assert command_called("predict", str(said)) == "predict.coco"


def test_a_file_that_says_its_class_or_its_name(tmp_path: Path) -> None:
    said, named = tmp_path / "said.safetensors", tmp_path / "named.safetensors"
    write_weights({"a": torch.ones(1)}, said, {"class": "MixSTE", "model": "mixste"})
    write_weights({"a": torch.ones(1)}, named, {"class": "VisionTransformer", "model": "deit_tiny_patch16_224"})
    assert command_of(str(said)) == "human36m"
    with pytest.raises(CheckpointError, match="says that its weights are of deit_tiny_patch16_224, and not how that"):
        command_of(str(named))
    for name in ("a.onnx", "a.pt2"):
        (tmp_path / name).touch()
        for asked in (lambda file: command_of(str(file), "cpu_96"), read_weights):
            with pytest.raises(CheckpointError, match="exported for another runtime, and its weights are not loaded"):
                asked(tmp_path / name)


def test_a_file_that_says_nothing_asks_for_what_is_missing(tmp_path: Path, capsys: Lines) -> None:
    file = tmp_path / "w.pth"
    write_weights({"a": torch.ones(1)}, file)
    words = ["predict", str(file), "photos", "--output", str(tmp_path / "out")]
    assert exit_code(main, words) == 2
    assert "does not say of which model its weights are: name a recipe of that model (--config NAME" in (
        capsys.readouterr().err
    )
    assert parse([*words, "--config", "sdpose_s_v1"])[0].name == "predict.coco"
    assert parse([*words, "--config=mixste"])[0].name == "predict.human36m"
    twice = [*words, "--config", "sdpose_s_v1", "--config", "mixste"]
    assert parse(twice)[0].name == "predict.human36m"  # the last, as argparse has it
    assert exit_code(main, [*words, "--conf", "sdpose_s_v1"]) == 2
    assert exit_code(main, [*words, "--config", "mine.yaml"]) == 2
    assert "say the command before the file, one of coco, human36m, imagenet, multiview" in capsys.readouterr().err
    assert parse(["predict", "human36m", *words[1:], "--config", "mine.yaml"])[0].name == "predict.human36m"


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["predict", "runs_a", "x"], "runs_a is no run and no file, nor one of the commands coco, human36m, "),
        (["predict", "cocoo", "x"], "Did you mean 'coco'?"),
        (["evaluate", "no/such/run"], "no/such/run"),
        (["predict"], "a command is expected: coco, human36m, imagenet, multiview, triangulate"),
        (["predict", "--output", "x"], "--output stands before the model: the model comes first, or one of coco, "),
    ],
)
def test_what_is_no_model(words: list[str], said: str, capsys: Lines, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    assert exit_code(main, words) == 2
    assert said in capsys.readouterr().err


def test_a_run_that_is_not_there_is_not_asked_of_the_hub(
    tmp_path: Path, capsys: Lines, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("cycledistill.recipes.hub.files.download", lambda *_, **__: pytest.fail("the hub was asked"))
    run_of("coco", tmp_path / "runs")
    run_of("coco", tmp_path / "runs" / "first")
    for words in (["predict"], ["evaluate"], ["predict", "coco"], ["evaluate", "coco"], ["predict", "human36m"]):
        more = ["photos", "--output", "out.npz"] if words[0] == "predict" else []
        assert exit_code(main, [*words, "runs/frist", *more]) == 2
        said = capsys.readouterr().err
        assert "runs/frist does not exist: there is no such file or folder. Did you mean 'runs/first'?" in said


def test_it_is_said_that_the_hub_is_asked(
    caplog: pytest.LogCaptureFixture, capsys: Lines, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    with caplog.at_level("INFO"):
        assert exit_code(main, ["predict", "no_such_user_of_ours/name", "photos", "--output", "out"]) == 2
    assert (
        "no_such_user_of_ours/name: there is no such folder, so it is looked for on the Hugging Face hub" in caplog.text
    )


def test_evaluate_takes_what_its_help_says(tmp_path: Path, capsys: Lines) -> None:
    """A published model holds no recipe; its file is measured by one that is named."""
    folder = published("TokenPose", tmp_path / "pose ü")
    for words in ([folder], ["coco", folder], ["coco", folder, "--config", "sdpose_s_v1"]):
        assert exit_code(main, ["evaluate", *words]) == 2
        said = capsys.readouterr().err
        assert f"{folder} is a published model" in said and f"{folder}/model.safetensors --config NAME" in said
    assert exit_code(main, ["evaluate", "user/name"]) == 2
    assert "user/name is not here: evaluate takes a run, a checkpoint, or a file" in capsys.readouterr().err
    for verb, forms in (("evaluate", MEASURED), ("predict", TRAINED)):
        assert exit_code(main, [verb, "--help"]) == 0
        assert " ".join(forms.split()) in " ".join(capsys.readouterr().out.split())


def test_a_verb_that_a_command_does_not_have(tmp_path: Path, capsys: Lines) -> None:
    run = run_of("theirs", tmp_path / "run")
    assert exit_code(main, ["predict", run, "photos", "--output", "x"]) == 2
    said = capsys.readouterr().err
    assert f"{run} was trained by `cycledistill train theirs`, and `cycledistill predict` takes models of: coco" in said
    assert exit_code(main, ["predict", published("Other", tmp_path / "other"), "photos"]) == 2
    assert "config.json: a Other, which is of none of the commands that are installed: " in capsys.readouterr().err


@pytest.mark.parametrize(
    ("command", "source", "said"),
    [
        ("human36m", "street.jpg", "is a picture or a video, and {run} lifts files of 2D keypoints"),
        ("human36m", "talk.mp4", "cycledistill predict POSE_MODEL {source} --output FOLDER"),
        ("coco", "keypoints.json", "is a file of keypoints or boxes, and {run} takes pictures and videos"),
        ("multiview", "front.json", "is a file of keypoints, and {run} takes pictures or a video of each view"),
        ("imagenet", "keypoints.json", "{source} is a file of keypoints or boxes, and {run} takes pictures and videos"),
    ],
)
def test_a_source_of_another_kind_is_refused(
    command: str, source: str, said: str, tmp_path: Path, capsys: Lines
) -> None:
    pytest.importorskip("cv2")
    run, file = run_of(command, tmp_path / "run"), tmp_path / source
    file.touch()
    more = ["--calibration", "c.yml"] if command == "multiview" else []
    assert exit_code(main, ["predict", run, str(file), "--output", str(tmp_path / "out.npz"), *more]) == 2
    assert said.format(run=run, source=file) in capsys.readouterr().err
    assert not (tmp_path / "out.npz").exists()


@pytest.mark.parametrize(
    ("command", "opened", "more"),
    [
        ("coco", "coco.prediction.sources.open_source", ()),
        ("multiview", "multiview.predict.open_views", ("--calibration", "c.yml")),
        ("human36m", "human36m.lift.read_persons", ()),
        ("imagenet", "imagenet.prediction.sources.open_source", ()),
    ],
)
def test_a_model_of_another_command_is_refused_before_its_source_is_opened(
    command: str, opened: str, more: tuple[str, ...], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: Lines
) -> None:
    pytest.importorskip("cv2")
    module, _, name = opened.rpartition(".")
    found = importlib.import_module(f"cycledistill.integrations.{module}")
    monkeypatch.setattr(found, name, lambda *given: pytest.fail(f"{given} was opened"))
    monkeypatch.setattr("socket.socket.connect", lambda *given: pytest.fail("a connection was opened"))
    other = "coco" if command == "imagenet" else "imagenet"
    run = run_of(other, tmp_path / "run")
    file = published("Other", tmp_path / "published")
    (tmp_path / "source").mkdir()
    for model in (run, file):
        words = [model, str(tmp_path / "source"), "--output", str(tmp_path / "out.npz"), *more]
        assert exit_code(main, ["predict", command, *words]) == 2
        assert other in (said := capsys.readouterr().err) or "Other" in said
        assert not (tmp_path / "out.npz").exists()


THEIRS = """
import argparse
from cycledistill.recipes.run.command import Command
COMMAND = Command("their_package", "train theirs", "their-package", (), ("Theirs",))
class Predict:
    help = "predict theirs"
    def add_arguments(self, parser):
        parser.add_argument("model")
    def run(self, args):
        return 40 + len(args.model)
PREDICT = Predict()
"""


def test_another_package_brings_an_integration(
    announce: Announce,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: Lines,
) -> None:
    commands = {"train.theirs": "their_module:COMMAND", "predict.theirs": "their_module:PREDICT"}
    announce("theirs", commands, their_module=THEIRS)
    package = tmp_path / "theirs" / "their_package"
    (package / "configs").mkdir(parents=True)
    (package / "__init__.py").touch()
    (package / "configs" / "their_small.yaml").write_text("# Theirs, small.\npublished: 12.5 mm\nmodel: {name: x}\n")
    monkeypatch.chdir(tmp_path)
    run_of("theirs", tmp_path / "a")
    published("Theirs", tmp_path / "bcd")
    assert [main(["predict", "a"]), main(["predict", "bcd"])] == [41, 43]
    assert main(["recipes", "theirs"]) == 0
    assert capsys.readouterr().out == (
        "cycledistill train theirs --config NAME\n  their_small  Theirs, small\n               published: 12.5 mm\n\n"
        "published: by the model's authors; `recipes show NAME` says whether it was reproduced\n"
    )
