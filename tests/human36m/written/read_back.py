"""BVH and glTF read by their own rules, without a line of the library: where the joints are at a time."""

from __future__ import annotations

import base64
import json
import struct
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

Array = NDArray[np.float64]
Place = dict[str, Array]

_AXES = {"X": 0, "Y": 1, "Z": 2}


@dataclass
class Joint:
    name: str
    offset: Array = field(default_factory=lambda: np.zeros(3))
    channels: list[str] = field(default_factory=list)
    children: list[Joint] = field(default_factory=list)


def turn(axis: int, degrees: float) -> Array:
    """The rotation about x, y or z."""
    c, s = np.cos(np.radians(degrees)), np.sin(np.radians(degrees))
    one, other = (axis + 1) % 3, (axis + 2) % 3
    matrix = np.eye(3)
    matrix[one, one] = matrix[other, other] = c
    matrix[other, one], matrix[one, other] = s, -s
    return matrix


def read_bvh(path: Path) -> tuple[Joint, float, list[Place]]:
    """The root of the hierarchy, seconds a frame, and where each joint is in each frame, in the file's unit."""
    head, motion = path.read_text().split("MOTION")
    words = iter(head.split())
    assert (next(words), next(words)) == ("HIERARCHY", "ROOT")
    root = _joint(next(words), words)
    lines = motion.strip().splitlines()
    assert lines[0].startswith("Frames:") and lines[1].startswith("Frame Time:")
    rows = [[float(value) for value in line.split()] for line in lines[2:]]
    assert len(rows) == int(lines[0].split()[1])
    places = []
    for row in rows:
        values, place = iter(row), {}
        _walk(root, np.zeros(3), np.eye(3), values, place)
        assert next(values, None) is None
        places.append(place)
    return root, float(lines[1].split()[2]), places


def _joint(name: str, words: Any) -> Joint:
    joint = Joint(name)
    assert next(words) == "{"
    while (word := next(words)) != "}":
        if word == "OFFSET":
            joint.offset = np.array([float(next(words)) for _ in range(3)])
        elif word == "CHANNELS":
            joint.channels = [next(words) for _ in range(int(next(words)))]
        else:
            assert word in ("JOINT", "End")
            joint.children.append(_joint(next(words), words))
    return joint


def _walk(joint: Joint, start: Array, turned: Array, values: Any, place: Place) -> None:
    moved, own = joint.offset.copy(), np.eye(3)
    for channel in joint.channels:
        if channel.endswith("position"):
            moved[_AXES[channel[0]]] += next(values)
        else:
            own = own @ turn(_AXES[channel[0]], next(values))
    place[joint.name] = start + turned @ moved
    for child in joint.children:
        _walk(child, place[joint.name], turned @ own, values, place)


