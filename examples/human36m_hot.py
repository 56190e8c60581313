"""What dropping and recovering frames does to a lifting transformer: on a CPU in minutes, or by the full recipe.

    pip install -e ".[all]"
    python examples/human36m_hot.py               # generated motion, four kinds of model: table and picture
    python examples/human36m_hot.py --data data_3d_h36m.npz data_2d_h36m_cpn_ft_h36m_dbb.npz \
        --calibration cameras.json --allow-pickle --config hot_mixste --output runs/hot  # Human3.6M, MixSTE, hourglass
    python examples/human36m_hot.py --data ... --calibration ... --output runs/hot --resume auto  # go on
    python examples/human36m_hot.py --evaluate runs/hot                                     # measure what was trained

Without --data: one small lifter with a token a frame (34 -> 96 channels, 6 levels, 27 frames), trained in full, with
the hourglass (9 frames from the second level on, recovered by learned attention), with the hourglass and two cycles,
and with linear interpolation in place of the attention; from the same initial weights on the same windows. Options:
--seeds, --steps, --processes, --output, --figure. The motion is made by formulas, so no figure here says anything
about people.

Read MPJPE beside the temporal standard deviation: the attention that recovers frames starts from a query that is zero
for every frame, so for a long time it answers with one still pose a window, which MPJPE hardly minds.

With --data the work is done by ``cycledistill.integrations.human36m``: --config, --cycles, --set a.b=c and the rest of
``cycledistill train human36m --help``. --allow-pickle lets the two files, which hold pickled objects, run code: only
for files you trust (``cycledistill.integrations.human36m.data.npz`` makes plain ones of them).
"""

from __future__ import annotations

import argparse
import dataclasses
import json
import math
import multiprocessing
import os
import platform
import statistics
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path
from typing import Any

if __name__ == "__main__":
    print("loading PyTorch and what else is needed", file=sys.stderr, flush=True)  # that takes seconds


import numpy as np
import torch
from torch import Tensor, nn

from cycledistill import CycleLoss, wrap_cyclic, wrap_hourglass
from cycledistill.cost.report import cost
from cycledistill.cost.timing import interleaved
from cycledistill.files import atomic_write
from cycledistill.integrations.human36m import create_lifter
from cycledistill.integrations.human36m.data import (
    Clip,
    LiftWindows,
    WindowBatches,
    chunk_bounds,
    film,
    generate_motion,
    window_frames,
    window_loader,
)
from cycledistill.integrations.human36m.draw import draw_sequences
from cycledistill.integrations.human36m.evaluation import EvalSettings, MotionScores, evaluate, predict
from cycledistill.integrations.human36m.train import main as run_recipe
from cycledistill.integrations.human36m.training.losses import mixste_total

FRAMES, KEEP, LAYER, CYCLES = 27, 9, 1, 2
EVERY = 3  # frames of the generated 50 a second: a window lasts 1.6 s
TRAIN, TEST, VIEWS = 48, 12, 2  # sequences and cameras
BATCH, LEARNING_RATE, WEIGHT_DECAY = 16, 2e-3, 0.05
WARMUP = 20
SETTINGS = EvalSettings(FRAMES, batch_size=64)

Arm = Callable[[nn.Module], object]
# What is done to the model of each arm. In evaluation the cycled one runs a single cycle, at the cost of "hot".
ARMS: dict[str, Arm] = {
    "full": lambda model: None,
    "hot": lambda model: wrap_hourglass(model, layer=LAYER, keep=KEEP),
    "hot, 2 cycles": lambda model: wrap_cyclic(wrap_hourglass(model, layer=LAYER, keep=KEEP), CYCLES, "sdpose"),
    "hot, linear": lambda model: wrap_hourglass(model, layer=LAYER, keep=KEEP, recover="linear"),
}
MEASURES = ("mpjpe", "p_mpjpe", "velocity", "temporal_std_ratio")
DIGITS = (1, 1, 2, 2)
STILL = "still pose (oracle)"


