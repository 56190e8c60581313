"""What all training commands have in common: their flags, how they end, what they say of a worker's error."""

from __future__ import annotations

import importlib
import json
import runpy
import shlex
import signal
import sys
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from torch.utils.data import DataLoader

from cycledistill.commands import frame
from cycledistill.distill import PRESETS
from cycledistill.recipes.config.overrides import did_you_mean
from cycledistill.recipes.errors import CheckpointError, DataError, NonFiniteLossError, RecipeError
from cycledistill.recipes.run.command import RUN_FLAGS, Command, Flag, _message, going_on
from cycledistill.recipes.run.guard.signals import StopRequest
from cycledistill.recipes.weights import write_weights

Lines = pytest.CaptureFixture[str]
SHARED = ["--config", *(flag.name for flag in RUN_FLAGS), "--set", "--resume", "--evaluate"]


def command_of(name: str) -> Command:
    pytest.importorskip("timm")
    return importlib.import_module(f"cycledistill.integrations.{name}.train").COMMAND


@pytest.mark.parametrize("name", ["coco", "human36m", "imagenet", "multiview"])
def test_all_commands_take_the_same_flags(name: str) -> None:
    command = command_of(name)
    text = command.parser().format_help()
    assert [flag for flag in SHARED if f" {flag} " not in text] == []
    given = {"--output": "o", "--model": "m", "--distill": "exits", "--device": "cpu"}
    numbers = {flag.name: "30" for flag in RUN_FLAGS if flag.kind is int}
    words = [word for pair in (given | numbers).items() for word in pair]
    assert given.keys() | numbers.keys() == {flag.name for flag in RUN_FLAGS}
    recipe = command.recipe(command.parser().parse_args([*words, "--set", "run.seed=5"])).to_dict()
    for flag in RUN_FLAGS:
        section, key = flag.key.split(".")
        expected = "5" if flag.name == "--seed" else (given | numbers)[flag.name]
        assert str(recipe[section][key]) == expected, flag


@pytest.mark.parametrize("name", ["coco", "human36m", "imagenet", "multiview"])
def test_the_module_is_the_command_too(name: str, monkeypatch: pytest.MonkeyPatch, capsys: Lines) -> None:
    """As ``torchrun -m`` and ``accelerate launch -m`` start it."""
    module = command_of(name).package + ".train"
    monkeypatch.delitem(sys.modules, module)
    monkeypatch.setattr(sys, "argv", [module, "--config", "no_such_recipe"])
    with pytest.raises(SystemExit) as stopped:
        runpy.run_module(module, run_name="__main__")
    assert stopped.value.code == 2
    assert capsys.readouterr().err.startswith("error: config 'no_such_recipe' is neither a file nor")


@pytest.mark.parametrize("name", ["coco", "human36m", "imagenet", "multiview"])
def test_the_usage_can_be_typed(name: str, capsys: Lines) -> None:
    command = command_of(name)
    starts = {
        f"cycledistill train {name}": lambda: frame.main(["train", name, "--help"]),
        f"python -m {command.package}.train": lambda: command.main(["--help"]),
    }
    for typed, start in starts.items():
        with pytest.raises(SystemExit) as stopped:
            start()
        words = ["usage:", *typed.split(), "[-h]"]
        assert (stopped.value.code, capsys.readouterr().out.split()[: len(words)]) == (0, words)


def test_none_is_a_scheme_that_can_be_asked_for() -> None:
    command = command_of("coco")
    assert command.recipe(command.parser().parse_args(["--distill", "none"])).cyclic.distill is None