class Gltf:
    """A file of glTF 2.0, checked by the rules of the specification that it can break."""

    def __init__(self, path: Path) -> None:
        data = path.read_bytes()
        if path.suffix == ".glb":
            magic, version, length = struct.unpack_from("<4sII", data)
            assert (magic, version, length) == (b"glTF", 2, len(data))
            size, kind = struct.unpack_from("<I4s", data, 12)
            assert kind == b"JSON" and size % 4 == 0
            self.json = json.loads(data[20 : 20 + size])
            (rest, kind) = struct.unpack_from("<I4s", data, 20 + size)
            assert kind == b"BIN\0" and rest % 4 == 0 and 28 + size + rest == len(data)
            self.buffer = data[28 + size :]
        else:
            self.json = json.loads(data)
            self.buffer = base64.b64decode(self.json["buffers"][0]["uri"].partition("base64,")[2], validate=True)
        assert self.json["asset"]["version"] == "2.0"
        assert [each["byteLength"] for each in self.json["buffers"]] == [len(self.buffer)]
        for number, accessor in enumerate(self.json["accessors"]):
            values = self.array(number)
            assert np.isfinite(values).all()
            for name, found in (("min", values.min(0)), ("max", values.max(0))):
                if name in accessor:
                    np.testing.assert_allclose(np.atleast_1d(found), accessor[name], rtol=1e-6)

    def array(self, number: int) -> NDArray[Any]:
        accessor = self.json["accessors"][number]
        view = self.json["bufferViews"][accessor["bufferView"]]
        kind = {5126: np.dtype("<f4"), 5121: np.dtype("u1")}[accessor["componentType"]]
        shape = {"SCALAR": (), "VEC3": (3,), "VEC4": (4,), "MAT4": (4, 4)}[accessor["type"]]
        count = accessor["count"] * int(np.prod(shape, dtype=int))
        assert view["buffer"] == 0 and view["byteOffset"] % 4 == 0
        assert view["byteLength"] >= count * kind.itemsize
        assert view["byteOffset"] + view["byteLength"] <= len(self.buffer)
        values = np.frombuffer(self.buffer, kind, count, view["byteOffset"]).reshape(accessor["count"], *shape)
        return values.swapaxes(1, 2) if len(shape) == 2 else values  # matrices are stored by columns

    def matrices(self, time: float) -> dict[int, Array]:
        """Node -> from its axes to the scene's, at a time in seconds."""
        local = [{"translation": node.get("translation", [0, 0, 0]), "rotation": [0, 0, 0, 1]} for node in self.nodes]
        (animation,) = self.json["animations"]
        for channel in animation["channels"]:
            sampler = animation["samplers"][channel["sampler"]]
            assert sampler["interpolation"] == "LINEAR"
            times, values = self.array(sampler["input"]), self.array(sampler["output"]).astype(float)
            assert (np.diff(times) > 0).all() and times[0] >= 0 and len(times) == len(values)
            path = channel["target"]["path"]
            local[channel["target"]["node"]][path] = _between(times, values, time, turns=path == "rotation")
        found: dict[int, Array] = {}
        (scene,) = self.json["scenes"]
        for root in scene["nodes"]:
            self._place(root, np.eye(4), local, found)
        assert sorted(found) == list(range(len(self.nodes)))  # each has one parent or is a root
        return found

    @property
    def nodes(self) -> list[dict[str, Any]]:
        return self.json["nodes"]

    def _place(self, node: int, above: Array, local: list[dict[str, Any]], found: dict[int, Array]) -> None:
        assert node not in found
        own = np.eye(4)
        own[:3, :3], own[:3, 3] = _matrix(*local[node]["rotation"]), local[node]["translation"]
        found[node] = above @ own
        for child in self.nodes[node].get("children", []):
            self._place(child, found[node], local, found)

    def joints(self, time: float) -> Place:
        (skin,) = self.json["skins"]
        found = self.matrices(time)
        return {self.nodes[node]["name"]: found[node][:3, 3] for node in skin["joints"]}

    def skin(self, time: float) -> NDArray[np.floating]:
        """The vertices of the mesh, as the joints carry them: (N, 3)."""
        (skin,), found = self.json["skins"], self.matrices(time)
        inverse = self.array(skin["inverseBindMatrices"])
        carried = np.stack([found[node] @ own for node, own in zip(skin["joints"], inverse, strict=True)])
        named = self.json["meshes"][0]["primitives"][0]["attributes"]
        points, joints, weights = (self.array(named[name]) for name in ("POSITION", "JOINTS_0", "WEIGHTS_0"))
        assert len({len(self.array(number)) for number in named.values()}) == 1 and len(points) % 3 == 0
        np.testing.assert_allclose(weights.sum(axis=1), 1)
        np.testing.assert_allclose(np.linalg.norm(self.array(named["NORMAL"]), axis=1), 1, atol=1e-5)
        full = np.concatenate([points, np.ones((len(points), 1))], axis=1)
        return np.einsum("vk,vkij,vj->vi", weights, carried[joints], full)[:, :3]


def _between(times: Array, values: Array, time: float, turns: bool) -> Array:
    """As the specification says: linear, and for rotations along the shorter arc."""
    last = int(np.searchsorted(times, time).clip(1, max(1, len(times) - 1))) if len(times) > 1 else 0
    if not last:
        return values[0]
    one, other = values[last - 1], values[last]
    part = float(np.clip((time - times[last - 1]) / (times[last] - times[last - 1]), 0, 1))
    if not turns:
        return (1 - part) * one + part * other
    np.testing.assert_allclose(np.linalg.norm(values, axis=1), 1, atol=1e-5)
    cosine = float(one @ other)
    angle = np.arccos(min(abs(cosine), 1.0))
    if angle < 1e-6:
        return one
    return (np.sin((1 - part) * angle) * one + np.sign(cosine) * np.sin(part * angle) * other) / np.sin(angle)


def _matrix(x: float, y: float, z: float, w: float) -> Array:
    """By the product q v q*, of each axis."""

    def times(a: Array, b: Array) -> Array:
        return np.array([*(a[3] * b[:3] + b[3] * a[:3] + np.cross(a[:3], b[:3])), a[3] * b[3] - a[:3] @ b[:3]])

    q, conjugate = np.array([x, y, z, w]), np.array([-x, -y, -z, w])
    return np.stack([times(times(q, np.array([*axis, 0.0])), conjugate)[:3] for axis in np.eye(3)], axis=1)
