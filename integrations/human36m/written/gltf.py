"""Poses as glTF 2.0, the form of 3D scenes that browsers and modellers show: a skinned skeleton that moves."""

from __future__ import annotations

import base64
import json
import struct
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from cycledistill.files import atomic_write
from cycledistill.versions import made_with

from ..data.pose_files import check_target
from ..data.skeleton import BONES, JOINTS, LEFT, RIGHT
from ..data.timing import check_rate
from ..errors import LiftingDataError
from .rig import CHILDREN, Rig, fit_rig
from .rotations import quaternions, unit

_FLOAT, _BYTE, _VERTICES = 5126, 5121, 34962
_KINDS = {(): "SCALAR", (3,): "VEC3", (4,): "VEC4", (4, 4): "MAT4"}
_THICK = 0.12
"""Of a bone, as a share of its length."""
_COLOURS = {**dict.fromkeys(LEFT, (1.0, 0.26, 0.0)), **dict.fromkeys(RIGHT, (0.0, 0.4, 1.0))}
_MIDDLE = (0.5, 0.5, 0.5)


def write_gltf(poses: NDArray[np.floating], path: str | Path, frame_rate: float) -> Rig:
    """Write poses as glTF 2.0: 17 joints that a skin of one body a bone follows, and their motion.

    The joints turn, and only the pelvis moves, so bones have constant lengths, as in BVH. Metres, y up, as glTF has it.

    Args:
        poses: (T, 17, 3), metres, y up (:func:`upright`).
        path: ``.glb``, one binary file, or ``.gltf``, JSON with the numbers inside.
        frame_rate: Frames a second.

    Returns:
        What was written.

    Raises:
        LiftingDataError: Poses that are none or have joints that are not known (:func:`fit_rig`); another suffix, no
            such rate; or the file cannot be written.

    Example:
        >>> rig = write_gltf(upright(poses, "-y"), "walk.glb", 50)

    Source: Khronos, glTF 2.0 specification.
    """
    check_target(path, (".glb", ".gltf"))
    check_rate(frame_rate)
    rig = fit_rig(poses)
    data = _document(rig, frame_rate)
    written = _binary(*data) if Path(path).suffix.lower() == ".glb" else _text(*data)
    try:
        atomic_write(path, lambda file: file.write_bytes(written))
    except OSError as error:
        raise LiftingDataError(f"{path} cannot be written: {error}") from error
    return rig


class _Numbers:
    """Arrays in one buffer, and what a file says of them."""

    def __init__(self) -> None:
        self.data, self.views, self.accessors = bytearray(), list[dict[str, Any]](), list[dict[str, Any]]()

    def add(self, array: NDArray[Any], *, vertices: bool = False, limits: bool = False) -> int:
        """The number of the accessor that is now there; all of its entries fill whole words of four bytes."""
        plain = np.ascontiguousarray(array, np.uint8 if array.dtype == np.uint8 else "<f4")
        view = {"buffer": 0, "byteOffset": len(self.data), "byteLength": plain.nbytes}
        self.views.append(view | {"target": _VERTICES} if vertices else view)
        self.data += plain.tobytes()
        kind = _BYTE if plain.dtype == np.uint8 else _FLOAT
        accessor: dict[str, Any] = {"bufferView": len(self.views) - 1, "componentType": kind, "count": len(plain)}
        accessor["type"] = _KINDS[plain.shape[1:]]
        if limits:
            accessor |= {"min": np.atleast_1d(plain.min(0)).tolist(), "max": np.atleast_1d(plain.max(0)).tolist()}
        self.accessors.append(accessor)
        return len(self.accessors) - 1


