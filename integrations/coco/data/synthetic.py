"""A self-made data set in COCO's format: painted figures with known joints, for tests, demonstrations and trials.

Nothing in it is real, and no number measured on it says how a model does on photographs. What it has of the real thing:
several persons a picture, scale, attitude, colours, clutter, occlusion by others and by things, persons cut by the
border, and visibility flags, boxes and areas that follow from what is seen.
"""

from __future__ import annotations

import json
import logging
import tempfile
from dataclasses import replace
from pathlib import Path
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray

from cycledistill.recipes.reading.texts import read_json

from .figure import PARTS, SHOWN_BY, Figure, draw_figure, paint
from .images import PoseDataError
from .joints import COCO

_logger = logging.getLogger(__name__)

VERSION = 1
"""Of the pictures: raised whenever the same seed would paint others."""
_ZOOM = 2
_MAX_PERSONS = 4
_OCCLUDER = 255  # no part of a figure
_LEAST_SEEN = 0.45
"""A person of whom less is seen is not kept."""

Pixels = NDArray[np.uint8]


def write_synthetic(
    root: str | Path,
    train: int = 600,
    val: int = 150,
    *,
    size: tuple[int, int] = (240, 320),
    seed: int = 0,
) -> Path:
    """Write a data set of painted figures, laid out and named like COCO 2017, or find it there already.

    ``root/train2017/*.jpg``, ``root/val2017/*.jpg`` and ``root/annotations/person_keypoints_*.json``, so that recipes
    and pycocotools take it as they take COCO. The same arguments give the same pictures (for one version of OpenCV).

    Args:
        root: The folder to make. Nothing is left behind if writing fails.
        train: Pictures to train on.
        val: Pictures to evaluate on, of other random numbers.
        size: Height and width of a picture in pixels.
        seed: Of everything random.

    Returns:
        ``root``.

    Raises:
        ValueError: A number of pictures below 1, or pictures smaller than 64 pixels.
        PoseDataError: The folder exists and is not this data set.

    Example:
        >>> root = write_synthetic("figures", train=600, val=150)
        >>> recipe = load_recipe("sdpose_t", [f"data.root={root}", "data.detections=null"])
    """
    if train < 1 or val < 1 or min(size) < 64:
        raise ValueError(
            f"train={train}, val={val}, size={size}: at least 1 picture each, of at least 64 pixels a side"
        )
    root = Path(root)
    made_by = {"version": VERSION, "train": train, "val": val, "size": list(size), "seed": seed}
    if root.exists():
        _check_same(root, made_by)
        return root
    root.parent.mkdir(parents=True, exist_ok=True)
    # A name of its own, so that two processes that start together do not write into one folder.
    with tempfile.TemporaryDirectory(prefix=f"{root.name}.", dir=root.parent) as temporary:
        beside = Path(temporary) / root.name
        (beside / "annotations").mkdir(parents=True)
        for part, (name, count) in enumerate((("train2017", train), ("val2017", val))):
            (beside / name).mkdir()
            data = _write_part(beside / name, count, size, (seed, part))
            data["info"] = {"description": "synthetic figures, not photographs", "made_by": made_by}
            (beside / "annotations" / f"person_keypoints_{name}.json").write_text(json.dumps(data), encoding="utf-8")
            _logger.info("%s: %d pictures, %d persons", root / name, count, len(data["annotations"]))
        try:
            beside.replace(root)
        except OSError:  # another process was first, or this one may not write here
            _check_same(root, made_by)
    return root


