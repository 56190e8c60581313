"""What was proved: rows of a table, and the words in which a check ends."""

from __future__ import annotations

import textwrap
from dataclasses import dataclass

OK, FAILED, NOT_CHECKED = "ok", "FAILED", "not checked"


class NotChecked(Exception):
    """A claim that cannot be checked on this model; the message is the reason."""

    def __init__(self, reason: str, optional: bool = False) -> None:
        super().__init__(reason)
        self.optional = optional


class Failed(Exception):
    """A claim that does not hold; the message says what was seen, ``difference`` how much."""

    def __init__(self, seen: str, difference: float | None = None) -> None:
        super().__init__(seen)
        self.difference = difference


@dataclass(frozen=True)
class Row:
    """One claim about a model.

    Attributes:
        claim: What was to be proved.
        oracle: What it was compared with, which is none of the library's own cycles.
        result: ``"ok"``, ``"FAILED"`` or ``"not checked"``.
        detail: What was seen; of a claim that was not checked, the reason.
        difference: The largest difference relative to the largest value of the truth, where numbers were compared.
        optional: Whether :attr:`Verification.ok` does without it: what a model does not have, or cannot do plainly.
    """

    claim: str
    oracle: str
    result: str
    detail: str = ""
    difference: float | None = None
    optional: bool = False

    def __str__(self) -> str:
        gap = "" if self.difference is None else f"max difference {self.difference:.1e}"
        said = "; ".join(filter(None, (gap, self.detail)))
        return f"{self.result}: {said}" if said else self.result


@dataclass(frozen=True)
class Verification:
    """What :func:`verify` found; printed, it is a table.

    Attributes:
        model: The class of the model, and where in it the plug-ins are.
        rows: One a claim, in the order they were checked.
    """

    model: str
    rows: tuple[Row, ...]

    @property
    def ok(self) -> bool:
        """Whether no claim failed, and all were checked but those that are optional."""
        needed = [row for row in self.rows if not row.optional]
        return all(row.result == OK for row in needed) and all(row.result != FAILED for row in self.rows)

    @property
    def failed(self) -> tuple[Row, ...]:
        """The rows that failed."""
        return tuple(row for row in self.rows if row.result == FAILED)

    def __str__(self) -> str:
        counts = [f"{sum(row.result == each for row in self.rows)} {each}" for each in (OK, FAILED, NOT_CHECKED)]
        table = [("what", "proved by", "result"), *((row.claim, row.oracle, str(row)) for row in self.rows)]
        claims, oracles = (max(len(line[column]) for line in table) for column in (0, 1))
        lines = []
        for claim, oracle, result in table:
            front = f"{claim.ljust(claims)}  {oracle.ljust(oracles)}  "
            indent = " " * 4
            lines += textwrap.wrap(front + result, 160, subsequent_indent=indent, drop_whitespace=True) or [front]
        return "\n".join([self.model, "", *(line.rstrip() for line in lines), "", ", ".join(counts)])


@dataclass(frozen=True)
class Proof:
    """How a claim was proved: the difference that was left, by which oracle where that is found on the way."""

    difference: float | None = None
    oracle: str | None = None
    detail: str = ""