def _document(rig: Rig, frame_rate: float) -> tuple[dict[str, Any], bytes]:
    numbers, count = _Numbers(), len(JOINTS)
    rest = np.zeros((count, 3))
    for parent, joint in BONES:
        rest[joint] = rest[parent] + rig.offsets[joint]
    nodes: list[dict[str, Any]] = [
        {"name": name, "translation": rig.offsets[joint].tolist()}
        | ({"children": list(CHILDREN[joint])} if CHILDREN[joint] else {})
        for joint, name in enumerate(JOINTS)
    ]
    nodes.append({"name": "body", "mesh": 0, "skin": 0})
    inverse = np.tile(np.eye(4), (count, 1, 1))
    inverse[:, 3, :3] = -rest  # by columns
    document = {
        "asset": {"version": "2.0", "generator": f"cycledistill {made_with()['cycledistill']}"},
        "scene": 0,
        "scenes": [{"nodes": [0, count]}],
        "nodes": nodes,
        "meshes": [{"name": "bones", "primitives": [{"attributes": _bodies(numbers, rest), "material": 0}]}],
        "materials": [{"name": "bones", "pbrMetallicRoughness": {"metallicFactor": 0.0, "roughnessFactor": 0.8}}],
        "skins": [{"joints": list(range(count)), "skeleton": 0, "inverseBindMatrices": numbers.add(inverse)}],
        "animations": [_motion(numbers, rig, frame_rate)],
    }
    document |= {"accessors": numbers.accessors, "bufferViews": numbers.views}
    document["buffers"] = [{"byteLength": len(numbers.data)}]
    return document, bytes(numbers.data)


def _motion(numbers: _Numbers, rig: Rig, frame_rate: float) -> dict[str, Any]:
    times = numbers.add(np.arange(len(rig.root)) / frame_rate, limits=True)
    turned = quaternions(rig.rotations)
    outputs = [(0, "translation", rig.root)]
    outputs += [(joint, "rotation", turned[:, joint]) for joint in range(len(JOINTS)) if CHILDREN[joint]]
    return {
        "name": "motion",
        "samplers": [
            {"input": times, "output": numbers.add(values), "interpolation": "LINEAR"} for _, _, values in outputs
        ],
        "channels": [
            {"sampler": place, "target": {"node": joint, "path": path}}
            for place, (joint, path, _) in enumerate(outputs)
        ],
    }


def _bodies(numbers: _Numbers, rest: NDArray[np.float64]) -> dict[str, int]:
    """A long octahedron for each bone, which goes with the joint that the bone hangs on."""
    corners: list[NDArray[np.float64]] = []
    normals: list[NDArray[np.float64]] = []
    owners, colours = [], []
    for parent, joint in BONES:
        along = rest[joint] - rest[parent]
        aside = unit(np.cross(along, np.eye(3)[np.abs(along).argmin()]))
        thick = _THICK * np.linalg.norm(along)
        ring = [thick * aside, thick * np.cross(unit(along), aside)]
        ring += [-ring[0], -ring[1]]
        middle = rest[parent] + 0.2 * along
        for place in range(4):
            one, next_one = middle + ring[place], middle + ring[(place + 1) % 4]
            for triangle in ((one, next_one, rest[joint]), (next_one, one, rest[parent])):
                corners += triangle
                normals += [unit(np.cross(triangle[1] - triangle[0], triangle[2] - triangle[0]))] * 3
        owners += [[parent, 0, 0, 0]] * 24
        colours += [_COLOURS.get(joint, _MIDDLE)] * 24
    weights = np.tile(np.array([1.0, 0.0, 0.0, 0.0]), (len(corners), 1))
    return {
        "POSITION": numbers.add(np.array(corners), vertices=True, limits=True),
        "NORMAL": numbers.add(np.array(normals), vertices=True),
        "COLOR_0": numbers.add(np.array(colours), vertices=True),
        "JOINTS_0": numbers.add(np.array(owners, np.uint8), vertices=True),
        "WEIGHTS_0": numbers.add(weights, vertices=True),
    }


def _binary(document: dict[str, Any], data: bytes) -> bytes:
    text = json.dumps(document, separators=(",", ":")).encode()
    text += b" " * (-len(text) % 4)
    chunks = struct.pack("<I4s", len(text), b"JSON") + text + struct.pack("<I4s", len(data), b"BIN\0") + data
    return struct.pack("<4sII", b"glTF", 2, 12 + len(chunks)) + chunks


def _text(document: dict[str, Any], data: bytes) -> bytes:
    inside = "data:application/octet-stream;base64," + base64.b64encode(data).decode()
    buffers = [{"uri": inside, "byteLength": len(data)}]
    return json.dumps(document | {"buffers": buffers}).encode()