def draw_scene(size: tuple[int, int], rng: np.random.Generator) -> tuple[Pixels, list[dict[str, Any]]]:
    """One picture with one to four persons.

    Args:
        size: Height and width in pixels.
        rng: Random numbers.

    Returns:
        The picture (H, W, 3), RGB, and its annotations: ``keypoints`` (x, y, v of COCO's 17 joints; v = 2 seen, 1
        hidden by something, 0 outside the picture), ``num_keypoints``, ``bbox`` and ``area`` of what is seen, in
        pixels.
    """
    while True:
        picture, mask = _background(size, rng), np.zeros((size[0] * _ZOOM, size[1] * _ZOOM), np.uint8)
        figures = _placed(size, rng)
        whole = []
        for number, figure in enumerate(figures, start=1):
            paint(figure, number, picture, mask, _ZOOM)
            whole.append(int((mask // PARTS == number).sum()))
        _clutter(picture, int(rng.integers(0, 3)), 0.12, rng, mask)
        persons = [_annotation(figure, number, mask) for number, figure in enumerate(figures, start=1)]
        seen = [person["area"] * _ZOOM**2 / area for person, area in zip(persons, whole, strict=True) if area]
        # A scene that hides somebody is drawn anew: its picture would show a person without an annotation.
        if len(seen) == len(persons) and min(seen) >= _LEAST_SEEN and min(p["num_keypoints"] for p in persons) >= 6:
            break
    small = cv2.resize(picture, size[::-1], interpolation=cv2.INTER_AREA)
    noise = rng.normal(0, rng.uniform(0, 7), small.shape)
    return np.clip(small + noise, 0, 255).astype(np.uint8), persons


def _write_part(folder: Path, count: int, size: tuple[int, int], seed: tuple[int, ...]) -> dict[str, Any]:
    images: list[dict[str, Any]] = []
    annotations: list[dict[str, Any]] = []
    for number in range(1, count + 1):
        picture, persons = draw_scene(size, np.random.default_rng((*seed, number)))
        name = f"{number:012d}.jpg"
        _, data = cv2.imencode(".jpg", picture[..., ::-1], [cv2.IMWRITE_JPEG_QUALITY, 92])
        (folder / name).write_bytes(data.tobytes())
        images.append({"id": number, "file_name": name, "width": size[1], "height": size[0]})
        for person in persons:
            ids = {"id": len(annotations) + 1, "image_id": number, "category_id": 1, "iscrowd": 0}
            annotations.append(ids | person)
    skeleton = [[start + 1, end + 1] for start, end in COCO.limbs]
    person = {"id": 1, "name": "person", "keypoints": list(COCO.names), "skeleton": skeleton}
    return {"images": images, "annotations": annotations, "categories": [person], "licenses": []}


def _placed(size: tuple[int, int], rng: np.random.Generator) -> list[Figure]:
    """Figures side by side, the larger (nearer) ones last; boxes overlap by a quarter at most."""
    height, width = size
    figures: list[Figure] = []
    boxes: list[NDArray[np.float64]] = []
    wanted = int(rng.integers(1, _MAX_PERSONS + 1))
    for tall in sorted(rng.uniform(0.3, 0.85, wanted) * height):
        for _ in range(8):
            figure = draw_figure(tall, rng)
            low, high = figure.joints.min(0), figure.joints.max(0)
            cut = 0.12 if rng.random() < 0.2 else -0.02  # how far it may reach over the border
            room = np.array([width, height]) + cut * tall - high
            start = -low - cut * tall
            shift = rng.uniform(np.minimum(start, room), np.maximum(start, room))
            box = np.concatenate([low + shift, high + shift])
            if all(_overlap(box, other) < 0.25 for other in boxes):
                figures.append(replace(figure, joints=figure.joints + shift))
                boxes.append(box)
                break
    return figures


def _overlap(box: NDArray[np.float64], other: NDArray[np.float64]) -> float:
    """What two boxes share, over the smaller one."""
    sides = np.clip(np.minimum(box[2:], other[2:]) - np.maximum(box[:2], other[:2]), 0, None)
    least = min(np.prod(box[2:] - box[:2]), np.prod(other[2:] - other[:2]))
    return float(np.prod(sides) / max(least, 1.0))


def _annotation(figure: Figure, number: int, mask: Pixels) -> dict[str, Any]:
    height, width = (side // _ZOOM for side in mask.shape)
    flat: list[float] = []
    for index, (x, y) in enumerate(figure.joints):
        if not (0 <= x <= width - 1 and 0 <= y <= height - 1):
            flat += [0.0, 0.0, 0]
            continue
        row, column = (
            min(round((v + 0.5) * _ZOOM - 0.5), side - 1) for v, side in zip((y, x), mask.shape, strict=True)
        )
        shown = int(mask[row, column]) in {PARTS * number + part for part in SHOWN_BY[index]}
        flat += [round(float(x), 2), round(float(y), 2), 2 if shown and index not in figure.hidden else 1]
    rows, columns = np.nonzero(mask // PARTS == number)
    if not len(rows):
        return {"keypoints": flat, "num_keypoints": 0, "bbox": [0.0, 0.0, 0.0, 0.0], "area": 0.0}
    left, top = columns.min() / _ZOOM, rows.min() / _ZOOM
    box = [left, top, (columns.max() + 1) / _ZOOM - left, (rows.max() + 1) / _ZOOM - top]
    return {
        "keypoints": flat,
        "num_keypoints": sum(flag > 0 for flag in flat[2::3]),
        "bbox": [float(value) for value in box],
        "area": len(rows) / _ZOOM**2,
    }


def _background(size: tuple[int, int], rng: np.random.Generator) -> Pixels:
    """Soft patches of colour with things in front of them."""
    grey = rng.uniform(20, 200) + rng.uniform(-30, 30, (5, 6, 1))
    patches = (grey + rng.uniform(-20, 20, (5, 6, 3))).astype(np.float32)
    shape = (size[1] * _ZOOM, size[0] * _ZOOM)
    picture: Pixels = np.clip(cv2.resize(patches, shape, interpolation=cv2.INTER_CUBIC), 0, 255).astype(np.uint8)
    _clutter(picture, int(rng.integers(6, 18)), 0.25, rng)
    return picture


def _clutter(
    picture: Pixels, number: int, largest: float, rng: np.random.Generator, mask: Pixels | None = None
) -> None:
    """Rectangles, discs and bars, over the figures where their mask is given."""
    height, width = picture.shape[:2]
    for _ in range(number):
        colour = tuple(int(c) for c in np.clip(rng.uniform(20, 230) + rng.uniform(-25, 25, 3), 0, 255))  # rather grey
        x, y = int(rng.integers(0, width)), int(rng.integers(0, height))
        w, h = (int(v) for v in rng.uniform(0.03, largest, 2) * height)
        kind, thick = int(rng.integers(0, 3)), max(2, int(rng.uniform(0.01, 0.06) * height))
        angle = float(rng.uniform(0, 180))
        for canvas, value in ((picture, colour), *(((mask, _OCCLUDER),) if mask is not None else ())):
            if kind == 0:
                cv2.rectangle(canvas, (x, y), (x + w, y + h), value, -1)
            elif kind == 1:
                cv2.ellipse(canvas, (x, y), (w // 2 + 1, h // 2 + 1), angle, 0, 360, value, -1)
            else:
                reach = 2 * np.array([np.cos(angle), np.sin(angle)]) * h
                cv2.line(canvas, (x, y), (int(x + reach[0]), int(y + reach[1])), value, thick)


def _check_same(root: Path, made_by: dict[str, Any]) -> None:
    try:
        path = root / "annotations" / "person_keypoints_val2017.json"
        found = read_json(path, PoseDataError)["info"]["made_by"]
    except (PoseDataError, KeyError, TypeError):
        found = None
    if found != made_by:
        what = f"a synthetic data set made otherwise, {found}" if found else "something else"
        raise PoseDataError(f"{root} exists and holds {what}; {made_by} was asked for: give another folder")
