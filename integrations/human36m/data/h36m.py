"""Human3.6M from the files of VideoPose3D, which the user brings: 3D poses, 2D keypoints and cameras.

3D: ``positions_3d`` -> subject -> action -> (T, 32 or 17, 3), metres, world axes. 2D (detected or ground truth):
``positions_2d`` -> subject -> action -> camera -> (T' >= T, 17, 2), pixels, or (T', 17, 3) with a confidence; frames
beyond T are left out, and both must be of the same moments. Cameras: see ``cameras.py``. A view without 2D or without a
camera is left out, which is logged.
"""

from __future__ import annotations

import logging
from collections.abc import Collection, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ..errors import LiftingDataError
from .cameras import Camera, normalize_screen, read_camera_table
from .clips import Clip, check_keypoints, make_clip, with_confidence
from .keypoints.gaps import describe_gaps, undetected
from .keypoints.plausible import check_confidences
from .npz import Tree, read_tree
from .skeleton import from_markers
from .timing import mistimed

_logger = logging.getLogger(__name__)

TRAIN_SUBJECTS = ("S1", "S5", "S6", "S7", "S8")
TEST_SUBJECTS = ("S9", "S11")
DAMAGED = ("S9/Greeting", "S9/SittingDown 1", "S9/Waiting 1")
"""Sequences whose 3D is displaced by some 200 mm against the pictures, and so their ground truth 2D too.

The authors' evaluations of MixSTE, MHFormer and HoT count them, those of MotionBERT and MotionAGFormer leave them out.
Source: Iskakov et al., "Learnable triangulation of human pose" (ICCV 2019), whose code calls them damaged and names
them Greeting-2, SittingDown-2 and Waiting-1; in VideoPose3D's names: MHFormer, issue 92; MotionBERT has them as
``s_09_act_05_subact_02``, ``s_09_act_10_subact_02`` and ``s_09_act_13_subact_01`` (``block_list`` of its ``train.py``).
"""
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
        self.cameras = read_camera_table(cameras)
        self.poses: Tree = read_tree(poses, "positions_3d", allow_pickle)
        self.keypoints: Tree = read_tree(keypoints, "positions_2d", allow_pickle)
        self.files = {"3D": str(poses), "2D": str(keypoints), "camera": str(cameras)}

    def sequences(self) -> list[tuple[str, str, str]]:
        """Subject, action and name (``"S9/Greeting"``) of every sequence of the 3D file."""
        return [
            (subject, action_of(sequence), f"{subject}/{sequence}")
            for subject, holder in self.poses.items()
            for sequence in (holder if isinstance(holder, dict) else ())
        ]

    def clips(
        self,
        subjects: Sequence[str],
        actions: Sequence[str] | None = None,
        confidence: bool = False,
        leave_out: Collection[str] = (),
    ) -> list[Clip]:
        """Every sequence of the subjects, once for each camera that saw it.

        Args:
            subjects: ``TRAIN_SUBJECTS``, ``TEST_SUBJECTS`` or others.
            actions: Only these, without their number (``"Walking"``, not ``"Walking 1"``); default, all.
            confidence: Add a third channel, what the 2D file has there, or 1 where it has none.
            leave_out: Names of sequences (``"S9/Greeting"``) that need not be in the 2D file either, such as
                ``DAMAGED``.

        Raises:
            LiftingDataError: A subject or action that a file does not have, or files that do not match.
        """
        found: list[Clip] = []
        missing: list[str] = []
        for subject in subjects:
            self._check_form(self.poses, "3D", subject)
            wanted = [
                sequence
                for sequence in self.poses[subject]
                if f"{subject}/{sequence}" not in leave_out and (actions is None or action_of(sequence) in actions)
            ]
            for what, holder in (("2D", self.keypoints), ("camera", self.cameras)) if wanted else ():
                self._check_form(holder, what, subject)
            for sequence in wanted:
                world = from_markers(np.asarray(self.poses[subject][sequence]))
                found += self._views(subject, sequence, world, confidence, missing)
        if missing:
            _logger.warning("%d views are missing and left out: %s", len(missing), "; ".join(missing))
        if not found:
            raise LiftingDataError(
                f"{self.files['3D']} has no sequence of {list(subjects)} in the actions {actions}"
                + (f" without {', '.join(sorted(leave_out))}" if leave_out else "")
            )
        return found

    def _check_form(self, holder: dict[str, Any], what: str, subject: str) -> None:
        if subject not in holder:
            raise LiftingDataError(
                f"the {what} file {self.files[what]} has no subject {subject}; it has " + ", ".join(sorted(holder))
            )
        if what != "camera" and not isinstance(holder[subject], dict):
            raise LiftingDataError(
                f"the {what} file {self.files[what]} has an array for subject {subject}, where action -> array "
                "is expected"
            )

    def _views(
        self, subject: str, sequence: str, world: NDArray[np.float32], confidence: bool, missing: list[str]
    ) -> list[Clip]:
        """The clips of a sequence; views that lack their 2D or their camera go to ``missing``."""
        name = f"{subject}/{sequence}"
        seen: dict[str, Any] = self.keypoints[subject].get(sequence, {})
        if not isinstance(seen, dict) or not all(view.isdecimal() for view in seen):
            raise LiftingDataError(
                f"{name}: the 2D file {self.files['2D']} is expected to hold a list of arrays, one a camera, or plain "
                f"arrays named positions_2d/{name}/0, /1, ..."
            )
        if world.ndim != 3 or world.shape[2] != 3 or not len(world):
            raise LiftingDataError(f"{name}: 3D poses of shape {world.shape}, (frames, 17 or 32, 3) is expected")
        cameras = dict(enumerate(self.cameras[subject]))
        clips = []
        for number in sorted({*cameras, *map(int, seen)}):
            camera, found = cameras.get(number), np.asarray(seen.get(str(number), ()))
            if camera is None or not found.size:
                lacking, file = ("camera", "camera") if camera is None else ("keypoints", "2D")
                missing.append(f"{name}, view {number}: no {lacking} in {self.files[file]}")
                continue
            clips.append(self._clip(subject, sequence, camera, world, found, confidence))
        if not clips:
            raise LiftingDataError(
                f"{name}: no view has keypoints in the 2D file {self.files['2D']} and a camera in "
                f"{self.files['camera']}; leave the sequence out by its name (data.leave_out.sequences)"
            )
        return clips

    def _clip(
        self,
        subject: str,
        sequence: str,
        camera: Camera,
        world: NDArray[np.float32],
        found: NDArray[Any],
        confidence: bool,
    ) -> Clip:
        name = f"{subject}/{sequence}, camera {camera.name}"
        if found.ndim != 3 or found.shape[1] != world.shape[1] or found.shape[2] < 2 or len(found) < len(world):
            raise LiftingDataError(
                f"{name}: 2D of shape {found.shape} for {len(world)} frames of 3D; (frames, {world.shape[1]}, 2) is "
                "expected, and at least as many frames"
            )
        points = camera.to_camera(world)
        inputs = self._inputs(found[: len(world)], camera, confidence, name)
        clip = make_clip(subject, action_of(sequence), name, inputs, points, camera, f"{subject}/{sequence}")
        wrong = self._mismatch(found[..., :2], points, camera, name)
        if wrong and f"{subject}/{sequence}" in DAMAGED:
            _logger.warning(
                "%s: 2D and 3D do not match, and this sequence is known for it; "
                "data.leave_out.sequences=[damaged] leaves it out, with the two others",
                name,
            )
        elif wrong:
            raise LiftingDataError(f"{name}: {wrong}")
        return clip

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

    def _mismatch(self, pixels: NDArray[np.floating], points: NDArray[np.float64], camera: Camera, name: str) -> str:
        """Why 2D and 3D cannot be of one view of one recording; empty where they can."""
        guess = (
            f"so the camera file {self.files['camera']} does not match: its cameras are in another order or unit "
            "(millimetres and pixels are expected), or of another recording; or a view is missing in the 2D file's "
            "list, whose place must then be empty"
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
            return (
                f"{wrong}. The 2D file {self.files['2D']} has {len(pixels)} frames, the 3D file {self.files['3D']} "
                f"{len(points)}: bring both to the same moments first"
            )
        off = float(np.median(np.linalg.norm(seen - pixels[: len(seen)], axis=-1)))
        if off <= FURTHEST_OFF:
            return ""
        return f"the 3D poses seen by this camera lie {off:.0f} pixels (median) from the 2D keypoints, {guess}"


def action_of(sequence: str) -> str:
    """The action that a sequence is of, without its number: ``"Waiting"`` of ``"Waiting 1"``."""
    return sequence.split(" ")[0]
