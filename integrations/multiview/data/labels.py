"""Who is where in the pictures of a recording: 3D poses from npz files, 2D joints from COCO's and the tools' files."""

from __future__ import annotations

from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from cycledistill.integrations.human36m.data.calibration.checks import finite_numbers
from cycledistill.integrations.human36m.data.keypoints.files import read_keypoints
from cycledistill.integrations.human36m.data.keypoints.gaps import undetected
from cycledistill.integrations.human36m.data.npz import open_npz
from cycledistill.integrations.human36m.errors import LiftingDataError
from cycledistill.recipes.reading.numbered import picture_numbers
from cycledistill.recipes.reading.texts import read_json

from .moments import Array

KEYS = ("poses", "joints_3d", "keypoints_3d")
"""Names under which an npz file may have its poses."""


class Labelled(NamedTuple):
    """The person in one picture."""

    joints: Array
    """(J, 3), x and y in pixels, and 1 where the joint is labelled."""
    box: tuple[float, ...] | None
    """Where the file says it."""


def read_poses(path: Path, numbers: list[int], metres: float) -> dict[int, Array]:
    """3D poses (J, 3) in metres by the number of their pictures, NaN where a joint is not known.

    Args:
        path: An npz file with ``poses`` (T, J, 3) in the world of the calibration, and with ``frames`` (T,), the
            numbers of their pictures; without these they are the poses of all pictures, in their order.
        numbers: Of the pictures, all cameras' together.
        metres: Of a unit of the poses.

    Raises:
        LiftingDataError: No such file or array, another shape, or as many poses as there are not pictures.
    """
    arrays = open_npz(path)
    name = next((key for key in KEYS if key in arrays), None)
    if name is None:
        raise LiftingDataError(f"{path} has {', '.join(arrays) or 'nothing'}: {KEYS[0]} (T, J, 3) is expected")
    poses = np.asarray(arrays[name])
    if poses.ndim != 3 or poses.shape[-1] != 3 or poses.dtype.kind not in "fiu":
        raise LiftingDataError(f"{path}: {name} of shape {poses.shape}, {poses.dtype}: numbers (T, J, 3) are expected")
    if "frames" in arrays:
        frames = finite_numbers(arrays["frames"], (-1,), f"{path}: frames").astype(int).tolist()
    else:
        frames = numbers
    if len(frames) != len(poses):
        what = "numbers in frames" if "frames" in arrays else "pictures (and there are no frames, their numbers)"
        raise LiftingDataError(f"{path}: {len(poses)} poses for {len(frames)} {what}")
    return dict(zip(frames, poses.astype(np.float64) * metres, strict=True))


def read_joints(path: Path, numbers: list[int]) -> dict[int, Labelled]:
    """The person in each labelled picture of a camera, by the picture's number.

    Args:
        path: COCO annotations, whose pictures are told by the number in their ``file_name``, or any other file that
            `read_keypoints` takes, by the numbers of pictures in it; without these it is one of all pictures.
        numbers: Of the camera's pictures, in their order.

    Raises:
        LiftingDataError: A file that cannot be read, or one with several persons in a picture.
    """
    data = read_json(path, LiftingDataError) if path.suffix == ".json" else None
    if isinstance(data, dict) and {"images", "annotations"} <= set(data):
        return _of_coco(data, path)
    found = read_keypoints(path)
    frames = numbers if found.frames is None else found.frames.tolist()
    if len(frames) != len(found.pixels):
        raise LiftingDataError(
            f"{path}: joints of {len(found.pixels)} pictures, without numbers, and there are {len(frames)} pictures"
        )
    joints = np.zeros((*found.pixels.shape[:2], 3))
    joints[..., :2], joints[..., 2] = np.nan_to_num(found.pixels[..., :2]), ~undetected(found.pixels, 1e-6)
    return {number: Labelled(own, None) for number, own in zip(frames, joints, strict=True)}


def _of_coco(data: dict[str, Any], path: Path) -> dict[int, Labelled]:
    try:
        names = {image["id"]: str(image["file_name"]) for image in data["images"]}
        counted = picture_numbers(list(names.values()))
        if names and counted is None:
            raise LiftingDataError(
                f"{path}: pictures are told by their numbers: file names that are alike but for one are expected; "
                f"there are {', '.join(list(names.values())[:3])}"
            )
        numbers = dict(zip(names, counted or (), strict=True))
        found: dict[int, Labelled] = {}
        for entry in data["annotations"]:
            if not entry.get("keypoints"):
                continue
            name = names[entry["image_id"]]
            number = numbers[entry["image_id"]]
            if number in found:
                raise LiftingDataError(
                    f"{path}: {name} has a second person: one is expected (which person is the same in two views is "
                    "not found out)"
                )
            joints = finite_numbers(entry["keypoints"], (-1,), f"{path}: keypoints of {name}").reshape(-1, 3)
            joints[:, 2] = joints[:, 2] > 0
            box = entry.get("bbox")
            found[number] = Labelled(
                joints, None if box is None else tuple(finite_numbers(box, (4,), f"{path}: bbox of {name}").tolist())
            )
    except (TypeError, KeyError, AttributeError, ValueError) as error:
        raise LiftingDataError(f"{path}: not COCO annotations: {type(error).__name__}: {error}") from error
    return found
