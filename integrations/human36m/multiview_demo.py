"""Does a view learn from the others? A small multi-view PPT with fusion and without, on generated scenes.

    python -m cycledistill.integrations.human36m.multiview_demo

Three models from the same seed see the same batches: views apart (the single-view PPT on each), fused, and fused with
codes of the camera rays. Measured on scenes of other figures: the joint detection rate, and the mean error in pixels of
the cameras' pictures, of joints that are seen and of those behind the box that hides a part of every view. The scenes
are made by formulas (``multiview_scene.py``); the figures say nothing about people, and a run of a minute nothing about
what a longer one would give. Fusion also costs more multiply-accumulates, which the table states.
"""

from __future__ import annotations

import argparse
import json
import logging
import os
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from tqdm import trange

from cycledistill.macs import MacCounter

from .joint_detection import HEAD_SIZE, decode_joints, joint_detection_rate, joint_heatmaps
from .multiview import MultiViewPPT, create_multiview
from .multiview_scene import Scenes, generate_scenes, in_picture, in_view

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
    predicted = in_picture(torch.cat(found, dim=1), scenes.crops)
    errors = (predicted - scenes.joints).norm(dim=-1)
    figures = {}
    for name, mask in (("all", torch.ones_like(scenes.hidden)), ("seen", ~scenes.hidden), ("hidden", scenes.hidden)):
        # Over joints, then over all: a joint that is never hidden in the test scenes has no share of its own.
        figures[f"jdr_{name}"] = 100 * float(joint_detection_rate(predicted, scenes.joints, mask=mask).nanmean())
        figures[f"error_{name}"] = float(errors[mask].mean())
    return figures


def compare(
    steps: int = 200, scenes: int = 640, views: int = 4, batch: int = 16, seeds: Sequence[int] = (0,)
) -> list[dict[str, Any]]:
    """Train and measure the three models; a record a model and seed."""
    test = generate_scenes(max(scenes // 5, 1), views, first=TEST_FIGURES)
    records = []
    for seed in seeds:
        seen = generate_scenes(scenes, views, seed=seed)
        for name, fields in ARMS.items():
            model = build(seed, **fields)
            start = time.perf_counter()
            train(model, seen, steps, batch, seed)
            seconds = time.perf_counter() - start
            record = {"model": name, "seed": seed, "macs": count(model, test), "seconds": round(seconds, 1)}
            records.append(record | {key: round(value, 3) for key, value in measure(model, test).items()})
            _logger.info("%s, seed %d: %s", name, seed, records[-1])
    return records


@torch.no_grad()
def count(model: MultiViewPPT, scenes: Scenes) -> int:
    """Multiply-accumulates of one scene, all its views, attention's products included."""
    with MacCounter(model) as counter:
        model.eval()(**pick(scenes, torch.tensor([0]), model.config.ray_encoding))
    return counter.read().total


def report(records: Sequence[dict[str, Any]]) -> str:
    """The records as a table; the mean over seeds, and the deviation where there are several."""
    head = ("model", "M MACs", "train s", "JDR", "JDR seen", "JDR hidden", "error px", "seen", "hidden")
    keys = ("jdr_all", "jdr_seen", "jdr_hidden", "error_all", "error_seen", "error_hidden")
    rows = [head]
    for name in dict.fromkeys(record["model"] for record in records):
        own = [record for record in records if record["model"] == name]
        seconds = sum(record["seconds"] for record in own) / len(own)
        cells = (_mean([record[key] for record in own]) for key in keys)
        rows.append((name, f"{own[0]['macs'] / 1e6:.1f}", f"{seconds:.0f}", *cells))
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    lines = ["  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip() for row in rows]
    return "\n".join([lines[0], "-" * len(lines[0]), *lines[1:]])


def _mean(values: Sequence[float]) -> str:
    found = torch.tensor(values, dtype=torch.float64)
    return f"{found.mean():.1f}" + (f" ± {found.std():.1f}" if len(values) > 1 else "")


def main(argv: Sequence[str] | None = None) -> int:
    """Train, measure, print the table, and write the records if asked."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--steps", type=int, default=200, help="of training, each model (default: 200)")
    parser.add_argument("--scenes", type=int, default=640, help="to train on; a fifth as many to measure on")
    parser.add_argument("--views", type=int, default=4, help="cameras (default: 4)")
    parser.add_argument("--batch-size", type=int, default=16, help="scenes a step (default: 16)")
    parser.add_argument("--seeds", type=int, nargs="+", default=[0], help="one run of each model a seed (default: 0)")
    parser.add_argument("--out", type=Path, help="JSON file for the records")
    options = parser.parse_args(argv)
    if min(options.steps, options.scenes, options.views, options.batch_size) < 1:
        parser.error("--steps, --scenes, --views and --batch-size must be at least 1")
    records = compare(options.steps, options.scenes, options.views, options.batch_size, options.seeds)
    heads = f"JDR: within {HEAD_SIZE / 2:g} pixels of 1000; {options.views} views, {options.steps} steps"
    sys.stdout.write(f"{report(records)}\n{heads}, generated scenes\n")
    if options.out:
        settings = {"steps": options.steps, "scenes": options.scenes, "views": options.views}
        written = settings | {"batch_size": options.batch_size, "threads": torch.get_num_threads(), "runs": records}
        beside = options.out.with_name(f".new-{options.out.name}")
        beside.write_text(json.dumps(written, indent=1) + "\n", encoding="utf-8")
        os.replace(beside, options.out)
    return 0


if __name__ == "__main__":
    sys.exit(main())
