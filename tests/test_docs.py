"""What README and the guides say is run: snippets, outputs, commands, links and names.

Every Python block of a page runs in order in one namespace, offline, in an empty folder. A ``text`` block right after a
Python block or a command is what that prints, to the letter. Commands of ``cycledistill`` are run, those that train
are parsed; of others the file and the options must exist.
"""

from __future__ import annotations

import argparse
import contextlib
import dataclasses
import functools
import importlib
import importlib.util
import io
import json
import re
import runpy
import shlex
import socket
import statistics
import sys
import types
import warnings
from collections.abc import Iterator
from itertools import zip_longest
from pathlib import Path

import pytest
import torch
import torch._dynamo

import cycledistill
from cycledistill.announced import announced
from cycledistill.commands import frame
from cycledistill.cost.report import cost
from cycledistill.distill import PRESETS
from cycledistill.plugin.plain import SAVED
from cycledistill.recipes.commands.by_model import ByModel
from tests.scripts import load_script

if sys.version_info >= (3, 11):
    import tomllib
else:
    tomllib = pytest.importorskip("tomli")

pytest.importorskip("timm")
pytest.importorskip("torchvision")
pytest.importorskip("transformers")
pytest.importorskip("accelerate")

ROOT = Path(__file__).resolve().parents[1]
PAGES = [ROOT / "README.md", *sorted((ROOT / "docs").rglob("*.md"))]
REFERENCE = sorted((ROOT / "docs" / "reference").glob("*.md"))
ABOUT_THE_SITE = {"index", "tour", "gallery", "results", "alternatives", "faq", "reference", "changelog", "citation"}
FENCE = re.compile(r"^```(\w*|\{[\w-]+\}[^\n]*)\n(.*?)^```$", re.MULTILINE | re.DOTALL)
DYNAMO_FLAG = "skip_fwd_side_effects_in_bwd_under_checkpoint"
INTEGRATIONS = sorted(path.parent.name for path in (ROOT / "integrations").glob("*/__init__.py"))
FOLLOWED_ELSEWHERE = {"own_joints"}  # its commands come between: tests/coco/test_own_joints_guide.py
SKIPPED_COMMANDS = ("git clone", "cd ")
GUIDES = [*PAGES, ROOT / "CONTRIBUTING.md", ROOT / "benchmarks" / "README.md"]
ABOUT = {
    "lifting": ["human36m", "multiview"],
    "sdpose_coco": ["coco"],
    "mmpose": ["mmpose"],
    "CONTRIBUTING": INTEGRATIONS,
}
NOT_HERE = ("timm/", "runs/")  # of another package, and what a run writes


@dataclasses.dataclass(frozen=True)
class Fence:
    """A code block of a page; `printed` is the ``text`` block that follows it with nothing but blank lines between."""

    page: str
    line: int
    language: str
    code: str
    printed: str | None


def fences(page: Path) -> list[Fence]:
    text = page.read_text(encoding="utf-8")
    found = list(FENCE.finditer(text))
    result = []
    for match, after in zip_longest(found, found[1:]):
        shown = after is not None and after[1] == "text" and not text[match.end() : after.start()].strip()
        line = text[: match.start(2)].count("\n")
        result.append(Fence(page.name, line, match[1], match[2], after[2] if shown and after is not None else None))
    return result


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
    declared = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]["optional-dependencies"]
    assert all(name in declared for extra in extras for name in extra.split(",")), command


def check_pytest(words: list[str]) -> None:
    """Markers and options that are declared, and paths that are there."""
    settings = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["tool"]["pytest"]["ini_options"]
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


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.stem)
def test_links_lead_somewhere(page: Path) -> None:
    text = FENCE.sub("", page.read_text(encoding="utf-8"))
    targets = re.findall(r"\]\(([^)\s]+)\)", text) + re.findall(r' src="([^"]+)"', text)
    for target in targets:
        if not target.startswith(("http://", "https://")):
            path, _, anchor = target.partition("#")
            file = page.parent / path if path else page
            assert file.exists(), f"{page.name}: {target}"
            assert not anchor or anchor in anchors(file), f"{page.name}: {target}"


