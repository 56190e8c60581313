"""What the commands that make poses from several views share: what arguments mean, and what is said of the poses."""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from ...errors import LiftingDataError
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


def triangulation_of(args: argparse.Namespace) -> dict[str, Any]:
    """What ``add_triangulation`` of ``human36m/commands.py`` read, as arguments of `poses_from_views`."""
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
