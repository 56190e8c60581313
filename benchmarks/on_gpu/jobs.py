"""What is measured on a GPU, most wanted first: each job is one case of a benchmark, eager or compiled."""

from __future__ import annotations

import functools
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field
from typing import Any

import hourglass_speed  # in the folder above, as the next ones
import overhead
import pose_speed
import pruning
import torch
from common import Row, precision, training_step

from cycledistill.recipes.run.graph.capture import CudaCapture

from . import study
from .forms import Call, Compile, as_it_is, clean_up, in_forms, timed

BENCHMARKS = ("overhead", "pruning", "hourglass_speed", "pose_speed", "study_speed")


@dataclass(frozen=True)
class Job:
    """A case of a benchmark.

    Attributes:
        benchmark: One of `BENCHMARKS`; its rows stand in that record.
        setting: What tells this case from others; it stands in every row.
        measure: Gives the rows, on a device, with a number of rounds.
    """

    benchmark: str
    setting: dict[str, Any]
    measure: Callable[[torch.device, int], Iterable[Row]] = field(compare=False)

    @property
    def name(self) -> str:
        """Unique among all jobs."""
        parts = [f"{key} {value}" for key, value in self.setting.items() if key not in ("model", "compiled")]
        mode = "compiled" if self.setting["compiled"] else "eager"
        return " ".join([self.benchmark, str(self.setting.get("model", "")), *parts, mode]).replace("  ", " ")

    def run(self, device: torch.device, repeats: int) -> Iterator[Row]:
        """The rows, each as soon as it is known."""
        try:
            for row in self.measure(device, repeats):
                yield {"job": self.name, **self.setting, **row}
        finally:
            clean_up(device)


def overhead_job(model: str, batch: int, compiled: bool, cycles: int = 2, **options: Any) -> Job:
    """Wrapped over by hand. ``options`` (a depth, say) make the model smaller: compiling takes its time a block."""

    def measure(device: torch.device, repeats: int) -> Iterator[Row]:
        case = overhead.Case(model, cycles, batch, device, **options)
        for each in (case.bare, case.wrapped):
            each.train()

        def steps(form: Compile[Any]) -> dict[str, Call]:
            losses = {name: form(loss) for name, loss in case.losses().items()}
            case.check(losses, 1e-2 if device.type == "cuda" else 1e-4)
            models = {"by hand": case.bare, "wrapped": case.wrapped}
            return {name: functools.partial(training_step, models[name], loss, device)
                    for name, loss in losses.items()}  # fmt: skip

        if not compiled:
            yield from ({"form": "eager", **row} for row in overhead.memory(case, case.losses(), steps(as_it_is)))
        for form, calls in in_forms(steps, device, compiled):
            seconds, busy = timed(calls, device, repeats)
            yield {"form": form, **overhead.figures("training", seconds, "wrapped", "by hand"), **busy}
        for each in (case.bare, case.wrapped):
            each.eval()
        for form, calls in in_forms(functools.partial(_evaluations, case), device, compiled):
            seconds, busy = timed(calls, device, 3 * repeats)
            yield {"form": form, **overhead.figures("eval", seconds, "wrapped eval", "bare eval"), **busy}
        for each in (case.bare, case.wrapped):
            each.train()
        if not compiled:
            yield {"form": "eager", **overhead.distillation(case, repeats)}

    return Job("overhead", {"model": model, **options, "cycles": cycles, "batch": batch, "compiled": compiled}, measure)


def _evaluations(case: overhead.Case, form: Compile[Any]) -> dict[str, Call]:
    def call(model: Any) -> Call:
        def run() -> None:
            with torch.no_grad(), precision(case.device):
                formed(case.images)

        formed = form(model)
        return run

    return {"bare eval": call(case.bare), "wrapped eval": call(case.wrapped)}


def pruning_job(model: str, batch: int, compiled: bool, part: str = "", cycles: int = 1) -> Job:
    """Pruned over plain: one part of the benchmark, or all whose name has ``part`` in it."""

    def measure(device: torch.device, repeats: int) -> Iterator[Row]:
        case = pruning.Case(model, batch, cycles, device)
        for what in (each for each in pruning.PARTS if part in each):
            for form, calls in in_forms(functools.partial(case.calls, what), device, compiled):
                seconds, busy = timed(calls, device, repeats)
                yield {"form": form, **pruning.figures(case, what, seconds), **busy}

    setting = {"model": model, "batch": batch, "cycles": cycles, "part": part or "all", "compiled": compiled}
    return Job("pruning", setting, measure)


