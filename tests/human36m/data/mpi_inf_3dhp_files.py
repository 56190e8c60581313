"""Files of MPI-INF-3DHP as P-STMO's preparation and the data set's authors write them, of made-up motion.

The orders of joints are the data set's own, by its names (``mpii_get_joints.m``), not those of the code under test.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np

from cycledistill.integrations.human36m.data.motion import generate_motion
from cycledistill.integrations.human36m.data.skeleton import JOINTS

NAMES_28 = (
    "spine3 spine4 spine2 spine pelvis neck head head_top left_clavicle left_shoulder left_elbow left_wrist left_hand "
    "right_clavicle right_shoulder right_elbow right_wrist right_hand left_hip left_knee left_ankle left_foot left_toe "
    "right_hip right_knee right_ankle right_foot right_toe"
).split()
NAMES_17 = (
    "head_top neck right_shoulder right_elbow right_wrist left_shoulder left_elbow left_wrist right_hip right_knee "
    "right_ankle left_hip left_knee left_ankle pelvis spine head"
).split()
OTHERWISE = {"head": "head_top", "neck": "head", "thorax": "neck"}
"""What Human3.6M's joints are called here, where it is something else."""
FOCAL, CENTRE = np.array([1497.7, 1497.1]), np.array([1024.7, 1051.4])


def seen(frames: int, first: int, centre: np.ndarray = CENTRE) -> tuple[np.ndarray, np.ndarray]:
    """Pixels (T, 17, 2) and millimetres in camera axes (T, 17, 3), of someone four metres before the camera."""
    world = generate_motion(1, frames, first=first)[0].world.astype(np.float64)
    names = [OTHERWISE.get(name, name) for name in JOINTS]
    own = world[:, [names.index(name) for name in NAMES_17]] - world[:, :1].mean(axis=0)
    poses = own * [1000, -1000, -1000] + [100, 50, 4000]
    return FOCAL * poses[..., :2] / poses[..., 2:] + centre, poses


def write_train(path: Path, frames: int = 60, cameras: tuple[int, ...] = (0, 1, 8)) -> dict[str, Any]:
    """``data_train_3dhp.npz``, as ``data_to_npz_3dhp.py`` saves it."""
    data: dict[str, Any] = {}
    for number, name in enumerate(("S1 Seq1", "S1 Seq2", "S2 Seq1")):
        views = {}
        for camera in cameras:
            pixels, poses = seen(frames, 10 * number + camera)
            views[str(camera)] = {"data_2d": pixels, "data_3d": poses}
        data[name] = [views, 25]
    np.savez_compressed(path, data=data)  # type: ignore[arg-type]
    return data


def write_test(path: Path, frames: int = 60) -> dict[str, Any]:
    """``data_test_3dhp.npz``, as ``data_to_npz_3dhp_test.py`` saves it: frames that are not valid are all over."""
    data: dict[str, Any] = {}
    for number in range(1, 7):
        middle = np.array([960.0, 540.0]) if number >= 5 else CENTRE
        pixels, poses = seen(frames + number, 30 + number, middle)
        valid = np.ones(len(pixels))
        valid[[0, 20, 21, 22, 40]] = 0
        pixels[[21, 22]], poses[21] = 0, 0  # nobody was annotated there
        data[f"TS{number}"] = {"data_2d": pixels, "data_3d": poses, "valid": valid}
    np.savez_compressed(path, data=data)  # type: ignore[arg-type]
    return data


def write_test_folder(folder: Path, data: dict[str, Any]) -> None:
    """The same as the data set's authors distribute it: MATLAB 7.3 writes its arrays transposed, as HDF5."""
    import h5py

    for name, arrays in data.items():
        (folder / name).mkdir(parents=True)
        with h5py.File(folder / name / "annot_data.mat", "w", userblock_size=512) as file:
            file["annot2"] = arrays["data_2d"][:, None]
            file["univ_annot3"] = arrays["data_3d"][:, None]
            file["annot3"] = 1.1 * arrays["data_3d"][:, None]
            file["valid_frame"] = arrays["valid"][:, None].astype(np.uint8)
            file["activity_annotation"] = np.ones((len(arrays["valid"]), 1))
