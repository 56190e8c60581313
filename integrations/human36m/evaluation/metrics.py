"""How good 3D poses are. Functions take (..., J, 3) in any unit and answer one number a frame, in the same unit.

Everything is root-relative: give poses whose root is where both agree (:class:`MotionScores` sets it to zero). A low
MPJPE says nothing about motion: the best static pose of each window has one of its own. So ``temporal_std_ratio``
stands beside it wherever :class:`MotionScores` reports.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field

import numpy as np
import torch
from torch import Tensor

from cycledistill.insight.intervals import bootstrap_interval

from ..data.skeleton import JOINTS
from ..errors import LiftingDataError

LEAST_RECORDINGS = 10
"""Of fewer, no interval is told."""
PCK_THRESHOLD = 150.0
"""Millimetres, MPI-INF-3DHP's threshold."""
Figures = dict[str, float | None]
"""By name; ``None`` where there is nothing to measure: a velocity without a step, a ratio of no motion."""
AUC_THRESHOLDS = tuple(np.linspace(0, PCK_THRESHOLD, 31).tolist())
PCK_JOINTS = (1, 2, 3, 4, 5, 6, 8, 10, 11, 12, 13, 14, 15, 16)
"""Those of Human3.6M's order that MPI-INF-3DHP's evaluation counts: ``mpii_get_pck_auc_joint_groups.m`` has top of the
head, neck, shoulders, elbows, wrists, hips, knees and ankles; not the root, which is right by alignment, nor spine and
head."""


def mpjpe(predicted: Tensor, target: Tensor) -> Tensor:
    """Mean distance over the joints of a frame ("protocol 1"): (..., J, 3) to (...).

    Example:
        >>> mpjpe(torch.zeros(2, 17, 3), torch.ones(2, 17, 3)).tolist()
        [1.7320507764816284, 1.7320507764816284]
    """
    _check(predicted, target)
    return (predicted - target).norm(dim=-1).mean(dim=-1)


def n_mpjpe(predicted: Tensor, target: Tensor) -> Tensor:
    """MPJPE after the best scaling of each frame's prediction: (..., J, 3) to (...).

    Source: Rhodin et al. (CVPR 2018).
    """
    _check(predicted, target)
    square = predicted.square().sum(dim=(-2, -1))
    scale = (predicted * target).sum(dim=(-2, -1)) / square.clamp_min(torch.finfo(square.dtype).tiny)
    return mpjpe(scale[..., None, None] * predicted, target)


def p_mpjpe(predicted: Tensor, target: Tensor) -> Tensor:
    """MPJPE after the best similarity of each frame's prediction ("protocol 2"): (..., J, 3) to (...).

    A similarity is a rotation, a scaling and a shift; not a reflection. Computed in float64.

    Raises:
        LiftingDataError: Poses that are not finite, to which nothing can be fitted; or shapes that differ.

    Source: Umeyama (PAMI 1991), as evaluated since Martinez et al. (ICCV 2017).
    """
    _check(predicted, target)
    _check_finite(predicted, target)
    moving, fixed = predicted.double(), target.double()
    centre = fixed.mean(dim=-2, keepdim=True)
    moving, fixed = moving - moving.mean(dim=-2, keepdim=True), fixed - centre
    left, stretch, right = torch.linalg.svd(moving.transpose(-1, -2) @ fixed)
    sign = torch.ones_like(stretch)
    sign[..., -1] = torch.linalg.det(left @ right).sign()
    rotation = (left * sign[..., None, :]) @ right
    square = moving.square().sum(dim=(-2, -1)).clamp_min(torch.finfo(torch.float64).tiny)
    scale = (stretch * sign).sum(dim=-1) / square
    return mpjpe(scale[..., None, None] * moving @ rotation, fixed)


def velocity_error(predicted: Tensor, target: Tensor) -> Tensor:
    """Mean distance between the steps of prediction and target (MPJVE), a frame: (..., T, J, 3) to (..., T - 1)."""
    _check(predicted, target)
    return mpjpe(predicted.diff(dim=-3), target.diff(dim=-3))


def pck(predicted: Tensor, target: Tensor, threshold: float = PCK_THRESHOLD) -> Tensor:
    """Share of a frame's joints nearer to the target than ``threshold``: (..., J, 3) in millimetres to (...).

    Every joint given counts; slice first to leave some out: MPI-INF-3DHP's evaluation counts ``PCK_JOINTS`` alone.

    Source: Mehta et al., MPI-INF-3DHP (3DV 2017).
    """
    _check(predicted, target)
    return ((predicted - target).norm(dim=-1) < threshold).double().mean(dim=-1)


