"""What a result says: when it is ok, and how it reads."""

from __future__ import annotations

import pytest

from cycledistill.verification import Row, Verification

GOOD = Row("one", "the plain model", "ok", difference=1.25e-7)
BAD = Row("two", "by hand", "FAILED", "beyond rounding (1e-05)", 0.25)
OPEN = Row("three", "the model run eagerly", "not checked", "no compiler")
SPARE = Row("four", "none", "not checked", "no parameter asks for gradients", optional=True)


@pytest.mark.parametrize(
    ("rows", "ok"),
    [((GOOD,), True), ((GOOD, SPARE), True), ((GOOD, OPEN), False), ((GOOD, BAD), False), ((SPARE, BAD), False)],
    ids=["good", "optional", "open", "bad", "bad-beside-optional"],
)
def test_ok(rows: tuple[Row, ...], ok: bool) -> None:
    assert Verification("a model", rows).ok is ok


def test_it_reads_as_a_table() -> None:
    assert str(Verification("a model", (GOOD, BAD, OPEN))).splitlines() == [
        "a model",
        "",
        "what   proved by              result",
        "one    the plain model        ok: max difference 1.2e-07",
        "two    by hand                FAILED: max difference 2.5e-01; beyond rounding (1e-05)",
        "three  the model run eagerly  not checked: no compiler",
        "",
        "1 ok, 1 FAILED, 1 not checked",
    ]
