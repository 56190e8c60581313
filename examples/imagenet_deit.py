"""What cycles do to a transformer: on mazes in three minutes of a CPU, or DeiT-Tiny on ImageNet by the full recipe.

    pip install -e ".[all]"
    python examples/imagenet_deit.py                # mazes, six kinds of training: table and picture
    python examples/imagenet_deit.py --data /data/imagenet --config deit_tiny --output runs/a
    torchrun --nproc-per-node 4 examples/imagenet_deit.py --data /data/imagenet --config deit_tiny --output runs/a
    python examples/imagenet_deit.py --data /data/imagenet --output runs/a --resume auto   # go on where it stopped
    python examples/imagenet_deit.py --data /data/imagenet --evaluate runs/a               # accuracy at each exit

Without --data: a transformer of one block is asked which cells of a maze can be reached. It is trained in four ways
from the same first weights on the same boards, and beside it stacks of three blocks, one as wide and one with as many
weights; all are read at 1 to 6 cycles, on boards of the size they were trained on and on larger ones. Options: --seeds,
--steps, --output, --figure, --tune (how the learning rate was chosen). CPU, one thread; boards are drawn anew for every
step, so nothing is over-fitted.
With --data the work is done by ``cycledistill.integrations.imagenet``: --model, --cycles, --distill, --set a.b=c
and the rest of --help. Not supported there: comparing the arms in one command; start one run for each.
"""

from __future__ import annotations

import argparse
import functools
import json
import math
import platform
import sys
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

if __name__ == "__main__":
    print("loading PyTorch and what else is needed", file=sys.stderr, flush=True)  # that takes seconds


import numpy as np
import torch
from matplotlib.figure import Figure
from mazes import GridNetwork, boards, maze_loss, share_right  # beside this file
from scipy import stats
from torch import Tensor, nn
from torch.optim.lr_scheduler import LambdaLR

from cycledistill import CycleLoss, at_exit, unwrap_cyclic, wrap_cyclic
from cycledistill.cost.report import CostReport, cost
from cycledistill.files import atomic_write
from cycledistill.integrations.imagenet.train import COMMAND

# What distinguishes the arms: blocks of the stack, their width, and the preset given to wrap_cyclic; None is a plain
# model. deep is as costly to run as three cycles, narrow_eq has as many weights as one block.
ARMS = {
    "base": (1, 32, None), "base_eq": (1, 32, None), "mct": (1, 32, "mct"), "exits": (1, 32, "exits"),
    "deep": (3, 32, None), "narrow_eq": (3, 18, None),
}  # fmt: skip
AS_COSTLY = ("base_eq", "narrow_eq")  # their steps are as many as cost what three cycles do, in multiply-accumulates
CYCLES = 3  # while training
EXITS = (1, 2, 3, 4, 6)  # cycles at inference; four and six are more than were trained
SIDE, LARGER = 6, 9  # cells of a board's side: in training, and of the second test
WALLS = 0.35
HEADS = 2
BATCH = 64
TEST_BOARDS = 500
LEARNING_RATES = (1e-3, 2e-3, 4e-3, 8e-3)
LEARNING_RATE = 4e-3

DEMO = {"seeds", "steps", "figure", "tune"}  # options of the comparison on mazes

Boards = tuple[Tensor, Tensor]  # cells (B, side, side), which of them can be reached
Runs = Mapping[str, list[dict[str, Any]]]  # arm -> one record a seed

# What the text under the table answers, by paired differences: "exits@3-base@1" is exits read at three cycles less base
# read at one, on boards as trained; with a plus in front, on the larger ones.
QUESTIONS = {
    "Does one checkpoint answer better with more cycles?": ("exits@2-exits@1", "exits@3-exits@2"),
    "Are three cycles of one block better than plain training of the same compute?": (
        "mct@3-base_eq@1", "exits@3-base_eq@1"
    ),
    "Are they better than three narrower blocks of as many weights and as costly to train, which are cheaper to run?": (
        "mct@3-narrow_eq@1", "+mct@3-narrow_eq@1"
    ),
    "How far are they from three blocks, with a third of the weights?": ("mct@3-deep@1", "+mct@4-deep@1"),
    "Does a task loss on every cycle matter for the first?": ("exits@1-mct@1",),
    "Is the deployed single cycle better than the plain block?": ("exits@1-base@1", "exits@1-base_eq@1"),
}  # fmt: skip


def held_out(side: int) -> Boards:
    """The boards that all models are read on; those of --tune are others."""
    return boards(TEST_BOARDS, side, WALLS, torch.Generator().manual_seed(1_000_000 + side))


