"""Whatever comes from outside is refused by a documented error, or gives what an oracle gives; and bugs are seen."""

from __future__ import annotations

import pytest
from hypothesis import strategies as st

pytest.importorskip("accelerate")
pytest.importorskip("timm")
pytest.importorskip("cv2")
pytest.importorskip("pycocotools")
pytest.importorskip("huggingface_hub")

from tests.faults.kinds import ERROR, ESCAPED, RIGHT, Kind, hold, tally
from tests.faults.properties import COSTLY, PROPERTIES


@pytest.mark.slow
@pytest.mark.parametrize("kind", PROPERTIES, ids=lambda kind: kind.name)
def test_a_documented_error_or_the_right_result(kind: Kind) -> None:
    hold(kind, examples=15 if kind.name in COSTLY else 100)  # many: benchmarks/faults.py


def odd_is_wrong(number: int) -> str:
    if number % 2:
        raise KeyError(number)
    return RIGHT if number % 4 else ERROR


def test_what_escapes_is_counted_and_told_and_a_seed_says_which_cases() -> None:
    kind = Kind("numbers", st.integers(0, 1000), odd_is_wrong)
    first, again, other = (tally(kind, 200, seed) for seed in (1, 1, 2))
    assert sum(first.outcomes.values()) == 200 and set(first.outcomes) == {ERROR, RIGHT, ESCAPED}
    assert first == again and first.escapes != other.escapes
    assert len(first.escapes) == 5 and all("KeyError" in each and "odd_is_wrong" in each for each in first.escapes)


def test_what_escapes_fails_a_test_by_its_smallest_case() -> None:
    with pytest.raises(KeyError, match="case=1,"):
        hold(Kind("numbers", st.integers(0, 1000), odd_is_wrong), 100)
