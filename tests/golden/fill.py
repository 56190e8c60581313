"""Weights, inputs and noise of the golden files, from formulas. numpy only; the same bits on every platform.

Nothing here is random: every number is a hash of a tensor's name and of the position inside it, so a test rebuilds
the exact
parameters a golden file was made with from the key list in ``manifest.json.gz`` alone.

    unit(name, n)[i] in [0, 1)      h = (i * 0x9E3779B1 + crc32(name)) mod 2**32, then murmur3's 32-bit finaliser, /
    2**32
    half(name, n)[i] in [-.5, .5)   unit - 0.5
    sign(name, n)[i] in [-1, 1)     2 * unit - 1

``weights(case)`` gives the full state dict of a case (pose or lifting) under the keys of the model that produced the
golden.
"""

from __future__ import annotations

import gzip
import json
import math
import zlib
from functools import lru_cache
from pathlib import Path

import numpy as np

HERE = Path(__file__).resolve().parent
COCO_FLIP_PAIRS = [(1, 2), (3, 4), (5, 6), (7, 8), (9, 10), (11, 12), (13, 14), (15, 16)]


def unit(name: str, n: int) -> np.ndarray:
    """``n`` float64 numbers in [0, 1) that depend on ``name`` and the position only."""
    low = np.uint64(0xFFFFFFFF)
    h = (np.arange(n, dtype=np.uint64) * np.uint64(0x9E3779B1) + np.uint64(zlib.crc32(name.encode()))) & low
    for shift, factor in ((16, 0x85EBCA6B), (13, 0xC2B2AE35)):
        h = ((h ^ (h >> np.uint64(shift))) * np.uint64(factor)) & low
    return (h ^ (h >> np.uint64(16))).astype(np.float64) / 2.0**32


def half(name: str, n: int) -> np.ndarray:
    return unit(name, n) - 0.5


def sign(name: str, n: int) -> np.ndarray:
    return 2.0 * unit(name, n) - 1.0


# ---------------------------------------------------------------------------------------------------------- weights
def pose_tensor(name: str, shape, conv_gain: float = 1.0) -> np.ndarray | None:
    """One tensor of a pose model. None: left as the model computes it (sine table, flow masks)."""
    shape = tuple(shape)
    if name.endswith("num_batches_tracked"):
        return np.zeros(shape, np.int64)
    if name.endswith(("pos_embedding", ".mask", ".loc", ".cov")):
        return None
    v = half(name, math.prod(shape)).reshape(shape)
    if name.endswith("running_mean"):
        v = 0.2 * v
    elif name.endswith("running_var"):
        v = 1.0 + 0.5 * v
    elif name.endswith("keypoint_token"):
        v = math.sqrt(12.0) * v
    elif len(shape) >= 2:
        v = (conv_gain if len(shape) == 4 else 1.0) * math.sqrt(12.0 / math.prod(shape[1:])) * v
    elif name.endswith("weight"):
        v = 1.0 + 0.2 * v
    elif name.endswith("bias"):
        v = 0.2 * v
    else:
        raise ValueError(f"no rule for the tensor {name!r} of shape {shape}")
    return v.astype(np.float32)


def lifting_tensor(name: str, shape) -> np.ndarray | None:
    """One tensor of a lifting model (MixSTE, MHFormer, MotionBERT, MotionAGFormer, TPC/TRA parts). None: integer
    buffer, untouched."""
    shape = tuple(shape)
    if name.endswith("num_batches_tracked"):
        return None
    s = sign(name, math.prod(shape)).reshape(shape)
    if name.endswith("running_var"):
        v = 1.0 + 0.5 * s
    elif name.endswith("weight") and len(shape) >= 2:
        v = s * np.sqrt(3.0 / (math.prod(shape) / shape[0]))
    elif name.endswith("weight"):
        v = 1.0 + 0.1 * s
    elif "layer_scale" in name:
        v = 0.5 + 0.1 * s
    elif len(shape) >= 3:
        v = 0.5 * s
    else:
        v = 0.1 * s
    return v.astype(np.float32)