def auc(predicted: Tensor, target: Tensor) -> Tensor:
    """Mean of :func:`pck` over the 31 thresholds 0, 5, ..., 150 mm: (..., J, 3) in millimetres to (...).

    Nothing is nearer than 0, so a perfect prediction has 30 / 31 = 0.968, here as in the original.

    Source: Mehta et al., MPI-INF-3DHP (3DV 2017).
    """
    _check(predicted, target)
    distance = (predicted - target).norm(dim=-1, keepdim=True).double()
    return (distance < distance.new_tensor(AUC_THRESHOLDS)).double().mean(dim=(-2, -1))


def temporal_std(poses: Tensor) -> Tensor:
    """How much a sequence moves, (..., T, J, 3) to (...): the mean of the coordinates' standard deviations over time.

    Given root-relative poses the root's three zeros are among the coordinates, in prediction and target alike.
    """
    return poses.std(dim=-3, correction=0).mean(dim=(-2, -1))


@dataclass
class _Sums:
    """Sums of one action. Velocity counts steps, the standard deviations count pieces of sequences."""

    frames: int = 0
    steps: int = 0
    values: dict[str, float] = field(default_factory=dict)

    def add(self, name: str, values: Tensor) -> None:
        self.values[name] = self.values.get(name, 0.0) + float(values.double().sum())

    def join(self, other: _Sums) -> None:
        self.frames, self.steps = self.frames + other.frames, self.steps + other.steps
        for name, value in other.values.items():
            self.values[name] = self.values.get(name, 0.0) + value

    def means(self) -> Figures:
        total, deviations = self.values, self.values["std_target"]
        means: Figures = {name: total[name] / self.frames for name in ("mpjpe", "p_mpjpe", "n_mpjpe", "pck150", "auc")}
        means["velocity"] = total["velocity"] / self.steps if self.steps else None
        means["temporal_std_ratio"] = total["std_predicted"] / deviations if deviations else None
        return means


class MotionScores:
    """Gathers the figures of an evaluation, by action.

    Example:
        >>> scores = MotionScores()
        >>> scores.add("Walking", torch.rand(1, 27, 17, 3), torch.rand(1, 27, 17, 3))
        >>> sorted(scores.summary())[:3]
        ['actions', 'auc_action_mean', 'auc_frame_mean']
    """

    def __init__(self) -> None:
        self.actions: dict[str, _Sums] = {}
        self.sequences: list[tuple[str, float, int]] = []
        """Of each sequence, its recording, the sum of MPJPE over its frames, and their number."""

    def add(
        self, action: str, predicted: Tensor, target: Tensor, pieces: Sequence[int] | None = None, recording: str = ""
    ) -> None:
        """Count sequences of motion: steps are those of the whole sequence, deviations over time those of its pieces.

        The root (joint 0) of both is set to zero first, as in the evaluation of MixSTE and HoT.

        Args:
            action: Whose mean they go into.
            predicted: (W, T, J, 3), metres, root-relative; of joints other than Human3.6M's 17, all but the root count
                in PCK and AUC.
            target: (W, T, J, 3).
            pieces: Lengths of the pieces, T in all, such as the windows that a clip was predicted in; default, one.
            recording: What the sequences are views or stretches of, so that their errors hang together; default, each
                is a recording of its own.

        Raises:
            LiftingDataError: Poses that are not finite; shapes that differ, or are no (W, T, J, 3).
        """
        _check(predicted, target, action)
        _check_finite(predicted, target, action)
        poses, truth = (1000 * one.detach().double() for one in (predicted, target))
        poses[..., 0, :], truth[..., 0, :] = 0, 0
        sums = self.actions.setdefault(action, _Sums())
        sums.frames += poses.shape[0] * poses.shape[1]
        sums.steps += poses.shape[0] * (poses.shape[1] - 1)
        measures = {"mpjpe": mpjpe, "p_mpjpe": p_mpjpe, "n_mpjpe": n_mpjpe, "velocity": velocity_error}
        for name, measure in measures.items():
            sums.add(name, measure(poses, truth))
        errors = mpjpe(poses, truth).sum(-1).tolist()
        self.sequences += [(recording, error, poses.shape[1]) for error in errors]
        counted = list(PCK_JOINTS if poses.shape[2] == len(JOINTS) else range(1, poses.shape[2]))
        for name, measure in {"pck150": pck, "auc": auc}.items():
            sums.add(name, measure(poses[..., counted, :], truth[..., counted, :]))
        lengths = [poses.shape[1]] if pieces is None else list(pieces)
        for name, sequence in (("std_predicted", poses), ("std_target", truth)):
            for piece in sequence.split(lengths, dim=1):
                sums.add(name, temporal_std(piece))

    @classmethod
    def joined(cls, parts: Iterable[MotionScores]) -> MotionScores:
        """The figures of several parts of a data set as those of the whole."""
        whole = cls()
        for part in parts:
            whole.sequences += part.sequences
            for action, sums in part.actions.items():
                whole.actions.setdefault(action, _Sums()).join(sums)
        return whole

    def summary(self) -> dict[str, object]:
        """All figures: ``X_frame_mean`` over all frames, ``X_action_mean`` over the actions' means, ``actions``.

        Millimetres; millimetres a frame for ``velocity``; shares for ``pck150`` and ``auc``, over ``PCK_JOINTS``, as
        MPI-INF-3DHP's evaluation has them, while ``mpjpe`` is over all joints, there too. ``temporal_std_ratio`` is
        the deviation over time of the predictions over that of the targets: 1 moves as much, 0 stands still. Published
        Human3.6M figures are mostly action means; a frame mean of the same predictions is not the same number.

        ``velocity`` is ``None`` where every sequence is of one frame, ``temporal_std_ratio`` where the targets do not
        move; such actions are left out of the mean over actions.

        ``mpjpe_frame_mean_interval`` is where that mean lies with 95 %, by drawing the ``recordings`` anew, since
        frames and views of one are no independent samples. ``None`` of fewer than 10, which tell too little of others.

        Raises:
            ValueError: Nothing was added.
        """
        if not self.actions:
            raise ValueError("nothing was measured: add windows first")
        whole = _Sums()
        for sums in self.actions.values():
            whole.join(sums)
        actions = {name: _rounded(sums.means()) for name, sums in sorted(self.actions.items())}
        by_frame = {f"{name}_frame_mean": value for name, value in _rounded(whole.means()).items()}
        names = list(next(iter(actions.values())))
        by_action = {f"{name}_action_mean": _mean(found[name] for found in actions.values()) for name in names}
        recordings = _by_recording(self.sequences)
        counts = {"frames": whole.frames, "sequences": len(self.sequences), "recordings": len(recordings)}
        interval = {"mpjpe_frame_mean_interval": _interval(recordings)}
        return {**by_frame, **by_action, **interval, **counts, "actions": actions}


