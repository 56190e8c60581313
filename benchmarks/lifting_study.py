"""Does a lifting model keep its accuracy when frames are dropped? What choice, recovery and cycles each do to it.

    python benchmarks/lifting_study.py cmu17.npz                       # recorded motion; an hour of one CPU core
    python benchmarks/lifting_study.py generated --epochs 1 --seeds 1 --arms full "tpc, linear"        # without data
    python benchmarks/lifting_study.py cmu17.npz --host mixste --epochs 30 --device auto --out mixste.json  # a GPU

Every arm is a packaged recipe with other overrides, for the host that is asked for: ``tiny`` (the default) and
``small`` have one token a frame, ``mixste`` has the published size. A hourglass drops two frames of three. Data, number
of steps, initial weights of the host and order of the windows are the same for all arms of a seed. Errors are those of
the test split at the last step, in millimetres, over frames, with the mirrored pass averaged in; no checkpoint is
chosen. "std" is how much predictions move within a window over how much the truth does: read it before the error,
since a model that answers with one still pose a window may not have a much worse MPJPE.

A run that was stopped goes on where it was: finished runs are read from ``--out``, an unfinished one from ``--work``.
"""

from __future__ import annotations

import json
import statistics
import sys
import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from common import RESULTS, hardware, study_parser, versions, write  # beside this file

from cycledistill.cost.report import cost
from cycledistill.integrations.human36m.recipe import Recipe, load_recipe
from cycledistill.integrations.human36m.train import train
from cycledistill.integrations.human36m.trained import evaluate_trained
from cycledistill.integrations.human36m.training.build import create_model

Overrides = dict[str, Any]


@dataclass(frozen=True)
class Host:
    """A model that is trained: its recipe, where it drops frames, and how long its windows are."""

    recipe: str
    layer: int
    frames: int
    overrides: Overrides = field(default_factory=dict)


HOSTS = {
    "tiny": Host("frame_token_small", 1, 81, {"model.options": {"dim": 48, "depth": 3}, "data.batch_size": 8}),
    "small": Host("frame_token_small", 1, 81),  # 96 channels, 6 levels, batches of 32
    "mixste": Host("mixste", 3, 243),  # 512 channels, 8 levels, batches of 4
}


def hourglass(select: str, recover: bool | str) -> Overrides:
    """Overrides that drop frames; those that are kept are a third of the window."""
    return {"hourglass.select": select, "hourglass.recover": recover}


CYCLES: Overrides = {"cyclic.cycles": 2, "evaluate.exits": [1, 2]}
ARMS: dict[str, Overrides] = {
    "full": {},
    "tpc, learned": hourglass("tpc", True),  # HoT
    "uniform, learned": hourglass("uniform", True),
    "tpc, local": hourglass("tpc", "local"),
    "tpc, linear": hourglass("tpc", "linear"),
    "tpc, nearest": hourglass("tpc", "nearest"),
    "uniform, linear": hourglass("uniform", "linear"),
    "motion, linear": hourglass("motion", "linear"),
    "attention, linear": hourglass("attention", "linear"),
    "full, 2 cycles": CYCLES,
    "tpc, linear, 2 cycles": {**hourglass("tpc", "linear"), **CYCLES},
    "tpc, learned, 2 cycles": {**hourglass("tpc", True), **CYCLES},
}
RECORDED = [arm for arm in ARMS if arm.startswith(("full", "tpc, l", "uniform, linear"))]
"""Those that run where none are named."""
MEASURES = {"mpjpe": 1, "p_mpjpe": 1, "velocity": 2, "temporal_std_ratio": 2}  # and digits to print


def recipe_of(
    arm: str, seed: int, settings: Mapping[str, Any], work: Path, more: Mapping[str, Any] | None = None
) -> Recipe:
    """The recipe of a run."""
    host, changes = HOSTS[settings["host"]], ARMS[arm]
    keep = host.frames // 3
    source = {"data.source": "cmu", "data.motion": settings["motion"]}
    common: Overrides = {
        **({"data.source": "generated"} if settings["motion"] == "generated" else source),
        **host.overrides,
        "data.frames": host.frames,
        "data.stride": keep,
        "schedule.epochs": settings["epochs"],
        "evaluate.every": settings["epochs"],
        "evaluate.exits": [1],
        "run.seed": seed,
        "run.device": settings["device"],
        "run.output": str(work / f"{arm.replace(', ', '-').replace(' ', '_')}-{seed}"),
        "run.save_every_steps": 200,
        "run.log_every": 100,
        "run.progress": False,
    }
    if "hourglass.select" in changes:
        common |= {"hourglass.layer": host.layer, "hourglass.keep": keep}
    return load_recipe(host.recipe, {**common, **changes, **(more or {})})


def run(arm: str, seed: int, settings: Mapping[str, Any], work: Path) -> dict[str, Any]:
    """Train and measure one arm from one seed."""
    recipe = recipe_of(arm, seed, settings, work)
    found = train(recipe, resume="auto")
    if "exits" not in found:  # it had ended, and its figures were not written
        found |= evaluate_trained(recipe, recipe.run.output)
    figures = {
        str(exit): {name: values[f"{name}_frame_mean"] for name in MEASURES} for exit, values in found["exits"].items()
    }
    return {"arm": arm, "seed": seed, "steps": found["step"], "exits": figures}


