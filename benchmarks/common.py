"""What the benchmarks share: options, device and threads, conditions, counting, training steps, tables and records."""

from __future__ import annotations

import argparse
import json
import os
import platform
import statistics
import sys
from collections.abc import Callable, Mapping, Sequence
from importlib.metadata import version
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from cycledistill.cost.macs import MacCounter
from cycledistill.cost.timing import clock_name
from cycledistill.files import atomic_write

RESULTS = Path(__file__).parent / "results"
MODES = {"eager": [False], "compiled": [True], "both": [False, True]}
"""``--mode`` -> whether to compile, in turn."""

Row = dict[str, Any]


def study_parser(doc: str | None, out: Path | None = None) -> argparse.ArgumentParser:
    """A parser that shows the whole of ``doc``, with ``--out`` for the record."""
    parser = argparse.ArgumentParser(description=doc, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, default=out, help="JSON file for the record")
    return parser


def speed_parser(
    doc: str | None, name: str, models: Sequence[str], of: str, repeats: int, device: str | None = None
) -> argparse.ArgumentParser:
    """A parser with ``--models``, ``--repeats``, ``--out`` and ``--device``, for a benchmark of speed.

    Args:
        doc: Its docstring, of which the first line is shown.
        name: Its name; the record goes to ``results/NAME-DEVICE.json``.
        models: Which it measures if none are asked for.
        of: What models it takes.
        repeats: Rounds if none are asked for.
        device: The only one it runs on, which then is no option.
    """
    parser = argparse.ArgumentParser(description=(doc or "").splitlines()[0])
    if device is None:
        parser.add_argument("--device", help="cpu or cuda (default: cuda where there is one)")
    parser.add_argument("--models", nargs="+", default=list(models), help=of)
    parser.add_argument("--repeats", type=int, default=repeats, help="rounds of each comparison")
    parser.add_argument("--out", type=Path, help=f"default: results/{name}-DEVICE.json beside this file")
    parser.set_defaults(record_name=name, **({} if device is None else {"device": device}))
    return parser


def paired_ratio(seconds: Mapping[str, list[float]], name: str, over: str) -> tuple[float, float]:
    """Median over rounds of ``name`` / ``over`` within one round, and the half-width of its middle half (the spread).

    Example:
        >>> paired_ratio({"a": [2.0, 2.0, 2.0], "b": [1.0, 1.0, 1.0]}, "a", "b")
        (2.0, 0.0)
    """
    ratios = [a / b for a, b in zip(seconds[name], seconds[over], strict=True)]
    if len(ratios) < 2:
        return ratios[0], 0.0
    low, _, high = statistics.quantiles(ratios, n=4, method="inclusive")
    return statistics.median(ratios), (high - low) / 2


def start(parser: argparse.ArgumentParser, options: argparse.Namespace) -> torch.device:
    """The device asked for, with torch held to one thread on a CPU; fills in where the record goes."""
    device = torch.device(options.device or ("cuda" if torch.cuda.is_available() else "cpu"))
    if device.type == "cuda" and not torch.cuda.is_available():
        parser.error("--device cuda: torch sees no GPU here")
    if device.type == "cpu":
        torch.set_num_threads(1)
    options.out = options.out or RESULTS / f"{options.record_name}-{device.type}.json"
    return device


def conditions(device: torch.device, repeats: int) -> Row:
    """What a reader needs to judge or repeat the figures."""
    allocator = torch.cuda.get_allocator_backend() if device.type == "cuda" else _host_allocator()
    return {
        "device": torch.cuda.get_device_name(device) if device.type == "cuda" else _cpu_name(),
        "clock": clock_name(device),
        "repeats": repeats,
        "allocator": allocator,
        "load average at start": round(os.getloadavg()[0], 2) if hasattr(os, "getloadavg") else None,
        "versions": versions("timm"),
    }


def versions(*packages: str) -> dict[str, str]:
    """Those of Python, of PyTorch, and of other packages."""
    known = {"python": platform.python_version(), "torch": torch.__version__}
    return known | {package: version(package) for package in packages}


def hardware(device: str, threads: str) -> str:
    """The GPU by its name, or the kind of CPU and how many threads it ran."""
    return torch.cuda.get_device_name() if device == "cuda" else f"CPU ({platform.machine()}), {threads}"


def _host_allocator() -> str:
    preloaded = os.environ.get("LD_PRELOAD", "")
    return ", ".join(Path(each).name for each in preloaded.split(":") if each) or "the C library's malloc"


def _cpu_name() -> str:
    information = Path("/proc/cpuinfo")
    if information.exists():
        for line in information.read_text().splitlines():
            if line.startswith("model name"):
                return line.partition(":")[2].strip()
    return platform.processor() or platform.machine()


def precision(device: torch.device, cast: bool = True) -> torch.autocast:
    """bfloat16 on a GPU, float32 on the CPU; with ``cast=False`` whatever the model is in."""
    return torch.autocast(device.type, torch.bfloat16, enabled=cast and device.type == "cuda")


def training_step(model: nn.Module, loss: Callable[[], Tensor], device: torch.device) -> Tensor:
    """Forward and backward, from gradients of None; the loss."""
    model.zero_grad(set_to_none=True)
    with precision(device):
        value = loss()
    value.backward()
    return value.detach()


def loss_and_gradients(model: nn.Module, loss: Callable[[], Tensor], device: torch.device) -> Tensor:
    """What a training step made, as one vector: two sides must agree in it, or comparing their times means nothing."""
    value = training_step(model, loss, device).float().view(1)
    return torch.cat([value, *(p.grad.float().flatten() for p in model.parameters() if p.grad is not None)])


@torch.no_grad()
def macs(model: nn.Module, *args: Any, forward: Callable[..., object] | None = None) -> int:
    """Multiply-accumulates of a model's forward, or of another way through its modules; attention counted."""
    with MacCounter(model) as counter:
        (forward or model)(*args)
    return counter.read().total


def best(seconds: Mapping[str, Sequence[float]]) -> Row:
    """The least time of each, for the record."""
    return {f"best seconds, {name}": min(values) for name, values in seconds.items()}


def verdict(passed: bool | None, bar: object = "") -> str:
    """``pass`` or ``FAIL``, behind the bar; empty where there is none."""
    return "" if passed is None else f"{bar} {'pass' if passed else 'FAIL'}".strip()


def columns(rows: Sequence[Sequence[str]]) -> str:
    """Rows as text, each column as wide as its widest cell, the first row underlined."""
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    lines = ["  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip() for row in rows]
    return "\n".join([lines[0], "-" * len(lines[0]), *lines[1:]])


def show(record: Row, table: str) -> None:
    """Print the conditions and the table of a benchmark of speed."""
    sys.stdout.write(json.dumps(record["conditions"], indent=2) + "\n" + table + "\n")


def progress(*words: object) -> None:
    """Say on the error stream what is measured now."""
    sys.stderr.write(", ".join(map(str, words)) + "\n")


def write(out: Path, record: Mapping[str, Any]) -> None:
    """Write a record as JSON; a reader never sees half a file."""
    out.parent.mkdir(parents=True, exist_ok=True)
    atomic_write(out, lambda file: file.write_text(json.dumps(record, indent=1) + "\n", encoding="utf-8"))
