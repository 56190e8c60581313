"""Does a view learn from the others? A small multi-view PPT with fusion and without, on generated scenes.

    python benchmarks/multiview_study.py

Three models from the same seed see the same batches: views apart (the single-view PPT on each), fused, and fused with
codes of the camera rays. In half of the views of each scene, drawn at random, a box hides most of the figure; every
joint is seen in the other half. So its own view hardly tells where a hidden joint is, and the others do: the scenes are
made for the question, and a gain here is not one that pictures of people would give. Measured on scenes of other
figures: the joint detection rate, and the mean error in pixels of the cameras' pictures, of joints that are seen and of
hidden ones, beside those of a constant answer, the mean of the training scenes. Fusion also costs more
multiply-accumulates, which the table states.
"""

from __future__ import annotations

import logging
import sys
import time
from collections.abc import Sequence
from typing import Any

import torch
from common import columns, macs, study_parser, write  # beside this file
from multiview_scenes import Scenes, generate_scenes, in_picture, in_view, joint_heatmaps  # beside this file
from torch import Tensor
from tqdm import trange

from cycledistill.integrations.human36m.multiview.detection import HEAD_SIZE, decode_joints, joint_detection_rate
from cycledistill.integrations.human36m.multiview.model import MultiViewPPT, create_multiview

SMALL: dict[str, Any] = {
    "image_size": (128, 128),
    "backbone": "features",
    "in_channels": 17,
    "patch_size": (8, 8),
    "dim": 64,
    "depth": 4,
    "heads": 2,
    "prune_layers": (1,),
    "keep": 0.7,
}
ARMS: dict[str, dict[str, Any]] = {
    "views apart": {"fused_layers": 0, "ray_encoding": False},
    "fused": {"fused_layers": 2, "ray_encoding": False},
    "fused, rays": {"fused_layers": 2, "ray_encoding": True},
}
COVER = 0.95
"""Sides of the box in a covered view, up to this share of the view's."""
TEST_FIGURES = 10_000
"""Number of the first figure of the test scenes; training never gets there."""

_logger = logging.getLogger(__name__)


def pick(scenes: Scenes, index: Tensor, rays: bool) -> dict[str, list[Tensor]]:
    """Some scenes as the model's arguments."""
    names = {"views": scenes.views} | ({"rays": scenes.rays, "centers": scenes.centers} if rays else {})
    return {name: list(values[:, index]) for name, values in names.items()}


def build(seed: int, **fields: Any) -> MultiViewPPT:
    """A small model. Its weights start larger than the published 0.02, which is made for long training."""
    torch.manual_seed(seed)
    model = create_multiview(**SMALL, **fields)
    for parameter in model.parameters():
        if parameter.requires_grad and parameter.ndim == 2:
            torch.nn.init.normal_(parameter, std=parameter.shape[1] ** -0.5)
    torch.nn.init.normal_(model.keypoint_token)
    return model


def train(model: MultiViewPPT, scenes: Scenes, steps: int, batch: int, seed: int, rate: float = 3e-3) -> None:
    """Adam on the cross-entropy between each map and the Gaussian around its joint, over the map's pixels.

    PPT takes the squared error, which needs many times the steps.
    """
    maps, _ = joint_heatmaps(in_view(scenes.joints, scenes.crops), model.config.heatmap_size, sigma=1.5)
    shares = maps.flatten(3) / maps.flatten(3).sum(dim=-1, keepdim=True)
    optimizer = torch.optim.Adam(model.parameters(), rate)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, rate, total_steps=steps + 1, pct_start=0.1)
    generator = torch.Generator().manual_seed(seed)
    model.train()
    for _ in trange(steps, leave=False, disable=None):
        index = torch.randperm(len(scenes), generator=generator)[:batch]
        found = torch.stack(model(**pick(scenes, index, model.config.ray_encoding)))
        loss = -(shares[:, index] * found.flatten(3).log_softmax(dim=-1)).sum(dim=-1).mean()
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        schedule.step()


@torch.no_grad()
def measure(model: MultiViewPPT, scenes: Scenes, batch: int = 64) -> dict[str, float]:
    """JDR in percent and mean errors in pixels of the cameras' pictures; of all joints, those seen, those hidden."""
    model.eval()
    found = []
    for index in torch.arange(len(scenes)).split(batch):
        maps = torch.stack(model(**pick(scenes, index, model.config.ray_encoding)))
        found.append(decode_joints(maps.flatten(0, 1))[0].unflatten(0, maps.shape[:2]))
    return score(in_picture(torch.cat(found, dim=1), scenes.crops), scenes)


def score(predicted: Tensor, scenes: Scenes) -> dict[str, float]:
    """The figures of `measure` for joints (V, M, 17, 2) in pixels of the cameras' pictures."""
    errors = (predicted - scenes.joints).norm(dim=-1)
    figures = {}
    for name, mask in (("all", torch.ones_like(scenes.hidden)), ("seen", ~scenes.hidden), ("hidden", scenes.hidden)):
        # Over joints, then over all: a joint that is never hidden in the test scenes has no share of its own.
        figures[f"jdr_{name}"] = 100 * float(joint_detection_rate(predicted, scenes.joints, mask=mask).nanmean())
        figures[f"error_{name}"] = float(errors[mask].mean())
    return figures


