"""The frame of the command: which subcommands there are, what it says to wrong calls, and how it ends."""

from __future__ import annotations

import json
import os
import runpy
import subprocess
import sys
from pathlib import Path

import pytest

import cycledistill
from cycledistill.commands.frame import main
from cycledistill.terminal.parser import Parser
from tests.commands.announcing import Announce
from tests.scripts import exit_code

Lines = pytest.CaptureFixture[str]
ROOT = Path(__file__).resolve().parents[2]
TRAINING = ("coco", "human36m", "imagenet", "multiview")
VERBS = "convert, evaluate, export, insight, predict, recipes, report, stacks, train, verify"
MINE = """
import argparse
help = "count to 100 %"
def add_arguments(parser):
    parser.add_argument("--to", type=int, default=1)
def run(args):
    if args.to < 0:
        raise ValueError(f"--to {args.to}: 0 or more is expected")
    if args.to == 7:
        raise KeyboardInterrupt
    if args.to == 8:
        import no_such_package
    return args.to
"""


def python(code: str) -> str:
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    run = subprocess.run([sys.executable, "-c", code], env=environment, capture_output=True, text=True, check=False)
    assert run.returncode == 0, run.stderr
    return run.stdout


def test_no_help_loads_torch_or_what_an_extra_brings() -> None:
    code = """
import contextlib, io, json, sys
for name in ("yaml", "timm", "accelerate", "numpy"):
    sys.modules[name] = None  # as where it is not installed
from cycledistill.announced import find_entries
from cycledistill.commands import frame
words = [[], *map(list, find_entries())]
words += [list(path[:1]) for path in find_entries()]
words += [["predict", "runs/a"], ["evaluate", "runs/a", "--set", "a=b"]]
shown = {}
for each in words:
    with contextlib.redirect_stdout(io.StringIO()) as text:
        try:
            frame.main([*each, "--help"])
        except SystemExit as stopped:
            assert stopped.code == 0, each
    shown[" ".join(each)] = text.getvalue()
    assert "torch" not in sys.modules, each
print(json.dumps(shown))
"""
    shown = json.loads(python(code))
    assert shown.keys() >= {
        "",
        "train",
        "report",
        "stacks",
        "insight",
        "verify",
        "recipes",
        "recipes show",
        "predict triangulate",
        "convert coco",
        "convert human36m",
        *(f"predict {name}" for name in ("coco", "human36m", "multiview")),
        *(f"{verb} {name}" for verb in ("train", "evaluate") for name in TRAINING),
    }
    for words in ("report", "stacks", "insight", "verify", "train"):
        assert f" {words} " in shown[""]
    for name in TRAINING:
        assert name in shown["train"].split()
        assert "--data" in shown[f"train {name}"] and "Packaged recipes: " in shown[f"train {name}"]
    assert "cannot be loaded" not in "".join(shown.values())


@pytest.mark.slow
def test_what_an_extra_lacks_is_named_with_the_extra() -> None:
    code = f"""
import contextlib, io, json, sys
sys.modules["timm"] = sys.modules["yaml"] = None
from cycledistill.commands.frame import main
said = {{}}
for name in {TRAINING}:
    with contextlib.redirect_stderr(io.StringIO()) as text:
        assert main(["train", name, "--max-steps", "1"]) == 2
    said[name] = text.getvalue()
print(json.dumps(said))
"""
    for name, said in json.loads(python(code)).items():
        said = said.removeprefix("loading PyTorch and what else is needed\n")  # said by the first of them
        assert said.count("\n") == 1
        extras = "coco,human36m" if name == "multiview" else name
        assert said.endswith(f"which is not installed: pip install 'cycledistill[{extras}]'\n")
        assert "needs yaml," in said or "needs timm," in said


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["trian"], "unknown command 'trian'; did you mean 'train'?"),
        (["train", "cocoa"], "unknown command 'cocoa'; did you mean 'coco'?"),
        (
            ["xyz"],
            f"unknown command 'xyz'; known: {VERBS}",
        ),
        ([], f"a command is expected: {VERBS}"),
        (["train"], "a command is expected: coco, human36m, imagenet"),
        (["--nonsense"], "unrecognized arguments: --nonsense"),
        (["train", "coco", "--epochs", "many"], "invalid int value: 'many'"),
        (["train", "coco", "--conifg", "a"], "unrecognized arguments: --conifg; did you mean '--config'?"),
        (["train", "coco", "--conf", "a"], "unrecognized arguments: --conf; did you mean '--config'?"),  # not shortened
        (["predict", "coco", "a", "b", "--ouput=c"], "unrecognized arguments: --ouput; did you mean '--output'?"),
    ],
)
def test_wrong_calls_are_answered(capsys: Lines, words: list[str], said: str) -> None:
    assert exit_code(main, words) == 2
    out, err = capsys.readouterr()
    assert not out and err.startswith("usage: cycledistill") and said in err
    assert ("COMMAND ..." in err) == (words[1:2] != ["coco"])  # the usage says where a command stands


