"""SDPose: cycles and self-distillation for human poses; on a CPU in four minutes, or on COCO by the full recipe.

    pip install -e ".[all]"
    python examples/coco_sdpose.py               # painted figures, four kinds of training: table and picture
    python examples/coco_sdpose.py --data /data/coco --config sdpose_s_v1 --output runs/a
    torchrun --nproc-per-node 8 examples/coco_sdpose.py --data /data/coco --config sdpose_s_v1 --output runs/a
    python examples/coco_sdpose.py --data /data/coco --evaluate runs/a                 # AP at each exit
    cycledistill predict runs/a photos --output found                                  # skeletons on your pictures

Without --data: a data set in COCO's format is painted (figures with known joints, synthetic: nothing
measured on it says how a model does on photographs), one small TokenPose is trained in four ways from the same weights
on the same batches, and read at 1, 2 and 3 cycles. Options: --seeds, --steps, --jobs, --output, --figure. The learning
rate and sizes were chosen on another such data set (seed 0; this one has seed 1). Two seeds are too few for claims.
With --data the work is done by ``cycledistill.integrations.coco``: --model, --cycles, --set a.b=c and the rest.
"""

from __future__ import annotations

import argparse
import json
import math
import multiprocessing
import platform
import sys
import time
from collections.abc import Mapping, Sequence
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path
from typing import Any

if __name__ == "__main__":
    print("loading PyTorch and what else is needed", file=sys.stderr, flush=True)  # that takes seconds


import numpy as np
import torch
from PIL import Image
from torch.optim.lr_scheduler import LambdaLR

from cycledistill import CycleLoss, unwrap_cyclic, wrap_cyclic
from cycledistill.cost.report import cost
from cycledistill.files import atomic_write
from cycledistill.integrations.coco import HeatmapLoss, TokenPose, create_pose_model
from cycledistill.integrations.coco.data import (
    COCO,
    Augmentation,
    ImageStore,
    Person,
    PersonCrops,
    PictureBatches,
    annotated_persons,
    crop_loader,
    prepare_images,
    read_json,
    write_synthetic,
)
from cycledistill.integrations.coco.deploy import output_difference, prepare_for_inference
from cycledistill.integrations.coco.draw import draw_poses, side_by_side
from cycledistill.integrations.coco.evaluation import evaluate, load_ground_truth
from cycledistill.integrations.coco.losses.targets import heatmap_targets
from cycledistill.integrations.coco.predict import predict
from cycledistill.integrations.coco.train import COMMAND
from cycledistill.recipes.weights import read_weights, write_weights

# What distinguishes the arms: the preset given to wrap_cyclic; None is the plain model. base_eq is base with its steps
# multiplied by what cycles were measured to cost, and the schedule stretched.
ARMS = {"base": None, "base_eq": None, "exits": "exits", "sdpose": "sdpose"}
CYCLES = 2  # while training
EXITS = (1, 2, 3)  # cycles at inference; three is one more than was trained
# TokenPose-S-V1 made small: 64 x 48 pixels, two layers of width 64 on a narrow stem.
MODEL = {"image_size": (64, 48), "dim": 64, "depth": 2, "heads": 4, "stage1_width": 16, "head_hidden": 256}
AUGMENTATION = Augmentation(shift_probability=0, half_body_probability=0, scale=0.1, rotation=10)
TRAIN_PICTURES, VAL_PICTURES, DATA_SEED = 600, 150, 1
BATCH, LEARNING_RATE, SIGMA = 8, 2e-3, 1.5
METRICS = {"AP": "AP, %", "oks": "mean OKS, %", "pck": "PCK at 0.2 of the torso, %"}

DEMO = {"seeds", "steps", "figure", "jobs"}  # options of the comparison
Runs = Mapping[str, list[dict[str, Any]]]  # arm -> one record a seed


def build_model(seed: int) -> TokenPose:
    """The plain network; every arm of a seed starts from the same weights."""
    torch.manual_seed(seed)
    return create_pose_model("tokenpose_s_v1", num_keypoints=len(COCO), **MODEL)


def load_part(root: Path, part: str) -> tuple[Any, list[Person], ImageStore]:
    """Annotations, their persons and the pictures of ``train2017`` or ``val2017``."""
    annotations = read_json(root / "annotations" / f"person_keypoints_{part}.json")
    return annotations, annotated_persons(annotations, COCO, MODEL["image_size"]), ImageStore(root / part)  # type: ignore[arg-type]