@pytest.mark.parametrize(
    ("key", "said"),
    [
        ("run.foo", "unknown key 'run.foo'. Known: run.output, run.device"),
        ("run.sede", "Did you mean 'run.seed'?"),
        ("rnu.device", "Did you mean 'run.device'?"),
        ("optim.rl", "Did you mean 'optim.lr'?"),
        ("epochs", "Did you mean 'schedule.epochs'?"),
        ("foo.bar", "unknown key 'foo.bar'. Sections: model, cyclic, prune, data, "),
        ("xyzzy", "unknown key 'xyzzy'. Sections: model, cyclic, prune, data, "),
    ],
)
def test_a_key_is_proposed_for_its_own_name_and_not_for_its_section(key: str, said: str, capsys: Lines) -> None:
    assert command_of("coco").main(["--set", f"{key}=1"]) == 2
    assert said in capsys.readouterr().err


@pytest.mark.parametrize("name", ["coco", "human36m", "imagenet", "multiview"])
def test_a_section_that_is_set_is_said_to_be_one(name: str, capsys: Lines) -> None:
    assert command_of(name).main(["--set", "optim=3"]) == 2
    assert capsys.readouterr().err == "error: optim is a section: set one of its keys, such as optim.name.\n"


@pytest.mark.parametrize("name", ["coco", "human36m", "imagenet", "multiview"])
def test_what_a_flag_does_not_take_is_said_of_the_flag(name: str, capsys: Lines) -> None:
    for flag, value, said in (
        ("--distill", "sdpos", "error: --distill: cyclic.distill='sdpos': unknown preset; the presets are 'sdpose', "),
        ("--distill", "sdpos", " Or 'none'.\n"),
        ("--device", "gpu", "error: --device: run.device='gpu': expected one of"),
        ("--epochs", "-1", "error: --epochs: schedule.epochs=-1: expected"),
    ):
        assert command_of(name).main([flag, value]) == 2
        assert said in capsys.readouterr().err


def test_help_names_every_preset() -> None:
    (flag,) = (flag for flag in RUN_FLAGS if flag.name == "--distill")
    assert flag.help == f"preset: {', '.join(PRESETS)}, or none"


def test_a_flag_that_would_take_false_for_true_is_refused() -> None:
    with pytest.raises(ValueError, match="--tb: kind=bool would take every word for true"):
        Flag("--tb", "run.progress", "a bar", bool)
    words = Flag("--tb", "run.progress", "a bar", words={"true": True, "false": False})
    command = replace(command_of("coco"), data=[words])
    for word, value in words.words.items():
        assert command.recipe(command.parser().parse_args(["--tb", word])).run.progress is value


@pytest.mark.parametrize(
    ("text", "where"),
    [
        ("optim: {lr: 1", "line 1, column 14: expected ',' or '}', but got '<stream end>'"),
        ('{"optim": {"lr": 1},\n "run"', "line 2, column 7: "),
        ("optim:\n  lr: !!python/name:os.system x", "line 2, column 7: could not determine a constructor"),
        ("run: \x00", "special characters are not allowed"),
    ],
)
def test_a_recipe_that_is_cut_is_said_in_one_line_with_the_place(
    tmp_path: Path, capsys: Lines, text: str, where: str
) -> None:
    (tmp_path / "cut.yaml").write_text(text)
    assert command_of("coco").main(["--config", str(tmp_path / "cut.yaml")]) == 2
    said = capsys.readouterr().err
    assert said.startswith(f"error: config {tmp_path / 'cut.yaml'} is not plain YAML (no code, no tags): ")
    assert where in said and said.count("\n") == 1
    assert command_of("coco").main(["--set", "optim.lr=[1"]) == 2
    assert "the value is not plain YAML (no code, no tags): line 1, column 3: " in capsys.readouterr().err


def test_what_is_not_alike_is_not_proposed() -> None:
    assert did_you_mean("nomodel", ["iformer_l", "vit_tiny"]) == ""
    assert did_you_mean("vit_tin", ["iformer_l", "vit_tiny"]) == " Did you mean 'vit_tiny'?"