def test_the_version(capsys: Lines) -> None:
    assert exit_code(main, ["--version"]) == 0
    assert capsys.readouterr().out == f"{cycledistill.__version__}\n"


def test_another_package_adds_a_command(announce: Announce, capsys: Lines) -> None:
    announce("theirs", {"train.mine": "count_module", "count": "count_module"}, count_module=MINE)
    assert exit_code(main, ["train", "--help"]) == 0
    assert "count to 100 %" in capsys.readouterr().out
    assert exit_code(main, ["count", "--help"]) == 0
    assert "Count to 100 %." in capsys.readouterr().out
    assert [main(["count"]), main(["train", "mine", "--to", "0"])] == [1, 0]


def test_how_a_command_ends(announce: Announce, capsys: Lines) -> None:
    announce("theirs", {"count": "count_module"}, count_module=MINE)
    assert main(["count", "--to", "-1"]) == 2
    assert capsys.readouterr().err == "cycledistill: --to -1: 0 or more is expected\n"
    assert main(["count", "--to", "7"]) == 130
    assert main(["count", "--to", "8"]) == 2
    assert "needs no_such_package, which is not installed: pip install 'theirs'" in capsys.readouterr().err


def test_a_flag_given_twice_is_told_of(announce: Announce, capsys: Lines) -> None:
    announce("theirs", {"count": "count_module"}, count_module=MINE)
    assert main(["count", "--to", "3", "--to=5"]) == 5
    assert capsys.readouterr().err == "cycledistill count: --to was given 2 times: the last holds\n"
    assert main(["count", "--to", "5"]) == 5
    parser = Parser("mine")
    parser.add_argument("--set", action="append")
    assert parser.parse_args(["--set", "--a b", "--set", "a=--set"]).set == ["--a b", "a=--set"]
    assert not capsys.readouterr().err  # of what is gathered all hold


CHOOSING = """
help = "verbs"
def choose(words, known):
    raise KeyboardInterrupt
"""


def test_a_command_that_is_stopped_while_it_is_looked_for(announce: Announce, capsys: Lines) -> None:
    announce("theirs", {"act": "act_module", "act.mine": "count_module"}, act_module=CHOOSING, count_module=MINE)
    assert main(["act", "user/name"]) == 130
    assert capsys.readouterr().err == "cycledistill: stopped\n"
    assert exit_code(main, ["act", "user/name", "--help"]) == 0  # help does not look for it
    assert "mine" in capsys.readouterr().out


def test_a_command_that_cannot_be_loaded_leaves_the_others_alone(announce: Announce, capsys: Lines) -> None:
    announce("broken", {"oops": "oops_module", "lacking": "lacking_module"},
             oops_module="1 / 0", lacking_module="import no_such_package")  # fmt: skip
    assert exit_code(main, ["--help"]) == 0
    shown = " ".join(capsys.readouterr().out.split())
    assert "oops_module of broken cannot be loaded: ZeroDivisionError: division by zero" in shown
    assert "lacking needs no_such_package, which is not installed: pip install 'broken'" in shown
    assert "report parameters, MACs and time" in shown
    assert exit_code(main, ["oops"]) == 2
    assert capsys.readouterr().err.startswith("cycledistill: oops_module of broken cannot be loaded")


def test_a_full_disk_is_said_in_one_line(announce: Announce, capsys: Lines) -> None:
    full = "help = 'x'\ndef add_arguments(parser): pass\ndef run(args): raise OSError(28, 'No space left', 'a.html')"
    announce("full", {"fill": "fill_module"}, fill_module=full)
    assert main(["fill"]) == 2
    assert capsys.readouterr().err == "cycledistill: [Errno 28] No space left: 'a.html'\n"


def test_two_packages_with_one_command_are_refused(announce: Announce, capsys: Lines) -> None:
    announce("theirs", {"train.coco": "count_module"}, count_module=MINE)
    assert exit_code(main, ["train", "coco"]) == 2
    said = capsys.readouterr().err
    assert "'train coco' is announced by several packages" in said
    assert "theirs (count_module)" in said and "cycledistill (cycledistill.integrations.coco.train:COMMAND)" in said


def test_without_an_installation_it_says_so(monkeypatch: pytest.MonkeyPatch, capsys: Lines) -> None:
    monkeypatch.setattr("cycledistill.announced.entry_points", lambda group: ())
    assert exit_code(main, ["report"]) == 2
    assert "install the package (in a checkout: pip install -e .)" in capsys.readouterr().err


def test_the_module_is_the_command(monkeypatch: pytest.MonkeyPatch, capsys: Lines) -> None:
    monkeypatch.setattr(sys, "argv", ["cycledistill", "train", "cocoa"])
    monkeypatch.delitem(sys.modules, "cycledistill.__main__", raising=False)
    with pytest.raises(SystemExit) as stopped:
        runpy.run_module("cycledistill", run_name="__main__")
    assert stopped.value.code == 2
    assert "did you mean 'coco'?" in capsys.readouterr().err
