"""A data set in files of Human3.6M's form, made once."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from cycledistill.integrations.human36m.data.cameras import Camera, read_cameras, ring_of_cameras
from cycledistill.integrations.human36m.data.h36m import TEST_SUBJECTS
from cycledistill.integrations.human36m.data.motion import generate_motion


def table(cameras: list[Camera]) -> list[dict[str, Any]]:
    """Cameras as the file holds them."""
    entries = []
    for camera in cameras:
        values, vectors = np.linalg.eig(camera.rotation)
        axis = np.real(vectors[:, np.argmin(np.abs(values - 1))])
        trace = np.trace(camera.rotation)
        skew = np.array([camera.rotation[2, 1] - camera.rotation[1, 2], camera.rotation[0, 2] - camera.rotation[2, 0],
                         camera.rotation[1, 0] - camera.rotation[0, 1]])  # fmt: skip
        angle = np.arctan2(np.linalg.norm(skew), trace - 1)
        axis = skew / np.linalg.norm(skew)
        entries.append(
            {
                "id": camera.name,
                "orientation": [float(np.cos(angle / 2)), *(np.sin(angle / 2) * axis).tolist()],
                "translation": (1000 * camera.position).tolist(),
                "focal_length": camera.focal.tolist(),
                "center": camera.centre.tolist(),
                "radial_distortion": [-0.2, 0.24, -0.002],
                "tangential_distortion": [-0.0009, -0.0014],
                "res_w": camera.size[0],
                "res_h": camera.size[1],
                "azimuth": 70,
            }
        )
    return entries


@pytest.fixture(scope="session")
def files(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """A data set of Human3.6M's form, made from generated motion: pickled dictionaries, as VideoPose3D's."""
    folder = tmp_path_factory.mktemp("h36m")
    subjects = ("S1", *TEST_SUBJECTS)
    ring = ring_of_cameras(np.array([0.0, 1.0, 0.0]), 4, distance=7.0, first_angle=0.4)
    listed: dict[str, Any] = {"S2": [{}, {}]}  # VideoPose3D's table has subjects without parameters
    listed |= {subject: table(ring) for subject in subjects}
    (folder / "cameras.json").write_text(json.dumps(listed))
    cameras = read_cameras(folder / "cameras.json")
    poses: dict[str, Any] = {}
    keypoints: dict[str, Any] = {}
    unused = [4, 5, 9, 10, 11, 16, 20, 21, 22, 23, 24, 28, 29, 30, 31]
    used = [joint for joint in range(32) if joint not in unused]
    for number, subject in enumerate(subjects):
        poses[subject], keypoints[subject] = {}, {}
        for sequence, motion in zip(("Walking", "Waiting 1"), generate_motion(2, 90, seed=number), strict=True):
            markers = np.full((90, 32, 3), 99.0, np.float32)
            markers[:, used] = motion.world
            poses[subject][sequence] = markers
            seen = [camera.project(camera.to_camera(motion.world)) for camera in cameras[subject]]
            keypoints[subject][sequence] = [np.pad(one, ((0, 3), (0, 0), (0, 0))).astype(np.float32) for one in seen]
    meta = {
        "layout_name": "h36m",
        "num_joints": 17,
        "keypoints_symmetry": [[4, 5, 6, 11, 12, 13], [1, 2, 3, 14, 15, 16]],
    }
    np.savez_compressed(folder / "data_3d_h36m.npz", positions_3d=np.array(poses, dtype=object))
    np.savez_compressed(
        folder / "data_2d_h36m_gt.npz",
        positions_2d=np.array(keypoints, dtype=object),
        metadata=np.array(meta, dtype=object),
    )
    return {"poses": folder / "data_3d_h36m.npz", "keypoints": folder / "data_2d_h36m_gt.npz",
            "cameras": folder / "cameras.json"}  # fmt: skip
