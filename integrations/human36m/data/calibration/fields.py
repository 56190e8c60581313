"""What the parts of a calibration are called, and in which forms a file holds those of several cameras."""

from __future__ import annotations

import re
from typing import Any

Entry = dict[str, Any]

_NAMES = {
    "K": "K camera_matrix intrinsics intrinsic intrinsic_matrix mtx",
    "distortion": "dist D dist_coef dist_coefs dist_coeff dist_coeffs distortion distortion_coefficients",
    "R": "Rot R rotation rotation_matrix rmat rvec rotation_vector",
    "t": "T tvec translation translation_vector",
    "extrinsics": "extrinsics extrinsic extrinsic_matrix Rt world_to_camera",
    "width": "width image_width w res_w",
    "height": "height image_height h res_h",
    "size": "size image_size img_size resolution",
    "model": "model distortion_model camera_model",
    "fisheye": "fisheye",
    "unit": "unit units",
    "name": "name id serial",
}


def _plain(key: str) -> str:
    return re.sub(r"[^a-z0-9]", "", key.lower())


_FIELDS = {_plain(name): field for field, names in _NAMES.items() for name in names.split()}
_RANKS = {_plain(name): rank for names in _NAMES.values() for rank, name in enumerate(names.split())}


def fields_of(data: dict[str, Any]) -> Entry:
    """The parts of one camera under their usual names; what is called otherwise is left out."""
    found: Entry = {}
    for key, value in sorted(data.items(), key=lambda pair: _RANKS.get(_plain(pair[0]), 99)):
        field = _FIELDS.get(_plain(key))
        if field == "K" and getattr(value, "shape", None) == (3, 4):
            field = "extrinsics"  # OpenPose's CameraMatrix
        if field and value is not None:
            found.setdefault(field, value)
    return found


def entries_of(data: Any, name: str) -> dict[str, Entry]:
    """The cameras of a file by name.

    Forms: one camera; ``cameras``, a list with names or an object; an object of cameras by name; keys with the
    camera's name behind them (``K_01``, ``dist_01``, ``Rot_01``, ``T_01``: EasyMocap); the two of OpenCV's example
    ``stereo_calib`` (``M1``, ``D1``, ``M2``, ``D2``, ``R``, ``T``), the first of which is the world.

    Args:
        data: What was read.
        name: Of the camera, where it is one without a name.
    """
    if isinstance(data, dict) and isinstance(data.get("cameras"), (list, dict)):
        shared = {field: data[field] for field in ("unit", "units") if field in data}
        found = entries_of(data["cameras"], name)
        return {each: {**fields_of(shared), **entry} for each, entry in found.items()}
    if isinstance(data, list):
        entries = [fields_of(each) for each in data if isinstance(each, dict)]
        return {str(entry.get("name", number)): entry for number, entry in enumerate(entries)}
    if not isinstance(data, dict):
        return {}
    if {"M1", "M2"} & set(data) or ({"R", "T"} <= set(data) and {"R1", "P1"} <= set(data)):
        return _stereo(data)
    own = fields_of(data)
    if "K" in own or ("extrinsics" in own or {"R", "t"} <= set(own)):
        return {str(own.get("name", name)): own}
    inner = {key: fields_of(value) for key, value in data.items() if isinstance(value, dict)}
    inner = {key: entry for key, entry in inner.items() if "K" in entry or "t" in entry or "extrinsics" in entry}
    shared = {field: own[field] for field in ("unit", "size", "width", "height", "model") if field in own}
    return {key: {**shared, **entry} for key, entry in (inner or _suffixed(data)).items()}


def _suffixed(data: dict[str, Any]) -> dict[str, Entry]:
    found: dict[str, dict[str, Any]] = {}
    for key, value in data.items():
        head, _, name = key.partition("_")
        if name and _plain(key) not in _FIELDS and _plain(head) in _FIELDS:
            found.setdefault(name, {})[head] = value
    return {name: fields_of(entry) for name, entry in found.items()}


def _stereo(data: dict[str, Any]) -> dict[str, Entry]:
    first: Entry = {"K": data.get("M1"), "distortion": data.get("D1")}
    second: Entry = {"K": data.get("M2"), "distortion": data.get("D2")}
    if "R" in data and "T" in data:
        first |= {"R": [[1, 0, 0], [0, 1, 0], [0, 0, 1]], "t": [0, 0, 0]}
        second |= {"R": data["R"], "t": data["T"]}
    shared = fields_of({key: value for key, value in data.items() if key not in ("R", "T")})
    pair = {"1": {**shared, **first}, "2": {**shared, **second}}
    return {name: {field: value for field, value in entry.items() if value is not None} for name, entry in pair.items()}
