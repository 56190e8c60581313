"""Keypoints of other sets than COCO's 17 and Human3.6M's, brought to one of these."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ...errors import LiftingDataError
from ..skeleton import COCO_NAMES

OPENPOSE = {
    25: (0, 16, 15, 18, 17, 5, 2, 6, 3, 7, 4, 12, 9, 13, 10, 14, 11),
    18: (0, 15, 14, 17, 16, 5, 2, 6, 3, 7, 4, 11, 8, 12, 9, 13, 10),
}
"""OpenPose's BODY_25 and COCO models, neck in both: where COCO's 17 keypoints are."""
_BEGIN_WITH_COCO = {133: "coco", 136: "halpe26"}
"""COCO-WholeBody and Halpe-136: what their first keypoints are."""
_SIZES = {"coco": 17, "halpe26": 26}


def known_set(found: NDArray[np.float32]) -> tuple[NDArray[np.float32], str | None]:
    """Keypoints without those of feet, face and hands, and their layout where the number tells it.

    Args:
        found: (T, J, C), J any.
    """
    count = found.shape[1] if found.ndim == 3 else 0
    layout = _BEGIN_WITH_COCO.get(count, "halpe26" if count == 26 else None)
    return (found, None) if layout is None else (found[:, : _SIZES[layout]], layout)


def by_names(names: Sequence[str], path: Path) -> list[int] | None:
    """Where COCO's 17 keypoints are among named ones; ``None``: a set of which they are the first, or Human3.6M's.

    Raises:
        LiftingDataError: Some are missing.
    """
    plain = [str(name).lower().replace(" ", "_").replace("-", "_") for name in names]
    begins = tuple(plain[: len(COCO_NAMES)]) == COCO_NAMES and len(plain) in {*_SIZES.values(), *_BEGIN_WITH_COCO}
    if begins or plain[:1] in (["root"], ["pelvis"]):
        return None
    missing = [name for name in COCO_NAMES if name not in plain]
    if missing:
        raise LiftingDataError(
            f"{path}: its {len(plain)} keypoints lack {', '.join(missing[:6])}{' ...' if len(missing) > 6 else ''}; "
            "COCO's 17, or Human3.6M's, are needed"
        )
    return [plain.index(name) for name in COCO_NAMES]


def rows(flat: Any, path: Path) -> NDArray[np.float32]:
    """One person's (J, 3) from COCO's flat list, x, y, confidence, x, ...

    Raises:
        LiftingDataError: It is none.
    """
    try:
        found = np.array(flat, dtype=np.float32).reshape(-1, 3)
    except (TypeError, ValueError, OverflowError) as error:
        raise LiftingDataError(f"{path}: keypoints are no list of x, y, confidence, x, ...: {error}") from error
    return found


def openpose_to_coco(flat: Any, path: Path) -> list[list[float]]:
    """COCO's 17 keypoints of OpenPose's ``pose_keypoints_2d``.

    Raises:
        LiftingDataError: Another number of keypoints than BODY_25's and its COCO model's.
    """
    found = rows(flat, path)
    if len(found) not in OPENPOSE:
        raise LiftingDataError(
            f"{path}: {len(found)} keypoints; 25 (OpenPose's BODY_25) or 18 (its COCO model) are expected"
        )
    chosen: list[list[float]] = found[list(OPENPOSE[len(found)])].tolist()
    return chosen


def named_rows(keypoints: Mapping[str, Any], path: Path) -> list[Any]:
    """COCO's 17 keypoints of an object of them by name, as ``cycledistill predict`` writes it."""
    places, given = by_names(list(keypoints), path), list(keypoints.values())
    return given if places is None else [given[place] for place in places]
