"""Where do parts of a batch pay on a CPU? Process CPU time and page faults of whole batches and of parts, by model.

    python benchmarks/sub_batches.py
    python benchmarks/sub_batches.py --models sdpose_s_v1 --batch 16 --size 4 --repeats 3 --threads 2

Each way is a process of its own, since what its ``malloc`` gives back to the kernel depends on all that it did before;
the processes take turns, one call each a round, and the order turns each time. A gain is the median over the rounds of
the whole batch's CPU time over that of the parts.

Models: pose models at 256x192 as ``prepare_for_inference`` gives them, in float32; ``NAME plain``: as evaluation gets
them; timm's; lifting models with 81 frames. Random weights and inputs, eval mode.
"""

from __future__ import annotations

import multiprocessing
import resource
import statistics
import sys
import time
from multiprocessing.connection import Connection
from typing import Any

import torch
from common import Row, columns, conditions, progress, speed_parser, start, write  # beside this file
from torch import Tensor, nn

from cycledistill.recipes.run.sub_batches import in_sub_batches

MODELS = ("sdpose_s_v1", "sdpose_s_v1 plain", "deit_tiny_patch16_224", "hot_mixste")
FRAMES, WARMUP = 81, 2


def model_and_inputs(name: str, batch: int) -> tuple[nn.Module, Tensor]:
    """A model in eval mode and a batch of random inputs."""
    torch.manual_seed(0)
    if name.startswith("hot_"):
        from cycledistill.integrations.human36m import build_lifter, lifter_config

        config = lifter_config(name, frames=FRAMES, layer=None, keep=None)
        lifter = build_lifter(config).eval()
        return lifter, torch.randn(batch, FRAMES, lifter.config.joints, lifter.config.in_channels)
    if not name.startswith(("sdpose", "tokenpose")):
        import timm

        vit: Any = timm.create_model(name).eval()
        return vit, torch.randn(batch, *vit.default_cfg["input_size"])
    from cycledistill.integrations.coco import create_pose_model
    from cycledistill.integrations.coco.deploy import prepare_for_inference

    pose = create_pose_model(name.removesuffix(" plain")).eval()
    images = torch.randn(batch, 3, *pose.config.image_size)
    if name.endswith(" plain"):
        return pose, images
    return prepare_for_inference(pose, sub_batch=None), images.to(memory_format=torch.channels_last)


def call(model: nn.Module, inputs: Tensor, size: int | None) -> dict[str, float]:
    """What one call took."""
    faults, wall, cpu = resource.getrusage(resource.RUSAGE_SELF).ru_minflt, time.perf_counter(), time.process_time()
    with torch.no_grad():
        in_sub_batches(model, inputs, size=size)
    cpu, wall = time.process_time() - cpu, time.perf_counter() - wall
    return {"cpu": cpu, "wall": wall, "faults": resource.getrusage(resource.RUSAGE_SELF).ru_minflt - faults}


def answer(pipe: Connection, name: str, batch: int, size: int | None, threads: int) -> None:
    """A process's work: one call whenever it is asked for one."""
    torch.set_num_threads(threads)
    model, inputs = model_and_inputs(name, batch)
    while pipe.recv():
        pipe.send(call(model, inputs, size))


class Way:
    """One way to run a batch, in a process of its own."""

    def __init__(self, name: str, batch: int, size: int | None, threads: int) -> None:
        context = multiprocessing.get_context("spawn")
        self.pipe, other = context.Pipe()
        self.process = context.Process(target=answer, args=(other, name, batch, size, threads), daemon=True)
        self.process.start()

    def once(self) -> dict[str, float]:
        """What a call took there."""
        self.pipe.send(True)
        taken: dict[str, float] = self.pipe.recv()
        return taken

    def close(self) -> None:
        """End the process."""
        self.pipe.send(False)
        self.process.join()


def measure(name: str, batch: int, sizes: list[int], threads: int, repeats: int) -> list[Row]:
    """A row for the whole batch and one for each size of parts."""
    every: list[int | None] = [None, *(size for size in sizes if size < batch)]
    ways = {size: Way(name, batch, size, threads) for size in every}
    taken: dict[int | None, list[dict[str, float]]] = {size: [] for size in every}
    for turn in range(WARMUP + repeats):
        for size in every if turn % 2 == 0 else reversed(every):
            found = ways[size].once()
            if turn >= WARMUP:
                taken[size].append(found)
    for way in ways.values():
        way.close()
    return [
        {"model": name, "threads": threads, "batch": batch, "size": size}
        | {
            f"{what}, median": statistics.median(each[what] for each in taken[size])
            for what in ("cpu", "wall", "faults")
        }
        | {f"gain, {what}": gain(taken[None], taken[size], what) for what in ("cpu", "wall")}
        for size in every
    ]


def gain(whole: list[dict[str, float]], parts: list[dict[str, float]], what: str) -> float:
    """Median over the rounds of the whole batch's time over that of the parts."""
    return statistics.median(a[what] / b[what] for a, b in zip(whole, parts, strict=True))


def table(rows: list[Row]) -> str:
    """The rows as text."""
    head = ("model", "threads", "batch", "parts of", "CPU ms", "faults", "gain", "gain, wall clock")
    return columns(
        [
            head,
            *(
                (
                    row["model"],
                    str(row["threads"]),
                    str(row["batch"]),
                    str(row["size"] or "whole"),
                    f"{1e3 * row['cpu, median']:.0f}",
                    f"{row['faults, median']:.0f}",
                    f"{row['gain, cpu']:.2f}",
                    f"{row['gain, wall']:.2f}",
                )
                for row in rows
            ),
        ]
    )


def main(argv: list[str] | None = None) -> int:
    """Measure, print the table, write the JSON."""
    parser = speed_parser(__doc__, "sub_batches", MODELS, "pose, timm and lifting models", repeats=5, device="cpu")
    parser.add_argument("--batch", nargs="+", type=int, default=[4, 8, 16, 32])
    parser.add_argument("--size", nargs="+", type=int, default=[2, 4, 8])
    parser.add_argument("--threads", type=int, default=1)
    options = parser.parse_args(argv)
    device = start(parser, options)
    rows: list[Row] = []
    record: Row = {"conditions": conditions(device, options.repeats), "rows": rows}
    for name in options.models:
        for batch in options.batch:
            progress(name, f"batch {batch}")
            rows += measure(name, batch, options.size, options.threads, options.repeats)
            write(options.out, record)  # after each: a run that is stopped leaves what it has
    sys.stdout.write(table(rows) + "\n")
    return 0


if __name__ == "__main__":
    sys.exit(main())
