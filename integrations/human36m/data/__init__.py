"""Clips of 2D keypoints and 3D poses, and windows of them in batches."""

import typing

from cycledistill import lazy, versions

versions.require("numpy")

if typing.TYPE_CHECKING:
    from .calibration.file import read_calibration as read_calibration
    from .cameras import Camera as Camera
    from .cameras import ring_of_cameras as ring_of_cameras
    from .clips import Clip as Clip
    from .clips import film as film
    from .cmu import load_cmu as load_cmu
    from .dataset import LiftWindows as LiftWindows
    from .dataset import WindowBatches as WindowBatches
    from .dataset import window_loader as window_loader
    from .h36m import Human36M as Human36M
    from .motion import generate_motion as generate_motion
    from .mpi_inf_3dhp.files import MpiInf3dhp as MpiInf3dhp
    from .windows import chunk_bounds as chunk_bounds
    from .windows import window_frames as window_frames
else:
    __all__, __getattr__, __dir__ = lazy.hand_on(
        __name__,
        {
            "Camera": ".cameras",
            "Clip": ".clips",
            "Human36M": ".h36m",
            "LiftWindows": ".dataset",
            "MpiInf3dhp": ".mpi_inf_3dhp.files",
            "WindowBatches": ".dataset",
            "chunk_bounds": ".windows",
            "film": ".clips",
            "generate_motion": ".motion",
            "load_cmu": ".cmu",
            "read_calibration": ".calibration.file",
            "ring_of_cameras": ".cameras",
            "window_frames": ".windows",
            "window_loader": ".dataset",
        },
        requires="cycledistill[human36m]",
    )
