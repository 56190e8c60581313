"""How many persons a second one core prepares for training, by stage, against a plain per-sample version.

    python benchmarks/data_pipeline.py                                   # generated pictures
    python benchmarks/data_pipeline.py --images coco.zip/val2017 --annotations person_keypoints_val2017.json

"After decoding" is everything between a decoded picture and normalised float input with heatmap targets. The plain
version is what the usual top-down code does: mirror the picture, warp, normalise in NumPy, one target a joint. Bar:
after decoding, at least 1.8 times the plain version. The share of the decoder is printed because it bounds the whole.
"""

from __future__ import annotations

import argparse
import statistics
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import torch
from common import RESULTS, write  # beside this file

from cycledistill.integrations.coco.data.annotations import Person, annotated_persons, read_json
from cycledistill.integrations.coco.data.augment import Augmentation, draw_crop
from cycledistill.integrations.coco.data.dataset import MEAN, STD, PersonCrops, PictureBatches, prepare_images
from cycledistill.integrations.coco.data.images import ImageStore
from cycledistill.integrations.coco.data.joints import COCO
from cycledistill.integrations.coco.draw import write_picture
from cycledistill.integrations.coco.losses.targets import heatmap_targets

BAR = 1.8
SIZE, HEATMAP = (256, 192), (64, 48)


def generated(folder: Path, pictures: int = 24, persons: int = 3) -> dict[str, Any]:
    """COCO-sized JPEG pictures of smooth noise with random persons, written to ``folder``."""
    rng = np.random.default_rng(0)
    images, annotations = [], []
    for number in range(1, pictures + 1):
        coarse = rng.integers(0, 255, (30, 40, 3), dtype=np.uint8)
        name = f"{number:06d}.jpg"
        write_picture(cv2.resize(coarse, (640, 480), interpolation=cv2.INTER_CUBIC), folder / name)
        images.append({"id": number, "file_name": name, "width": 640, "height": 480})
        for _ in range(persons):
            x, y, w, h = (float(v) for v in rng.uniform((0, 0, 60, 120), (500, 300, 140, 180)))
            points = np.concatenate([rng.uniform((x, y), (x + w, y + h), (17, 2)), np.full((17, 1), 2.0)], 1)
            flat = points.ravel().tolist()
            entry = {"id": len(annotations) + 1, "image_id": number, "category_id": 1, "bbox": [x, y, w, h]}
            annotations.append({**entry, "area": w * h, "keypoints": flat})
    return {"images": images, "annotations": annotations}


def plain_sample(picture: np.ndarray, person: Person, rng: np.random.Generator) -> tuple[np.ndarray, np.ndarray]:
    """One sample the usual way: mirror, warp, normalise, one Gaussian a joint."""
    crop = draw_crop(person, picture.shape[1], COCO, SIZE, Augmentation(flip_probability=0.0), rng)
    place, visible, matrix = crop.joints, crop.visible, crop.matrix
    if rng.random() < 0.5:
        picture = np.ascontiguousarray(picture[:, ::-1])
    warped = cv2.warpAffine(picture, matrix, (SIZE[1], SIZE[0]), flags=cv2.INTER_LINEAR)
    image = ((warped.astype(np.float32) / 255 - np.array(MEAN, np.float32)) / np.array(STD, np.float32)).transpose(
        2, 0, 1
    )
    targets = np.zeros((len(place), *HEATMAP), np.float32)
    x, y = np.arange(HEATMAP[1], dtype=np.float32), np.arange(HEATMAP[0], dtype=np.float32)[:, None]
    for joint, (cx, cy) in enumerate(place / 4):
        if visible[joint] > 0:
            targets[joint] = np.exp(-((x - cx) ** 2 + (y - cy) ** 2) / 8)
    return np.ascontiguousarray(image), targets


def seconds(work: Callable[[], Any]) -> float:
    """Process CPU time of one call."""
    start = time.process_time()
    work()
    return time.process_time() - start


