"""What the file of a study's curves of adaptive inference must hold to be shown."""

from __future__ import annotations

import dataclasses
from typing import Any

from cycledistill.recipes.reading.plain import is_finite

from .expected import TEXT, Expected, several, unfit, whole


def _are_points(value: Any) -> bool:
    """Whether they are pairs of a cost and a percent, one at least."""
    pairs = all(isinstance(each, list) and len(each) == 2 and all(map(is_finite, each)) for each in value)
    return pairs and len(value) > 0


_THRESHOLDS = Expected(
    "a list of pairs of cost and percent", lambda value, _: isinstance(value, list) and _are_points(value)
)
_CURVE = {
    "arm": TEXT,
    "seed": whole(),
    "exits": several(1),
    "fixed": Expected(
        "a pair of cost and percent for each exit",
        lambda value, given: (
            isinstance(value, dict) and _are_points(value.values()) and value.keys() >= set(map(str, given["exits"]))
        ),
    ),
    "adaptive": _THRESHOLDS,
    "by_metric": dataclasses.replace(_THRESHOLDS, needed=False),
}
"""What is kept of an arm from a seed; those measured early have none that was chosen by the metric."""


def wrong_in(record: Any) -> str | None:
    """What is not as `study.adaptive.write_curves` leaves it, in words."""
    if not isinstance(record, dict):
        return f"a mapping is expected, not {record!r:.80}"
    for key, kind in (("contents", dict), ("curves", list)):
        if not isinstance(record.get(key), kind):
            return f"{key}: got {record.get(key)!r:.80}"
    for place, curve in enumerate(record["curves"]):
        fields = curve if isinstance(curve, dict) else {}
        if missing := [key for key, each in _CURVE.items() if each.needed and key not in fields]:
            return f"curves[{place}]: without {', '.join(missing)}"
        if wrong := unfit(curve, _CURVE):
            return f"curves[{place}].{wrong}"
        if curve["arm"] not in record["contents"]:
            return f"contents: without {curve['arm']}"
    return None
