"""What the commands that make poses from several views have in common: arguments, and what is said of the poses."""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from ...data.keypoints.gaps import LEAST_CONFIDENCE
from ...errors import LiftingDataError
from ..triangulation import THRESHOLD
from ..views import ViewPoses


def by_name(given: Sequence[str], what: str) -> dict[str, str]:
    """``NAME=VALUE``, or files by the names they have.

    Raises:
        LiftingDataError: A name is given twice.

    Example:
        >>> by_name(["front=clips/a.json", "clips/left.json"], "keypoints")
        {'front': 'clips/a.json', 'left': 'clips/left.json'}
    """
    found: dict[str, str] = {}
    for each in given:
        name, equals, value = each.partition("=")
        if not equals or Path(each).exists():  # a path may hold the sign, too
            name, value = Path(each).stem, each
        if name in found:
            raise LiftingDataError(f"{what}: {name} is given twice; NAME=FILE tells views apart")
        found[name] = value
    return found


def add_triangulation(parser: argparse.ArgumentParser) -> None:
    """Add the arguments that say of which cameras, how, and where to."""
    parser.add_argument("--calibration", action="append", required=True, help="a file or a folder; may be given again")
    parser.add_argument("--output", type=Path, required=True, help="what to write, .npz or .json")
    parser.add_argument("--unit", help="of the calibration: m, cm, mm, or the metres of one unit (default: m)")
    parser.add_argument("--width", type=int, help="of the pictures, where neither calibration nor keypoints say it")
    parser.add_argument("--height", type=int, help="the same")
    parser.add_argument(
        "--threshold", type=float, default=THRESHOLD, help="pixels that a view may be off (default: %(default)s)"
    )
    parser.add_argument("--min-views", type=int, default=2, help="that must agree on a joint (default: 2)")
    parser.add_argument(
        "--min-confidence",
        type=float,
        default=LEAST_CONFIDENCE,
        help="of a keypoint that counts (default: %(default)s)",
    )
    parser.add_argument("--all-views", action="store_true", help="leave no view out, however far off (no RANSAC)")
    parser.add_argument("--unchecked", action="store_true", help="do not refuse what cannot be a person")


def triangulation_of(args: argparse.Namespace) -> dict[str, Any]:
    """What :func:`add_triangulation` read, as arguments of `poses_from_views`."""
    return {
        "threshold": args.threshold,
        "least_views": args.min_views,
        "least_confidence": args.min_confidence,
        "ransac": not args.all_views,
        "checked": not args.unchecked,
    }


def describe_poses(found: ViewPoses, output: Path) -> str:
    """What was found, in a few lines."""
    known = np.isfinite(found.error)
    lines = [f"{len(found.poses)} poses in {output}: {100 * known.mean():.1f} % of the joints are known"]
    if known.any():
        lines.append(f"reprojection error: median {np.median(found.error[known]):.2f} pixels")
    share = found.used[known].mean(axis=0) if known.any() else np.zeros(len(found.views))
    lines += [f"view {name}: used for {100 * own:.1f} % of them" for name, own in zip(found.views, share, strict=True)]
    return "\n".join(lines) + "\n"
