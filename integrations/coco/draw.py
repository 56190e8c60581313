"""Skeletons drawn on pictures: predictions, annotations, and both side by side."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import cv2
import numpy as np
from numpy.typing import NDArray

from cycledistill.files import atomic_write

from .data.images import PoseDataError
from .data.joints import JointSet, joint_set_for

Pixels = NDArray[np.uint8]

LEFT, RIGHT, MIDDLE = (255, 140, 0), (0, 170, 255), (120, 230, 60)
"""RGB of what is on a person's left, on the right, and on neither side."""
_CAPTION = 22


def draw_poses(
    picture: Pixels,
    poses: NDArray[np.floating],
    joints: JointSet | None = None,
    *,
    threshold: float = 0.0,
    zoom: int = 1,
) -> Pixels:
    """A copy of a picture with skeletons on it: the person's left orange, right blue, the middle green.

    Args:
        picture: (H, W, 3), RGB bytes.
        poses: (N, K, 3): x and y in pixels, and a score or a visibility flag; what `predict` returns, or annotations.
        joints: The joint set, such as `joints_of` the model; by default the one known by name with so many joints.
        threshold: Joints whose third number is not above this are left out, and so are their limbs.
        zoom: Pixels of the result a pixel of the picture; lines stay as thin as they are.

    Returns:
        (zoom * H, zoom * W, 3).

    Raises:
        ValueError: Poses of another shape.

    Example:
        >>> write_picture(draw_poses(picture, predict(model, [picture])[0], threshold=0.2), "poses.png")
    """
    poses = np.asarray(poses, dtype=np.float64)
    if joints is None:
        joints = joint_set_for(poses.shape[1] if poses.ndim == 3 else 17)
    if poses.ndim != 3 or poses.shape[1:] != (len(joints), 3):
        raise ValueError(f"poses of shape {poses.shape}: (N, {len(joints)}, 3) is expected, x, y, score a joint")
    drawn: Pixels = np.ascontiguousarray(picture).copy()
    if zoom != 1:
        drawn = cv2.resize(drawn, None, fx=zoom, fy=zoom, interpolation=cv2.INTER_CUBIC)  # type: ignore[assignment]
    thick = max(1, round(min(drawn.shape[:2]) / 250))
    for pose in poses:
        shown = (pose[:, 2] > threshold) & np.isfinite(pose[:, :2]).all(axis=1)
        places = [_sixteenths(x, y, zoom) if seen else (0, 0) for (x, y, _), seen in zip(pose, shown, strict=True)]
        for start, end in joints.limbs:
            if shown[start] and shown[end]:
                colour = _colour(joints, start, end)
                cv2.line(drawn, places[start], places[end], (0, 0, 0), thick + 2, cv2.LINE_AA, 4)
                cv2.line(drawn, places[start], places[end], colour, thick, cv2.LINE_AA, 4)
        for joint in np.flatnonzero(shown):
            cv2.circle(drawn, places[joint], 16 * (thick + 1), (0, 0, 0), -1, cv2.LINE_AA, 4)
            cv2.circle(drawn, places[joint], 16 * thick + 8, _colour(joints, int(joint)), -1, cv2.LINE_AA, 4)
    return drawn


def side_by_side(pictures: Sequence[Pixels], captions: Sequence[str] = ()) -> Pixels:
    """Pictures of one size in a row, each under its caption.

    Raises:
        ValueError: Pictures of different sizes, or not as many captions as pictures.
    """
    shapes = {picture.shape for picture in pictures}
    if len(shapes) != 1 or (captions and len(captions) != len(pictures)):
        raise ValueError(f"{len(pictures)} pictures of shapes {sorted(shapes)} with {len(captions)} captions cannot be "
                         "put in a row: one shape, and a caption for each or none, is expected")  # fmt: skip
    row = []
    for index, picture in enumerate(pictures):
        if captions:
            bar = np.full((_CAPTION, picture.shape[1], 3), 255, np.uint8)
            cv2.putText(bar, captions[index], (4, 16), cv2.FONT_HERSHEY_SIMPLEX, 0.45, (0, 0, 0), 1, cv2.LINE_AA)
            picture = np.concatenate([bar, picture])
        row.append(picture)
    return np.concatenate(row, axis=1)


def write_picture(picture: Pixels, path: str | Path) -> None:
    """Write an RGB picture, beside and renamed; the suffix says how.

    Raises:
        PoseDataError: A suffix that OpenCV does not know.
        OSError: It cannot be written; a file that was there is as it was.
    """
    path = Path(path)
    try:
        done, data = cv2.imencode(path.suffix, np.ascontiguousarray(picture[..., ::-1]))
    except cv2.error:
        done = False
    if not done:
        raise PoseDataError(f"{path}: pictures cannot be written as {path.suffix!r}; .png or .jpg is expected")
    path.parent.mkdir(parents=True, exist_ok=True)
    atomic_write(path, lambda file: file.write_bytes(data.tobytes()))


def _colour(joints: JointSet, *ends: int) -> tuple[int, int, int]:
    sides = {joints.sides[end] for end in ends}
    return LEFT if sides == {"left"} else RIGHT if sides == {"right"} else MIDDLE


def _sixteenths(x: float, y: float, zoom: int) -> tuple[int, int]:
    """A place as OpenCV's drawing takes it; far outside the picture is as good as just outside."""
    x, y = (float(np.clip((value + 0.5) * zoom - 0.5, -1e4, 1e5)) for value in (x, y))
    return round(x * 16), round(y * 16)
