"""The site: what its extensions make, and the built pages: links, search, foot. SITE names one that is there."""

from __future__ import annotations

import io
import json
import os
import posixpath
import re
import statistics
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from types import ModuleType, SimpleNamespace
from urllib.parse import unquote

import pytest

from tests.scripts import load_script

ROOT = Path(__file__).resolve().parents[1]
DOCS = ROOT / "docs"


@pytest.fixture(scope="module")
def records() -> ModuleType:
    return load_script("docs/extensions/records.py")


def test_every_committed_record_has_a_section_and_a_row(records: ModuleType) -> None:
    text = records.page()
    stems = [path.stem for path in (ROOT / "benchmarks" / "results").glob("*.json")]
    stems += [path.stem for path in (DOCS / "figures").glob("*.json")]
    assert [stem for stem in stems if f"\n### {stem}\n" not in text or f"| [{stem}](#" not in text] == []


def test_every_study_has_a_page() -> None:
    reports = {path.stem for path in (ROOT / "benchmarks" / "results" / "study").glob("*.md")}
    assert {path.stem for path in (DOCS / "results").glob("*.md")} == reports
    listed = (DOCS / "results.md").read_text(encoding="utf-8").splitlines()
    assert [name for name in reports if f"results/{name}" not in listed] == []


def test_the_studies_are_listed_with_question_and_verdict(records: ModuleType) -> None:
    listed = records.filled((DOCS / "results.md").read_text(encoding="utf-8"))
    for report in (ROOT / "benchmarks" / "results" / "study").glob("*.md"):
        question = report.read_text(encoding="utf-8").splitlines()[2]
        (row,) = [line for line in listed.splitlines() if line.startswith(f"| [{report.stem}](results/")]
        verdicts = ("reached", "not reached", "not decided, for runs are missing or diverged")
        assert question in row and row.endswith(tuple(f"| {verdict} |" for verdict in verdicts)), row


def cells(values: Sequence[float]) -> str:
    return f"{statistics.mean(values):.1f}\N{NO-BREAK SPACE}±\N{NO-BREAK SPACE}{statistics.stdev(values):.1f}"


def test_the_numbers_are_those_of_the_files(records: ModuleType) -> None:
    record = json.loads((DOCS / "figures" / "imagenet_deit.json").read_text(encoding="utf-8"))
    text = records.page().partition("### imagenet_deit\n")[2]
    row = next(line for line in text.splitlines() if line.startswith("| exits | 3 |"))
    at_one = [run["solved"][0] for run in record["runs"]["exits"]]
    assert row.split(" | ")[4] == cells(at_one)


def test_the_table_of_the_landing_page_is_that_of_the_committed_run() -> None:
    record = json.loads((DOCS / "figures" / "imagenet_deit.json").read_text(encoding="utf-8"))
    text = (DOCS / "index.md").read_text(encoding="utf-8")
    shown = [re.findall(r"[\d.]+\s±\s[\d.]+", line) for line in text.splitlines() if "±" in line]
    arms = {"exits": 3, "mct": 3, "base_eq": 1, "narrow_eq": 1}
    at = [list(zip(*(run["solved"] for run in record["runs"][arm]), strict=True)) for arm in arms]
    assert shown == [[cells(read[n]) for n in range(count)] for read, count in zip(at, arms.values(), strict=True)]


def test_tables_of_any_record(records: ModuleType) -> None:
    record = {
        "conditions": {"device": "a CPU", "versions": {"torch": "2"}},
        "bar": 1.05,
        "few": {"a": 1, "b": 2},
        "runs": {"one": [{"seed": 0, "solved": [1.0, 5.0]}, {"seed": 1, "solved": [3.0, 5.0]}]},
        "rows": [{"what": "x", "ok": True}, {"what": "y", "none": None}],
        "names": [{"name": str(n), "status": "wraps" if n % 3 else "refused"} for n in range(300)],
        "exits": [1, 2],
    }
    found = dict(records.tables(record))
    assert list(found) == ["runs, mean ± standard deviation over seeds", "x", "y", "names, counted"]
    (runs,) = found["runs, mean ± standard deviation over seeds"]
    assert runs == {"name": "one", "seeds": 2, "solved @1": cells([1, 3]), "solved @2": "5"}
    assert found["names, counted"] == [
        {"status": "wraps", "how many": 200},
        {"status": "refused", "how many": 100},
    ]
    assert records.table(found["x"]) == "| what | ok |\n| --- | --- |\n| x | yes |"
    assert records.conditions(record) == "a CPU; torch 2"
    assert records.machine(record) == "a CPU"
    assert records.machine({"rows": []}) == "CPU, not named"
    text = records.section(ROOT / "a.json", record)
    assert "bar 1.05; few a 1, b 2; exits 1, 2." in text


