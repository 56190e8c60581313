"""What a command is to write beside the poses, and the checks of it that come before the work."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from ..data.cameras import Camera
from ..data.pose_files import check_target
from ..data.timing import check_rate
from ..errors import LiftingDataError
from .animation import check_picture, need_films
from .upright import JOINT_COUNTS

_SUFFIXES = {"animate": (".gif", ".mp4"), "bvh": (".bvh",), "gltf": (".glb", ".gltf")}


@dataclass(frozen=True)
class Outputs:
    """What is to be written.

    Attributes:
        animate: An animation.
        bvh: A skeleton's motion.
        gltf: The same.
        up: The axis of the world that points up, where it is said.
        joints: Of the poses, see :func:`body_joints`.
        pictures: Video or folder to show in the animation.
        first_picture: The number of a video's first picture, where it is said.
        insisted: Whether the frame rate is what the user says: a video of another is then warned of alone.
        calibration: Of the camera that poses of one camera are put into the world of.
        camera_name: Which of the cameras.
        unit: Of the calibration.
    """

    animate: Path | None = None
    bvh: Path | None = None
    gltf: Path | None = None
    up: str | None = None
    joints: str = "h36m"
    pictures: Path | None = None
    first_picture: int | None = None
    insisted: bool = False
    calibration: Sequence[str | Path] = ()
    camera_name: str | None = None
    unit: str | None = None

    def files(self) -> dict[str, Path]:
        """Option -> the file that it asks for."""
        asked = {"animate": self.animate, "bvh": self.bvh, "gltf": self.gltf}
        return {name: file for name, file in asked.items() if file is not None}


@dataclass(frozen=True)
class Seen:
    """The 2D that poses were lifted from.

    Attributes:
        keypoints: (T, 17, 2), pixels.
        size: Width and height of the picture.
        frame_rate: Frames a second, where it is known.
        numbers: (T,), the numbers of the pictures, where they have any.
        camera: Whose picture it is, where that is calibrated: poses are in its world then.
        first: The number of a video's first picture.
    """

    keypoints: NDArray[np.floating]
    size: tuple[float, float]
    frame_rate: float | None = None
    numbers: NDArray[np.int64] | None = None
    camera: Camera | None = None
    first: int = 0

    def picture_numbers(self) -> Sequence[int] | int:
        """(T,), or how many pictures there are, where they have no numbers."""
        return len(self.keypoints) if self.numbers is None else self.numbers.tolist()


def check_outputs(outputs: Outputs) -> None:
    """Refuse options that cannot be followed, before anything is read.

    Raises:
        LiftingDataError: Another suffix, a folder or a file that is not there, an option without the one it is of, or
            joints of which no skeleton is known.
        RecipeError: What an animation needs is not installed.
    """
    for name, file in outputs.files().items():
        check_target(file, _SUFFIXES[name])
        if outputs.joints not in JOINT_COUNTS:
            raise LiftingDataError(
                f"--{name} with the joints {outputs.joints!r}: skeletons of {', '.join(JOINT_COUNTS)} alone are known: "
                f"give one as --layout, or leave --{name} out"
            )
    for name, given, of, needed in (
        ("pictures", outputs.pictures, "animate", outputs.animate),
        ("first-picture", outputs.first_picture is not None, "pictures", outputs.pictures),
        ("camera-name", outputs.camera_name, "calibration", outputs.calibration),
        ("unit", outputs.unit, "calibration", outputs.calibration),
    ):
        if given and not needed:
            raise LiftingDataError(f"--{name} is of --{of}: give that too")
    if outputs.pictures and not outputs.pictures.exists():
        raise LiftingDataError(f"{outputs.pictures}: there is no such video or folder of pictures")
    if outputs.animate:
        need_films()


def check_clip(outputs: Outputs, frame_rate: float | None, seen: Seen | None = None) -> None:
    """Refuse what cannot be written of a clip, before its poses are made.

    Args:
        outputs: What is to be written.
        frame_rate: Of the clip, where it is known.
        seen: Its 2D, to be shown.

    Raises:
        LiftingDataError: The frame rate is not known, or none; pictures that cannot be read, are of another shape, or
            end before the clip.
    """
    if not outputs.files():
        return
    if frame_rate is None:
        raise LiftingDataError("how many frames a second there are is not known: give --frame-rate")
    check_rate(frame_rate)
    if outputs.pictures is None or seen is None:
        return
    from .pictures import check_length, check_video_rate, read_pictures

    check_video_rate(outputs.pictures, frame_rate, seen.numbers, insisted=outputs.insisted)
    numbers = seen.picture_numbers()
    shown = next(iter(read_pictures(outputs.pictures, numbers, seen.first)), None)
    if shown is not None:
        check_picture(shown, seen.first if isinstance(numbers, int) else numbers[0], seen.size)
    check_length(outputs.pictures, numbers, seen.first)
