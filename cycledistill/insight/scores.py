"""What an evaluation measured at each exit, with all that must stand beside such a figure."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from cycledistill.insight.intervals import Interval


@dataclass(frozen=True)
class Scores:
    """One figure of an evaluation, by exit.

    Attributes:
        name: What it is, such as ``"top-1 accuracy"``.
        values: Exit -> figure.
        unit: ``"%"``, ``"mm"``, or nothing.
        intervals: Exit -> from where to where it may be, for having been measured on so many samples; exits may lack.
        method: How the intervals were made: ``"95 %, Wilson's"``. Without intervals: why there are none.
        samples: On how many samples of what: ``"10,000 pictures"``.
        digits: Behind the point.
    """

    name: str
    values: Mapping[int, float]
    unit: str = ""
    intervals: Mapping[int, Interval] = field(default_factory=dict)
    method: str = "the run recorded none"
    samples: str = "not recorded"
    digits: int = 1

    @property
    def title(self) -> str:
        """The name with its unit, for an axis."""
        return f"{self.name}, {self.unit}" if self.unit else self.name

    def text(self, exit: int) -> str:
        """The figure of an exit, as it is written; nothing where there is none."""
        return f"{self.values[exit]:.{self.digits}f}{self._end}" if exit in self.values else ""

    def interval_text(self, exit: int) -> str:
        """``"71.9 to 72.6 %"``; nothing where there is none."""
        if exit not in self.intervals:
            return ""
        low, high = (f"{bound:.{self.digits}f}" for bound in self.intervals[exit])
        return f"{low} to {high}{self._end}"

    @property
    def _end(self) -> str:
        return f" {self.unit}" if self.unit else ""