class Rehearsed:
    """A package whose work is what a test wants it to be."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, work: Any, output: str = "") -> None:
        self.calls: list[tuple[str, Any]] = []
        recipe = SimpleNamespace(to_dict=dict, run=SimpleNamespace(output=output))

        def train(recipe: Any, resume: str | None) -> dict[str, int]:
            self.calls.append(("train", resume))
            return work()

        def evaluate_trained(recipe: Any, path: str) -> dict[str, int]:
            self.calls.append(("evaluate", path))
            return work()

        def load_recipe(source: Any, overrides: Any) -> Any:
            self.calls.append(("load", (source, list(overrides))))
            return recipe

        def stored_recipe(path: str) -> Any:
            self.calls.append(("stored", path))
            return recipe

        modules = {
            "train": {"train": train},
            "trained": {"evaluate_trained": evaluate_trained, "stored_recipe": stored_recipe},
            "recipe": {"load_recipe": load_recipe},
        }
        for name, members in modules.items():
            monkeypatch.setitem(sys.modules, f"rehearsed.{name}", SimpleNamespace(**members))
        monkeypatch.setitem(sys.modules, "rehearsed", SimpleNamespace(__path__=[]))
        monkeypatch.setattr("cycledistill.recipes.run.command.packaged_names", lambda package: ["small"])
        self.command = replace(command_of("coco"), package="rehearsed", requires="rehearsed[all]")


@pytest.mark.parametrize("kind", [RecipeError, DataError, CheckpointError, NonFiniteLossError, OSError])
def test_errors_of_the_user_are_said_in_one_line(
    monkeypatch: pytest.MonkeyPatch, capsys: Lines, kind: type[Exception]
) -> None:
    def work() -> None:
        raise kind(f"a.jpg: {kind.__name__}: that was it")

    assert Rehearsed(monkeypatch, work).command.main([]) == 2
    assert capsys.readouterr().err == f"error: a.jpg: {kind.__name__}: that was it\n"


def test_a_fault_is_not_hidden(monkeypatch: pytest.MonkeyPatch) -> None:
    def work() -> None:
        raise KeyError("a fault")

    with pytest.raises(KeyError, match="a fault"):
        Rehearsed(monkeypatch, work).command.main([])


@pytest.mark.parametrize(
    ("request_", "code", "said"),
    [
        (KeyboardInterrupt(), 130, "stopped"),  # where no handler of ours could be
        (StopRequest(signal.SIGINT), 130, "stopped by SIGINT"),
        (StopRequest(signal.SIGTERM), 143, "stopped by SIGTERM"),
        (StopRequest(getattr(signal, "SIGUSR1", signal.SIGTERM)), 143, "stopped by SIG"),
    ],
    ids=["another's handler", "SIGINT", "SIGTERM", "SIGUSR1"],
)
def test_who_is_stopped_says_what_is_saved_and_how_to_go_on(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, capsys: Lines, request_: BaseException, code: int, said: str
) -> None:
    saves: list[Path] = []

    def work() -> None:
        for path in saves:
            leave_checkpoint(path)
        raise request_

    run = tmp_path / "a run"
    main = Rehearsed(monkeypatch, work, output=str(run)).command.main
    again = " before anything was saved: start again by the same command.\n"
    assert main([]) == code
    first = capsys.readouterr().err
    assert first.startswith(said) and first.endswith(again)
    saves.append(run / "checkpoints" / "step-00000005")
    assert main([]) == code
    told, command = capsys.readouterr().err.splitlines()
    assert told.startswith(said) and told.endswith(f"; the last checkpoint is {saves[0]}. Go on from it by:")
    assert shlex.split(command) == ["python", "-m", "rehearsed.train", "--resume", str(run)]
    saves.clear()  # what is there is of an older run
    assert main(["--epochs", "9"]) == code
    told = capsys.readouterr().err
    assert told.endswith(
        f" before anything was saved. {run} holds a run already: pass --resume auto to go on, or another --output.\n"
    )
    assert main(["--config", "small", "--resume", "auto", "--epochs", "9"]) == code  # as was typed it goes on
    assert capsys.readouterr().err.endswith(again)
    saves.append(run / "checkpoints" / "step-00000006")
    assert main(["--config", "small", "--resume", "auto", "--epochs", "9"]) == code  # which that checkpoint holds
    told, command = capsys.readouterr().err.splitlines()
    assert told.endswith(f"; the last checkpoint is {saves[0]}. Go on from it by:")
    assert shlex.split(command) == ["python", "-m", "rehearsed.train", "--resume", str(run)]
    saves.clear()
    assert main(["--evaluate", "w.safetensors"]) == code
    assert capsys.readouterr().err == f"{str(request_) or 'stopped'}\n"
    monkeypatch.setenv("RANK", "1")
    assert main([]) == code
    assert capsys.readouterr().err == ""


def leave_checkpoint(path: Path) -> None:
    path.mkdir(parents=True)
    (path / "recipe.json").touch()


def test_a_folder_with_a_name_like_a_flags_is_gone_on_in(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, capsys: Lines
) -> None:
    def work() -> None:
        leave_checkpoint(tmp_path / "-x" / "checkpoints" / "step-00000005")
        raise StopRequest(signal.SIGTERM)

    monkeypatch.chdir(tmp_path)
    assert Rehearsed(monkeypatch, work, output="-x").command.main(["--output=-x"]) == 143
    assert capsys.readouterr().err.splitlines()[-1] == "python -m rehearsed.train --resume=-x"


def test_the_command_that_goes_on_is_the_one_that_was_started(monkeypatch: pytest.MonkeyPatch) -> None:
    assert going_on("cycledistill train coco", "a.coco") == ["cycledistill", "train", "coco"]
    monkeypatch.setenv("WORLD_SIZE", "8")
    monkeypatch.setenv("LOCAL_WORLD_SIZE", "8")
    assert shlex.join(going_on("x", "a.coco")) == "torchrun --nproc-per-node 8 -m a.coco.train"
    monkeypatch.setenv("LOCAL_WORLD_SIZE", "4")
    assert shlex.join(going_on("x", "a.coco")) == "torchrun --nnodes 2 --nproc-per-node 4 -m a.coco.train"


def test_what_is_not_installed_is_named(monkeypatch: pytest.MonkeyPatch, capsys: Lines) -> None:
    def work() -> None:
        importlib.import_module("no_such_package.inside")

    assert Rehearsed(monkeypatch, work).command.main([]) == 2
    said = "error: rehearsed needs no_such_package, which is not installed: pip install 'rehearsed[all]'\n"
    assert capsys.readouterr().err == said


def test_what_is_asked_for_is_done(monkeypatch: pytest.MonkeyPatch, capsys: Lines) -> None:
    rehearsed = Rehearsed(monkeypatch, lambda: {"step": 3})
    main = rehearsed.command.main
    assert main(["--config", "small", "--data", "d", "--set", "a.b=1", "--resume", "auto"]) == 0
    assert json.loads(capsys.readouterr().out) == {"step": 3}
    assert rehearsed.calls == [("load", ("small", [("data.root", "d"), "a.b=1"])), ("train", "auto")]
    rehearsed.calls.clear()
    assert main(["--evaluate", "runs/a"]) == 0
    assert rehearsed.calls == [("stored", "runs/a"), ("load", ({}, [])), ("evaluate", "runs/a")]
    rehearsed.calls.clear()
    assert main(["--evaluate", "w.safetensors", "--config", "small"]) == 0
    assert rehearsed.calls == [("load", ("small", [])), ("evaluate", "w.safetensors")]
    assert main(["--evaluate", "a", "--resume", "b"]) == 2
    monkeypatch.setenv("RANK", "1")  # one process alone speaks
    capsys.readouterr()
    assert main([]) == 0
    assert capsys.readouterr().out == ""


@pytest.mark.parametrize("name", ["coco", "human36m", "imagenet", "multiview"])
def test_what_is_evaluated_is_looked_at_and_not_guessed_by_its_name(name: str, tmp_path: Path, capsys: Lines) -> None:
    command = command_of(name)
    write_weights({"a": torch.ones(1)}, tmp_path / "w.safetensors")
    for file in ("w.pth.tar", "w.ckpt", "w.pth", "w.safetensors"):
        (tmp_path / file).touch()
        assert command.main(["--evaluate", str(tmp_path / file)]) == 2
        assert capsys.readouterr().err == (
            f"error: {tmp_path / file} holds weights only: name the recipe of its model (--config NAME).\n"
        )
    for absent in ("nofile.pth", "norun"):
        assert command.main(["--evaluate", str(tmp_path / absent)]) == 2
        assert f"{absent} does not exist: there is no such file or folder" in capsys.readouterr().err
    recipe = importlib.import_module(f"{command.package}.recipe").load_recipe(None, {"run.seed": 11})
    run = tmp_path / "r.pt"
    run.mkdir()
    (run / "recipe.json").write_text(json.dumps({"command": name, "recipe": recipe.to_dict()}))
    assert command.recipe(command.parser().parse_args(["--evaluate", str(run)])) == recipe


FOREIGN = [
    ("coco", {"model.name": "sdpose_t"}),
    ("human36m", {"model.name": "frame_lifter", "data.source": "generated"}),  # no official code has this one
    ("human36m", {"model.name": "mixste", "model.options": {"dim": 8, "depth": 1, "heads": 2}}),
    ("imagenet", {"model.name": "test_vit", "model.num_classes": 3}),
]


@pytest.mark.parametrize(("name", "settings"), FOREIGN, ids=lambda each: each if isinstance(each, str) else "")
def test_weights_of_another_model_are_refused_by_the_name_of_their_file(
    name: str, settings: dict[str, Any], tmp_path: Path
) -> None:
    file, package = tmp_path / "theirs.safetensors", command_of(name).package
    write_weights({"a.weight": torch.ones(2, 2)}, file)
    recipe = importlib.import_module(f"{package}.recipe").load_recipe(None, settings)
    with pytest.raises(CheckpointError, match=rf"^{file}: .*(a\.weight|under its own names)"):
        importlib.import_module(f"{package}.trained").load_trained(file, recipe=recipe)


@pytest.mark.parametrize("name", ["coco", "human36m", "imagenet", "multiview"])
def test_a_run_of_another_command_is_said_to_be_one(name: str, tmp_path: Path, capsys: Lines) -> None:
    command, run = command_of(name), tmp_path / "run"
    session = importlib.import_module(f"{command.package}.training.session").Session
    assert session.command == name
    run.mkdir()
    (run / "recipe.json").write_text(json.dumps({"command": "other", "recipe": {"theirs": {}}}))
    assert command.main(["--evaluate", str(run)]) == 2
    assert capsys.readouterr().err.startswith(f"error: {run} was trained by `cycledistill train other`, and is not")
    (run / "recipe.json").write_text(json.dumps({"command": name, "recipe": {"theirs": {}}}))
    assert command.main(["--evaluate", str(run)]) == 2
    assert "is no recipe of this library: unknown key 'theirs'" in capsys.readouterr().err
    for lacking, key in (({}, "command"), ({"command": name}, "recipe")):
        (run / "recipe.json").write_text(json.dumps(lacking))
        for flag in ("--evaluate", "--resume"):
            assert command.main([flag, str(run)]) == 2
            assert (
                f"recipe.json is damaged, or of another program: the key '{key}' is missing." in capsys.readouterr().err
            )


class Broken:
    """A data set of which nothing can be read."""

    def __len__(self) -> int:
        return 1

    def __getitem__(self, index: int) -> int:
        try:
            raise OSError("closed")
        except OSError as error:
            raise DataError("a.jpg: DataError: or so\nsecond line") from error


@pytest.mark.parametrize("workers", [0, 1])
def test_an_error_of_a_loader_worker_is_its_message(workers: int) -> None:
    with pytest.raises(DataError) as raised:
        next(iter(DataLoader(Broken(), num_workers=workers)))  # type: ignore[arg-type]
    assert _message(raised.value) == "a.jpg: DataError: or so\nsecond line"
