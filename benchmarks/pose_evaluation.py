"""How long does AP of poses take by pycocotools, and by faster-coco-eval where it is installed?

    python benchmarks/pose_evaluation.py                 # 1,000 generated pictures, a minute of one core
    python benchmarks/pose_evaluation.py --pictures 5000 --repeats 3

Pictures of one to six persons, 17 joints, three predictions for each person, as a detector's boxes bring. Both give the
same ten numbers, or nothing is timed. One thread, process CPU time, in interleaved rounds whose order turns each time.
Bar: faster-coco-eval in a third of the time.
"""

from __future__ import annotations

import functools
import statistics
import sys
from typing import Any

import numpy as np
import torch
from common import RESULTS, conditions, paired_ratio, show, study_parser, verdict, versions, write  # beside this file
from on_gpu.forms import timed

from cycledistill.integrations.coco.data import COCO
from cycledistill.integrations.coco.evaluation import load_ground_truth
from cycledistill.integrations.coco.evaluation.protocol import coco_numbers

BAR = 1 / 3


def scene(pictures: int, seed: int = 0) -> tuple[dict[str, Any], list[dict[str, Any]]]:
    """Annotations, and predictions of which some are near and some are not."""
    draw = np.random.default_rng(seed)
    annotations: list[dict[str, Any]] = []
    results: list[dict[str, Any]] = []
    for image in range(1, pictures + 1):
        for _ in range(draw.integers(1, 7)):
            corner, side = draw.uniform(0, 400, 2), draw.uniform(30, 240)
            points = corner + draw.uniform(0, side, (17, 2))
            seen = draw.integers(0, 3, (17, 1))
            person = {"bbox": [*corner.tolist(), side, side], "area": float(side * side / 2), "category_id": 1}
            labels = np.concatenate([points, seen], axis=1).ravel().tolist()
            annotations.append({"id": len(annotations) + 1, "image_id": image, "keypoints": labels, **person})
            for off in draw.uniform(0, 0.15 * side, 3):
                guess = np.concatenate([points + draw.normal(0, off, (17, 2)), draw.uniform(0, 1, (17, 1))], axis=1)
                found = {"keypoints": guess.ravel().tolist(), "score": float(draw.uniform())}
                results.append({"image_id": image, "category_id": 1, **found})
    images = [{"id": number, "width": 640, "height": 640} for number in range(1, pictures + 1)]
    return {"images": images, "annotations": annotations}, results


def main(argv: list[str] | None = None) -> int:
    """Compare the numbers, measure, print the table, write the JSON."""
    parser = study_parser(__doc__, RESULTS / "pose_evaluation-cpu.json")
    parser.add_argument("--pictures", type=int, default=1000)
    parser.add_argument("--repeats", type=int, default=5, help="rounds of each comparison")
    options = parser.parse_args(argv)
    torch.set_num_threads(1)
    annotations, results = scene(options.pictures)
    truth = load_ground_truth(annotations, COCO)
    images = list(range(1, options.pictures + 1))
    calls = {
        name: functools.partial(coco_numbers, truth, results, COCO.sigmas, images, faster=name == "faster-coco-eval")
        for name in ("pycocotools", "faster-coco-eval")
    }
    found = {name: call() for name, call in calls.items()}
    np.testing.assert_allclose(found["faster-coco-eval"], found["pycocotools"], rtol=0, atol=1e-12)
    device = torch.device("cpu")
    record: dict[str, Any] = {"conditions": conditions(device, options.repeats), "bar": BAR}
    record["conditions"]["versions"] |= versions("pycocotools", "faster-coco-eval", "numpy")
    seconds, _ = timed(calls, device, options.repeats, warmup=1)
    ratio, spread = paired_ratio(seconds, "faster-coco-eval", "pycocotools")
    row = {"pictures": options.pictures, "persons": len(truth.annotations.counted()), "predictions": len(results)}
    rates = {f"seconds, {name}": statistics.median(values) for name, values in seconds.items()}
    row |= {"AP": float(found["pycocotools"][0]), "ratio": ratio, "spread": spread, **rates, "pass": ratio <= BAR}
    write(options.out, record | {"rows": [row]})
    times = ", ".join(f"{name} {statistics.median(values):.2f} s" for name, values in seconds.items())
    what = f"{len(results)} predictions of {row['persons']} persons in {options.pictures} pictures"
    show(record, f"{what}: {times}; ratio {ratio:.3f} +-{spread:.3f} {verdict(ratio <= BAR)}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
