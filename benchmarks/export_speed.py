"""How fast are exported models? A PyTorch program (pt2) and ONNX Runtime beside eager and compiled PyTorch.

    python benchmarks/export_speed.py
    python benchmarks/export_speed.py --models deit_tiny_patch16_224 --batch 1 --runners eager onnx --repeats 5

Each model plain, and wrapped at each of its exits; pose models also with decoding inside (DARK, exit 1). Eval forwards
on the CPU: one thread in PyTorch and in ONNX Runtime, process CPU time, float32, random weights and images. All outputs
of a model and batch in all runners are timed in one process, in interleaved rounds whose order turns each time; a ratio
is the median over the rounds of the ratio within a round. Every runner's output is compared with eager's first.

- compiled, pt2, onnx   time over that of eager PyTorch for the same output.
- over plain            time of that output over that of the plain model, eager and in ONNX Runtime. Exit k costs k
                        passes of the stack, and everything else once; exit 1 is the plain model (bar: `overhead.py`).
- nodes                 of the ONNX graph.
"""

from __future__ import annotations

import copy
import functools
import statistics
import sys
import tempfile
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import onnx
import onnxruntime
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
    versions,
    write,
)
from torch import Tensor
from torch.utils._pytree import tree_leaves

from cycledistill import export, unwrap_cyclic, wrap_cyclic
from cycledistill.cost.timing import interleaved
from cycledistill.integrations.coco import create_pose_model, list_pose_models
from cycledistill.integrations.coco.decoded import DecodedPose

MODELS = ("deit_tiny_patch16_224", "sdpose_s_v1")
RUNNERS = ("eager", "compiled", "pt2", "onnx")
CYCLES, TOLERANCE = 3, 1e-3
CPU = torch.device("cpu")
Run = Callable[[], Any]


def outputs_of(name: str) -> tuple[dict[str, Any], tuple[int, int]]:
    """The modules to compare by what they give, all with the same weights, and the image size."""
    torch.manual_seed(0)
    pose = name in list_pose_models()
    model: Any = (create_pose_model(name) if pose else wrap_cyclic(timm.create_model(name), CYCLES, "exits")).eval()
    handle: Any = model.cyclic
    found = {"plain": unwrap_cyclic(copy.deepcopy(model))}
    for number in range(1, handle.cycles + 1):
        found[f"exit {number}"] = each = copy.deepcopy(model)
        each.cyclic.exit = number
    if pose:
        found["joints"] = DecodedPose(copy.deepcopy(model))
    return found, model.config.image_size if pose else model.patch_embed.img_size


def runners(module: Any, images: Tensor, folder: Path, kinds: list[str]) -> tuple[dict[str, Run], int]:
    """The module as a callable of each kind, compared with eager, and the number of nodes of its ONNX graph."""
    handle: Any = getattr(getattr(module, "model", module), "cyclic", None)
    number = handle.exit if handle is not None else 1
    calls: dict[str, Run] = {"eager": functools.partial(module, images)}
    nodes = 0
    if "compiled" in kinds:
        calls["compiled"] = functools.partial(torch.compile(module), images)
    if "pt2" in kinds:
        path = export(module, folder / "model.pt2", images, exit=number).path
        calls["pt2"] = functools.partial(torch.export.load(path).module(), images)
    if "onnx" in kinds:
        path = export(module, folder / "model.onnx", images, exit=number).path
        nodes = len(onnx.load(path).graph.node)
        session = _session(path)
        calls["onnx"] = functools.partial(session.run, None, {session.get_inputs()[0].name: images.numpy()})
    wanted = [torch.as_tensor(x) for x in tree_leaves(calls["eager"]())]
    for kind in kinds:
        for got, want in zip(tree_leaves(calls[kind]()), wanted, strict=True):
            torch.testing.assert_close(torch.as_tensor(got), want, rtol=0, atol=TOLERANCE * float(want.abs().max()))
    return {kind: calls[kind] for kind in kinds}, nodes


def _session(path: Path) -> Any:
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = options.inter_op_num_threads = 1
    return onnxruntime.InferenceSession(path, options, providers=["CPUExecutionProvider"])


@torch.no_grad()
def measure(name: str, batch: int, kinds: list[str], repeats: int) -> list[Row]:
    """One row an output: its time in every runner."""
    torch.compiler.reset()
    modules, size = outputs_of(name)
    images = torch.randn(batch, 3, *size)
    calls: dict[tuple[str, str], Run] = {}
    nodes = {}
    with tempfile.TemporaryDirectory() as folder:
        for what, module in modules.items():
            progress(name, f"batch {batch}", what)
            found, nodes[what] = runners(module, images, Path(folder), kinds)
            calls |= {(what, kind): call for kind, call in found.items()}
        timed = interleaved({" | ".join(key): call for key, call in calls.items()}, CPU, repeats, warmup=2)
    rows = []
    for what in modules:
        row: Row = {"model": name, "batch": batch, "what": what, "nodes": nodes[what]}
        for kind in kinds:
            key = f"{what} | {kind}"
            row[f"ms, {kind}"] = 1e3 * statistics.median(timed[key])
            row[f"{kind} over eager"], row[f"spread, {kind}"] = paired_ratio(timed, key, f"{what} | eager")
            row[f"over plain, {kind}"], row[f"spread over plain, {kind}"] = paired_ratio(timed, key, f"plain | {kind}")
        rows.append(row)
    return rows


def table(rows: list[Row]) -> str:
    """The rows as text."""
    head = ("model", "batch", "output", "eager ms", "compiled", "pt2", "onnx", "over plain", "in onnx", "nodes")
    lines = [f"{head[0]:<22}{head[1]:>6}  {head[2]:<7}" + "".join(f"{each:>11}" for each in head[3:])]
    for row in rows:
        ratios = [_cell(row.get(f"{kind} over eager")) for kind in RUNNERS[1:]]
        plain = [_cell(row["over plain, eager"]), _cell(row.get("over plain, onnx"))]
        cells = [f"{row['ms, eager']:.1f}", *ratios, *plain, str(row["nodes"] or "-")]
        lines.append(
            f"{row['model']:<22}{row['batch']:>6}  {row['what']:<7}" + "".join(f"{each:>11}" for each in cells)
        )
    return "\n".join(lines)


def _cell(ratio: float | None) -> str:
    return "-" if ratio is None else f"{ratio:.2f}"


def main(argv: list[str] | None = None) -> int:
    """Measure, print the table, write the JSON."""
    parser = speed_parser(
        __doc__, "export_speed", MODELS, "timm vision transformers, SDPose models", repeats=7, device="cpu"
    )
    parser.add_argument("--batch", nargs="+", type=int, default=[1, 8])
    parser.add_argument("--runners", nargs="+", choices=RUNNERS, default=list(RUNNERS), help="eager is always one")
    options = parser.parse_args(argv)
    for name in options.models:
        if name in list_pose_models() and not name.startswith("sdpose"):
            parser.error(f"--models {name}: a pose model with cycles (sdpose_...) is expected")
    kinds = [kind for kind in RUNNERS if kind == "eager" or kind in options.runners]
    start(parser, options)
    rows: list[Row] = []
    record: Row = {"conditions": conditions(CPU, options.repeats), "rows": rows}
    record["conditions"]["versions"] |= versions("onnx", "onnxruntime", "onnxscript")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # exporters speak of their own future
        for name in options.models:
            for batch in options.batch:
                rows += measure(name, batch, kinds, options.repeats)
                write(options.out, record)  # after each: a run that is stopped leaves what it has
    show(record, table(rows))
    return 0


if __name__ == "__main__":
    sys.exit(main())