def load_data() -> tuple[list[Clip], list[Clip]]:
    """Clips to train and to test on, of different figures."""
    splits = []
    for count, first in ((TRAIN, 0), (TEST, TRAIN)):
        motions = generate_motion(count, frames=8 * FRAMES * EVERY, first=first)
        slower = [dataclasses.replace(motion, world=motion.world[::EVERY]) for motion in motions]
        splits.append(film(slower, VIEWS))
    return splits[0], splits[1]


def build_model(arm: str, seed: int) -> nn.Module:
    """The lifter of an arm; the network's weights depend on the seed alone."""
    torch.manual_seed(seed)
    model = create_lifter("frame_lifter", frames=FRAMES)
    ARMS[arm](model)
    return model


def train(model: nn.Module, clips: Sequence[Clip], steps: int, seed: int) -> float:
    """An ordinary training loop, the same for every arm; returns its CPU seconds."""
    criterion = CycleLoss(mixste_total)  # a plain output goes straight to the task loss
    windows = LiftWindows(clips, FRAMES, stride=KEEP, flip="random", seed=seed)
    batches = WindowBatches(len(windows), BATCH, shuffle=True, seed=seed)  # every arm of a seed sees the same windows
    loader = window_loader(windows, batches)
    optimizer = torch.optim.AdamW(model.parameters(), lr=LEARNING_RATE, weight_decay=WEIGHT_DECAY)
    model.train()
    torch.manual_seed(seed)
    began, step = time.process_time(), 0
    while step < steps:
        for batch in loader:
            rate = min(1.0, (step + 1) / WARMUP) * (1 + math.cos(math.pi * step / steps)) / 2
            for group in optimizer.param_groups:
                group["lr"] = LEARNING_RATE * rate
            loss = criterion(model(batch["inputs"]), batch["targets"], batch["inside"])
            optimizer.zero_grad()
            loss.backward()
            nn.utils.clip_grad_norm_(model.parameters(), 1.0)
            optimizer.step()
            step += 1
            if step == steps:
                break
        batches.epoch += 1
    return time.process_time() - began


def still_poses(clips: Sequence[Clip]) -> dict[str, Any]:
    """Figures of answering each window with its own mean pose: what a model that stands still can reach, no less."""
    scores = MotionScores()
    for clip in clips:
        places, inside = window_frames(chunk_bounds(len(clip), FRAMES), len(clip))
        for window, own in zip(places, inside, strict=True):
            target = torch.from_numpy(clip.targets[window[own]])[None]
            scores.add(clip.action, target.mean(dim=1, keepdim=True).expand_as(target), target)
    return scores.summary()


def measure_time(clips: int = 16, repeats: int = 9) -> dict[str, float]:
    """Milliseconds of CPU time a clip in evaluation, one thread: median of rounds in which the arms take turns."""
    given = torch.zeros(clips, FRAMES, 17, 2)
    models = {arm: build_model(arm, seed=0).eval() for arm in ARMS}

    def call(model: nn.Module) -> Callable[[], Tensor]:
        return torch.no_grad()(lambda: model(given))

    seconds = interleaved({arm: call(model) for arm, model in models.items()}, repeats=repeats, warmup=2)
    return {arm: 1000 * statistics.median(found) / clips for arm, found in seconds.items()}


def measure_macs() -> dict[str, tuple[float, float, int]]:
    """Millions of MACs a clip in evaluation, with and without attention matmuls, and parameters."""
    found = {}
    for arm in ARMS:
        report = cost(build_model(arm, seed=0), torch.zeros(1, FRAMES, 17, 2), cycles=1)
        found[arm] = (report.exits[0].total / 1e6, report.exits[0].weights / 1e6, report.parameters)
    return found


