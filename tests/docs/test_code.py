"""What README and the guides say is run: snippets, outputs and commands.

Every Python block of a page runs in order in one namespace, offline, in an empty folder. A ``text`` block right after a
Python block or a command is what that prints, to the letter. Commands of ``cycledistill`` are run, those that train
are parsed; of others the file and the options must exist.
"""

from __future__ import annotations

import argparse
import contextlib
import functools
import io
import re
import runpy
import shlex
import socket
import sys
import types
import warnings
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch
import torch._dynamo

from cycledistill.announced import announced
from cycledistill.commands import frame
from cycledistill.recipes.commands.by_model import ByModel
from tests.docs.pages import PAGES, ROOT, fences, pyproject

DYNAMO_FLAG = "skip_fwd_side_effects_in_bwd_under_checkpoint"
FOLLOWED_ELSEWHERE = {"own_joints"}  # its commands come between: tests/coco/test_own_joints_guide.py
SKIPPED_COMMANDS = ("git clone", "cd ")


def commands() -> list[tuple[str, str | None]]:
    """Every command line of every page, with its output where that is shown."""
    result = []
    for page in PAGES:
        for fence in fences(page):
            if fence.language == "bash":
                lines = [line for line in fence.code.replace("\\\n", " ").splitlines() if line.strip()]
                parts = [part.strip() for line in lines for part in line.split("#")[0].split("&&") if part.strip()]
                assert fence.printed is None or len(parts) == 1, f"{page.name}:{fence.line} shows one output of several"
                result += [(part, fence.printed) for part in parts]
    shown = {command for command, printed in result if printed is not None}
    return [each for each in dict.fromkeys(result) if each[1] is not None or each[0] not in shown]


@pytest.fixture
def alone(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Iterator[None]:
    """No network, an empty folder, one thread, one seed; settings a page makes for its process are taken back."""

    def refuse(self: socket.socket, address: object) -> None:
        raise OSError(f"a snippet tried to connect to {address}")

    monkeypatch.setattr(socket.socket, "connect", refuse)
    monkeypatch.chdir(tmp_path)
    # The graph is what the pages speak of, run as it was traced: the default backend spends minutes in a C++ compiler.
    monkeypatch.setattr(torch, "compile", functools.partial(torch.compile, backend="eager"))
    before, threads = getattr(torch._dynamo.config, DYNAMO_FLAG), torch.get_num_threads()
    torch.set_num_threads(1)
    torch.manual_seed(0)
    torch._dynamo.reset()
    torch._dynamo.utils.counters.clear()
    yield
    torch._dynamo.reset()
    setattr(torch._dynamo.config, DYNAMO_FLAG, before)
    torch.set_num_threads(threads)
    if torch.distributed.is_initialized():
        torch.distributed.destroy_process_group()


@pytest.mark.slow
@pytest.mark.skipif(not hasattr(torch._dynamo.config, DYNAMO_FLAG), reason="the pages speak of current PyTorch")
@pytest.mark.usefixtures("alone")
@pytest.mark.parametrize(
    "page", [page for page in PAGES if page.stem not in FOLLOWED_ELSEWHERE], ids=lambda page: page.stem
)
def test_snippets(page: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    namespace = types.ModuleType("page")
    monkeypatch.setitem(sys.modules, "page", namespace)
    for fence in fences(page):
        if fence.language == "python":
            code = compile("\n" * fence.line + fence.code, str(page), "exec")  # a traceback gives the page's own line
            with contextlib.redirect_stdout(io.StringIO()) as printed:
                exec(code, namespace.__dict__)
            if fence.printed is not None:
                assert printed.getvalue().rstrip() == fence.printed.rstrip(), f"{page.name}:{fence.line}"


@pytest.mark.parametrize(("command", "shown"), commands(), ids=lambda value: str(value)[:60])
def test_command(command: str, shown: str | None, capsys: pytest.CaptureFixture[str]) -> None:
    words = shlex.split(command)
    if words[:2] == ["pip", "install"]:
        check_extras(command)
    elif words[0] == "cycledistill" and words[1] in ("train", "convert", "predict", "evaluate"):
        parse_as_typed(words[1:])  # what they name is not here
    elif words[0] == "cycledistill":
        assert frame.main(words[1:]) == 0
        printed = capsys.readouterr().out
        assert shown is None or printed.rstrip() == shown.rstrip()
    elif words[:3] == ["python", "-m", "pytest"]:
        assert all((ROOT / word).exists() for word in words[3:]), command
    elif words[0] in ("python", "torchrun"):
        check_options(words)
    elif words[0] == "pytest":
        check_pytest(words[1:])
    else:
        assert command.startswith(SKIPPED_COMMANDS), f"no check is known for {command!r}"


def check_extras(command: str) -> None:
    extras = re.findall(r"\[([\w,]+)\]", command)
    declared = pyproject()["project"]["optional-dependencies"]
    assert all(name in declared for extra in extras for name in extra.split(",")), command


def check_pytest(words: list[str]) -> None:
    """Markers and options that are declared, and paths that are there."""
    settings = pyproject()["tool"]["pytest"]["ini_options"]
    markers = [each.split(":")[0] for each in settings["markers"]]
    parser = argparse.ArgumentParser()
    parser.add_argument("paths", nargs="*")
    parser.add_argument("-m", dest="marker", choices=markers)
    parser.add_argument("--gpu-device", choices=["auto", "cpu"])  # of tests/conftest.py
    given = parser.parse_args(words)
    assert all((ROOT / path).exists() for path in given.paths), words


def check_options(words: list[str]) -> None:
    start = next(i for i, word in enumerate(words) if word == "-m" or word.endswith(".py"))
    target = words[start : start + 2] if words[start] == "-m" else words[start : start + 1]
    known = help_of(tuple(target))
    module = target[-1].startswith("cycledistill.")
    assert not module or known.split()[:4] == ["usage:", "python", "-m", target[-1]], "the usage cannot be typed"
    options = [word.split("=")[0] for word in words[start + len(target) :] if word.startswith("--")]
    unknown = [option for option in options if not re.search(rf"{re.escape(option)}\b", known)]
    assert not unknown, f"{' '.join(target)} knows no {unknown}"


def parse_as_typed(words: list[str]) -> None:
    """Read a command's arguments; where the model would say which command it is, one of them must take them."""
    below = announced(words[0])
    if words[1] in below or words[0] not in announced():
        frame.parse(words)
        return
    taken = []
    for name in below:
        with pytest.MonkeyPatch.context() as patch, contextlib.suppress(SystemExit):
            patch.setattr(ByModel, "choose", lambda self, words, known, name=name: name)
            taken.append(frame.parse(words))
    assert taken, words


@functools.lru_cache
def help_of(target: tuple[str, ...]) -> str:
    """What a module (``-m NAME``) or a script prints for ``--help``, run here and not in a Python of its own."""
    with pytest.MonkeyPatch.context() as patch, contextlib.redirect_stdout(io.StringIO()) as printed:
        patch.setattr(sys, "argv", [target[-1], "--help"])
        patch.syspath_prepend((ROOT / target[-1]).parent)
        with pytest.raises(SystemExit) as stopped, warnings.catch_warnings():
            warnings.filterwarnings("ignore", ".*found in sys.modules", RuntimeWarning)  # a test has imported it
            if target[0] == "-m":
                runpy.run_module(target[1], run_name="__main__")
            else:
                runpy.run_path(str(ROOT / target[0]), run_name="__main__")
    assert not stopped.value.code, printed.getvalue()
    return printed.getvalue()
