"""A data set of one moment: bright dots on dark pictures, in COCO's format, whose joints a tiny model can find."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import cv2
import numpy as np

SIZE = (64, 32)


def write_dots(root: Path, pictures: int = 6, persons: int = 2, joints: int = 17, seed: int = 0) -> Path:
    """Two parts of a data set, ``train`` and ``val``, of the same pictures; every joint is a dot of its own colour."""
    rng = np.random.default_rng(seed)
    images: list[dict[str, Any]] = []
    entries: list[dict[str, Any]] = []
    (root / "pictures").mkdir(parents=True)
    (root / "annotations").mkdir()
    layout = np.stack([np.linspace(4, 24, joints) * (np.arange(joints) % 2 * 0.5 + 0.5), np.linspace(4, 56, joints)], 1)
    for number in range(1, pictures + 1):
        picture = np.full((80, 100, 3), 30, np.uint8)
        for person in range(persons):
            corner = np.array([8 + 46 * person, 8]) + rng.integers(0, 4, 2)
            points = layout + corner + rng.uniform(-1, 1, (joints, 2))
            for index, (x, y) in enumerate(points):
                colour = (255, 40 + 12 * index, 255 - 12 * index)
                cv2.circle(picture, (round(float(x)), round(float(y))), 2, colour, -1)
            flat = np.concatenate([points, np.full((joints, 1), 2.0)], 1).ravel().tolist()
            box = {"bbox": [float(corner[0]), float(corner[1]), 30.0, 60.0], "area": 1800.0, "keypoints": flat}
            entries.append(
                {"id": len(entries) + 1, "image_id": number, "category_id": 1, "num_keypoints": joints, **box}
            )
        name = f"{number}.png"
        cv2.imwrite(str(root / "pictures" / name), picture)
        images.append({"id": number, "file_name": name, "width": 100, "height": 80})
    text = json.dumps({"images": images, "annotations": entries})
    for part in ("train", "val"):
        (root / "annotations" / f"{part}.json").write_text(text)
    found = [{key: entry[key] for key in ("image_id", "category_id", "bbox")} | {"score": 0.9} for entry in entries]
    (root / "detections.json").write_text(json.dumps(found))
    return root