def table(record: Mapping[str, Any]) -> str:
    """Figures of every arm, mean and standard deviation over the seeds, and what they cost."""
    rows = [["", "MPJPE mm", "P-MPJPE mm", "velocity mm/frame", "std / truth's", "MMACs", "no attn.", "ms", "training"]]
    for arm in ARMS:
        runs = record["runs"][arm]
        cells = []
        for name, digits in zip(MEASURES, DIGITS, strict=True):
            values = [run[name] for run in runs]
            cells.append(f"{np.mean(values):.{digits}f} ± {np.std(values, ddof=1):.{digits}f}")
        macs, linear, _ = record["macs"][arm]
        spent = statistics.median(run["cpu_seconds"] / full["cpu_seconds"]
                                  for run, full in zip(runs, record["runs"]["full"], strict=True))  # fmt: skip
        rows.append([arm, *cells, f"{macs:.1f}", f"{linear:.1f}", f"{record['milliseconds'][arm]:.2f}", f"{spent:.2f}"])
    still = [record["still"][f"{name}_frame_mean"] for name in MEASURES]
    rows.append([STILL, *(f"{value:.{d}f}" for value, d in zip(still, DIGITS, strict=True)), "", "", "", ""])
    widths = (21, 14, 14, 19, 15, 8, 10, 7, 10)
    return "\n".join("".join(f"{cell:<{w}}" if not i else f"{cell:>{w}}" for i, (cell, w) in
                             enumerate(zip(row, widths, strict=True))) for row in rows)  # fmt: skip


def explain(record: Mapping[str, Any]) -> str:
    """What the numbers show: costs, and which arms stand still."""
    macs, times = record["macs"], record["milliseconds"]
    lines = []
    for arm in list(ARMS)[1:]:
        promised, found = macs["full"][0] / macs[arm][0], times["full"] / times[arm]
        lines.append(f"{arm}: {promised:.2f} times fewer MACs than full, {found:.2f} times less time.")
    means = {arm: float(np.mean([run["temporal_std_ratio"] for run in record["runs"][arm]])) for arm in ARMS}
    quiet = [arm for arm, mean in means.items() if mean < 0.1]
    if quiet:
        lines.append(f"All but still within a window, whatever their MPJPE: {'; '.join(quiet)}.")
    lines.append(f"{STILL}: the mean true pose of each window, which no model can know.")
    return "\n".join(lines)


@torch.no_grad()
def draw(models: Mapping[str, nn.Module], clips: Sequence[Clip], path: Path) -> None:
    """One test window as every arm sees it, the truth in grey."""
    clip = next(clip for clip in clips if clip.action == "squatting")  # walking is not learned in so few steps
    window = slice(FRAMES, 2 * FRAMES)
    inputs = torch.from_numpy(clip.inputs[None, window])
    poses = {arm: predict(model.eval(), inputs, SETTINGS)[0].numpy() for arm, model in models.items()}
    title = f"{clip.action}: predicted (orange left, blue right) over true (grey), {FRAMES} frames of 60 ms"
    draw_sequences(poses, path, truth=clip.targets[window], title=title)


def run_seed(seed: int, steps: int) -> dict[str, tuple[dict[str, float], dict[str, Tensor]]]:
    """Figures and weights of every arm, trained from one seed."""
    torch.set_num_threads(1)  # tensors this small are slower on more
    training, test = load_data()
    found = {}
    for arm in ARMS:
        model = build_model(arm, seed)
        seconds = train(model, training, steps, seed)
        figures = evaluate(model, test, settings=SETTINGS)[1]
        run = {name: figures[f"{name}_frame_mean"] for name in MEASURES} | {"seed": seed, "cpu_seconds": seconds}
        found[arm] = (run, model.state_dict())
    return found


