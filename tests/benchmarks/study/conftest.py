"""A study that takes a second, and its packages to import."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
import yaml
from torch import nn

from cycledistill.cost.report import CostReport, cost
from tests.scripts import ROOT

sys.path += [str(ROOT / "benchmarks"), str(ROOT / "examples")]  # as benchmarks/study/__main__.py has it

TINY: dict[str, Any] = {
    "name": "tiny",
    "question": "Does it run?",
    "success": "It does.",
    "task": {"kind": "mazes", "side": 4, "walls": 0.3, "sides": [4, 5], "test_boards": 40},
    "network": {"width": 16, "depth": 1, "heads": 2},
    "training": {"steps": 4, "batch": 8, "rate": 1e-2},
    "seeds": [0, 1],
    "exits": [1, 2, 3],
    "metrics": ["cells 4x4", "solved 5x5"],
    "arms": {
        "base": {},
        "exits": {"cycles": 2, "distill": "exits"},
        "base_eq": {"equal_training": "exits"},
        "deep": {"depth": 2},
        "narrow": {"depth": 2, "width": 11, "heads": 1},
        "narrow_eq": {"depth": 2, "width": 11, "heads": 1, "equal_training": "exits"},
    },
    "comparisons": [{"left": "exits@2", "right": "base@1", "claim": "cycles help"}],
}


@pytest.fixture
def written(tmp_path: Path) -> Callable[..., Path]:
    """Writes a plan: the tiny one with sections replaced, ``arms`` and ``task`` added to."""

    def write(name: str = "tiny", **sections: Any) -> Path:
        plan = {**TINY, "name": name, **sections}
        for key in ("arms", "task"):
            plan[key] = {**TINY[key], **sections.get(key, {})}
        path = tmp_path / f"{name}.yaml"
        path.write_text(yaml.safe_dump(plan, sort_keys=False), encoding="utf-8")
        return path

    return write


COUNTED: dict[Any, CostReport] = {}


@pytest.fixture(autouse=True)
def counted_once(monkeypatch: pytest.MonkeyPatch) -> None:
    """What networks cost, which takes most of a short study's time, is counted once for equal ones."""

    def known(model: nn.Module, example: Any, cycles: int, *, blocks: str) -> CostReport:
        key = _numbers(model), str([each.shape for each in example]), cycles, blocks
        if key not in COUNTED:
            COUNTED[key] = cost(model, example, cycles, blocks=blocks)
        return COUNTED[key]

    monkeypatch.setattr("study.costs.cost", known)


def _numbers(model: nn.Module) -> str:
    """All sizes of a network."""
    settings = [
        (
            name,
            type(module).__name__,
            sorted((k, v) for k, v in vars(module).items() if isinstance(v, (int, float, str))),
        )
        for name, module in model.named_modules()
    ]
    return str((settings, [(name, value.shape) for name, value in model.state_dict().items()]))


@pytest.fixture(autouse=True)
def threads() -> Iterator[None]:
    """The command sets the number of threads; it is put back."""
    before = torch.get_num_threads()
    yield
    torch.set_num_threads(before)
