"""The tables of the guide "3D lifting" say what the committed records say."""

from __future__ import annotations

import json
import re
import statistics
from pathlib import Path
from typing import Any

import pytest
import yaml

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
        quoted = re.match(r"[\d.]+ mm", yaml.safe_load(recipe)["published"])
        (row,) = [line for line in PAGE.splitlines() if line.startswith(f"| `{name}` |")]
        assert quoted is not None
        assert row.rsplit("|", 2)[1].strip().startswith(quoted[0]), name


def test_the_comparison_of_views_is_that_of_the_committed_run() -> None:
    record = json.loads((ROOT / "docs" / "figures" / "multiview.json").read_text(encoding="utf-8"))
    assert (record["steps"], record["cameras"], record["covered"]) == (600, 4, 2)
    keys = ("jdr_all", "jdr_seen", "jdr_hidden", "error_all", "error_seen", "error_hidden")
    rows = {"the mean pose, for comparison": record["mean_pose"]}
    for run in record["runs"]:
        rows.setdefault(run["model"], []).append(run)
    for name, runs in rows.items():
        assert [run["seed"] for run in runs] == [0, 1, 2]
        macs = f" {runs[0]['macs'] / 1e6:.1f} " if "macs" in runs[0] else " "
        assert f"| {name} |{macs}| {' | '.join(spread([run[key] for run in runs], 1) for key in keys)} |" in PAGE
    apart, fused = ([run["error_hidden"] for run in rows[name]] for name in ("views apart", "fused"))
    assert 0.18 < 1 - statistics.mean(fused) / statistics.mean(apart) < 0.22  # a fifth
    assert all(one < other for one, other in zip(fused, apart, strict=True))  # in every seed


def spread(values: list[float], digits: int, sign: str = "") -> str:
    mean = f"{statistics.mean(values):{sign}.{digits}f}"
    return f"{mean} ± {statistics.stdev(values):.{digits}f}" if len(values) > 1 else mean


def test_the_comparison_of_the_example_is_that_of_the_committed_run() -> None:
    record = json.loads((ROOT / "docs" / "figures" / "human36m_hot.json").read_text(encoding="utf-8"))
    assert record["steps"] == 500
    for arm, runs in record["runs"].items():
        assert len(runs) == 3
        cells = [arm]
        for name, digits in (("mpjpe", 1), ("velocity", 2), ("temporal_std_ratio", 2)):
            cells.append(spread([run[name] for run in runs], digits))
        cells += [f"{record['macs'][arm][0]:.1f}", f"{record['milliseconds'][arm]:.2f}"]
        assert f"| {' | '.join(cells)} |" in PAGE


def test_the_study_of_recorded_motion_is_that_of_the_committed_record() -> None:
    record = json.loads((ROOT / "benchmarks" / "results" / "lifting_study-cpu.json").read_text(encoding="utf-8"))
    page = (ROOT / "docs" / "hourglass.md").read_text(encoding="utf-8")
    assert {run["steps"] for run in record["runs"]} == {3010}
    whole = {run["seed"]: run["exits"]["1"]["mpjpe"] for run in record["runs"] if run["arm"] == "full"}
    for arm, counts in record["macs"].items():
        runs = [run for run in record["runs"] if run["arm"] == arm]
        assert sorted(run["seed"] for run in runs) == list(range(len(runs)))
        for exit, macs in zip(runs[0]["exits"], counts, strict=True):
            found = [run["exits"][exit] for run in runs]
            gaps = [run["exits"][exit]["mpjpe"] - whole[run["seed"]] for run in runs]
            cells = [arm, exit, f"{macs:.1f}", str(len(runs)), spread([each["mpjpe"] for each in found], 1)]
            cells += ["" if arm == "full" else spread(gaps, 1, "+")]
            cells += [spread([each[name] for each in found], 2) for name in ("velocity", "temporal_std_ratio")]
            assert f"| {' | '.join(cells)} |" in page
    once = [run for run in record["runs"] if "cycles" not in run["arm"]]
    moved = {(run["arm"], run["seed"]): run["exits"]["1"]["temporal_std_ratio"] for run in once}
    assert all((std < 0.01) == ("learned" in arm) and not 0.01 <= std < 0.7 for (arm, _), std in moved.items())
    gaps = {
        (run["arm"], run["seed"]): run["exits"]["1"]["mpjpe"] - whole[run["seed"]]
        for run in record["runs"]
        if "cycles" not in run["arm"]
    }
    assert all(gap > 15 if "learned" in arm else gap < 2 for (arm, _), gap in gaps.items())
    smooth = {(run["arm"], run["seed"]): run["exits"]["1"]["velocity"] for run in record["runs"]}
    others = [arm for arm in record["macs"] if "cycles" not in arm and arm != "tpc, local"]
    assert all(
        smooth["tpc, local", seed] < smooth[arm, seed] for arm in others for seed in (0, 1, 2) if (arm, seed) in smooth
    )
