"""A run whose token loss does nothing says so once, by the recipe's key; and what it says to set helps."""

from __future__ import annotations

import logging
import re

import pytest

pytest.importorskip("timm")
pytest.importorskip("pyarrow")
pytest.importorskip("accelerate")

from cycledistill import Distill
from cycledistill.integrations.imagenet.recipe import Recipe, load_recipe
from cycledistill.integrations.imagenet.train import train
from tests.recipes.run_checks import changing, rows

change = changing(load_recipe)


def warnings(caplog: pytest.LogCaptureFixture) -> list[str]:
    found = [each for each in caplog.records if each.name == "cycledistill.inert" and each.levelno >= logging.WARNING]
    return [each.getMessage() for each in found]


@pytest.mark.slow
def test_a_run_says_once_what_to_set_and_it_helps(tiny: Recipe, caplog: pytest.LogCaptureFixture) -> None:
    assert tiny.cyclic.distill == "sdpose"  # what a recipe has that says nothing
    train(change(tiny, cyclic__cycles=2, run__max_steps=5))
    (said,) = warnings(caplog)
    key, value = re.search(r"Set (\S+)=(\w+), with which", said).groups()  # type: ignore[union-attr]
    caplog.clear()
    followed = load_recipe(tiny.to_dict(), ["cyclic.cycles=2", f"run.output={tiny.run.output}_2", f"{key}={value}"])
    assert followed.cyclic.distill == {"preset": "sdpose", "token_weight": "auto"}
    train(followed)
    assert not warnings(caplog)
    assert rows(followed)[0]["token_task_ratio"] == pytest.approx(Distill.token_fraction, rel=0.2)