def hourglass_job(model: str, frames: int, batch: int, compiled: bool) -> Job:
    """Fewer frames over all of them."""

    def measure(device: torch.device, repeats: int) -> Iterator[Row]:
        case = hourglass_speed.Case(model, frames, batch, device)
        make = functools.partial(case.calls, batch == 1 and not compiled)
        for form, calls in in_forms(make, device, compiled):
            seconds, busy = timed(calls, device, repeats)
            yield {"form": form, **hourglass_speed.figures(case, seconds), **busy}

    setting = {"model": model, "frames": frames, "batch": batch, "compiled": compiled}
    return Job("hourglass_speed", setting, measure)


def pose_job(model: str, batch: int, compiled: bool, part: str) -> Job:
    """Inference, prepared or not, or a training step."""

    def measure(device: torch.device, repeats: int) -> Iterator[Row]:
        case = pose_speed.Case(model, batch, device)
        run = pose_speed.measure_training if part == "training" else pose_speed.measure_inference
        yield {"form": "compiled" if compiled else "eager", "cycles": case.cycles, **run(case, compiled, repeats)}

    return Job("pose_speed", {"model": model, "batch": batch, "part": part, "compiled": compiled}, measure)


def decode_job(persons: int) -> Job:
    """Joints from heatmaps."""

    def measure(device: torch.device, repeats: int) -> Iterator[Row]:
        yield {"form": "eager", **pose_speed.measure_decode(persons, device, 3 * repeats)}

    return Job("pose_speed", {"batch": persons, "part": "decode", "compiled": False}, measure)


def study_job(cycles: int, batch: int, compiled: bool, **options: Any) -> Job:
    """The whole training step of a small model; last, where there are graphs, as the training commands capture it."""

    def measure(device: torch.device, repeats: int) -> Iterator[Row]:
        case = study.Case(cycles, batch, device, **options)
        for form, calls in in_forms(case.calls, device, compiled):
            seconds, busy = timed(calls, device, 3 * repeats, warmup=5)
            yield {"form": form, **case.figures(seconds), **busy}
        if device.type == "cuda" and not compiled:
            calls = study.Case(cycles, batch, device, **options).recipe_calls(CudaCapture(device))
            seconds, busy = timed(calls, device, 3 * repeats, warmup=5)  # the first are eager, or captured
            yield {"form": "recipe graph", **case.figures(seconds), **busy}

    return Job("study_speed", {"cycles": cycles, "batch": batch, "compiled": compiled}, measure)


DEIT, DEIT_S, TOKENPOSE, SDPOSE = "deit_tiny_patch16_224", "deit_small_patch16_224", "tokenpose_s_v1", "sdpose_s_v1"


def all_jobs() -> list[Job]:
    """For a large GPU. What stands first is measured first, where the time does not suffice for all."""
    return [
        overhead_job(DEIT, 256, True, depth=4),
        overhead_job(DEIT, 256, False),
        *(pruning_job(DEIT, 256, True, part) for part in ("model forward", "model training")),
        *(pruning_job(TOKENPOSE, 256, True, part) for part in ("stack forward", "stack training")),
        pruning_job(DEIT, 1, True, "model forward"),
        *(hourglass_job("hot_mixste", 243, 1, compiled) for compiled in (False, True)),
        *(pruning_job(name, 256, False) for name in (DEIT, TOKENPOSE)),
        pruning_job(DEIT_S, 256, False, "stack"),
        *(pruning_job(name, 256, False, cycles=2) for name in (DEIT, TOKENPOSE)),
        *(study_job(cycles, 512, compiled) for compiled in (False, True) for cycles in (1, 2)),
        hourglass_job("hot_mixste", 243, 16, False),
        *(decode_job(persons) for persons in (32, 256)),
        *(pose_job(SDPOSE, 64, False, part) for part in ("inference", "training")),
        *(pruning_job(DEIT_S, 256, True, part) for part in ("stack forward", "stack training")),
        hourglass_job("hot_mixste", 243, 16, True),
        overhead_job(DEIT, 8, False),
        *(pose_job(SDPOSE, 64, True, part) for part in ("inference", "training")),
    ]


def quick_jobs() -> list[Job]:
    """One of each kind, tiny: whether the code works, and nothing else."""
    return [
        overhead_job("test_vit", 1, True, depth=2),
        overhead_job("test_vit", 1, False, depth=2),
        pruning_job(DEIT, 1, True, "model forward"),
        hourglass_job("hot_frame_lifter", 27, 1, False),
        hourglass_job("hot_frame_lifter", 27, 1, True),
        *(study_job(2, 2, compiled, depth=2, embed_dim=24) for compiled in (False, True)),
        decode_job(2),
        pose_job("sdpose_t", 1, False, "training"),
    ]
