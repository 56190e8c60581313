"""A kind of fault: how its cases are drawn, and what each must come to. For tests and ``benchmarks/faults.py``."""

from __future__ import annotations

import traceback
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

from hypothesis import HealthCheck, Phase, given, seed, settings
from hypothesis.strategies import SearchStrategy

ERROR = "documented error"
RIGHT = "right result"
ESCAPED = "escaped"
"""Neither of the two: a bug."""


@dataclass(frozen=True)
class Kind:
    """A kind of fault.

    Attributes:
        name: What it is called in the table.
        cases: Draws a case.
        check: Tries one: gives `ERROR` or `RIGHT`, and raises whatever it is where it escaped.
    """

    name: str
    cases: SearchStrategy[Any]
    check: Callable[[Any], str]


@dataclass
class Tally:
    """What came of many cases."""

    outcomes: Counter[str] = field(default_factory=Counter)
    escapes: list[str] = field(default_factory=list)


def hold(kind: Kind, examples: int) -> None:
    """Try the same cases each time; one that escapes is made as small as it can be, and raised."""
    _search(kind.cases, kind.check, examples, derandomize=True)


def tally(kind: Kind, cases: int, number: int, shown: int = 5) -> Tally:
    """Try other cases for each seed ``number``, and count; the first few that escaped are told."""
    found = Tally()

    def check(case: Any) -> None:
        try:
            outcome = kind.check(case)
        except Exception as error:
            outcome = ESCAPED
            if len(found.escapes) < shown:
                where = traceback.extract_tb(error.__traceback__)[-1]
                said = f"{type(error).__name__}: {error}".splitlines()[0][:300]
                found.escapes.append(f"{case!r:.600} -> {said} (line {where.lineno} of {where.name})")
        found.outcomes[outcome] += 1

    _search(kind.cases, check, cases, phases=[Phase.generate], number=number)
    return found


def _search(cases: SearchStrategy[Any], check: Callable[[Any], Any], examples: int, **how: Any) -> None:
    number = how.pop("number", None)

    def attempt(case: Any) -> None:
        check(case)

    quiet = {"deadline": None, "database": None, "suppress_health_check": list(HealthCheck)}
    run = settings(max_examples=examples, **quiet, **how)(given(cases)(attempt))
    (run if number is None else seed(number)(run))()