@lru_cache
def manifest(folder: str | Path = HERE) -> dict:
    """Key lists and settings of every case in ``folder``."""
    return json.loads(gzip.decompress((Path(folder) / "manifest.json.gz").read_bytes()))


def weights(case: str, folder: str | Path = HERE) -> dict[str, np.ndarray | None]:
    """key -> array (or None, see the two functions above), in state-dict order."""
    entry = manifest(folder)[case]
    if entry["family"] == "pose":
        return {k: pose_tensor(k, s, entry["conv_gain"]) for k, s in entry["keys"]}
    return {k: lifting_tensor(k, s) for k, s in entry["keys"]}


# ----------------------------------------------------------------------------------------------------------- inputs
def image(height: int = 256, width: int = 192, batch: int = 2, name: str = "input") -> np.ndarray:
    """(batch, 3, height, width) float32, unit variance: what a network receives after normalisation."""
    shape = (batch, 3, height, width)
    return (math.sqrt(12.0) * half(name, math.prod(shape))).reshape(shape).astype(np.float32)


def joints(batch: int = 2, keypoints: int = 17, width: int = 192, height: int = 256):
    """Joint positions in input pixels (batch, keypoints, 2) and weights (batch, keypoints, 1); [0, 3] and [1, 10] are
    unlabelled."""
    v = half("joints", batch * keypoints * 2).reshape(batch, keypoints, 2)
    xy = np.stack([width / 2 + 0.83 * width * v[..., 0], height / 2 + 0.86 * height * v[..., 1]], -1).astype(np.float32)
    weight = np.ones((batch, keypoints, 1), np.float32)
    weight[0, 3] = 0.0
    if batch > 1:
        weight[1, 10] = 0.0
    return xy, weight


def synth_heatmaps(tag: str, batch: int = 2, keypoints: int = 17, height: int = 64, width: int = 48) -> np.ndarray:
    """Gaussian peaks (sigma 2) at sub-pixel places shared by every tag, amplitude and noise by tag: input of
    decode.npz."""
    n = batch * keypoints
    v = half("peaks", n * 2).reshape(batch, keypoints, 2)
    cx = (width / 2 + 0.8 * width * v[..., 0])[..., None, None]
    cy = (height / 2 + 0.8 * height * v[..., 1])[..., None, None]
    g = np.exp(
        -((np.arange(width)[None, None, None] - cx) ** 2 + (np.arange(height)[None, None, :, None] - cy) ** 2) / 8.0
    )
    amplitude = 0.9 + 0.2 * half("amp" + tag, n).reshape(batch, keypoints, 1, 1)
    noise = 0.02 * half("noise" + tag, n * height * width).reshape(g.shape)
    return (amplitude * g + noise).astype(np.float32)


def flipped_heatmaps(tag: str, pairs=COCO_FLIP_PAIRS) -> np.ndarray:
    """What a network would return on the mirrored image: ``synth_heatmaps(tag)`` with left/right swapped and
    mirrored."""
    maps = synth_heatmaps(tag)
    for a, b in pairs:
        maps[:, [a, b]] = maps[:, [b, a]]
    return np.ascontiguousarray(maps[..., ::-1])


def poses(batch: int, frames: int, joints_: int = 17, channels: int = 2, tag: str = "x") -> np.ndarray:
    """Smooth pseudo-motion (batch, frames, joints, channels) float32: six sines per coordinate."""
    n = batch * joints_ * channels * 6
    lead = (batch, 1, joints_, channels, 6)
    order = np.arange(1, 7)
    a = sign(tag + "A", n).reshape(lead) / order
    w = (0.5 + unit(tag + "W", n)).reshape(lead) * order
    p = (2 * np.pi * unit(tag + "P", n)).reshape(lead)
    t = (np.arange(frames) / frames).reshape(1, frames, 1, 1, 1)
    return (0.6 * (a * np.sin(2 * np.pi * w * t + p)).sum(-1)).astype(np.float32)


def density_noise(batch: int, frames: int) -> np.ndarray:
    """Stand-in for TPC's U[0,1) density noise: the golden-ratio sequence over the flattened (batch, frames)."""
    return ((0.6180339887498949 * (np.arange(batch * frames) + 1)) % 1.0).astype(np.float32).reshape(batch, frames)
