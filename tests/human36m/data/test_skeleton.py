"""Joints of other sets as Human3.6M's."""

from __future__ import annotations

import numpy as np
import pytest

from cycledistill.integrations.human36m.data.skeleton import coco_to_h36m, from_markers, mirror
from cycledistill.integrations.human36m.errors import LiftingDataError


def test_coco_to_h36m() -> None:
    coco = np.zeros((1, 17, 3), np.float32)
    coco[0, :, 0], coco[0, :, 1], coco[0, :, 2] = np.arange(17), 100 + np.arange(17), 0.9
    coco[0, 12, 2] = 0.3  # the right hip
    joints = coco_to_h36m(coco, "midpoints")
    x = [11.5, 12, 14, 16, 11, 13, 15, 8.5, 5.5, 0, 1.5, 5, 7, 9, 6, 8, 10]
    np.testing.assert_allclose(joints[0, :, 0], x)
    np.testing.assert_allclose(joints[0, :, 1], 100 + np.array(x))
    low = np.flatnonzero(joints[0, :, 2] < 0.5)
    assert low.tolist() == [0, 1, 7], "what the right hip goes into"
    # left and right are exchanged in both skeletons alike
    pairs = np.array([0, 2, 1, 4, 3, 6, 5, 8, 7, 10, 9, 12, 11, 14, 13, 16, 15])
    mirrored = coco[:, pairs] * [-1, 1, 1]
    np.testing.assert_allclose(coco_to_h36m(mirrored.astype(np.float32), "midpoints"), mirror(joints), rtol=1e-6)
    with pytest.raises(LiftingDataError, match=r"\(1, 16, 3\)"):
        coco_to_h36m(coco[:, :16])


def test_from_markers() -> None:
    markers = np.arange(32, dtype=np.float32)[None, :, None].repeat(3, axis=2)
    kept = [0, 1, 2, 3, 6, 7, 8, 12, 13, 14, 15, 17, 18, 19, 25, 26, 27]
    assert from_markers(markers)[0, :, 0].tolist() == kept
    assert from_markers(markers[:, :17]).shape == (1, 17, 3)