def measure(persons: list[Person], store: ImageStore, repeats: int) -> dict[str, float]:
    """Medians of interleaved repeats: CPU seconds per person of every stage."""
    ours = PersonCrops(persons, store, COCO, SIZE, Augmentation())
    batches = [keys for keys in PictureBatches(persons, 64, shuffle=True) if len(keys) > 1]
    names = sorted({person.file_name for person in persons})
    pictures = {name: store.read(name) for name in names}
    files = {index: pictures[person.file_name] for index, person in enumerate(persons)}
    cached = PersonCrops(persons, store, COCO, SIZE, Augmentation())
    cached._read = pictures.__getitem__  # type: ignore[method-assign]
    count = sum(len(keys) for keys in batches)

    def plain() -> None:
        for keys in batches:
            rows = [plain_sample(files[i], persons[i], np.random.default_rng((0, e, i))) for e, i in keys]
            torch.from_numpy(np.stack([image for image, _ in rows]))
            torch.from_numpy(np.stack([target for _, target in rows]))

    def after_decoding() -> None:
        for keys in batches:
            batch = cached.__getitems__(keys)
            prepare_images(batch["image"])
            heatmap_targets(batch["joints"], batch["visible"], SIZE, HEATMAP)

    prepared = [cached.__getitems__(keys) for keys in batches]
    work: dict[str, Callable[[], Any]] = {
        "decode each picture once": lambda: [store.read(name) for name in names],
        "decode for each person": lambda: [store.read(person.file_name) for person in persons],
        "draw and warp": lambda: [cached.__getitems__(keys) for keys in batches],
        "normalise": lambda: [prepare_images(batch["image"]) for batch in prepared],
        "targets": lambda: [heatmap_targets(batch["joints"], batch["visible"], SIZE, HEATMAP) for batch in prepared],
        "after decoding": after_decoding,
        "plain, after decoding": plain,
        "whole pipeline": lambda: [
            (prepare_images(b["image"]), heatmap_targets(b["joints"], b["visible"], SIZE, HEATMAP))
            for b in map(ours.__getitems__, batches)
        ],
    }
    times: dict[str, list[float]] = {name: [] for name in work}
    for _ in range(repeats):
        for name, job in work.items():
            times[name].append(seconds(job))
    return {name: statistics.median(values) / count for name, values in times.items()}


def main() -> None:
    """Measure, print the table, write the JSON."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--images", help="folder, or zip file with an optional folder inside it")
    parser.add_argument("--annotations", help="COCO keypoint file; default: generated pictures")
    parser.add_argument("--repeats", type=int, default=7)
    parser.add_argument("--output", type=Path, default=RESULTS / "data_pipeline-cpu.json")
    options = parser.parse_args()
    if bool(options.images) != bool(options.annotations):
        parser.error("--images and --annotations go together")
    torch.set_num_threads(1)
    cv2.setNumThreads(1)
    with tempfile.TemporaryDirectory() as folder:
        annotations = read_json(options.annotations) if options.annotations else generated(Path(folder))
        store = ImageStore(options.images or folder)
        persons = annotated_persons(annotations, COCO, SIZE)
        found = measure(persons, store, options.repeats)
    ratio = found["plain, after decoding"] / found["after decoding"]
    share = found["decode each picture once"] / found["whole pipeline"]
    print(f"{'stage':<28}{'ms a person':>12}{'persons/s a core':>18}")
    for name, value in found.items():
        print(f"{name:<28}{value * 1e3:>12.3f}{1 / value:>18.0f}")
    verdict = "met" if ratio >= BAR else "MISSED"
    print(f"after decoding: {ratio:.2f} times the plain version (bar {BAR}: {verdict}); decoder's share {share:.0%}")
    record = {
        "persons": len(persons), "pictures": "own" if options.images else "generated", "milliseconds_per_person":
        {name: value * 1e3 for name, value in found.items()}, "ratio_after_decoding": ratio, "bar": BAR,
        "decoder_share": share, "opencv": cv2.__version__, "torch": torch.__version__,
    }  # fmt: skip
    write(options.output, record)


if __name__ == "__main__":
    main()
