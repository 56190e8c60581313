"""Why does the published recovery of frames (TRA) stand still for so long, and what makes it move?

    python benchmarks/recovery_start.py cmu17.npz    # a few minutes of one CPU core

Short trainings of the tiny host of ``lifting_study.py`` with TPC, at a constant rate, one seed. On test windows:

- "std": how much predictions move within a window over how much the truth does, each less its mean over all windows,
  so that a motion that is the same for all of them counts for nothing;
- "tokens": the share of the variance of the kept frames' tokens, where the recovery takes them, that lies between the
  frames of a window. With 0 all frames of a window have one token, and no attention can tell them apart.
"""

from __future__ import annotations

import math
import sys
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from common import RESULTS, columns, hardware, study_parser, versions, write  # beside this file
from lifting_study import recipe_of
from torch import Tensor, nn

from cycledistill.integrations.human36m.data.dataset import LiftWindows, WindowBatches, window_loader
from cycledistill.integrations.human36m.evaluation.metrics import temporal_std
from cycledistill.integrations.human36m.recipe import Recipe
from cycledistill.integrations.human36m.training.build import create_model
from cycledistill.integrations.human36m.training.sources import open_clips
from cycledistill.integrations.human36m.training.task import LiftTask

Change = Callable[[Any], None]


def waves(table: nn.Parameter) -> None:
    """Fill a table (1, F, C) with the sinusoids of "Attention is all you need"."""
    _, frames, width = table.shape
    angles = torch.arange(frames)[:, None] * torch.exp(-math.log(10000) * torch.arange(0, width, 2) / width)
    with torch.no_grad():
        table.copy_(torch.stack([angles.sin(), angles.cos()], -1).flatten(1)[None])


def _query(model: Any) -> None:
    waves(model.recover.query)


def _query_and_host(model: Any) -> None:
    waves(model.recover.query)
    waves(model.temporal_pos)


VARIANTS: dict[str, tuple[str, str, Change]] = {
    "as published": ("tpc, learned", "mixste", lambda model: None),
    "as published, MotionBERT's loss (velocity x 20)": ("tpc, learned", "motionbert", lambda model: None),
    "queries of sinusoids": ("tpc, learned", "mixste", _query),
    "queries and the host's positions of sinusoids": ("tpc, learned", "mixste", _query_and_host),
    'recover="local"': ("tpc, local", "mixste", lambda model: None),
}
"""Arm of the study, loss, and what is done to the model before it is trained."""


@torch.no_grad()
def measure(model: Any, inputs: Tensor, targets: Tensor) -> dict[str, float]:
    """Error, own motion, and how much tokens differ within a window, on test windows."""
    seen: list[Tensor] = []
    hook = model.recover.register_forward_hook(lambda module, given, output: seen.append(given[0]))
    poses = torch.cat([model.eval()(some) for some in inputs.split(64)])
    hook.remove()
    model.train()
    poses[:, :, 0] = 0
    return {
        "mpjpe": float(1000 * (poses - targets).norm(dim=-1).mean()),
        "std": float(own_std(poses) / own_std(targets)),
        "tokens": share_within(torch.cat(seen)),
    }


def own_std(poses: Tensor) -> Tensor:
    """Deviation over time (B, T, J, 3) of what a window does not share with the others, in the mean."""
    return temporal_std(poses - poses.mean(dim=0)).mean()


def share_within(tokens: Tensor) -> float:
    """The share of the variance of tokens (B, K, J, C) that lies between the frames of a window."""
    between_frames = (tokens - tokens.mean(dim=1, keepdim=True)).square().sum()
    return float(between_frames / (tokens - tokens.mean(dim=(0, 1))).square().sum())


def train(name: str, motion: str, steps: int, every: int) -> list[dict[str, float]]:
    """Figures at every ``every``-th step."""
    arm, loss, change = VARIANTS[name]
    settings = {"motion": motion, "host": "tiny", "epochs": 1, "device": "cpu"}
    recipe = recipe_of(arm, 0, settings, Path("unused"), {"loss.name": loss})
    training, test = open_clips(recipe.data)
    inputs, targets = _whole_windows(test, recipe)
    torch.manual_seed(0)
    model = create_model(recipe)
    change(model)
    task, optim = LiftTask(model, recipe.loss), recipe.optim
    optimizer = torch.optim.AdamW(task.parameters(), optim.lr, weight_decay=optim.weight_decay)
    windows = LiftWindows(training, recipe.data.frames, recipe.data.stride, flip=recipe.data.flip)
    loader = window_loader(windows, WindowBatches(len(windows), recipe.data.batch_size, shuffle=True))
    found: list[dict[str, float]] = []
    step = 0
    while step < steps:
        for batch in loader:
            step += 1
            optimizer.zero_grad()
            task(batch["inputs"], batch["targets"], batch["inside"])["loss"].backward()
            nn.utils.clip_grad_norm_(task.parameters(), optim.clip or math.inf)
            optimizer.step()
            if step % every == 0:
                found.append({"step": step, **measure(model, inputs, targets)})
            if step == steps:
                break
    return found


def _whole_windows(clips: Any, recipe: Recipe) -> tuple[Tensor, Tensor]:
    windows = LiftWindows(clips, recipe.data.frames)
    items = [item for item in (windows[number] for number in range(len(windows))) if item["inside"].all()]
    targets = torch.stack([item["targets"] for item in items])
    targets[:, :, 0] = 0
    return torch.stack([item["inputs"] for item in items]), targets


def table(record: Mapping[str, Any]) -> str:
    """A line a variant: own motion at the measured steps, tokens and error at the last."""
    steps = [each["step"] for each in next(iter(record["variants"].values()))]
    rows = [["", *(f"std at {step}" for step in steps), "tokens", "MPJPE"]]
    for name, found in record["variants"].items():
        stds = [f"{each['std']:.2f}" for each in found]
        rows.append([name, *stds, f"{found[-1]['tokens']:.3f}", f"{found[-1]['mpjpe']:.1f}"])
    return columns(rows)


def main(argv: Sequence[str] | None = None) -> int:
    """Train, print, write."""
    parser = study_parser(__doc__, RESULTS / "recovery_start-cpu.json")
    parser.add_argument("motion", help="npz of recorded motion, as docs/lifting.md says, or 'generated'")
    parser.add_argument("--steps", type=int, default=600)
    parser.add_argument("--every", type=int, default=200)
    args = parser.parse_args(argv)
    if not 1 <= args.every <= args.steps:
        parser.error(f"--steps {args.steps} --every {args.every}: at least 1 of each, and no rarer than the steps")
    torch.set_num_threads(1)
    record: dict[str, Any] = {
        "steps": args.steps,
        "motion": Path(args.motion).name,
        "device": hardware("cpu", "one thread"),
        "versions": versions(),
        "variants": {},
    }
    for name in VARIANTS:
        record["variants"][name] = train(name, args.motion, args.steps, args.every)
        write(args.out, record)
    sys.stdout.write(f"{table(record)}\n")
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