@pytest.mark.parametrize(
    ("value", "shown"),
    [(0.123456, "0.1235"), (12345.6, "12,346"), (12345, "12,345"), (None, "–"), (False, "no"), ([1, 2.5], "1, 2.5")],
)
def test_a_value_as_it_is_shown(records: ModuleType, value: object, shown: str) -> None:
    assert records.cell(value) == shown


def test_examples_that_are_run_again_take_the_options_that_they_get() -> None:
    rerun = load_script("docs/extensions/rerun.py")
    assert rerun.wanted("all") == list(rerun.EXAMPLES)
    assert rerun.wanted("") == []
    assert rerun.wanted("coco_sdpose, imagenet_deit") == ["coco_sdpose", "imagenet_deit"]
    with pytest.raises(ValueError, match="rerun_examples=mazes: mazes is none of imagenet_deit, coco_sdpose"):
        rerun.wanted("mazes")
    gallery = (DOCS / "gallery.md").read_text(encoding="utf-8")
    for name in rerun.EXAMPLES:
        _, script, *options = rerun.command(name, "out")
        text = Path(script).read_text(encoding="utf-8")
        assert [option for option in options[::2] if option not in text] == []
        assert f"figures/{name}.png" in gallery
        assert (DOCS / "figures" / f"{name}.png").exists()