def anchors(page: Path) -> set[str]:
    text = page.read_text(encoding="utf-8")
    records = load_script("docs/extensions/records.py")
    text = records.filled(text)
    headings = re.findall(r"^#+ (.+)$", FENCE.sub("", text), re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-") for heading in headings}


def in_backticks(text: str) -> list[str]:
    return re.findall(r"(?<!`)`([^`]+)`(?!`)", text)


def paths(text: str) -> list[str]:
    """Files and folders in the backticks of a text, ``{a,b}`` written out; a bare word is one if it ends in .py."""
    found = []
    for word in " ".join(in_backticks(text)).split():
        if re.fullmatch(r"[\w./{},-]+", word) and ("/" in word or word.endswith(".py")):
            before, brace, rest = word.partition("{")
            names, _, after = rest.partition("}")
            found += [f"{before}{name}{after}" for name in names.split(",")] if brace else [word]
    return [path for path in found if not path.startswith(NOT_HERE)]


def lost_paths(page: Path, text: str) -> list[str]:
    """Paths of a page that lead nowhere from the places its readers think of."""
    start = [ROOT, ROOT / "cycledistill", ROOT / "integrations", page.parent]
    start += [ROOT / "integrations" / name for name in ABOUT.get(page.stem, ())]
    shown = re.findall(r"^# (\S+\.py)$", text, re.MULTILINE)  # a script that the page holds whole
    lost = []
    for paragraph in re.split(r"\n\s*\n|\n(?=[|*-] ?)", FENCE.sub("", text)):
        named = paths(paragraph)
        there = [base / path for base in start for path in named if "/" in path and (base / path).exists()]
        beside = [path if path.is_dir() else path.parent for path in there]  # a bare name: in a folder just named
        lost += [
            path
            for path in named
            if path not in shown and not any((base / path).exists() for base in [*start, *beside])
        ]
    return lost


def unknown_names(text: str) -> list[str]:
    """Dotted names of the package, in the backticks of a text, that are no module, member or group of entry points."""
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    names = re.findall(r"(?<![\w/.-])cycledistill(?:\.[A-Za-z_]\w*)+", " ".join(in_backticks(FENCE.sub("", text))))
    others = {*project["entry-points"], SAVED}
    return [name for name in names if name not in others and not resolves(name)]


def resolves(name: str) -> bool:
    module, *rest = name.split(".")
    while (
        rest
        and hasattr(importlib.import_module(module), "__path__")
        and importlib.util.find_spec(f"{module}.{rest[0]}")
    ):
        module = f"{module}.{rest.pop(0)}"
        if not rest:  # there; what it needs need not be installed
            return True
    found: object = importlib.import_module(module)
    for member in rest:
        if not hasattr(found, member):
            return False
        found = getattr(found, member)
    return True


@pytest.mark.parametrize("page", GUIDES, ids=lambda page: str(page.relative_to(ROOT)))
def test_paths_and_names_of_the_package_are_there(page: Path) -> None:
    text = page.read_text(encoding="utf-8")
    assert (lost_paths(page, text), unknown_names(text)) == ([], [])


def test_a_path_or_a_name_that_has_gone_is_found() -> None:
    page = ROOT / "docs" / "lifting.md"
    text = (
        "`integrations/human36m/cameras.py`, `metrics.py`, `data/{clips,gone}.py`, `data/`, `cameras.py`, `tests/core`"
    )
    assert lost_paths(page, text) == ["integrations/human36m/cameras.py", "metrics.py", "data/gone.py", "tests/core"]
    text = "`cycledistill.at_exit`, `cycledistill.multiview_start.start_from_coco`, `cycledistill.cost.gone(model)`"
    assert unknown_names(text) == ["cycledistill.multiview_start.start_from_coco", "cycledistill.cost.gone"]


def test_every_guide_is_there_and_linked() -> None:
    readme = (ROOT / "README.md").read_text(encoding="utf-8")
    pages = {page.stem for page in (ROOT / "docs").glob("*.md")}
    guides = pages - ABOUT_THE_SITE
    listed = (ROOT / "docs" / "index.md").read_text(encoding="utf-8").splitlines()
    assert pages - {"index"} - set(listed) == set(), "not in the contents of the site"
    assert guides >= {"wrap", "distillation", "training", "anytime", "cost", "limits"}
    assert [guide for guide in guides if f"(docs/{guide}.md)" not in readme] == []


def test_the_two_commands_of_the_readme() -> None:
    readme = (ROOT / "README.md").read_text(encoding="utf-8")
    assert 'pip install -e ".[all]" && python examples/imagenet_deit.py\n' in readme
    assert 'pip install -e ".[dev]" && pytest\n' in readme


def test_every_public_name_is_documented() -> None:
    reference = "\n".join(page.read_text(encoding="utf-8") for page in REFERENCE)
    assert [
        name for name in cycledistill.__all__ if not re.search(rf":: (cycledistill\.)?{name}$", reference, re.M)
    ] == []
    text = "\n".join(page.read_text(encoding="utf-8") for page in PAGES)
    assert [name for name in cycledistill.__all__ if not re.search(rf"\b{name}\b", text)] == []
    handle = [name for name in ("cycles", "exit", "distill", "stack") if f"model.cyclic.{name}" not in text]
    assert handle == []


@pytest.mark.parametrize("name", INTEGRATIONS)
def test_every_name_of_an_integration_stands_in_the_reference(name: str) -> None:
    module = importlib.import_module(f"cycledistill.integrations.{name}")
    within, listed = "", set()
    reference = "\n".join(page.read_text(encoding="utf-8") for page in REFERENCE)
    for directive, target in re.findall(r"^\.\. (\w+):: ([\w.]+)$", reference, re.MULTILINE):
        if directive == "currentmodule":
            within = f"{target}."
        elif directive in ("autofunction", "autoclass", "autoexception"):
            listed.add(target if target.startswith("cycledistill.") else within + target)
    assert [each for each in module.__all__ if f"{module.__name__}.{each}" not in listed] == []
    assert [each for each in module.__all__ if not (getattr(module, each).__doc__ or "").strip()] == []


def test_every_page_of_the_reference_is_listed_and_of_a_module() -> None:
    listed = re.findall(r"^reference/(.+)$", (ROOT / "docs" / "reference.md").read_text(encoding="utf-8"), re.MULTILINE)
    assert sorted(listed) == sorted(page.stem for page in REFERENCE)
    assert [name for name in listed if importlib.util.find_spec(name) is None] == []
    assert {name for name in listed if ".integrations." in name} == {
        f"cycledistill.integrations.{name}" for name in INTEGRATIONS
    }


def test_every_field_and_preset_of_the_scheme_is_documented() -> None:
    text = (ROOT / "docs" / "distillation.md").read_text(encoding="utf-8")
    fields = [field.name for field in dataclasses.fields(cycledistill.Distill)]
    assert [name for name in fields if f"`{name}`" not in text] == []
    assert [name for name in PRESETS if f'`"{name}"`' not in text] == []


def test_every_extra_is_documented_and_none_is_fetched_from_where_it_is_not() -> None:
    declared = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]["optional-dependencies"]
    text = (ROOT / "docs" / "training.md").read_text(encoding="utf-8")
    table = text[text.index("| extra |") :].partition("\n\n")[0]
    assert sorted(re.findall(r"^\| `(\w+)` \|", table, re.MULTILINE)) == sorted(declared)
    by_name = re.compile(r"pip install [\"']?cycledistill")  # CONTRIBUTING, "Releases": not on PyPI yet
    assert [page.name for page in PAGES if by_name.search(page.read_text(encoding="utf-8"))] == []


