"""Clips of MPI-INF-3DHP from the files of its users.

Training: ``data_train_3dhp.npz`` as P-STMO's ``data_to_npz_3dhp.py`` makes it and MHFormer's, PoseFormerV2's or
MotionAGFormer's users have it: ``data`` -> ``"S1 Seq1"`` -> [camera -> ``data_2d`` (T, 17, 2) pixels, ``data_3d``
(T, 17, 3) millimetres in camera axes; frames a second]. Test: ``data_test_3dhp.npz``: ``data`` -> ``"TS1"`` ->
``data_2d``, ``data_3d`` and ``valid`` (T,); or the folder of the data set itself, see ``hdf5.py``.

The 3D of P-STMO's files is ``univ_annot3``, a skeleton of one size for everybody, as is what the data set's evaluation
measures on; other makers take ``annot3``, and the file does not say. 2D is the annotated one: there are no detections.
"""

from __future__ import annotations

import logging
from collections.abc import Collection, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any, Literal, NamedTuple

import numpy as np
from numpy.typing import NDArray

from ...errors import LiftingDataError
from ..cameras import normalize_screen
from ..clips import Clip, check_keypoints, make_clip, with_confidence
from ..keypoints.gaps import describe_gaps, undetected
from ..keypoints.plausible import check_confidences
from ..npz import Tree, read_tree
from ..timing import mistimed
from .hdf5 import Annotation, read_test_folder
from .joints import check_joint_count, check_poses, to_h36m

_logger = logging.getLogger(__name__)

TEST_SEQUENCES = ("TS1", "TS2", "TS3", "TS4", "TS5", "TS6")
TRAIN_SEQUENCES = tuple(f"S{subject}/Seq{number}" for subject in range(1, 9) for number in (1, 2))
SIZE, OUTDOOR_SIZE = (2048, 2048), (1920, 1080)
"""Width and height in pixels: of all pictures but those of the two outdoor sequences."""
OUTDOOR = ("TS5", "TS6")
_FURTHEST_OUT = 0.5
"""Of the joints may lie outside the picture; hands and feet often do."""
_FURTHEST_OFF = 0.1
"""Of the person's size in pixels: how far (median) 2D may lie from the 3D as the camera that fits best sees it."""


class Recording(NamedTuple):
    """What one camera saw of a sequence, as the file has it."""

    subject: str
    action: str
    sequence: str
    camera: str
    arrays: Tree


class MpiInf3dhp:
    """A file of the training or the test set, read; its clips are in Human3.6M's order of joints and in metres.

    Args:
        path: An npz file; of the test set also the folder ``mpi_inf_3dhp_test_set``.
        split: ``"train"`` or ``"test"``.
        annotation: Which 3D is read from the folder: ``"universal"``, as evaluated, or ``"annotated"``. An npz file
            has one of the two, which its maker chose.
        allow_pickle: Read object arrays, which runs code in the file; not needed for plain ones (``npz.py``).

    Raises:
        LiftingDataError: The file cannot be read, or is of another form.

    Example:
        >>> clips = MpiInf3dhp("plain_test_3dhp.npz", "test").clips()
        >>> clips[0].action, clips[0].valid.sum()
    """

    def __init__(
        self,
        path: str | Path,
        split: Literal["train", "test"],
        annotation: Annotation = "universal",
        allow_pickle: bool = False,
    ) -> None:
        self.path, self.split = Path(path), split
        folder = self.path.is_dir()
        if annotation != "universal" and not folder:
            raise LiftingDataError(
                f"{path}: annotation={annotation!r} chooses in the data set's folder mpi_inf_3dhp_test_set; an npz "
                "file has one kind of poses, which its maker chose (P-STMO's: universal)"
            )
        if folder and split == "train":
            raise LiftingDataError(f"{path} is a folder: of the training set a data_train_3dhp.npz is expected")
        tree: Tree = dict(read_test_folder(self.path, annotation)) if folder else read_tree(path, "data", allow_pickle)
        self.views = list((_train_views if split == "train" else _test_views)(tree, str(path)))

    def clips(self, leave_out: Collection[str] = (), confidence: bool = False) -> list[Clip]:
        """Every sequence, once for each camera.

        Args:
            leave_out: Names of sequences (``"S1/Seq2"``, ``"TS3"``).
            confidence: Add a third channel, what the 2D has there, or 1.

        Returns:
            Of the test set with ``valid``; the action is the sequence, so that figures come by sequence, and their
            mean over actions is the mean over sequences.

        Raises:
            LiftingDataError: Another set of joints, unit, length or picture; no frame is valid; or nothing is left.
        """
        clips = []
        for view in self.views:
            if view.sequence not in leave_out:
                where = f"{self.path}: {view.sequence}" + (f", camera {view.camera}" if self.split == "train" else "")
                clips.append(_clip(view, where, self.split, confidence))
        if not clips:
            raise LiftingDataError(f"{self.path}: all sequences are left out ({', '.join(sorted(leave_out))})")
        self._tell_missing({clip.action for clip in clips})
        return clips

    def _tell_missing(self, measured: set[str]) -> None:
        """Say which test sequences, or which cameras of training sequences, are not there."""
        if self.split == "test":
            absent = [name for name in TEST_SEQUENCES if name not in measured]
            if absent:
                _logger.warning("%s: measured without %s; published figures are of six", self.path, ", ".join(absent))
            return
        cameras = {view.camera for view in self.views}
        there = {(view.sequence, view.camera) for view in self.views}
        names = sorted({view.sequence for view in self.views})
        missing = [f"{name}, camera {each}" for name in names for each in sorted(cameras) if (name, each) not in there]
        if missing:
            _logger.warning("%s: not in the file, and left out: %s", self.path, "; ".join(missing))