def _by_recording(sequences: Iterable[tuple[str, float, int]]) -> list[tuple[float, int]]:
    """Sums of errors and frames of each recording."""
    # Sorted: which rank measured which sequence must change neither sums nor draws.
    alone: list[tuple[float, int]] = []
    named: dict[str, tuple[float, int]] = {}
    for recording, error, frames in sorted(sequences):
        if recording:
            before = named.get(recording, (0.0, 0))
            named[recording] = (before[0] + error, before[1] + frames)
        else:
            alone.append((error, frames))
    return alone + list(named.values())


def _interval(recordings: list[tuple[float, int]]) -> list[float] | None:
    if len(recordings) < LEAST_RECORDINGS:
        return None
    sums, frames = torch.tensor(recordings, dtype=torch.float64).T
    low, high = bootstrap_interval(lambda often: float(often @ sums / (often @ frames)), len(recordings))
    return [round(low, 6), round(high, 6)] if low < high else None


def _mean(values: Iterable[float | None]) -> float | None:
    known = [value for value in values if value is not None]
    return round(float(np.mean(known)), 6) if known else None


def _rounded(values: Figures) -> Figures:
    return {name: None if value is None else round(value, 6) for name, value in values.items()}


def _check(predicted: Tensor, target: Tensor, action: str | None = None) -> None:
    windows = action is not None
    fine = predicted.ndim == 4 if windows else predicted.ndim >= 2
    if predicted.shape != target.shape or not fine or predicted.shape[-1] != 3:
        wanted = "(windows, frames, joints, 3)" if windows else "(..., joints, 3)"
        raise LiftingDataError(
            f"{_of(action)}poses of shapes {tuple(predicted.shape)} and {tuple(target.shape)}: two alike, {wanted}, "
            "are expected"
        )


def _check_finite(predicted: Tensor, target: Tensor, action: str | None = None) -> None:
    for what, poses in (("predicted", predicted), ("target", target)):
        bad = int((~poses.isfinite().all(dim=-1).all(dim=-1)).sum())
        if bad:
            raise LiftingDataError(
                f"{_of(action)}{what} poses of {bad} of {poses[..., 0, 0].numel()} frames are NaN or infinite, so "
                "there is no error to measure"
            )


def _of(action: str | None) -> str:
    return f"{action}: " if action else ""
