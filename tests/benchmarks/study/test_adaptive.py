"""Curves of adaptive inference: kept for each arm, and refused where they are broken."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import save_file

pytest.importorskip("timm")
pytest.importorskip("sklearn")
pytest.importorskip("markdown_it")

from study.adaptive import measure, read_curves, read_file, table, write_curves
from study.errors import StudyError
from study.load import load_plan
from study.tasks import open_task

Written = Callable[..., Path]


def curve(arm: str, seed: int, percent: float = 50.0) -> dict[str, Any]:
    points = [[1.0, 40.0], [1.1, percent]]
    return {"arm": arm, "seed": seed, "exits": [1, 2], "fixed": {"1": points[0], "2": [2.0, 60.0]}, "adaptive": points}


def test_curves_of_arms_stand_side_by_side(written: Written, tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    plan = load_plan(written())
    write_curves(tmp_path, plan, [curve("deep", 0), curve("deep", 1)])
    write_curves(tmp_path, plan, [curve("exits", 0)])
    both = [curve("exits", 0), curve("deep", 0), curve("deep", 1)]  # in the plan's order
    assert read_curves(tmp_path, plan) == both
    assert table(plan, both) == table(plan, both[:1]) + "\n\n" + table(plan, both[1:])
    assert caplog.messages == []
    write_curves(tmp_path, plan, [curve("deep", 0, 55.0)])
    assert read_curves(tmp_path, plan) == [curve("exits", 0), curve("deep", 0, 55.0)]
    assert caplog.messages == ["tiny: earlier curves of deep, of exits [1, 2], are removed from its file"]
    changed = load_plan(written(training={"steps": 5, "batch": 8, "rate": 1e-2}))
    with pytest.raises(StudyError, match=r"of a study of other content \(exits, deep\): measure it anew"):
        read_curves(tmp_path, changed)
    write_curves(tmp_path, changed, [curve("deep", 0)])
    assert read_curves(tmp_path, changed) == [curve("deep", 0)]
    assert "tiny: earlier curves of exits, of exits [1, 2], are removed from its file" in caplog.messages


@pytest.mark.parametrize(
    ("held", "message"),
    [
        ("{", "cannot be read as JSON"),
        (b"\xff", "cannot be read as JSON"),
        ([], "a mapping is expected, not"),
        ({"curves": []}, "contents: got None"),
        ({"contents": {}, "curves": [3]}, r"curves\[0\]: without arm, seed"),
        ({"contents": {}, "curves": [curve("base", 0)]}, "contents: without base"),
        ({"contents": {}, "curves": [{**curve("base", 0), "fixed": {"1": [1.0, 40.0]}}]}, r"curves\[0\]\.fixed: got"),
        ({"contents": {}, "curves": [{**curve("base", 0), "adaptive": [[1.0, None]]}]}, r"curves\[0\]\.adaptive: got"),
        ({"contents": {}, "curves": [{**curve("base", 0), "adaptive": []}]}, r"curves\[0\]\.adaptive: got"),
    ],
    ids=lambda given: str(given)[:40],
)
def test_a_file_of_curves_that_is_broken_is_named(written: Written, tmp_path: Path, held: Any, message: str) -> None:
    text = held if isinstance(held, (str, bytes)) else json.dumps(held)
    (tmp_path / "tiny-adaptive.json").write_bytes(text if isinstance(text, bytes) else text.encode())
    for call in (read_curves, read_file):
        with pytest.raises(StudyError, match=rf"tiny-adaptive\.json.*{message}"):
            call(tmp_path, load_plan(written()))


def test_one_sample_is_too_few_to_choose_thresholds(written: Written, tmp_path: Path) -> None:
    plan, weights = load_plan(written(task={"test_boards": 1})), tmp_path / "exits-0.safetensors"
    task = open_task(plan.task, None, torch.device("cpu"))
    save_file(task.network(plan.network).state_dict(), weights, {"content": plan.content_of("exits")})
    with pytest.raises(StudyError, match="4x4: two samples at least are expected"):
        measure(plan, task, "exits", weights, [1, 2])