def run_study(seeds: int, steps: int, processes: int) -> tuple[dict[str, Any], dict[str, nn.Module]]:
    """Every arm from every seed, a seed a process; the record, and the models of the first seed."""
    runs: dict[str, list[dict[str, float]]] = {arm: [] for arm in ARMS}
    models = {arm: build_model(arm, seed=0) for arm in ARMS}
    with ProcessPoolExecutor(processes, multiprocessing.get_context("spawn")) as pool:
        for seed, found in enumerate(pool.map(run_seed, range(seeds), [steps] * seeds)):
            for arm, (run, weights) in found.items():
                runs[arm].append(run)
                if seed == 0:
                    models[arm].load_state_dict(weights)
            shown = "; ".join(f"{arm}: {runs[arm][-1]['mpjpe']:.1f}" for arm in ARMS)
            print(f"seed {seed}, MPJPE in mm: {shown}", flush=True)
    _, test = load_data()
    record = {
        "data": f"generated motion, {TRAIN} train / {TEST} test sequences, {VIEWS} cameras, 5 px noise; root-relative",
        "protocol": f"windows of {FRAMES} frames side by side, mirrored pass averaged in, repeated edges left out",
        "steps": steps,
        "device": f"CPU ({platform.machine()}), one thread",
        "versions": {"torch": torch.__version__, "python": platform.python_version()},
        "macs": measure_macs(),
        "milliseconds": measure_time(),
        "still": still_poses(test),
        "runs": runs,
    }
    return record, models


def recipe_arguments(args: argparse.Namespace, rest: Sequence[str]) -> list[str]:
    """The arguments of the training command."""
    found = list(rest)
    if args.output:
        found += ["--output", args.output]
    if args.data:
        if not {"--config", "--resume", "--evaluate"} & {part.split("=")[0] for part in rest}:
            found += ["--config", "hot_mixste"]
        found += ["--dataset", "h36m", "--pose-3d", args.data[0], "--pose-2d", args.data[1]]
        if args.allow_pickle:
            found += ["--set", "data.allow_pickle=true"]
    return found


def main(argv: Sequence[str] | None = None) -> int:
    """Run the comparison, or hand over to the recipe."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter, allow_abbrev=False
    )
    parser.add_argument(
        "--data", nargs=2, metavar=("POSES.npz", "KEYPOINTS.npz"), help="Human3.6M; needs --calibration"
    )
    parser.add_argument("--allow-pickle", action="store_true", help="read pickled files: runs code in them")
    parser.add_argument("--output", help="folder for what is written (default runs/human36m_hot)")
    parser.add_argument("--seeds", type=int, help="paired seeds, at least 2 (default 3)")
    parser.add_argument("--steps", type=int, help="training steps of each arm (default 500)")
    parser.add_argument("--processes", type=int, help="seeds at a time (default: cores, at most 2)")
    parser.add_argument("--figure", type=Path, metavar="FILE", help="the picture (default poses.png in --output)")
    args, rest = parser.parse_known_args(argv)
    demo = [name for name in ("seeds", "steps", "processes", "figure") if getattr(args, name) is not None]
    if args.data or rest:
        if demo:
            other = rest[0] if rest else "--data"
            parser.error(f"--{demo[0]} is of the comparison on generated motion, which takes no {other}")
        return run_recipe(recipe_arguments(args, rest))
    seeds, steps = 3 if args.seeds is None else args.seeds, 500 if args.steps is None else args.steps
    if seeds < 2 or steps < 1:
        parser.error(f"--seeds {seeds} --steps {steps}: at least 2 seeds, for a spread, and 1 step are needed")
    torch.set_num_threads(1)
    output = Path(args.output or "runs/human36m_hot")
    picture, numbers = args.figure or output / "poses.png", output / "results.json"
    print(f"training 4 kinds of lifter on generated motion, {seeds} seeds of {steps} steps", file=sys.stderr)
    record, models = run_study(seeds, steps, args.processes or min(seeds, 2, os.cpu_count() or 1))
    print(f"\n{table(record)}\n\n{explain(record)}\n")
    numbers.parent.mkdir(parents=True, exist_ok=True)
    atomic_write(numbers, lambda file: file.write_text(json.dumps(record, indent=1), encoding="utf-8"))
    draw(models, load_data()[1], picture)
    print(f"Picture: {picture}   Numbers: {numbers}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
