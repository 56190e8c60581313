"""Numbers that README and the guides name are those that committed commands gave."""

from __future__ import annotations

import json
import re
import statistics

import pytest
import torch
import torch._dynamo

from cycledistill.cost.report import cost
from tests.scripts import ROOT, load_script

pytest.importorskip("timm")
pytest.importorskip("torchvision")


@pytest.mark.slow
def test_the_costs_in_the_readme_are_what_the_report_counts() -> None:
    import timm

    with torch.device("meta"):
        report = cost(timm.create_model("deit_tiny_patch16_224"), cycles=3)
    one, two, three = (f"{macs.total / 1e9:.2f}" for macs in report.exits)
    assert f"(DeiT-Tiny: {one}, {two} and {three} GMACs)" in (ROOT / "README.md").read_text(encoding="utf-8")


STUDIES = {  # name: cycles that were trained
    "mazes": 4,
    "curves": 4,
    "parameters-1x96": 3,
    "variants-cifar10": 2,
    "protocol-digits": 2,
    "protocol-figures": 2,
}


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
