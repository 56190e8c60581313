"""Clips: what a model is trained and measured on, a sequence seen by one camera."""

from __future__ import annotations

import zlib
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from ..errors import LiftingDataError
from .cameras import Camera, normalize_screen, ring_of_cameras
from .skeleton import JOINTS

Array = NDArray[np.float32]


@dataclass(frozen=True)
class Motion:
    """A sequence of 3D poses in the world: ``world`` (T, 17, 3), metres, y up; ``sequence``: that it is a piece of."""

    subject: str
    action: str
    name: str
    world: Array
    sequence: str = ""


@dataclass(frozen=True)
class Clip:
    """A sequence seen by one camera.

    Attributes:
        subject: Who.
        action: Whose mean its errors go into.
        name: Sequence and camera, for messages.
        inputs: (T, 17, 2), normalised x and y, or (T, 17, 3) with a confidence.
        targets: (T, 17, 3), metres, camera axes, relative to the root (joint 0).
        root: (T, 3), where the root is, metres in camera axes; ``None`` where that is not known.
        camera: Who sees it; the same.
        valid: (T,), the frames that count; the others are seen by the models alone. ``None``: all.
        recording: What it is a view or a piece of: errors of clips of one recording hang together. Default: of nothing.
    """

    subject: str
    action: str
    name: str
    inputs: Array
    targets: Array
    root: NDArray[np.float64] | None = None
    camera: Camera | None = None
    valid: NDArray[np.bool_] | None = None
    recording: str = ""

    def __len__(self) -> int:
        """Frames."""
        return len(self.inputs)


def make_clip(
    subject: str,
    action: str,
    name: str,
    inputs: NDArray[np.floating],
    points: NDArray[np.floating],
    camera: Camera | None = None,
    recording: str = "",
) -> Clip:
    """A clip of normalised 2D and 3D in camera axes, checked and made root-relative.

    Raises:
        LiftingDataError: See :func:`check_keypoints`; or 2D and 3D differ in length.
    """
    check_keypoints(inputs, name)
    if points.shape != (len(inputs), len(JOINTS), 3) or not np.isfinite(points).all():
        raise LiftingDataError(
            f"{name}: 3D poses of shape {points.shape} for 2D of shape {inputs.shape}: finite "
            f"({len(inputs)}, 17, 3) is expected"
        )
    relative, root = points - points[:, :1], points[:, 0].astype(np.float64)
    seen, poses = inputs.astype(np.float32), relative.astype(np.float32)
    return Clip(subject, action, name, seen, poses, root, camera, recording=recording)


def check_keypoints(keypoints: NDArray[np.floating], source: str) -> None:
    """Refuse 2D keypoints that no model should see.

    Args:
        keypoints: (T, 17, 2), or (T, 17, 3) with a confidence.
        source: Where from, for the message.

    Raises:
        LiftingDataError: Another shape or joint count, no frame, a number that is not finite, nothing but zeros, or a
            frame whose joints all lie at one point: where nobody was detected, detectors write zeros, and normalised
            these are a corner of the picture.
    """
    shape, joints = tuple(keypoints.shape), len(JOINTS)
    if len(shape) != 3 or shape[2] not in (2, 3):
        raise LiftingDataError(f"{source}: keypoints of shape {shape}, (frames, {joints}, 2 or 3) is expected")
    if shape[0] == 0:
        raise LiftingDataError(f"{source}: an empty clip; at least one frame is needed")
    if shape[1] != joints:
        raise LiftingDataError(
            f"{source}: {shape[1]} joints a frame, the models know {joints}, in Human3.6M's order; COCO's 17 become "
            "those by coco_to_h36m (--layout coco)"
        )
    bad = np.flatnonzero(~np.isfinite(keypoints).all(axis=(1, 2)))
    if len(bad):
        raise LiftingDataError(
            f"{source}: keypoints of {len(bad)} of {shape[0]} frames are NaN or infinite, the first at frame {bad[0]}; "
            "leave these frames out, or fill them in from their neighbours"
        )
    if not keypoints[..., :2].any():
        raise LiftingDataError(f"{source}: every 2D keypoint is 0: no person was found, or the file was never filled")
    nobody = np.flatnonzero((keypoints[..., :2] == keypoints[:, :1, :2]).all(axis=(1, 2)))
    if len(nobody):
        raise LiftingDataError(
            f"{source}: all joints lie at one point in {len(nobody)} of {shape[0]} frames, so nobody was detected "
            f"there (frame {', '.join(map(str, nobody[:5]))}{', ...' if len(nobody) > 5 else ''}); leave these frames "
            "out, in 2D and 3D, or fill them in from their neighbours"
        )


def film(
    motions: Sequence[Motion],
    cameras: int = 4,
    *,
    distance: float = 5.2,
    noise: float = 5.0,
    confidence: bool = False,
    seed: int = 0,
) -> list[Clip]:
    """Clips of motions as a ring of made-up cameras would see them, with detections that are a little off.

    The ring stands around the middle of each motion, ``distance`` further out than the person gets from it. The 2D is
    made: a projection plus Gaussian noise, independent from joint to joint and frame to frame, which is not how a
    detector errs.

    Args:
        motions: y up.
        cameras: How many cameras a motion.
        distance: Metres between person and camera, at the least.
        noise: Standard deviation in pixels of a picture of 1000 x 1000. From the lowest joint to the highest a person
            is some 230 high in the CMU test sequences (median over frames, ``distance`` as it is by default), and some
            320 in generated motion.
        confidence: Add a third channel, 1 everywhere.
        seed: Of the noise and the ring's orientation; both depend on it and on the motion's name alone.

    Raises:
        LiftingDataError: A motion that is empty or not finite; fewer than one camera.
    """
    if cameras < 1:
        raise LiftingDataError(f"cameras={cameras}: at least one is needed")
    clips = []
    for motion in motions:
        source = f"{motion.subject}/{motion.action}/{motion.name}"
        if not len(motion.world) or not np.isfinite(motion.world).all():
            raise LiftingDataError(f"{source}: a motion of shape {motion.world.shape} that is empty or not finite")
        rng = np.random.default_rng((seed, zlib.crc32(source.encode())))
        root = motion.world[:, 0].astype(np.float64)
        centre = (root.min(axis=0) + root.max(axis=0)) / 2
        reach = np.linalg.norm((root - centre)[:, [0, 2]], axis=1).max()
        ring = ring_of_cameras(
            centre, cameras, distance=distance + reach, first_angle=rng.uniform(0, 2 * np.pi / cameras)
        )
        clips += [_filmed(motion, camera, source, noise, confidence, rng) for camera in ring]
    return clips


def _filmed(
    motion: Motion, camera: Camera, source: str, noise: float, confidence: bool, rng: np.random.Generator
) -> Clip:
    points = camera.to_camera(motion.world)
    pixels = camera.project(points)
    seen = normalize_screen(pixels + rng.normal(0, noise, pixels.shape), *camera.size)
    inputs = with_confidence(seen) if confidence else seen
    name = f"{source}, camera {camera.name}"
    recording = f"{motion.subject}/{motion.action}/{motion.sequence or motion.name}"
    return make_clip(motion.subject, motion.action, name, inputs, points, camera, recording)


def with_confidence(keypoints: Array) -> Array:
    """Keypoints (T, J, 2) with a third channel of ones, for models that take a confidence (MotionBERT)."""
    return np.concatenate([keypoints[..., :2], np.ones_like(keypoints[..., :1])], axis=-1)
