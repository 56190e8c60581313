"""How far a score may be off for having been measured on so many samples: intervals for shares, and by bootstrap."""

from __future__ import annotations

import math
from collections.abc import Callable
from statistics import NormalDist

import torch
from torch import Tensor

Interval = tuple[float, float]


def wilson_interval(hits: float, count: int, confidence: float = 0.95) -> Interval:
    """Wilson's score interval of a share, such as an accuracy: it stays in [0, 1], and holds at 0 and 1 too.

    E. B. Wilson, "Probable inference, the law of succession, and statistical inference", JASA 22, 1927; without
    continuity correction.

    Args:
        hits: Samples that count, 0 to ``count``.
        count: All samples, at least 1.
        confidence: How often such intervals hold the true share, in (0, 1).

    Raises:
        ValueError: Numbers out of range.

    Example:
        >>> [round(bound, 4) for bound in wilson_interval(81, 263)]
        [0.2553, 0.3662]
    """
    if count < 1 or not 0 <= hits <= count:
        raise ValueError(f"hits={hits}, count={count}: hits out of at least one sample are expected")
    z = NormalDist().inv_cdf(0.5 + _checked(confidence) / 2)
    share, weight = hits / count, z * z / count
    middle = (share + weight / 2) / (1 + weight)
    half = z * math.sqrt(share * (1 - share) / count + weight / (4 * count)) / (1 + weight)
    return max(0.0, middle - half), min(1.0, middle + half)


def bootstrap_interval(
    statistic: Callable[[Tensor], float],
    count: int,
    *,
    resamples: int = 1000,
    confidence: float = 0.95,
    seed: int = 0,
) -> Interval:
    """The percentile bootstrap interval of any statistic of independent units: pictures, or recordings.

    B. Efron, "Bootstrap methods: another look at the jackknife", Annals of Statistics 7, 1979. Frames of a recording,
    or persons of a picture, are no independent units: draw the recordings, or the pictures.

    Args:
        statistic: The score where each unit counts so often: takes (count,), whole numbers, float64, ``count`` in sum.
        count: Units, at least 2.
        resamples: How often units are drawn anew.
        confidence: In (0, 1).
        seed: Of the draws: the same interval each time.

    Raises:
        ValueError: Numbers out of range.

    Example:
        >>> errors = torch.tensor([3.0, 5.0, 4.0, 8.0, 2.0, 6.0], dtype=torch.float64)
        >>> low, high = bootstrap_interval(lambda often: float(often @ errors / often.sum()), len(errors))
    """
    if count < 2 or resamples < 1:
        raise ValueError(f"count={count}, resamples={resamples}: at least 2 units, drawn at least once, are expected")
    tail = (1 - _checked(confidence)) / 2
    generator = torch.Generator().manual_seed(seed)
    found = torch.empty(resamples, dtype=torch.float64)
    for number in range(resamples):
        drawn = torch.randint(count, (count,), generator=generator)
        found[number] = statistic(torch.bincount(drawn, minlength=count).double())
    low, high = torch.quantile(found, torch.tensor([tail, 1 - tail], dtype=torch.float64)).tolist()
    return low, high


def _checked(confidence: float) -> float:
    if not 0 < confidence < 1:
        raise ValueError(f"confidence={confidence}: a number between 0 and 1, such as 0.95, is expected")
    return confidence