def macs(arm: str, settings: Mapping[str, Any], work: Path) -> list[float]:
    """Millions of MACs of a window at each exit that is measured."""
    recipe = recipe_of(arm, 0, settings, work)
    exits = recipe.evaluate.exits or [1]
    report = cost(create_model(recipe), torch.zeros(1, recipe.data.frames, 17, 2), cycles=max(exits))
    return [report.exits[exit - 1].total / 1e6 for exit in exits]


def table(record: Mapping[str, Any]) -> str:
    """Mean and standard deviation over the seeds, a line an arm and exit."""
    head = ["", "exit", "MMACs", "seeds", "MPJPE", "P-MPJPE", "velocity", "std", "MPJPE - full"]
    widths = (24, 6, 8, 7, 14, 14, 14, 14, 16)
    rows = [head]
    base = {found["seed"]: found["exits"]["1"]["mpjpe"] for found in record["runs"] if found["arm"] == "full"}
    for arm in ARMS:
        runs = [found for found in record["runs"] if found["arm"] == arm]
        for exit, count in zip(runs[0]["exits"] if runs else (), record["macs"].get(arm, ()), strict=False):
            cells = [
                _spread([found["exits"][exit][name] for found in runs], digits) for name, digits in MEASURES.items()
            ]
            gaps = [found["exits"][exit]["mpjpe"] - base[found["seed"]] for found in runs if found["seed"] in base]
            gap = "" if not gaps or (arm, exit) == ("full", "1") else _spread(gaps, 1, sign="+")
            rows.append([arm, exit, f"{count:.1f}", str(len(runs)), *cells, gap])
    return "\n".join(
        "".join(
            f"{cell:<{w}}" if not i else f"{cell:>{w}}" for i, (cell, w) in enumerate(zip(row, widths, strict=True))
        )
        for row in rows
    )


def _spread(values: Sequence[float], digits: int, sign: str = "") -> str:
    mean = f"{statistics.mean(values):{sign}.{digits}f}"
    return f"{mean} ± {statistics.stdev(values):.{digits}f}" if len(values) > 1 else mean


def begin(out: Path, settings: Mapping[str, Any]) -> dict[str, Any]:
    """The record to go on with, or a new one."""
    kept = {**settings, "motion": Path(settings["motion"]).name}  # the file's place is nobody's business
    if out.exists():
        record: dict[str, Any] = json.loads(out.read_text(encoding="utf-8"))
        if record["settings"] != kept:
            raise ValueError(f"{out} holds a study of other settings, {record['settings']}: give another --out")
        return record
    on_cpu = settings["device"] == "cpu" or not torch.cuda.is_available()
    device = hardware("cpu" if on_cpu else "cuda", "one thread")
    return {"settings": kept, "device": device, "versions": versions(), "macs": {}, "runs": []}


def main(argv: Sequence[str] | None = None) -> int:
    """Run what is missing, print, write."""
    parser = study_parser(__doc__, RESULTS / "lifting_study-cpu.json")
    parser.add_argument("motion", help="npz of recorded motion, as docs/lifting.md says, or 'generated'")
    parser.add_argument("--host", choices=list(HOSTS), default="tiny")
    parser.add_argument("--arms", nargs="+", choices=list(ARMS), default=RECORDED, metavar="ARM")
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--epochs", type=int, default=7, help="of 430 steps, for the tiny host on CMU's motion")
    parser.add_argument("--device", choices=("cpu", "auto"), default="cpu")
    parser.add_argument("--work", type=Path, default=Path(tempfile.gettempdir()) / "lifting_study", help="checkpoints")
    args = parser.parse_args(argv)
    if args.seeds < 1 or args.epochs < 1:
        parser.error(f"--seeds {args.seeds} --epochs {args.epochs}: at least 1 of each")
    if args.device == "cpu":
        torch.set_num_threads(1)  # tensors this small are slower on more
    settings = {"motion": args.motion, "host": args.host, "epochs": args.epochs, "device": args.device}
    # never another study's checkpoints
    work = args.work / f"{Path(args.motion).stem}-{args.host}-{args.epochs}-{args.device}"
    try:
        record = begin(args.out, settings)
    except ValueError as error:
        parser.error(str(error))
    done = {(found["arm"], found["seed"]) for found in record["runs"]}
    for seed in range(args.seeds):
        for arm in args.arms:
            if (arm, seed) in done:
                continue
            record["macs"].setdefault(arm, macs(arm, settings, work))
            record["runs"].append(run(arm, seed, settings, work))
            write(args.out, record)
            found = record["runs"][-1]["exits"]["1"]
            sys.stdout.write(f"{arm}, seed {seed}: {found['mpjpe']:.1f} mm, std {found['temporal_std_ratio']:.2f}\n")
            sys.stdout.flush()
    sys.stdout.write(f"\n{table(record)}\n")
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
