"""What ``recipe.json`` says of the weights, or of their average; what it does not say is not made up."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from cycledistill.recipes.errors import CheckpointError
from cycledistill.recipes.weights.recorded import (
    check_average,
    recorded_count,
    recorded_facts,
    recorded_intervals,
    recorded_scores,
)

STORED: dict[str, Any] = {
    "step": 500,
    "epoch": 3,
    "saved": "2026-11-28T02:20:11+00:00",
    "versions": {"torch": "2.14.1"},
    "metrics": {
        "exits": {"1": {"AP": 0.5, "AP_interval": [0.4, 0.6], "images": 40}, "2": {"AP": None, "images": 40}},
        "ema_exits": {"1": {"AP": 0.7, "AP_interval": None}, "x": {"AP": 1.0}},
    },
}


def test_weights_and_their_average_have_their_own_figures() -> None:
    assert recorded_scores(STORED, "AP") == {1: 0.5}
    assert recorded_scores(STORED, "AP", ema=True) == {1: 0.7}
    assert recorded_intervals(STORED, "AP") == {1: (0.4, 0.6)} and recorded_intervals(STORED, "AP", ema=True) == {}
    assert recorded_count(STORED, "images", "pictures") == "40 pictures"
    assert recorded_count(STORED, "images", "pictures", ema=True) == "pictures that the run did not count"


@pytest.mark.parametrize("ends", [[0.1], [0.1, float("nan")], "ab", [0.1, "b"], {"low": 0.1}, [True, 1.0]], ids=str)
def test_what_is_no_interval_is_left_out(ends: Any) -> None:
    assert recorded_intervals({"metrics": {"exits": {"1": {"AP_interval": ends}}}}, "AP") == {}


def test_facts_say_which_weights(tmp_path: Path) -> None:
    folder = tmp_path / "run" / "checkpoints" / "step-500"
    folder.mkdir(parents=True)
    facts = recorded_facts(folder, STORED)
    assert facts["run"] == "run, checkpoint step-500" and facts["training"] == "500 steps, 3 whole epochs"
    assert facts["saved"] == "28 November 2026, 02:20 UTC" and facts["trained with"] == "torch 2.14.1"
    assert facts["weights"].endswith("the run keeps no average")
    with pytest.raises(CheckpointError, match="no average of the weights: leave out --ema"):
        check_average(folder, ema=True)
    (folder / "ema.safetensors").touch()
    check_average(folder, ema=True)
    assert "not their average, which --ema shows" in recorded_facts(folder, STORED)["weights"]
    assert "running average" in recorded_facts(folder, STORED, ema=True)["weights"]
    old = recorded_facts(folder, {"saved": "yesterday"})
    assert (old["saved"], old["trained with"]) == ("date not recorded", "versions not recorded")