@pytest.mark.slow
def test_the_costs_in_the_readme_are_what_the_report_counts() -> None:
    import timm

    with torch.device("meta"):
        report = cost(timm.create_model("deit_tiny_patch16_224"), cycles=3)
    one, two, three = (f"{macs.total / 1e9:.2f}" for macs in report.exits)
    assert f"(DeiT-Tiny: {one}, {two} and {three} GMACs)" in (ROOT / "README.md").read_text(encoding="utf-8")


STUDIES = {"mazes": 4, "curves": 4, "parameters-1x96": 3, "protocol-digits": 2}  # name: cycles that were trained


@pytest.mark.parametrize("study", STUDIES)
def test_the_table_of_the_readme_is_that_of_the_studies(study: str) -> None:
    """Means of the pages that ``benchmarks/study report`` writes; tests/benchmarks holds those against the runs."""
    page = (ROOT / "benchmarks" / "results" / "study" / f"{study}.md").read_text(encoding="utf-8")
    (shown,) = re.findall(rf"^\|.*\(`{study}`\) \| (.+) \|$", (ROOT / "README.md").read_text(), re.MULTILINE)
    exits = means(page, "exits")[: STUDIES[study]]
    cells = [*exits, *[""] * (4 - len(exits)), means(page, "base_eq")[0], means(page, "narrow_eq")[0]]
    assert [cell.strip() for cell in shown.split("|")] == cells


