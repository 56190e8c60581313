"""What the commands write beside the poses, as their options say (``add_written`` of ``commands.py``)."""

from __future__ import annotations

import logging
import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from .animation import animate
from .bvh import write_bvh
from .gltf import write_gltf
from .outputs import Outputs, Seen, check_clip
from .upright import body_joints, check_body, fill_joints, stand, up_axis, upright

_logger = logging.getLogger(__name__)

Array = NDArray[np.floating]


def write_outputs(
    poses: Array,
    outputs: Outputs,
    frame_rate: float | None,
    *,
    seen: Seen | None = None,
    frames: NDArray[np.int64] | None = None,
    named: Callable[[Path], Path] = Path,
) -> None:
    """Write what the options ask for, and say so.

    Args:
        poses: (T, J, 3), metres, in a world; of one camera that is not calibrated, in camera axes relative to the root.
        outputs: What is to be written.
        frame_rate: Frames a second, where it is known.
        seen: The 2D of one camera, to show.
        frames: (T,), the numbers of the pictures: of those that are missing between them is told.
        named: What a file is called, of one person of several.

    Raises:
        LiftingDataError: See :func:`check_clip`; poses or pictures that cannot be shown.
        RecipeError: What an animation needs is not installed.
    """
    if not outputs.files():
        return
    check_clip(outputs, frame_rate, seen)
    assert frame_rate is not None  # checked
    if frames is not None:
        _tell_breaks(frames)
    body = body_joints(poses, outputs.joints)
    check_body(body, "the poses", known=False)
    in_world = seen is None or seen.camera is not None
    shown = upright(body, _up(body, outputs.up)) if in_world else stand(upright(body, "-y"))
    if outputs.animate:
        path = named(outputs.animate)
        _animate(shown, path, frame_rate, seen, outputs)
        sys.stdout.write(f"animation: {path}\n")
    if outputs.bvh or outputs.gltf:
        whole = _filled(shown)
        for word, file, write in (("BVH", outputs.bvh, write_bvh), ("glTF", outputs.gltf, write_gltf)):
            if file:
                rig = write(whole, named(file), frame_rate)
                sys.stdout.write(f"{word}: {named(file)}; {rig.describe()}\n")


def _tell_breaks(frames: NDArray[np.int64]) -> None:
    steps = np.diff(frames)
    if len(steps) and steps.max() > steps.min():
        place = int(steps.argmax())
        _logger.warning(
            "pictures %d and %d follow each other without those between, and so they do in the animation, BVH or glTF",
            frames[place],
            frames[place + 1],
        )


def _up(body: Array, given: str | None) -> str:
    if given is not None:
        return given
    found = up_axis(body)
    _logger.info("%s is taken for the axis that points up: trunks do, on the whole; --up says another", found)
    return found


def _filled(shown: Array) -> Array:
    missing = np.isnan(shown).any(axis=-1)
    if not missing.any():
        return shown
    _logger.warning(
        "%d of %d joints are not known; BVH and glTF have them from the frames around", missing.sum(), missing.size
    )
    return fill_joints(shown)


def _animate(shown: Array, path: Path, frame_rate: float, seen: Seen | None, outputs: Outputs) -> None:
    if seen is None:
        animate(shown, path, frame_rate)
        return
    pictures = None
    if outputs.pictures is not None:
        from .pictures import read_pictures

        pictures = read_pictures(outputs.pictures, seen.picture_numbers(), seen.first)
    animate(shown, path, frame_rate, keypoints=seen.keypoints, size=seen.size, pictures=pictures)
