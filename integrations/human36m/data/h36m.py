"""Human3.6M from the files of VideoPose3D, which the user brings: 3D poses, 2D keypoints and cameras.

3D: ``positions_3d`` -> subject -> action -> (T, 32 or 17, 3), metres, world axes. 2D (detected or ground truth):
``positions_2d`` -> subject -> action -> camera -> (T' >= T, 17, 2), pixels, or (T', 17, 3) with a confidence; frames
beyond T are left out, and both must be of the same moments. Cameras: see ``cameras.py``.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ..errors import LiftingDataError
from .cameras import Camera, normalize_screen, read_cameras
from .clips import Clip, check_keypoints, make_clip, with_confidence
from .keypoints.gaps import describe_gaps, undetected
from .keypoints.plausible import check_confidences
from .npz import Tree, read_tree
from .skeleton import from_markers
from .timing import mistimed

TRAIN_SUBJECTS = ("S1", "S5", "S6", "S7", "S8")
TEST_SUBJECTS = ("S9", "S11")
FURTHEST_OFF = 50.0
"""Pixels: the median distance between 2D keypoints and projected 3D beyond which a camera is another one."""


class Human36M:
    """The three files, read and checked against each other.

    Args:
        poses: npz of 3D poses.
        keypoints: npz of 2D keypoints.
        cameras: JSON of cameras.
        allow_pickle: Read object arrays, which runs code in the files; not needed for plain ones (``npz.py``).

    Raises:
        LiftingDataError: A file that cannot be read, lacks its key, or does not fit the others.

    Example:
        >>> data = Human36M("plain_3d_h36m.npz", "plain_2d_h36m_cpn.npz", "cameras.json")
        >>> clips = data.clips(TEST_SUBJECTS)
    """

    def __init__(
        self, poses: str | Path, keypoints: str | Path, cameras: str | Path, allow_pickle: bool = False
    ) -> None:
        self.cameras = read_cameras(cameras)
        self.poses: Tree = read_tree(poses, "positions_3d", allow_pickle)
        self.keypoints: Tree = read_tree(keypoints, "positions_2d", allow_pickle)
        self.files = {"3D": str(poses), "2D": str(keypoints), "camera": str(cameras)}

    def clips(
        self, subjects: Sequence[str], actions: Sequence[str] | None = None, confidence: bool = False
    ) -> list[Clip]:
        """Every sequence of the subjects, once for each camera.

        Args:
            subjects: ``TRAIN_SUBJECTS``, ``TEST_SUBJECTS`` or others.
            actions: Only these, without their number (``"Walking"``, not ``"Walking 1"``); default, all.
            confidence: Add a third channel, what the 2D file has there, or 1 where it has none.

        Raises:
            LiftingDataError: A subject or action that a file does not have, or files that do not match.
        """
        found: list[Clip] = []
        for subject in subjects:
            for what, holder in (("3D", self.poses), ("2D", self.keypoints), ("camera", self.cameras)):
                if subject not in holder:
                    raise LiftingDataError(
                        f"the {what} file {self.files[what]} has no subject {subject}; it has "
                        + ", ".join(sorted(holder))
                    )
                if what != "camera" and not isinstance(holder[subject], dict):
                    raise LiftingDataError(
                        f"the {what} file {self.files[what]} has an array for subject {subject}, where action -> array "
                        "is expected"
                    )
            for sequence, markers in self.poses[subject].items():
                action = sequence.split(" ")[0]
                if actions is None or action in actions:
                    found += self._views(subject, action, sequence, from_markers(np.asarray(markers)), confidence)
        if not found:
            raise LiftingDataError(f"{self.files['3D']} has no sequence of {list(subjects)} in the actions {actions}")
        return found

    def _views(
        self, subject: str, action: str, sequence: str, world: NDArray[np.float32], confidence: bool
    ) -> list[Clip]:
        name = f"{subject}/{sequence}"
        seen: dict[str, Any] = self.keypoints[subject].get(sequence, {})
        cameras = self.cameras[subject]
        if not isinstance(seen, dict) or (len(seen) == len(cameras) and "0" not in seen):
            raise LiftingDataError(
                f"{name}: the 2D file {self.files['2D']} is expected to hold a list of arrays, one a camera, or plain "
                f"arrays named positions_2d/{name}/0, /1, ..."
            )
        if len(seen) != len(cameras):
            raise LiftingDataError(
                f"{name}: {len(seen)} cameras in the 2D file {self.files['2D']}, {len(cameras)} in the camera file "
                f"{self.files['camera']}; both need the same, in the same order"
            )
        if world.ndim != 3 or world.shape[2] != 3 or not len(world):
            raise LiftingDataError(f"{name}: 3D poses of shape {world.shape}, (frames, 17 or 32, 3) is expected")
        clips = []
        for number, camera in enumerate(cameras):
            found = np.asarray(seen.get(str(number), ()))
            if found.ndim != 3 or found.shape[1] != world.shape[1] or found.shape[2] < 2 or len(found) < len(world):
                raise LiftingDataError(
                    f"{name}, camera {camera.name}: 2D of shape {found.shape} for {len(world)} frames of 3D; "
                    f"(frames, {world.shape[1]}, 2) is expected, and at least as many frames"
                )
            points = camera.to_camera(world)
            inputs = self._inputs(found[: len(world)], camera, confidence, f"{name}, camera {camera.name}")
            clip = make_clip(subject, action, f"{name}, camera {camera.name}", inputs, points, camera)
            self._check_match(found[..., :2], points, camera, clip.name)
            clips.append(clip)
        return clips

    def _inputs(self, found: NDArray[np.floating], camera: Camera, confidence: bool, name: str) -> NDArray[np.float32]:
        """Normalised keypoints, with the file's confidences or, where it has none, 1."""
        inputs = normalize_screen(found[..., :2], *camera.size)
        check_keypoints(inputs, name)
        missing = undetected(found[..., :2])
        if missing.any():
            raise LiftingDataError(
                f"{name}: {describe_gaps(missing)}, in the 2D file {self.files['2D']}; fill them from the frames "
                "around them, or leave the sequence out"
            )
        if not confidence:
            return inputs
        if found.shape[2] == 2:
            return with_confidence(inputs)
        check_confidences(found[..., 2], name)
        return np.concatenate([inputs, found[..., 2:3].astype(np.float32)], axis=-1)

    def _check_match(
        self, pixels: NDArray[np.floating], points: NDArray[np.float64], camera: Camera, name: str
    ) -> None:
        guess = (
            f"so the camera file {self.files['camera']} does not match: its cameras are in another order or unit "
            "(millimetres and pixels are expected), or of another recording"
        )
        behind = int((points[..., 2] <= 0).any(axis=-1).sum())
        if behind:
            raise LiftingDataError(
                f"{name}: in {behind} of {len(points)} frames the person is not in front of this camera, which does "
                f"not see it, {guess}"
            )
        seen = camera.project(points)
        wrong = mistimed(pixels, seen)
        if wrong:
            raise LiftingDataError(
                f"{name}: {wrong}. The 2D file {self.files['2D']} has {len(pixels)} frames, the 3D file "
                f"{self.files['3D']} {len(points)}: bring both to the same moments first"
            )
        off = float(np.median(np.linalg.norm(seen - pixels[: len(seen)], axis=-1)))
        if off > FURTHEST_OFF:
            raise LiftingDataError(
                f"{name}: the 3D poses seen by this camera lie {off:.0f} pixels (median) from the 2D keypoints, {guess}"
            )
