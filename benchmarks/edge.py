"""What becomes of an exported model in the runtimes of small devices: size, speed and answers, each in turn.

    python benchmarks/edge.py
    python benchmarks/edge.py --models sdpose_t --exits 2 --backends onnx onnx-int8-static openvino

    python benchmarks/edge.py --exits 1 --backends aot-inductor --keep

One image at a time on the CPU: random weights, noise as calibration and as test, so that agreement tells of arithmetic
and not of accuracy. A backend whose package is not installed is skipped by name, one that fails is named with its
error; both stand in the record. All backends of a model and exit are timed in one process, one thread where the runtime
can be told so, process CPU time, in interleaved rounds whose order turns each time; a ratio is the median over the
rounds of the ratio within a round.

- MB                 of the file that would be deployed; weights of eager PyTorch.
- over eager         time over that of eager PyTorch in float32 at the same exit.
- differs            root mean square of the difference to eager's outputs over theirs.
- same               images whose largest output (class; of maps, the place) is the same one.
"""

from __future__ import annotations

import importlib.util
import json
import statistics
import sys
import tempfile
import warnings
from collections.abc import Callable
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

import timm
import torch
from common import (  # beside this file
    Row,
    conditions,
    paired_ratio,
    progress,
    show,
    speed_parser,
    start,
    write,
)
from edge_backends import BACKENDS, NEEDS, Built, Subject  # beside this file

from cycledistill import wrap_cyclic
from cycledistill.cost.timing import interleaved
from cycledistill.exporter.agreement import compare_outputs
from cycledistill.integrations.coco import create_pose_model, list_pose_models

MODELS = ("deit_tiny_patch16_224",)
CPU = torch.device("cpu")
PACKAGES = ("onnx", "onnxruntime", "openvino", "nncf", "torchao", "executorch")
TESTED = 16


def subject_of(name: str, exit: int) -> Subject:
    """A model with random weights that answers at an exit, and images for it."""
    torch.manual_seed(0)
    pose = name in list_pose_models()
    model: Any = create_pose_model(name) if pose else wrap_cyclic(timm.create_model(name), 2, "exits")
    model.eval().requires_grad_(False).cyclic.exit = exit
    size = model.config.image_size if pose else model.patch_embed.img_size
    return Subject(
        model,
        exit,
        [torch.randn(1, 3, *size) for _ in range(TESTED)],
        [torch.randn(1, 3, *size) for _ in range(TESTED)],
    )


def lacking(backend: str) -> str:
    """Packages of a backend that are not installed, in words; empty if all are."""
    absent = [each for each in NEEDS[backend] if importlib.util.find_spec(each) is None]
    return f"{', '.join(absent)} not installed" if absent else ""


@torch.no_grad()
def measure(name: str, exit: int, backends: list[str], repeats: int, passed: Row) -> list[Row]:
    """One row a backend that runs; those that do not are added to ``passed``."""
    subject = subject_of(name, exit)
    built: dict[str, Built] = {}
    with tempfile.TemporaryDirectory() as folder:
        for backend in backends:
            reason = lacking(backend)
            if not reason:
                progress(name, f"exit {exit}", backend)
                place = Path(folder, backend)
                place.mkdir()
                try:
                    built[backend] = BACKENDS[backend](subject, place)
                    built[backend].run(subject.tests[0])
                except Exception as error:  # any library's any error: it is what the record is to tell
                    built.pop(backend, None)
                    reason = f"{type(error).__name__}: {str(error).strip().splitlines()[0][:300]}"
            if reason:
                passed[f"{name}, exit {exit}, {backend}"] = reason
        answers = {each: [made.run(x) for x in subject.tests] for each, made in built.items()}
        calls: dict[str, Callable[[], object]] = {
            each: (lambda made=made: made.run(subject.tests[0])) for each, made in built.items()
        }
        seconds = interleaved(calls, CPU, repeats, warmup=2)
    rows = []
    for each, made in built.items():
        near = compare_outputs(answers["eager"], answers[each])
        ratio, spread = paired_ratio(seconds, each, "eager")
        rows.append(
            {
                "model": name,
                "exit": exit,
                "backend": each,
                "bytes": made.size,
                "ms": 1e3 * statistics.median(seconds[each]),
                "over eager": ratio,
                "spread": spread,
                "differs": near.relative,
                "same": near.same,
            }
        )
    return rows


def merged(rows: list[Row], new: list[Row]) -> list[Row]:
    """Rows of both, new ones in the place of those of the same model, exit and backend; eager's stay."""
    order = list(BACKENDS)
    found = {(row["model"], row["exit"], row["backend"]): row for row in rows}
    for row in new:
        key = row["model"], row["exit"], row["backend"]
        if row["backend"] != "eager" or key not in found:  # what earlier rows are ratios to
            found[key] = row
    return sorted(found.values(), key=lambda row: (row["model"], row["exit"], order.index(row["backend"])))


def table(rows: list[Row]) -> str:
    """The rows as text."""
    lines = [f"{'model':<22}{'exit':>5}  {'backend':<22}{'MB':>8}{'over eager':>12}{'differs':>10}{'same':>7}"]
    for row in rows:
        same = "-" if row["same"] is None else f"{row['same']:.0%}"
        lines.append(
            f"{row['model']:<22}{row['exit']:>5}  {row['backend']:<22}{row['bytes'] / 1e6:>8.1f}"
            f"{row['over eager']:>12.2f}{row['differs']:>10.1e}{same:>7}"
        )
    return "\n".join(lines)


def _versions() -> dict[str, str]:
    found = {}
    for package in PACKAGES:
        try:
            found[package] = version(package)
        except PackageNotFoundError:
            found[package] = "not installed"
    return found


def main(argv: list[str] | None = None) -> int:
    """Measure, print the table, write the JSON."""
    parser = speed_parser(__doc__, "edge", MODELS, "timm vision transformers, SDPose models", repeats=7, device="cpu")
    parser.add_argument("--exits", nargs="+", type=int, default=[1, 2])
    parser.add_argument("--backends", nargs="+", choices=list(BACKENDS), default=list(BACKENDS), help="eager always is")
    parser.add_argument("--keep", action="store_true", help="keep rows that the record has and this run has not")
    options = parser.parse_args(argv)
    for name in options.models:
        if name in list_pose_models() and not name.startswith("sdpose"):
            parser.error(f"--models {name}: a pose model with cycles (sdpose_...) is expected")
    backends = [each for each in BACKENDS if each == "eager" or each in options.backends]
    start(parser, options)
    earlier = json.loads(options.out.read_text(encoding="utf-8")) if options.keep else {"rows": [], "not run": {}}
    rows: list[Row] = earlier["rows"]
    passed: Row = earlier["not run"]
    record: Row = {"conditions": conditions(CPU, options.repeats), "rows": rows, "not run": passed}
    record["conditions"]["versions"] |= _versions()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # exporters speak of their own future
        for name in options.models:
            for exit in options.exits:
                new = measure(name, exit, backends, options.repeats, passed)
                rows[:] = merged(rows, new)
                write(options.out, record)  # after each: a run that is stopped leaves what it has
    more = "\n".join(f"not run: {each}: {reason}" for each, reason in passed.items())
    show(record, f"{table(rows)}\n{more}".rstrip())
    return 0


if __name__ == "__main__":
    sys.exit(main())
