"""Whether several views agree with each other, and what would make them."""

from __future__ import annotations

import logging
from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from ...data.cameras import Camera
from ...data.skeleton import COCO_NAMES, HALPE_NAMES, MIRRORED
from ...errors import LiftingDataError
from ..triangulation import Triangulated
from .epipolar import BetterFit, better_fit

_logger = logging.getLogger(__name__)

_MOSTLY, _HARDLY = 0.5, 0.2
"""Shares of the joints found in two views that must become points, and of a view's that are used, or it is told of."""
_ROUGH = 5.0
"""Pixels: detectors are off by less, and views that are exchanged by hardly more where cameras stand in a ring."""
_NEARLY = 2
"""Frames that cameras which are started by hand, or by software, may be apart."""
_QUESTION = (
    "are the views of one person and of the same moments, R and t OpenCV's, K of pictures of this size, and the "
    "distortion of this model (a fisheye's is of another)?"
)
_UNCHECKED = "if all is right all the same, --unchecked (checked=False) takes it as it is"


def check_agreement(
    found: Triangulated,
    names: Sequence[str],
    cameras: Sequence[Camera],
    tables: NDArray[np.float32],
    seen: NDArray[np.bool_],
    layout: str | None,
) -> None:
    """Refuse views that do not belong together, and tell of one that is left out.

    Args:
        found: What the V views became.
        names: Theirs.
        cameras: Theirs.
        tables: (V, T, J, 3), pixels and confidence.
        seen: (V, T, J), which were found.
        layout: Of the joints, which says left from right; ``None``: not known.

    Raises:
        LiftingDataError: Hardly any rays meet; half of the views or more are left out; or something else would fit
            clearly better, as named.
    """
    several = seen.sum(axis=0) >= 2
    if not several.any():
        raise LiftingDataError(
            f"no joint is found in two of the views {', '.join(names)} in one frame: are they of the same moments?"
        )
    pixels = np.where(seen[..., None], tables[..., :2], np.nan).astype(np.float64)
    guess = better_fit(names, cameras, pixels, _mirrored(layout))
    share, off = _agreement(found, several)
    told = ""
    if share < _MOSTLY:
        told = (
            f"only {100 * share:.0f} % of the joints that two or more of the views {', '.join(names)} see are where "
            "rays of their cameras meet, to the threshold in pixels"
        )
    elif off > _ROUGH:
        told = f"the rays of the views {', '.join(names)} miss each other by {off:.1f} pixels (median)"
    out = _left_out(found, names, seen & several)
    if guess and not told and 0 < abs(guess.shift) <= _NEARLY:
        _logger.warning("rays of the views %s: %s: were the cameras started together?", ", ".join(names), _fits(guess))
    elif guess:
        told = told or f"rays of the views {', '.join(names)} do not meet as they could"
        raise LiftingDataError(f"{told}: {_fits(guess)}; {_UNCHECKED}")
    elif share < _MOSTLY:
        raise LiftingDataError(f"{told}: {_QUESTION}")
    if 2 * len(out) >= len(names):
        raise LiftingDataError(
            f"{len(out)} of {len(names)} views ({', '.join(out)}) agree with the others on less than "
            f"{100 * _HARDLY:.0f} % of the joints that they see, so nothing says which are right: {_QUESTION}"
        )
    if told and not guess:
        _logger.warning("%s, more than detectors are off: is the calibration a good one, and of these pictures?", told)
    for name, own in out.items():
        _logger.warning(
            "view %s agrees with the others on %.0f %% of the joints it sees, and is left out of the rest: is its "
            "calibration or file another's, or another person in it?",
            name,
            100 * own,
        )


def _fits(guess: BetterFit) -> str:
    instead = f", instead of {guess.off:.1f}" if np.isfinite(guess.off) else ""
    return f"they meet {guess.words} (to {guess.then:.1f} pixels, median{instead})"


def _left_out(found: Triangulated, names: Sequence[str], seen: NDArray[np.bool_]) -> dict[str, float]:
    """Views that hardly any joint is made from, and of which share of what they see one is."""
    shares = {name: used[own].mean() for name, used, own in zip(names, found.used, seen, strict=True) if own.any()}
    return {name: float(share) for name, share in shares.items() if share < _HARDLY}


def _agreement(found: Triangulated, several: NDArray[np.bool_]) -> tuple[float, float]:
    """Which share of the joints that several views see became points, and their median error in pixels."""
    known = np.isfinite(found.error) & several
    if not known.any():
        return 0.0, float("inf")
    return float(known.sum() / several.sum()), float(np.median(found.error[known]))


def _mirrored(layout: str | None) -> Sequence[int] | None:
    if layout is None or layout == "h36m":
        return None if layout is None else MIRRORED
    names = HALPE_NAMES if layout == "halpe26" else COCO_NAMES
    sides = {"left": "right", "right": "left"}
    return [
        names.index("_".join((sides.get(first, first), *rest))) for first, *rest in (name.split("_") for name in names)
    ]
