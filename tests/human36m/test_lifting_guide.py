"""The tables of the guide "3D lifting" say what the committed records say."""

from __future__ import annotations

import json
import re
import statistics
from pathlib import Path
from typing import Any

import pytest

ROOT = Path(__file__).resolve().parents[2]
PAGE = (ROOT / "docs" / "lifting.md").read_text(encoding="utf-8")
COSTS = json.loads((ROOT / "benchmarks" / "results" / "lifting_costs.json").read_text(encoding="utf-8"))["models"]


@pytest.mark.parametrize("record", COSTS, ids=lambda record: record["name"])
def test_costs_are_those_of_the_benchmark(record: dict[str, Any]) -> None:
    (row,) = [line for line in PAGE.splitlines() if line.startswith(f"| `{record['name']}` |")]
    cells = [cell.strip() for cell in row.strip("|").split("|")]
    kept = "all" if record["kept"] is None else str(record["kept"][0])
    assert cells[1] == str(record["frames"])
    assert re.match(rf"{kept}\b", cells[2])
    counted = (f"{record['parameters'] / 1e6:.2f} M", f"{record['linear']:.2f}", record["known"]["linear"])
    assert tuple(cells[3:6]) == counted


def test_published_errors_are_those_that_the_recipes_quote() -> None:
    for name in ("mixste", "hot_mixste", "tpc_mixste", "mhformer", "tpc_mhformer", "motionbert", "hot_motionbert"):
        recipe = (ROOT / "integrations" / "human36m" / "configs" / f"{name}.yaml").read_text(encoding="utf-8")
        quoted = re.search(r"Published: ([\d.]+ mm)", recipe)
        (row,) = [line for line in PAGE.splitlines() if line.startswith(f"| `{name}` |")]
        assert quoted is not None
        assert row.rsplit("|", 2)[1].strip().startswith(quoted[1]), name


def test_the_comparison_of_views_is_that_of_the_committed_run() -> None:
    record = json.loads((ROOT / "docs" / "figures" / "multiview.json").read_text(encoding="utf-8"))
    assert record["steps"] == 200
    assert {run["seed"] for run in record["runs"]} == {0}
    for run in record["runs"]:
        figures = (run[key] for key in ("jdr_all", "jdr_seen", "jdr_hidden", "error_all"))
        cells = [f"{run['macs'] / 1e6:.1f}", *(f"{figure:.1f}" for figure in figures)]
        assert f"| {run['model']} | {' | '.join(cells)} |" in PAGE


def test_the_comparison_of_the_example_is_that_of_the_committed_run() -> None:
    record = json.loads((ROOT / "docs" / "figures" / "human36m_hot.json").read_text(encoding="utf-8"))
    assert record["steps"] == 500
    for arm, runs in record["runs"].items():
        assert len(runs) == 3
        cells = [arm]
        for name, digits in (("mpjpe", 1), ("velocity", 2), ("temporal_std_ratio", 2)):
            values = [run[name] for run in runs]
            cells.append(f"{statistics.mean(values):.{digits}f} ± {statistics.stdev(values):.{digits}f}")
        cells += [f"{record['macs'][arm][0]:.1f}", f"{record['milliseconds'][arm]:.2f}"]
        assert f"| {' | '.join(cells)} |" in PAGE