def test_what_an_example_found_again_takes_the_place_of_the_committed(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    rerun = load_script("docs/extensions/rerun.py")
    ran = []

    def run_example(command: list[str], check: bool) -> None:
        ran.append(Path(command[1]).stem)
        Path(command[3], "results.json").write_text("[1]", encoding="utf-8")

    monkeypatch.setattr(rerun, "FIGURES", tmp_path)
    monkeypatch.setattr(rerun.subprocess, "run", run_example)
    rerun.run(SimpleNamespace(config=SimpleNamespace(rerun_examples="coco_sdpose")))
    assert ran == ["coco_sdpose"]
    assert (tmp_path / "coco_sdpose.json").read_text(encoding="utf-8") == "[1]"


def test_either_spelling_is_added() -> None:
    both = load_script("docs/extensions/spellings.py").both
    found = ["normalise", "normalize", "quantised", "quantized"]
    assert both("Quantised files; normalize. A raise, a size, a prize.") == found


def test_inventories_are_plain_files_beside_the_guides() -> None:
    load = pytest.importorskip("sphinx.util.inventory").InventoryFile.load
    for name in ("python", "torch", "numpy"):
        file = DOCS / "inventories" / f"{name}.inv"
        found = load(io.BytesIO(file.read_bytes()), "https://docs", posixpath.join)
        lines = file.read_text(encoding="utf-8").splitlines()[3:]
        assert len(lines) == sum(len(entries) for entries in found.values()) > 0


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """That of SITE, or one built here, without the network. In a process of its own: autodoc puts stand-ins in."""
    for needed in ("sphinx", "furo", "myst_parser", "sphinx_design", "sphinx_copybutton"):
        pytest.importorskip(needed)
    if built := os.environ.get("SITE"):
        return Path(built)
    out = tmp_path_factory.mktemp("site")
    nowhere = dict.fromkeys(("http_proxy", "https_proxy", "HTTP_PROXY", "HTTPS_PROXY"), "http://127.0.0.1:9")
    command = [sys.executable, "-m", "sphinx", "-q", "-W", "--keep-going", str(DOCS), str(out)]
    done = subprocess.run(command, env={**os.environ, **nowhere}, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    return out


@pytest.mark.slow
@pytest.mark.parametrize("name", ["human36m", "imagenet", "multiview"])
def test_a_type_of_several_integrations_leads_to_its_own_page(name: str, site: Path) -> None:
    text = (site / "reference" / f"cycledistill.integrations.{name}.html").read_text(encoding="utf-8")
    found = set(re.findall(r'href="[^"]*#([\w.]+)\.EvalSettings"', text))
    assert found and all(each.startswith(f"cycledistill.integrations.{name}.") for each in found)


@pytest.mark.slow
def test_no_link_within_the_site_is_dead(site: Path) -> None:
    texts = {page: page.read_text(encoding="utf-8") for page in site.rglob("*.html")}
    ids = {page: set(re.findall(r'\bid="([^"]+)"', text)) for page, text in texts.items()}
    dead = []
    for page, text in texts.items():
        for target in re.findall(r'\b(?:href|src)="([^"]+)"', text):
            path, _, fragment = unquote(target).partition("#")
            if ":" in path or page.name in ("search.html", "genindex.html"):
                continue
            file = (page.parent / path.partition("?")[0]).resolve() if path else page
            if not file.exists() or (fragment and file.suffix == ".html" and fragment not in ids.get(file, set())):
                dead.append(f"{page.relative_to(site)}: {target}")
    assert len(texts) > 40
    assert dead == []


@pytest.mark.slow
def test_the_search_finds_either_spelling(site: Path) -> None:
    from sphinx.search.en import SearchEnglish

    text = (site / "searchindex.js").read_text(encoding="utf-8")
    index = json.loads(text.removeprefix("Search.setIndex(").rstrip().removesuffix(")"))
    stem = SearchEnglish({}).stem

    def pages(word: str) -> set[str]:
        found = [index[where].get(stem(word), []) for where in ("terms", "titleterms")]
        return {index["docnames"][n] for each in found for n in ([each] if isinstance(each, int) else each)}

    assert pages("quantisation") == pages("quantization") >= {"edge", "faq", "reference/cycledistill.exporter"}
    assert pages("quantise") == pages("quantize")
    assert pages("normalize") >= pages("normalise") >= {"distillation", "limits"}


@pytest.mark.slow
def test_every_page_has_its_foot_and_the_landing_page_its_parts(site: Path) -> None:
    for name in ("index", "tour", "gallery", "results", "alternatives", "faq", "changelog", "citation", "reference"):
        text = (site / f"{name}.html").read_text(encoding="utf-8")
        assert 'class="foot"' in text and "The cycledistill contributors" in text
        assert ">How to cite</a>" in text
    landing = (site / "index.html").read_text(encoding="utf-8")
    assert "cycling.svg" in landing
    labels = re.findall(r'class="sd-tab-label"[^>]*>\s*([^<]+?)\s*<', landing)
    assert labels == ["timm", "Hugging Face", "Pose", "Lifting", "Edge"]
    reference = (site / "reference" / "cycledistill.html").read_text(encoding="utf-8")
    assert "https://docs.pytorch.org/docs/stable/generated/torch.nn.Module.html#torch.nn.Module" in reference


@pytest.mark.parametrize(
    ("words", "columns", "stacked"), [(30, 3, True), (1, 3, False), (30, 2, False), (30, 9, False)]
)
def test_a_table_of_sentences_has_its_columns_names_in_its_cells(words: int, columns: int, stacked: bool) -> None:
    core = pytest.importorskip("docutils.core", reason="needs the docs extra")
    rows = "\n".join(f"   {', '.join(row)}" for row in (["name"] * columns, ["word " * words] * columns))
    tree = core.publish_doctree(f".. csv-table::\n   :header-rows: 1\n\n{rows}\n")
    load_script("docs/extensions/phone.py").stack(None, tree, "page")
    assert ("name: word" in tree.astext(), 'classes="stacked"' in str(tree)) == (stacked, stacked)
