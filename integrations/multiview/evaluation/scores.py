"""What is counted of the joints found in moments, and the figures of it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np
import torch
from numpy.typing import NDArray

from cycledistill.integrations.human36m.multiview.detection import joint_detection_rate
from cycledistill.integrations.human36m.multiview.triangulation import triangulate

from ..data.moments import Array, Moment

Figures = dict[str, float | None]


@dataclass
class MultiViewScores:
    """Joints in pictures, and poses triangulated from them, against the labels of their moments.

    Args:
        head_size: Pixels of the pictures, see `joint_detection_rate`.
        threshold: Pixels, see `triangulate`.
        root: Number of the joint that root-relative errors are counted from; ``None``: none are.

    Example:
        >>> scores = MultiViewScores()
        >>> scores.add(moment, joints)
        >>> scores.summary()["jdr"]
    """

    head_size: float
    threshold: float
    root: int | None = 0
    found: list[Array] = field(default_factory=list)
    labels: list[Array] = field(default_factory=list)
    errors: list[Array] = field(default_factory=list)
    """Metres, (J,) a moment; NaN where no point is in front of all cameras."""
    relative: list[Array] = field(default_factory=list)
    asked: list[NDArray[np.bool_]] = field(default_factory=list)
    """Which joints are known in 3D, (J,) a moment."""
    agreed: list[NDArray[np.bool_]] = field(default_factory=list)
    """On which joints two views or more agree, (J,) a moment."""

    @classmethod
    def joined(cls, parts: Sequence[MultiViewScores]) -> MultiViewScores:
        """What several processes counted, as one."""
        whole = cls(parts[0].head_size, parts[0].threshold, parts[0].root)
        for name in ("found", "labels", "errors", "relative", "asked", "agreed"):
            getattr(whole, name).extend(each for part in parts for each in getattr(part, name))
        return whole

    def add(self, moment: Moment, joints: Array) -> None:
        """Count a moment.

        Args:
            moment: With V views.
            joints: (V, J, 3), pixels of the pictures and confidences, in the order of the views.
        """
        self.found.extend(joints[..., :2])
        self.labels.extend(view.joints for view in moment.views.values())
        if moment.pose is None or len(joints) < 2:
            return
        cameras = [view.camera for view in moment.views.values()]
        # A joint that is left out would flatter the mean: confidences weigh, and where no views agree all count.
        weighed = np.concatenate([joints[..., :2], joints[..., 2:].clip(1e-3)], axis=-1)
        poses, anyhow = (
            triangulate(cameras, weighed, threshold=self.threshold, least_confidence=0.0, ransac=ransac).points
            for ransac in (True, False)
        )
        self.agreed.append(np.all(np.isfinite(poses), axis=-1))
        poses = np.where(np.isfinite(poses), poses, anyhow)
        self.asked.append(np.all(np.isfinite(moment.pose), axis=-1))
        self.errors.append(np.linalg.norm(poses - moment.pose, axis=-1))
        if self.root is not None:
            apart = (poses - poses[self.root]) - (moment.pose - moment.pose[self.root])
            self.relative.append(np.linalg.norm(apart, axis=-1))

    def summary(self) -> Figures:
        """The figures by name, see `evaluate`."""
        found, labels = np.stack(self.found), np.stack(self.labels)
        mask = labels[..., 2] > 0
        predicted, target, counts = map(torch.from_numpy, (found, labels[..., :2], mask))
        detected = joint_detection_rate(predicted, target, self.head_size, mask=counts)
        off = np.linalg.norm(found - labels[..., :2], axis=-1)[mask]
        figures: Figures = {"jdr": _rounded(100 * float(detected.nanmean())), "error_2d": _mean(off)}
        asked = np.concatenate(self.asked) if self.asked else np.zeros(0, dtype=np.bool_)
        errors = np.concatenate(self.errors)[asked] if self.errors else np.zeros(0)
        relative = np.concatenate(self.relative)[asked] if self.relative else np.zeros(0)
        return figures | {
            "mpjpe": _mean(1000 * errors),
            "mpjpe_root": _mean(1000 * relative),
            "triangulated": _rounded(100 * float(np.concatenate(self.agreed)[asked].mean())) if asked.any() else None,
        }


def _mean(values: Array) -> float | None:
    known = values[np.isfinite(values)]
    return _rounded(float(known.mean())) if len(known) else None


def _rounded(value: float) -> float:
    return round(value, 4)