def train(model: TokenPose, persons: list[Person], images: ImageStore, steps: int, seed: int) -> float:
    """An ordinary training loop, the same for plain and wrapped models; returns its CPU seconds."""
    size, maps = model.config.image_size, model.config.heatmap_size
    batches = PictureBatches(persons, BATCH, shuffle=True, seed=seed, drop_last=True)
    loader = crop_loader(PersonCrops(persons, images, COCO, size, AUGMENTATION, seed), batches)
    criterion = CycleLoss(HeatmapLoss())  # a plain output goes straight to the task loss
    optimizer = torch.optim.Adam(model.parameters(), lr=LEARNING_RATE)
    warmup = max(1, steps // 30)
    schedule = LambdaLR(optimizer, lambda step: min((step + 1) / warmup, (1 + math.cos(math.pi * step / steps)) / 2))
    model.train()
    began, step = time.process_time(), 0
    while step < steps:
        for batch in loader:
            loss = criterion(
                model(prepare_images(batch["image"])),
                *heatmap_targets(batch["joints"], batch["visible"], size, maps, SIGMA),
            )
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            schedule.step()
            step += 1
            if step == steps:
                break
        batches.epoch += 1
    return time.process_time() - began


def run_arm(root: Path, output: Path, arm: str, seed: int, steps: int) -> dict[str, Any]:
    """Train one arm from one seed, read it at every exit, take the plain model back, prepare it for inference."""
    torch.set_num_threads(1)  # tensors this small are slower on more
    _, persons, images = load_part(root, "train2017")
    annotations, val_persons, val_images = load_part(root, "val2017")
    model = build_model(seed)
    if ARMS[arm] is not None:
        wrap_cyclic(model, cycles=CYCLES, distill=ARMS[arm])
    seconds = train(model, persons, images, steps, seed)
    if ARMS[arm] is None:
        wrap_cyclic(model, cycles=1, distill=None)  # trained as it is; wrapped to be read at more cycles too
    truth = load_ground_truth(annotations, COCO)
    found = evaluate(model, val_persons, val_images, COCO, truth, exits=EXITS)
    crops = PersonCrops(val_persons, val_images, COCO, model.config.image_size)
    examples = prepare_images(crops.__getitems__([(0, index) for index in range(min(16, len(crops)))])["image"])
    folded = output_difference(prepare_for_inference(model, examples), model, examples)
    with torch.no_grad():
        wrapped = model.eval()(examples)
        if not torch.equal(unwrap_cyclic(model)(examples), wrapped):
            raise AssertionError("the unwrapped model does not answer like the wrapped one at one cycle")
    if seed == 0:
        write_weights(model.state_dict(), output / f"{arm}.pt")
    measured = {key: [100 * found[exit][key] for exit in EXITS] for key in METRICS}
    return {"seed": seed, "steps": steps, "cpu_seconds": seconds, "prepared_differs_by": folded, **measured}


def measure_cost(root: Path, rounds: int = 3) -> float:
    """CPU time of an sdpose step over that of a base step: median of rounds in which the two take turns."""
    _, persons, images = load_part(root, "train2017")
    base, sdpose = build_model(0), wrap_cyclic(build_model(0), CYCLES, "sdpose")
    ratios = [train(sdpose, persons, images, 12, 0) / train(base, persons, images, 12, 0) for _ in range(rounds + 1)]
    return float(np.median(ratios[1:]))


def run_study(root: Path, output: Path, seeds: int, steps: int, jobs: int) -> Runs:
    """Every arm from every seed, ``jobs`` at a time; base_eq with as many steps as sdpose costs in steps of base."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    longer = round(steps * measure_cost(root))
    tasks = [(root, output, a, seed, longer if a == "base_eq" else steps) for seed in range(seeds) for a in ARMS]
    records = []
    with ProcessPoolExecutor(jobs, multiprocessing.get_context("spawn")) as pool:
        for task, record in zip(
            tasks, (pool.map if jobs > 1 else map)(run_arm, *zip(*tasks, strict=True)), strict=True
        ):
            shown = ", ".join(f"{value:.1f}" for value in record["AP"])
            print(f"seed {task[3]}, {task[2]:<8} AP at {EXITS} cycles: {shown}", flush=True)
            records.append(record)
    torch.set_num_threads(threads)
    return {arm: records[place :: len(ARMS)] for place, arm in enumerate(ARMS)}


def training_cost(runs: Runs, arm: str) -> float:
    """CPU time of an arm's training relative to base's of the same seed, median over the seeds."""
    return float(np.median([a["cpu_seconds"] / b["cpu_seconds"] for a, b in zip(runs[arm], runs["base"], strict=True)]))


def table(runs: Runs) -> str:
    """Each metric at each exit, mean over the seeds and the seeds themselves; what training and inference cost."""
    report = cost(build_model(0), torch.zeros(1, 3, *MODEL["image_size"]), cycles=EXITS[-1])  # type: ignore[misc]
    heads = [f"{exit} cycle{'s' * (exit > 1)}" for exit in EXITS]
    lines = []
    for key, name in METRICS.items():
        rows = [[name, "steps", "cost", *heads]]
        for arm, records in runs.items():
            cells = [f"{np.mean(each):.1f} ({' '.join(f'{value:.1f}' for value in each)})" for each in
                     zip(*(record[key] for record in records), strict=True)]  # fmt: skip
            rows.append([arm, str(records[0]["steps"]), f"{training_cost(runs, arm):.2f}", *cells])
        lines += [f"{r[0]:<28}{r[1]:>6}{r[2]:>7}" + "".join(f"{cell:>24}" for cell in r[3:]) for r in rows]
    macs = "".join(f"{each.total / 1e6:>24.1f}" for each in report.exits)
    return "\n".join([*lines, f"{'MMACs a person':<41}{macs}"])


def draw(root: Path, output: Path, path: Path, rows: int = 3) -> None:
    """The first validation pictures: truth, and what base and sdpose of seed 0 predict in one cycle."""
    annotations, _, images = load_part(root, "val2017")
    lines = []
    for info in annotations["images"][:rows]:
        picture = images.read(info["file_name"])
        entries = [entry for entry in annotations["annotations"] if entry["image_id"] == info["id"]]
        poses = [np.array([entry["keypoints"] for entry in entries]).reshape(len(entries), -1, 3)]
        for arm in ("base", "sdpose"):
            model = build_model(0)
            model.load_state_dict(read_weights(output / f"{arm}.pt"))
            poses += predict(model, [picture], [[entry["bbox"] for entry in entries]])  # type: ignore[arg-type]
        lines.append(side_by_side([draw_poses(picture, each) for each in poses], ["truth", "base", "sdpose, 1 cycle"]))
    path.parent.mkdir(parents=True, exist_ok=True)
    few = Image.fromarray(np.concatenate(lines)).quantize(256, Image.Quantize.MAXCOVERAGE)  # a tenth of the bytes
    atomic_write(path, few.save)


def save_results(runs: Runs, path: Path) -> None:
    """Every run as JSON."""
    record = {
        "data": f"synthetic figures, {TRAIN_PICTURES} train / {VAL_PICTURES} val pictures, seed {DATA_SEED}",
        "device": f"CPU ({platform.machine()}), one thread a run",
        "versions": {"torch": torch.__version__, "python": platform.python_version()},
        "model": MODEL,
        "exits": EXITS,
        "protocol": "annotated boxes, flip test, DARK, OKS-NMS 0.9, COCO AP by pycocotools; percent",
        "training_cost": {arm: training_cost(runs, arm) for arm in runs},
        "runs": runs,
    }
    atomic_write(path, lambda file: file.write_text(json.dumps(record, indent=1), encoding="utf-8"))


def main(argv: Sequence[str] | None = None) -> int:
    """Run the comparison, or hand over to the recipe."""
    parser = COMMAND.parser()
    parser.prog, parser.description = Path(__file__).name, __doc__
    parser.formatter_class = argparse.RawDescriptionHelpFormatter
    demo = parser.add_argument_group("the comparison on painted figures (without --data)")
    demo.add_argument("--seeds", type=int, default=2, help="paired seeds (default %(default)s)")
    demo.add_argument("--steps", type=int, default=1600, help="training steps of base (default %(default)s)")
    demo.add_argument("--jobs", type=int, default=2, help="processes (default %(default)s)")
    demo.add_argument("--figure", type=Path, metavar="FILE", help="the picture (default poses.png in --output)")
    args = parser.parse_args(argv)
    given = {name for name, value in vars(args).items() if value != parser.get_default(name)} - {"output"}
    if given - DEMO:
        if given & DEMO or not given & {"data", "config", "evaluate", "resume"}:
            parser.error(f"{', '.join('--' + name.replace('_', '-') for name in sorted(given))}: recipe options need "
                         f"--data, and know no --{', --'.join(sorted(DEMO))}")  # fmt: skip
        return COMMAND.main(argv)
    if args.seeds < 1 or args.steps < 1 or args.jobs < 1:
        parser.error(f"--seeds {args.seeds} --steps {args.steps} --jobs {args.jobs}: at least 1 of each is needed")
    output = Path(args.output or "runs/coco_sdpose")
    picture, numbers = args.figure or output / "poses.png", output / "results.json"
    print(f"painting pictures; then {args.seeds} seeds of four kinds of training, {args.steps} steps", file=sys.stderr)
    root = write_synthetic(output / "data", TRAIN_PICTURES, VAL_PICTURES, seed=DATA_SEED)
    runs = run_study(root, output, args.seeds, args.steps, args.jobs)
    print(
        f"\n{table(runs)}\n\nMeans over {args.seeds} seeds, each seed in brackets. Annotated boxes of painted figures."
    )
    print("All models were unwrapped, and answer bit for bit as they did at one cycle.")
    save_results(runs, numbers)
    draw(root, output, picture)
    print(f"Picture: {picture}   Numbers: {numbers}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
