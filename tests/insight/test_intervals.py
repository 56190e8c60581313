"""Intervals against published tables and scipy."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch

from cycledistill.insight.intervals import bootstrap_interval, wilson_interval

# R. G. Newcombe, "Two-sided confidence intervals for the single proportion", Statistics in Medicine 17, 1998: table I,
# method 3 (score method without continuity correction).
NEWCOMBE = {(81, 263): (0.2553, 0.3662), (15, 148): (0.0624, 0.1605), (0, 20): (0.0, 0.1611), (1, 29): (0.0061, 0.1718)}


@pytest.mark.parametrize(("counted", "published"), NEWCOMBE.items(), ids=lambda each: "-".join(map(str, each)))
def test_wilson_as_published(counted: tuple[int, int], published: tuple[float, float]) -> None:
    assert wilson_interval(*counted) == pytest.approx(published, abs=5e-5)


def test_wilson_as_scipy_has_it() -> None:
    stats = pytest.importorskip("scipy.stats")
    for hits, count, confidence in ((36_110, 50_000, 0.95), (3, 7, 0.9), (7, 7, 0.99), (0, 1, 0.5)):
        theirs = stats.binomtest(hits, count).proportion_ci(confidence, method="wilson")
        assert wilson_interval(hits, count, confidence) == pytest.approx((theirs.low, theirs.high), abs=1e-9)


def test_bootstrap_as_scipy_has_it() -> None:
    """Of a mean, and of a ratio of sums: the mean over frames of recordings of different lengths."""
    stats = pytest.importorskip("scipy.stats")
    random = np.random.default_rng(3)
    frames, errors = random.integers(50, 400, 80).astype(float), random.gamma(4, 12, 80)
    frames_, sums = torch.from_numpy(frames), torch.from_numpy(frames * errors)

    def ratio(often: torch.Tensor) -> float:
        return float(often @ sums / (often @ frames_))

    def same(frames: Any, errors: Any) -> Any:
        return (frames * errors).sum() / frames.sum()

    theirs = stats.bootstrap(
        (frames, errors), same, paired=True, vectorized=False, method="percentile", n_resamples=2000, rng=random
    ).confidence_interval
    found = bootstrap_interval(ratio, 80, resamples=2000)
    width = theirs.high - theirs.low
    assert found == pytest.approx((theirs.low, theirs.high), abs=0.08 * width)
    assert found == bootstrap_interval(ratio, 80, resamples=2000), "the same each time"
    assert found != bootstrap_interval(ratio, 80, resamples=2000, seed=1)


def test_what_has_no_interval() -> None:
    for hits, count in ((1, 0), (-1, 5), (6, 5)):
        with pytest.raises(ValueError, match="out of at least one sample"):
            wilson_interval(hits, count)
    with pytest.raises(ValueError, match=r"confidence=95"):
        wilson_interval(1, 2, 95)
    with pytest.raises(ValueError, match="at least 2 units"):
        bootstrap_interval(lambda often: 0.0, 1)