@pytest.mark.parametrize(
    ("study", "later", "said"),
    [
        ("mazes", 4, "exit 4 is {0} points above exit 1"),
        ("curves", 4, "in path tracing exit 4 is {0} points above exit 1"),
        ("parameters-1x96", 2, "exit 2 is {0} points above exit 1 ({1} to {2}, higher in {3} seeds; not told apart"),
        ("tuning-digits", 2, "exit 2 is {0} points below exit 1 ({1} to {2})"),
    ],
)
def test_the_gains_that_the_readme_names_are_those_of_the_studies(study: str, later: int, said: str) -> None:
    report = (ROOT / "benchmarks" / "results" / "study" / f"{study}.md").read_text(encoding="utf-8")
    found = re.search(
        rf": ([^:]+)\. `exits@{later}` less `exits@1`: ([+-][\d.]+) points \((\S+) to (\S+)\), higher in (.+) seeds",
        report,
    )
    assert found is not None
    verdict, gain, *rest = found.groups()
    assert ("above" in said, "not told apart" in said) == (gain[0] == "+", verdict == "not told apart")
    readme = " ".join((ROOT / "README.md").read_text(encoding="utf-8").split())
    assert said.format(gain[1:], *rest) in readme


def means(page: str, arm: str) -> list[str]:
    """An arm's means by cycles at inference, from the first table of a study's report that has them."""
    row = next(line for line in page.splitlines() if line.startswith(f"| `{arm}` |") and " ± " in line)
    return re.findall(r"(\d+\.\d) ±", row)


def test_the_table_of_the_example_is_that_of_the_committed_run() -> None:
    page = (ROOT / "docs" / "when.md").read_text(encoding="utf-8")
    record = json.loads((ROOT / "docs" / "figures" / "imagenet_deit.json").read_text(encoding="utf-8"))
    rows = [line for line in page.splitlines() if line.startswith("| ")]
    assert record["runs"].keys() == load_script("examples/imagenet_deit.py").ARMS.keys()
    for arm, runs in record["runs"].items():
        readings = zip(*(run["solved"] for run in runs), strict=True)
        cells = [f"{statistics.mean(values):.1f} ± {statistics.stdev(values):.1f}" for values in readings]
        shown = " | ".join([f"{record['training_cost'][arm]:.2f}", *cells]) + " |"
        assert any(re.search(rf"\b{arm}\b", row) and row.endswith(f"| {shown}") for row in rows), f"{arm}: {shown}"