def _test_views(tree: Tree, path: str) -> Iterator[Recording]:
    for name, arrays in sorted(tree.items()):
        if not isinstance(arrays, dict) or "0" in arrays:
            raise LiftingDataError(
                f"{path}: {name} has no data_2d, data_3d and valid of its own: is this the training set's file? It has "
                f"{', '.join(sorted(tree)[:4])}"
            )
        yield Recording(name, name, name, "0", arrays)


def _train_views(tree: Tree, path: str) -> Iterator[Recording]:
    for name, entry in tree.items():
        cameras = entry.get("0") if isinstance(entry, dict) else None
        subject, space, number = name.partition(" ")
        if not isinstance(cameras, dict) or not space:
            raise LiftingDataError(
                f"{path}: {name}: a subject and sequence such as 'S1 Seq1' -> [camera -> arrays, frames a second] is "
                "expected" + ("; is this the test set's file?" if name.startswith("TS") else "")
            )
        for camera, arrays in cameras.items():
            yield Recording(subject, number, f"{subject}/{number}", camera, arrays if isinstance(arrays, dict) else {})


def _clip(view: Recording, where: str, split: str, confidence: bool) -> Clip:
    needed = ("data_2d", "data_3d", *(("valid",) if split == "test" else ()))
    missing = [name for name in needed if name not in view.arrays]
    if missing:
        raise LiftingDataError(
            f"{where} has no {' and no '.join(missing)}; it has {', '.join(sorted(view.arrays)) or 'no arrays'}"
        )
    pixels, poses = view.arrays["data_2d"], view.arrays["data_3d"]
    _check_shapes(pixels, poses, where)
    valid = _valid(view.arrays["valid"], len(pixels), where) if split == "test" else np.ones(len(pixels), bool)
    pixels, poses = (_filled(points, valid) for points in (pixels, poses))
    check_poses(poses[valid], where)
    width, height = OUTDOOR_SIZE if view.sequence in OUTDOOR else SIZE
    pixels, points = to_h36m(pixels), to_h36m(poses) / 1000
    _check_pixels(pixels[valid], (width, height), where)
    _check_fit(pixels[valid], points[valid], where)
    inputs = normalize_screen(pixels[..., :2], width, height)
    if confidence:
        inputs = with_confidence(inputs)
        if pixels.shape[2] == 3:
            check_confidences(pixels[..., 2], where)
            inputs[..., 2] = pixels[..., 2]
    clip = make_clip(view.subject, view.action, where, inputs, points, recording=view.sequence)
    return replace(
        clip, root=clip.root if (points[..., 2] > 0).all() else None, valid=valid if split == "test" else None
    )


def _check_shapes(pixels: NDArray[Any], poses: NDArray[Any], where: str) -> None:
    for name, points, channels in (("data_2d", pixels, (2, 3)), ("data_3d", poses, (3,))):
        if points.ndim == 3:
            check_joint_count(points.shape[1], f"{where}: {name}")
        if points.ndim != 3 or points.shape[2] not in channels or not len(points) or points.dtype.kind not in "fiu":
            raise LiftingDataError(
                f"{where}: {name} is {points.dtype} of shape {points.shape}, numbers of shape (frames, 17, "
                f"{channels[0]}) are expected"
            )
    if len(pixels) != len(poses):
        raise LiftingDataError(f"{where}: {len(pixels)} frames of data_2d, {len(poses)} of data_3d")


