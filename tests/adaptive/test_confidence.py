"""How sure outputs are: by formulas written out, and what a callable may not return."""

from __future__ import annotations

import math
from typing import Any

import pytest
import torch
from torch import Tensor

from cycledistill.adaptive.calibration.by_shares import choose_by_shares, places_of
from cycledistill.adaptive.calibration.data import ExitCosts, top_1
from cycledistill.adaptive.confidence import agreement, confidence_of, entropy, probability


def test_probability_of_scores_is_the_largest_of_the_softmax() -> None:
    scores = torch.tensor([[0.0, math.log(3.0)], [5.0, 5.0]])
    torch.testing.assert_close(probability(scores), torch.tensor([0.75, 0.5]))
    torch.testing.assert_close(probability({"logits": scores}), torch.tensor([0.75, 0.5]))


def test_probability_of_heatmaps_is_the_mean_of_the_maxima_held_in_0_to_1() -> None:
    maps = torch.zeros(2, 3, 4, 5)
    maps[0, 0, 1, 2], maps[0, 1, 3, 4], maps[0, 2] = 0.6, 1.4, -1.0
    torch.testing.assert_close(probability(maps), torch.tensor([1.6 / 3, 0.0]))


def test_entropy_is_0_for_a_tie_and_1_where_one_class_has_it_all() -> None:
    scores = torch.tensor([[1.0, 1.0, 1.0, 1.0], [1000.0, 0.0, 0.0, 0.0], [0.0, 0.0, -math.inf, -math.inf]])
    torch.testing.assert_close(entropy(scores), torch.tensor([0.0, 1.0, 0.5]))


def test_agreement_is_0_where_the_answer_changed_and_falls_with_the_distance() -> None:
    before = torch.tensor([[0.9, 0.1], [0.9, 0.1], [0.9, 0.1]]).log()
    now = torch.tensor([[0.9, 0.1], [0.6, 0.4], [0.1, 0.9]]).log()
    torch.testing.assert_close(agreement(now, before), torch.tensor([1.0, 0.7, 0.0]))
    assert agreement(now).isnan().all(), "there is nothing to agree with at the first exit"


def test_nan_agrees_with_nothing_and_is_no_right_answer() -> None:
    maps = torch.zeros(1, 2, 2, 2)
    maps[0, 0] = float("nan")
    assert agreement(maps, maps).tolist() == [0.5]
    scores = torch.tensor([[float("nan"), 1.0], [2.0, 1.0]])
    assert top_1(scores, torch.tensor([0, 0])).tolist() == [False, True]


def test_agreement_of_heatmaps_is_the_share_of_joints_that_stay_within_a_cell() -> None:
    before, now = torch.zeros(1, 4, 6, 5), torch.zeros(1, 4, 6, 5)
    for joint, (start, end) in enumerate([((2, 2), (2, 2)), ((2, 2), (3, 1)), ((2, 2), (4, 2)), ((0, 4), (1, 0))]):
        before[0, joint][start], now[0, joint][end] = 1.0, 1.0
    torch.testing.assert_close(agreement(now, before), torch.tensor([0.5]))


def test_half_precision_is_read_in_more_and_rounding_stays_in_range() -> None:
    scores = torch.randn(50, 1000).bfloat16()
    for name in ("probability", "entropy", "agreement"):
        values = confidence_of(name, scores, scores, 50)
        assert values.dtype == torch.float64 and bool(((values >= 0) & (values <= 1)).all())


@pytest.mark.parametrize("name", ["probability", "entropy", "agreement"])
@pytest.mark.parametrize("output", [torch.zeros(2, 17, 2), torch.zeros(2, 3, dtype=torch.long), (torch.zeros(2, 3),)])
def test_an_output_that_the_names_cannot_read_asks_for_a_callable(name: str, output: Any) -> None:
    with pytest.raises(TypeError, match=rf'confidence="{name}" reads scores .*give confidence= a callable'):
        confidence_of(name, output, output, 2)


def test_entropy_of_heatmaps_is_refused() -> None:
    with pytest.raises(TypeError, match=r'"entropy" is for scores .* use "probability"'):
        entropy(torch.zeros(1, 2, 3, 4))


@pytest.mark.parametrize(
    "returned", [0.5, torch.tensor(0.5), torch.zeros(3), torch.zeros(2, 1), torch.zeros(2, dtype=torch.complex64), None]
)
def test_a_callable_that_returns_no_number_a_sample_is_refused(returned: Any) -> None:
    def surely(output: Tensor) -> Any:
        return returned

    with pytest.raises(TypeError, match=r"one real number a sample is expected, a tensor \(2,\), and 'surely'"):
        confidence_of(surely, torch.zeros(2, 5), None, 2)


@pytest.mark.parametrize("name", ["probability", "entropy", "agreement"])
def test_one_class_is_refused_for_a_callable(name: str) -> None:
    with pytest.raises(TypeError, match=r"scores \(2, 1\) every sample would be sure: give confidence= .*sigmoid"):
        confidence_of(name, torch.zeros(2, 1), None, 2)


def test_thresholds_between_two_numbers_of_16_bits_tell_them_apart() -> None:
    low, high = torch.tensor([0.75, 0.75390625], dtype=torch.bfloat16)
    values = confidence_of(lambda output: torch.stack([low, high]), torch.zeros(2, 3), None, 2)
    assert (values >= 0.751953125).tolist() == [False, True]


def test_an_infinite_confidence_is_the_surest_and_leaves_where_any_may() -> None:
    """A threshold of infinity says that none leaves at an exit, as it does for calibration."""
    sure = confidence_of(lambda output: output, torch.tensor([math.inf, 1.0, -math.inf, math.nan]), None, 4)
    assert sure[:3].isfinite().all() and sure[0] > 1e300 and sure[2] < -1e300 and sure[3].isnan()
    assert places_of(sure[:, None], (math.inf,)).tolist() == [1, 1, 1, 1]
    found = choose_by_shares(sure[:, None], ExitCosts((1.0, 2.0), (1.0, 2.0), 1.0), 1.75, (1, 2))
    assert found.shares == (0.25, 0.75) and math.isfinite(found.threshold[0])
