"""A distillation term that is nothing beside the task loss is told of: once, early, with what helps."""

from __future__ import annotations

import dataclasses
import re
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from cycledistill import CycleLoss, CycleOutput, Distill, wrap_cyclic
from cycledistill.inert import named_as_keys
from cycledistill.plugin.running import values_hidden
from tests import toys

INERT = Distill(token_weight=1e-10)


def steps(scheme: Any, count: int = 1, criterion: CycleLoss | None = None) -> dict[str, float]:
    """Train for some steps; the terms of the last one."""
    model = wrap_cyclic(toys.make(depth=2), 2, distill=scheme)
    criterion = criterion or CycleLoss(nn.CrossEntropyLoss())
    x, target = toys.batch()
    for _ in range(count):
        parts = criterion.parts(model(x), target)
    return {name: float(term.detach()) for name, term in parts.items()}


def test_it_is_said_once_with_term_ratio_and_what_to_set(caplog: pytest.LogCaptureFixture) -> None:
    terms = steps(INERT, 6)
    (record,) = caplog.records
    assert record.levelname == "WARNING"
    said = record.getMessage()
    ratio = terms["token_all"] / (terms["task_1"] + terms["task_2"])
    assert f"token_all is {ratio:.1g} of the task loss" in said
    assert 'Distill(token_weight="auto")' in said and "output_weight" not in said


@pytest.mark.parametrize("what", ["auto", "number"])
def test_what_it_says_to_set_helps(what: str, caplog: pytest.LogCaptureFixture) -> None:
    steps(INERT)
    times = float(re.search(r"token_weight (\S+) times as large", caplog.text)[1])
    assert f"the token terms are {Distill.token_fraction} of the task loss" in caplog.text
    caplog.clear()
    terms = steps(dataclasses.replace(INERT, token_weight="auto" if what == "auto" else 1e-10 * times))
    assert terms["token_all"] / (terms["task_1"] + terms["task_2"]) == pytest.approx(Distill.token_fraction, rel=0.5)
    assert not caplog.records


@pytest.mark.parametrize(
    ("scheme", "advice"),
    [
        (Distill(output_weight=1e-12), "output is .* a larger|output is .*Set an output_weight"),
        (lambda out: 1e-12 * out.tokens[0].square().mean(), "distill is .*callable"),
    ],
    ids=["outputs", "callable"],
)
def test_other_terms_have_their_own_advice(scheme: Any, advice: str, caplog: pytest.LogCaptureFixture) -> None:
    steps(scheme)
    assert len(caplog.records) == 1 and re.search(advice, caplog.text)


def test_a_recipe_is_told_of_its_keys(caplog: pytest.LogCaptureFixture) -> None:
    with named_as_keys("cyclic.distill."):
        steps(dataclasses.replace(INERT, output_weight=1e-12))
    said = caplog.text
    assert "Set cyclic.distill.token_weight=auto, with which" in said and "a cyclic.distill.token_weight " in said
    assert "Set a cyclic.distill.output_weight " in said and "Distill(" not in said
    caplog.clear()
    steps(INERT)
    assert "cyclic" not in caplog.text


@pytest.mark.parametrize("scheme", [None, "exits", "elt", Distill(token_weight=1e-3)], ids=str)
def test_terms_that_count_are_not_told_of(scheme: Any, caplog: pytest.LogCaptureFixture) -> None:
    steps(scheme)
    assert not caplog.records


def test_nothing_to_teach_yet_is_no_wrong_weight(caplog: pytest.LogCaptureFixture) -> None:
    CycleLoss(lambda out: out)(CycleOutput((torch.tensor(1.0),), (), {"output": torch.tensor(0.0)}, (1.0,)))
    assert not caplog.records


def test_no_value_is_read_after_the_first_steps(monkeypatch: pytest.MonkeyPatch) -> None:
    """A GPU would be waited for."""
    read = []
    for name in ("item", "tolist", "__bool__", "__float__"):
        kept = getattr(Tensor, name)
        monkeypatch.setattr(Tensor, name, lambda *args, kept=kept: (read.append(1), kept(*args))[1])
    model = wrap_cyclic(toys.make(depth=2), 2, distill=Distill(token_weight="auto"))
    criterion, (x, target) = CycleLoss(nn.CrossEntropyLoss()), toys.batch()
    for _ in range(3):
        criterion(model(x), target)
    assert len(read) <= 3
    read.clear()
    for _ in range(5):
        criterion(model(x), target)
    assert not read


@pytest.mark.slow
def test_it_looks_at_nothing_in_evaluation_where_values_are_hidden_or_while_compiling(
    caplog: pytest.LogCaptureFixture,
) -> None:
    model = wrap_cyclic(toys.make(depth=2), 2, distill=INERT)
    criterion, (x, target) = CycleLoss(nn.CrossEntropyLoss()), toys.batch()
    with torch.no_grad():
        criterion(model(x), target)
    with values_hidden():  # before a CUDA graph is captured
        criterion(model(x), target)
    criterion.eval()(model(x), target)
    criterion.train()
    torch.compile(lambda: criterion(model(x), target), fullgraph=True, backend="eager")()
    assert not [record for record in caplog.records if record.name.startswith("cycledistill")]
    criterion(model(x), target)
    assert "token_all" in caplog.text
