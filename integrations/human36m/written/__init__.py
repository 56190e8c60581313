"""3D poses as others open them: animations, BVH, glTF; upright, and in the world of a calibrated camera."""

from .animation import animate
from .bvh import write_bvh
from .gltf import write_gltf
from .rig import Rig, fit_rig
from .upright import body_joints, fill_joints, stand, up_axis, upright
from .world import place_in_world

__all__ = [
    "Rig",
    "animate",
    "body_joints",
    "fill_joints",
    "fit_rig",
    "place_in_world",
    "stand",
    "up_axis",
    "upright",
    "write_bvh",
    "write_gltf",
]