def compare(steps: int = 600, scenes: int = 1600, views: int = 4, batch: int = 16, seeds: int = 1) -> dict[str, Any]:
    """Train and measure the three models.

    Args:
        steps: Of training, each model.
        scenes: To train on; a tenth as many to measure on.
        views: Cameras, at least 2; half of them are covered.
        batch: Scenes a step.
        seeds: How many runs of each model, from seed 0; a seed draws weights, scenes and batches.

    Returns:
        ``runs``, a record a model and seed; ``mean_pose``, a record a seed, what a constant answer gives; the settings.
    """
    made: dict[str, Any] = {"cameras": views, "cover": COVER, "covered": views // 2}
    test = generate_scenes(max(scenes // 10, 1), first=TEST_FIGURES, **made)
    runs, standing = [], []
    for seed in range(seeds):
        seen = generate_scenes(scenes, seed=seed, **made)
        standing.append({"seed": seed, **rounded(score(in_picture(mean_pose(seen, len(test)), test.crops), test))})
        for name, fields in ARMS.items():
            model = build(seed, **fields)
            start = time.perf_counter()
            train(model, seen, steps, batch, seed)
            seconds = time.perf_counter() - start
            record = {"model": name, "seed": seed, "macs": count(model, test), "seconds": round(seconds, 1)}
            runs.append(record | rounded(measure(model, test)))
            _logger.info("%s, seed %d: %s", name, seed, runs[-1])
    settings = {"steps": steps, "scenes": scenes, "batch_size": batch, "threads": torch.get_num_threads(), **made}
    return {**settings, "runs": runs, "mean_pose": standing}


def mean_pose(scenes: Scenes, count: int) -> Tensor:
    """For each view the mean of its joints over scenes, (V, count, 17, 2), in heatmap pixels."""
    return in_view(scenes.joints, scenes.crops).mean(dim=1, keepdim=True).expand(-1, count, -1, -1)


def rounded(figures: dict[str, float]) -> dict[str, float]:
    """To a thousandth."""
    return {name: round(value, 3) for name, value in figures.items()}


def count(model: MultiViewPPT, scenes: Scenes) -> int:
    """Multiply-accumulates of one scene, all its views, attention's products included."""
    given = pick(scenes, torch.tensor([0]), model.config.ray_encoding)
    return macs(model.eval(), *given.values())


def report(record: dict[str, Any]) -> str:
    """What `compare` found as a table; the mean over seeds, and the deviation where there are several."""
    runs, keys = record["runs"], ("jdr_all", "jdr_seen", "jdr_hidden", "error_all", "error_seen", "error_hidden")
    rows: list[tuple[str, ...]] = [
        ("model", "M MACs", "train s", "JDR", "JDR seen", "JDR hidden", "error px", "seen", "hidden")
    ]
    for name in dict.fromkeys(run["model"] for run in runs):
        own = [run for run in runs if run["model"] == name]
        seconds = sum(run["seconds"] for run in own) / len(own)
        rows.append((name, f"{own[0]['macs'] / 1e6:.1f}", f"{seconds:.0f}", *_means(own, keys)))
    rows.append(("mean pose", "", "", *_means(record["mean_pose"], keys)))
    note = (
        f"JDR: within {HEAD_SIZE / 2:g} pixels of 1000; generated scenes of {record['cameras']} views, "
        f"{record['covered']} of them covered; {record['steps']} steps, {len(record['mean_pose'])} seeds"
    )
    return f"{columns(rows)}\n{note}"


def _means(records: Sequence[dict[str, Any]], keys: Sequence[str]) -> list[str]:
    return [_mean([record[key] for record in records]) for key in keys]


def _mean(values: Sequence[float]) -> str:
    found = torch.tensor(values, dtype=torch.float64)
    return f"{found.mean():.1f}" + (f" ± {found.std():.1f}" if len(values) > 1 else "")


def main(argv: Sequence[str] | None = None) -> int:
    """Train, measure, print the table, and write the records if asked."""
    parser = study_parser(__doc__)
    parser.add_argument("--steps", type=int, default=600, help="of training, each model (default: 600)")
    parser.add_argument("--scenes", type=int, default=1600, help="to train on (default: 1600); a tenth to measure on")
    parser.add_argument("--views", type=int, default=4, help="cameras, at least 2 (default: 4)")
    parser.add_argument("--batch-size", type=int, default=16, help="scenes a step (default: 16)")
    parser.add_argument("--seeds", type=int, default=1, help="how many runs of each model, from seed 0 (default: 1)")
    options = parser.parse_args(argv)
    if min(options.steps, options.scenes, options.batch_size, options.seeds) < 1 or options.views < 2:
        parser.error("--steps, --scenes, --batch-size and --seeds must be at least 1, and --views at least 2")
    if options.out and not options.out.parent.is_dir():
        parser.error(f"--out {options.out}: there is no folder {options.out.parent}")
    record = compare(options.steps, options.scenes, options.views, options.batch_size, options.seeds)
    sys.stdout.write(f"{report(record)}\n")
    if options.out:
        write(options.out, record)
    return 0


if __name__ == "__main__":
    sys.exit(main())