def build_model(arm: str, seed: int) -> GridNetwork:
    """The transformer of an arm, a token a cell."""
    depth, width, _ = ARMS[arm]
    torch.manual_seed(seed)
    return GridNetwork(nn.Embedding(3, width), width, depth, HEADS)


def train(model: nn.Module, steps: int, seed: int, rate: float = LEARNING_RATE) -> float:
    """An ordinary training loop, the same for plain and wrapped models; returns its CPU seconds."""
    criterion = CycleLoss(maze_loss)  # a plain output goes straight to the task loss
    optimizer = torch.optim.AdamW(model.parameters(), lr=rate, weight_decay=0.05, fused=True)
    warmup = max(1, steps // 20)
    schedule = LambdaLR(optimizer, lambda step: min((step + 1) / warmup, (1 + math.cos(math.pi * step / steps)) / 2))
    drawn = torch.Generator().manual_seed(seed)  # of its own: every arm of a seed sees the same boards
    model.train()
    began = time.process_time()
    for _ in range(steps):
        cells, reached = boards(BATCH, SIDE, WALLS, drawn)
        loss = criterion(model(cells), cells, reached)
        optimizer.zero_grad()
        loss.backward()
        nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        schedule.step()
    return time.process_time() - began


@torch.no_grad()
def solved(model: nn.Module, side: int) -> list[float]:
    """Percent of boards of which every free cell is told right, at each of EXITS; ``model`` is wrapped."""
    model.eval()
    cells, reached = held_out(side)
    found = []
    for cycles in EXITS:
        with at_exit(model, cycles):
            found.append(100 * (share_right(model(cells), cells, reached) == 1).float().mean().item())
    return found


@torch.no_grad()
def check_deployed(model: nn.Module, arm: str) -> None:
    """The plain model that is taken back answers bit for bit like the wrapped one at one cycle."""
    cells, _ = held_out(SIDE)
    wrapped = model.eval()(cells)
    unwrap_cyclic(model)
    fresh = build_model(arm, seed=0).eval()
    fresh.load_state_dict(model.state_dict())
    if type(model) is not type(fresh) or not all(torch.equal(one(cells), wrapped) for one in (model, fresh)):
        raise AssertionError("the unwrapped model does not answer like the wrapped one at one cycle")


def run_arm(arm: str, seed: int, steps: int) -> dict[str, Any]:
    """Train one arm from one seed, read it at every exit, take the plain model back."""
    model, distill = build_model(arm, seed), ARMS[arm][-1]
    # One block is no chain that could be found: it is named. A plain model is wrapped to be read at more cycles too.
    wrap_cyclic(model, cycles=1 if distill is None else CYCLES, distill=distill, blocks="blocks")
    seconds = train(model, steps, seed)
    measured = {"solved": solved(model, SIDE), "solved_larger": solved(model, LARGER)}
    check_deployed(model, arm)
    return {"seed": seed, "steps": steps, "cpu_seconds": seconds, **measured}


def run_study(seeds: int, steps: int) -> Runs:
    """Every arm from every seed."""
    cycles = counted("base").training_step[-1].total
    many = {arm: round(steps * cycles / counted(arm).training_step[0].total) for arm in AS_COSTLY}
    runs: dict[str, list[dict[str, Any]]] = {arm: [] for arm in ARMS}
    for seed in range(seeds):
        for arm in ARMS:  # arms take turns, so that a busy moment of the machine meets all of them
            runs[arm].append(run_arm(arm, seed, many.get(arm, steps)))
        found = ", ".join(f"{arm} {runs[arm][-1]['solved'][0 if ARMS[arm][-1] is None else 2]:.0f}" for arm in ARMS)
        print(f"seed {seed}, boards solved at 1 cycle, or 3 where they were trained, %: {found}", flush=True)
    return runs


@functools.cache
def counted(arm: str) -> CostReport:
    """What an arm's model costs, counted."""
    return cost(build_model(arm, seed=0), torch.zeros(1, SIDE, SIDE, dtype=torch.long), CYCLES, blocks="blocks")


def training_cost(runs: Runs, arm: str) -> float:
    """CPU time of an arm's training relative to base's of the same seed, median over the seeds."""
    pairs = zip(runs[arm], runs["base"], strict=True)
    return float(np.median([one["cpu_seconds"] / base["cpu_seconds"] for one, base in pairs]))


def readings(runs: Runs, arm: str, larger: bool = False) -> np.ndarray:
    """Boards that an arm solved in percent, (seeds, exits)."""
    return np.array([run["solved_larger" if larger else "solved"] for run in runs[arm]])


def compare(runs: Runs, comparison: str) -> dict[str, Any]:
    """A paired difference over the seeds, with its 95 % interval (Student's t)."""
    larger = comparison.startswith("+")
    sides = [side.split("@") for side in comparison.lstrip("+").split("-")]
    left, right = (readings(runs, arm, larger)[:, EXITS.index(int(cycles))] for arm, cycles in sides)
    difference = left - right
    mean, count = float(difference.mean()), len(difference)
    half = float(stats.t.ppf(0.975, count - 1) * difference.std(ddof=1)) / math.sqrt(count)
    names = [f"{arm} at {cycles} cycle{'s' * (cycles != '1')}" for arm, cycles in sides]
    verdict = "ahead of" if mean - half > 0 else "behind" if mean + half < 0 else "not told apart from"
    return {"left": names[0], "verdict": verdict, "right": names[1], "where": "larger" if larger else "trained",
            "mean": mean, "low": mean - half, "high": mean + half, "wins": int((difference > 0).sum()),
            "seeds": count}  # fmt: skip


def explain(runs: Runs) -> str:
    """What the numbers show: one sentence a comparison, worded by whether its interval leaves out 0."""
    sentence = "  {left} is {verdict} {right}{on}: {mean:+.1f} points [{low:+.1f}, {high:+.1f}], "
    sentence += "higher in {wins} of {seeds} seeds."
    places = {"trained": "", "larger": f" on {LARGER} x {LARGER}"}
    lines = []
    for question, comparisons in QUESTIONS.items():
        found = [compare(runs, comparison) for comparison in comparisons]
        lines += [question, *(sentence.format(on=places[each["where"]], **each) for each in found)]
    count = sum(map(len, QUESTIONS.values()))
    lines.append(f"In brackets: 95 % intervals of the paired differences, not corrected for their number ({count}).")
    return "\n".join(lines)


def table(runs: Runs) -> str:
    """Boards solved at each exit, mean and standard deviation over the seeds, and what it costs."""
    rows = [["", "weights", "steps", "training cost", *(f"{exit} cycle{'s' * (exit > 1)}" for exit in EXITS)]]
    for larger, side in ((False, SIDE), (True, LARGER)):
        rows.append([f"boards of {side} x {side} solved, %", *[""] * (len(rows[0]) - 1)])
        for arm in ARMS:
            values = readings(runs, arm, larger)
            means = zip(values.mean(0), values.std(0, ddof=1), strict=True)
            weights = f"{sum(p.numel() for p in build_model(arm, 0).parameters()):,}"
            costs = [weights, str(runs[arm][0]["steps"]), f"{training_cost(runs, arm):.2f}"]
            rows.append([f"  {arm}", *costs, *(f"{mean:.1f} ± {std:.1f}" for mean, std in means)])
    for arm in ("base", "narrow_eq", "deep"):
        report = counted(arm)
        macs = (report.before.total + exit * report.one_pass.total + report.after.total for exit in EXITS)
        rows.append([f"kMACs a board, {arm}", "", "", "", *(f"{each / 1e3:.0f}" for each in macs)])
    lines = (f"{row[0]:<30}{row[1]:>8}{row[2]:>6}{row[3]:>15}" + "".join(f"{x:>13}" for x in row[4:]) for row in rows)
    return "\n".join(line.rstrip() for line in lines)


def draw(runs: Runs, path: Path) -> None:
    """Boards solved against inference cycles: means, with the standard deviation over the seeds as bars."""
    figure = Figure(figsize=(9.6, 4.2), layout="constrained")
    looks = ("C7", "o"), ("k", "s"), ("C1", "^"), ("C2", "D"), ("C0", "v"), ("C4", "P")
    for axes, larger in zip(figure.subplots(1, 2, sharey=True), (False, True), strict=True):
        for place, (arm, (color, marker)) in enumerate(zip(ARMS, looks, strict=True)):
            values = readings(runs, arm, larger)
            axes.errorbar(
                np.array(EXITS) + 0.05 * (place - 2), values.mean(0), values.std(0, ddof=1), color=color, marker=marker,
                markersize=5, capsize=3, linewidth=1.5, label=f"{arm} (training cost {training_cost(runs, arm):.1f})",
            )  # fmt: skip
        side = LARGER if larger else SIDE
        axes.set(xticks=EXITS, xlabel="cycles at inference", title=f"boards of {side} x {side}")
        axes.grid(axis="y", alpha=0.3)
    figure.axes[0].set_ylabel("boards solved, %")
    figure.axes[1].legend(frameon=False, fontsize="small")
    figure.suptitle(f"Trained on {SIDE} x {SIDE}: mean ± std over {len(runs['base'])} seeds", fontsize="medium")
    path.parent.mkdir(parents=True, exist_ok=True)
    atomic_write(path, lambda file: figure.savefig(file, dpi=150))


def tune(seeds: int, steps: int) -> None:
    """How LEARNING_RATE was chosen: boards solved by the plain block and by three cycles, on boards of their own."""
    cells, reached = boards(TEST_BOARDS, SIDE, WALLS, torch.Generator().manual_seed(2_000_000))
    for arm in ("base", "mct"):
        for rate in LEARNING_RATES:
            found = []
            for seed in range(seeds):
                cycles = 1 if arm == "base" else CYCLES
                model = wrap_cyclic(build_model(arm, seed), cycles, ARMS[arm][-1], blocks="blocks")
                train(model, steps, seed, rate)
                with torch.no_grad(), at_exit(model.eval(), cycles):
                    found.append(100 * (share_right(model(cells), cells, reached) == 1).float().mean().item())
            print(f"{arm:<8} learning rate {rate:.3f}: {np.mean(found):.1f} ± {np.std(found, ddof=1):.1f}", flush=True)


def save_results(runs: Runs, path: Path) -> None:
    """Every run and comparison as JSON."""
    record = {
        "data": f"generated mazes of {SIDE} x {SIDE} cells, {TEST_BOARDS} to test on",
        "device": f"CPU ({platform.machine()}), one thread",
        "versions": {"torch": torch.__version__, "python": platform.python_version()},
        "exits": EXITS,
        "learning_rate": LEARNING_RATE,
        "training_cost": {arm: training_cost(runs, arm) for arm in runs},
        "runs": runs,
        "comparisons": [compare(runs, comparison) for pairs in QUESTIONS.values() for comparison in pairs],
    }
    path.parent.mkdir(parents=True, exist_ok=True)
    atomic_write(path, lambda file: file.write_text(json.dumps(record, indent=1), encoding="utf-8"))


def main(argv: Sequence[str] | None = None) -> int:
    """Run the comparison, or hand over to the ImageNet recipe."""
    parser = COMMAND.parser()
    parser.prog, parser.description = Path(sys.argv[0]).name, __doc__
    parser.formatter_class = argparse.RawDescriptionHelpFormatter
    demo = parser.add_argument_group("the comparison on mazes (without --data)")
    demo.add_argument("--seeds", type=int, default=3, help="paired seeds, at least 2 (default %(default)s)")
    demo.add_argument("--steps", type=int, default=500, help="training steps of base (default %(default)s)")
    demo.add_argument("--figure", type=Path, metavar="FILE", help="the picture (default solved.png in --output)")
    demo.add_argument("--tune", action="store_true", help="only show how the learning rate was chosen")
    args = parser.parse_args(argv)
    given = {name for name, value in vars(args).items() if value != parser.get_default(name)} - {"output"}
    recipe = ", ".join("--" + name.replace("_", "-") for name in sorted(given - DEMO))
    if recipe and (given & DEMO or not given & {"data", "config", "evaluate", "resume"}):
        parser.error(
            f"{recipe}: for the ImageNet recipe, which needs --data and knows no --{', --'.join(sorted(DEMO))}"
        )
    if recipe:
        return COMMAND.main(argv)
    if args.seeds < 2 or args.steps < 1:
        parser.error(
            f"--seeds {args.seeds} --steps {args.steps}: at least 2 seeds, for a spread, and 1 step are needed"
        )
    torch.set_num_threads(1)  # tensors this small are slower on more
    if args.tune:
        tune(args.seeds, args.steps)
        return 0
    output = Path(args.output or "runs/imagenet_deit")
    picture, numbers = args.figure or output / "solved.png", output / "results.json"
    print(f"training {len(ARMS)} kinds of model on mazes, {args.seeds} seeds of {args.steps} steps", file=sys.stderr)
    runs = run_study(args.seeds, args.steps)
    print(f"\n{table(runs)}\n\n{explain(runs)}\n")
    print(f"All {sum(map(len, runs.values()))} models were unwrapped, and answer bit for bit as they did at one cycle.")
    save_results(runs, numbers)
    draw(runs, picture)
    print(f"Picture: {picture}   Numbers: {numbers}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
