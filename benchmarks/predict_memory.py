"""How much memory `cycledistill predict` takes for a folder of photographs, and how many it does a second.

    python benchmarks/predict_memory.py                    # 4,000 made photographs of 1920 x 1080, a small network
    python benchmarks/predict_memory.py --model sdpose_s_v1 --number 400

Everything is read, predicted and written, drawn pictures too. The photographs are 40 different ones, each linked under
many names. Peak memory is that of the whole process, PyTorch included, after the first tenth and in the end: what grows
between them grows with the number of pictures. Bar: 4,000 in under 2 GB.
"""

from __future__ import annotations

import os
import resource
import sys
import tempfile
from pathlib import Path

import cv2
import numpy as np
import torch
from common import RESULTS, Row, conditions, study_parser, write  # beside this file

from cycledistill.integrations.coco import TokenPose, create_pose_model
from cycledistill.integrations.coco.draw import write_picture
from cycledistill.integrations.coco.evaluation.measure import EvalSettings
from cycledistill.integrations.coco.prediction import open_source, predict_source
from cycledistill.recipes.prediction.sources import PictureFiles

BAR = 2e9
SIZE = (1920, 1080)
DIFFERENT = 40


def photographs(folder: Path, number: int) -> None:
    """JPEG files of smooth noise under names from 1 on."""
    rng = np.random.default_rng(0)
    for index in range(1, number + 1):
        file = folder / f"{index:06d}.jpg"
        if index <= DIFFERENT:
            coarse = rng.integers(0, 255, (27, 48, 3), dtype=np.uint8)
            write_picture(cv2.resize(coarse, SIZE, interpolation=cv2.INTER_CUBIC), file)
        else:
            os.link(folder / f"{(index - 1) % DIFFERENT + 1:06d}.jpg", file)


def network(name: str | None, size: tuple[int, int] = (64, 48)) -> TokenPose:
    """A model by name, or a small one."""
    if name is not None:
        return create_pose_model(name)
    small = {"backbone": "none", "patch_size": (16, 12), "dim": 16, "depth": 2, "heads": 2}
    return create_pose_model("tokenpose_s_v1", image_size=size, **small)


def peak() -> float:
    """Most bytes that this process had in memory."""
    unit = 1 if sys.platform == "darwin" else 1024
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit


def measure(model: TokenPose, number: int, folder: Path) -> Row:
    """Peak memory and rate of the first tenth and of all."""
    (folder / "photos").mkdir()
    photographs(folder / "photos", number)
    source = open_source(folder / "photos")
    assert isinstance(source, PictureFiles)
    row: Row = {"pictures": number, "bytes before": peak()}
    tenth = open_source(folder / "photos", max(1, number // 10))
    predict_source(model, tenth, folder / "first", settings=EvalSettings())
    row["bytes after a tenth"] = peak()
    done = predict_source(model, source, folder / "all", settings=EvalSettings(), progress=True)
    return row | {"bytes": peak(), "pictures a second": round(done.rate, 1), "persons": done.persons}


def main(argv: list[str] | None = None) -> int:
    """Measure, print, write the JSON."""
    parser = study_parser(__doc__, RESULTS / "predict_memory-cpu.json")
    parser.add_argument("--number", type=int, default=4000, help="photographs")
    parser.add_argument("--model", help="a pose model by name (default: a small one)")
    parser.add_argument("--folder", type=Path, help="where photographs and predictions are kept for the while")
    options = parser.parse_args(argv)
    torch.manual_seed(0)
    with tempfile.TemporaryDirectory(dir=options.folder) as folder:
        row = measure(network(options.model), options.number, Path(folder))
    facts = {**conditions(torch.device("cpu"), 1), "clock": "wall time"}
    record: Row = {"conditions": facts, "model": options.model or "small", **row}
    write(options.out, record)
    parts = [f"{name}: {value / 1e6:.0f} MB" if "bytes" in name else f"{name}: {value}" for name, value in row.items()]
    sys.stdout.write(f"{', '.join(parts)}\n{'under' if row['bytes'] < BAR else 'OVER'} the bar of {BAR / 1e9:.0f} GB\n")
    return 0 if row["bytes"] < BAR else 1


if __name__ == "__main__":
    sys.exit(main())