def _valid(found: NDArray[Any], frames: int, where: str) -> NDArray[np.bool_]:
    flags = np.asarray(found).reshape(-1)
    if len(flags) != frames or not np.isin(flags, (0, 1)).all():
        raise LiftingDataError(
            f"{where}: valid has shape {np.shape(found)} and values {np.unique(flags)[:5].tolist()}; a 0 or 1 for each "
            f"of {frames} frames is expected"
        )
    if not flags.any():
        raise LiftingDataError(f"{where}: no frame is valid, so there is nothing to measure; leave the sequence out")
    return flags.astype(bool)


def _filled(points: NDArray[Any], valid: NDArray[np.bool_]) -> NDArray[np.float64]:
    """Frames that do not count and hold no person get the nearest one that counts: models see them as context."""
    nobody = np.all(points == points[:, :1], axis=(1, 2)) | ~np.all(np.isfinite(points), axis=(1, 2))
    empty, known, filled = np.flatnonzero(nobody & ~valid), np.flatnonzero(valid), points.astype(np.float64)
    filled[empty] = points[known[np.abs(known[:, None] - empty).argmin(axis=0)]]
    return filled


def _check_pixels(pixels: NDArray[np.float64], size: tuple[int, int], where: str) -> None:
    check_keypoints(pixels, where)
    missing = undetected(pixels[..., :2])
    if missing.any():
        raise LiftingDataError(f"{where}: {describe_gaps(missing)}; leave the sequence out, or fill them in")
    if np.abs(pixels[..., :2]).max() <= 2:
        raise LiftingDataError(f"{where}: data_2d is normalised, or shares of the picture; pixels are expected")
    outside = np.any((pixels[..., :2] < 0) | (pixels[..., :2] > np.array(size)), axis=-1).mean()
    if outside > _FURTHEST_OUT:
        raise LiftingDataError(
            f"{where}: {outside:.0%} of the joints lie outside the picture of {size[0]} x {size[1]} pixels: was it "
            "prepared from pictures of another size?"
        )


def _check_fit(pixels: NDArray[np.float64], points: NDArray[np.float64], where: str) -> None:
    """Refuse 2D that no camera sees these poses at. Where the camera is is not known: 3D is in its axes."""
    depth = points[..., 2:]
    if not (depth > 0).all():  # relative to the root: there is nothing to see it from
        return
    plane, seen = points[..., :2] / depth, pixels[..., :2]
    focal, off = _fitted(seen, plane)
    person = float(np.median(np.linalg.norm(np.ptp(seen, axis=1), axis=-1)))
    distance = float(np.median(np.linalg.norm(off, axis=-1)))
    if distance > _FURTHEST_OFF * person:
        raise LiftingDataError(
            f"{where}: the 3D poses as any camera in whose axes they are sees them lie {distance:.0f} pixels (median) "
            f"from data_2d, of a person {person:.0f} pixels large: are 2D and 3D of other frames or another camera, or "
            "their joints in two orders?"
        )
    if (focal <= 0).any():
        axes = " and ".join(axis for axis, length in zip("xy", focal, strict=True) if length <= 0)
        raise LiftingDataError(
            f"{where}: {axes} of data_2d or of data_3d is mirrored, it falls in one where it rises in the other: in "
            "pictures and in camera axes x points to the right and y down"
        )
    wrong = mistimed(seen, plane, lambda some, others: _fitted(some, others)[1])
    if wrong:
        raise LiftingDataError(f"{where}: 2D and 3D are not of the same moments: {wrong}")


def _fitted(seen: NDArray[Any], plane: NDArray[Any]) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """The focal lengths (2,) of the camera that fits best, and how far off, in pixels, it sees each joint."""
    focal, off = np.empty(2), np.empty(seen.shape)
    for axis in range(2):
        terms = np.stack([plane[..., axis].ravel(), np.ones(plane[..., axis].size)], axis=-1)
        (focal[axis], centre), *_ = np.linalg.lstsq(terms, seen[..., axis].ravel(), rcond=None)
        off[..., axis] = focal[axis] * plane[..., axis] + centre - seen[..., axis]
    return focal, off
