"""COCO-WholeBody annotations and results by formula, for the comparison with its own evaluation."""

from __future__ import annotations

from typing import Any

import numpy as np

FIELDS = {"keypoints": 17, "foot_kpts": 6, "face_kpts": 68, "lefthand_kpts": 21, "righthand_kpts": 21}


def wholebody_file(persons: int = 24, pictures: int = 6) -> tuple[dict[str, Any], list[dict[str, Any]]]:
    """Annotations as COCO-WholeBody's files hold them, and results as its evaluation takes them."""
    rng = np.random.default_rng(7)
    images = [
        {"id": 10 + number, "file_name": f"{number}.png", "width": 640, "height": 480} for number in range(pictures)
    ]
    entries: list[dict[str, Any]] = []
    results: list[dict[str, Any]] = []
    for number in range(persons):
        corner, side = rng.uniform(0, 200, 2), rng.uniform(30, 240)
        box = [*corner.tolist(), float(side), float(1.5 * side)]
        entry: dict[str, Any] = {"id": number + 1, "image_id": 10 + number % pictures, "category_id": 1, "bbox": box}
        entry |= {"iscrowd": int(number == 5), "area": float(0.7 * side * side)}
        result = {key: entry[key] for key in ("image_id", "category_id")} | {"score": float(rng.uniform(0.2, 1))}
        for place, (field, joints) in enumerate(FIELDS.items()):
            valid = (number + place) % 4 > 0
            reach = 0.4 if field == "keypoints" else 1.0  # the area of a prediction is that of its body alone
            points = corner + rng.uniform(0, 1, (joints, 2)) * [reach * side, reach * 1.5 * side]
            flags = rng.integers(0, 3, joints) * valid
            labels = np.concatenate([points * (flags > 0)[:, None], flags[:, None]], 1)
            entry[field] = labels.ravel().tolist()
            if field != "keypoints":
                entry[field.replace("_kpts", "_valid")] = bool(valid)
            found = points + rng.normal(0, side * rng.choice([0.002, 0.01, 0.05]), (joints, 2))
            scores = rng.uniform(0.1, 1, (joints, 1)) * ((number + place) % 7 > 0)
            result[field] = np.concatenate([found, scores], 1).ravel().tolist()
        entry["num_keypoints"] = sum(flag > 0 for flag in entry["keypoints"][2::3])
        entry |= {"face_box": box, "lefthand_box": [*box[:2], 20.0, 30.0], "righthand_box": [*box[:2], 25.0, 15.0]}
        entries.append(entry)
        results += [result] if number % 5 else [result, {**result, "score": result["score"] / 2}]
    names = ["nose", "left_eye", "right_eye", "left_ear", "right_ear"]
    names += [f"{s}_{p}" for p in ("shoulder", "elbow", "wrist", "hip", "knee", "ankle") for s in ("left", "right")]
    category = {"id": 1, "name": "person", "keypoints": names}
    return {"images": images, "annotations": entries, "categories": [category], "info": {}}, results
