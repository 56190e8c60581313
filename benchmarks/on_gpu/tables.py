"""Records of a GPU as Markdown tables, such as the guide shows."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path

from common import Row  # in the folder above

from .forms import launch_bound
from .jobs import BENCHMARKS

NO_FIGURE = "-"


def read_records(folder: Path) -> list[Row]:
    """The records in a folder that were made on a CUDA device, in the order of the benchmarks."""
    found = []
    for benchmark in BENCHMARKS:
        for path in sorted(folder.glob(f"{benchmark}-*.json")):
            record = json.loads(path.read_text(encoding="utf-8"))
            if "CUDA" in record["conditions"]["clock"]:
                found.append(record | {"benchmark": benchmark})
    return found


def tables(records: Iterable[Row]) -> str:
    """One table a record, under a line with the device and the versions."""
    parts = []
    for record in records:
        known = record["conditions"]
        made = f", {known['measured']}" if "measured" in known else ""
        title = f"`{record['benchmark']}`: {known['device']}, torch {known['versions']['torch']}{made}"
        head, cells = _TABLES[record["benchmark"]]
        rows = [[*cells(row), busy(row)] for row in record["rows"]]
        parts.append(f"{title}\n\n{markdown([[*head, 'GPU busy'], *rows])}")
    return "\n".join(parts)


def markdown(rows: Sequence[Sequence[str]]) -> str:
    """Rows as a table, the first as its head."""
    head, *rest = rows
    lines = [head, ["---"] * len(head), *rest]
    return "".join(f"| {' | '.join(line)} |\n" for line in lines)


def busy(row: Row) -> str:
    """The least busy side's share, and whether it waited for launches."""
    shares = [value for key, value in row.items() if key.startswith("busy, ")]
    if not shares:
        return NO_FIGURE
    return f"{min(shares):.2f}{', launches' if launch_bound(row) else ''}"


def form(row: Row) -> str:
    """Eager, compiled, captured; records of before there were forms say whether it was compiled."""
    return str(row["form"]) if "form" in row else "compiled" if row.get("compiled") else "eager"


def model(row: Row) -> str:
    """Its name, and its depth where that is not its own."""
    return f"{row['model']}, depth {row['depth']}" if "depth" in row else str(row["model"])


def _overhead(row: Row) -> list[str]:
    counted = row["what"].endswith("bytes")
    what = f"{row['what']}, {row['wrapped'] / 1e9:.2f} GB" if counted else row["what"]
    spread = NO_FIGURE if counted else f"{row['spread']:.3f}"
    return [model(row), str(row["cycles"]), str(row["batch"]), form(row), what, f"{row['ratio']:.3f}", spread]


def _pruning(row: Row) -> list[str]:
    return [model(row), str(row["batch"]), str(row["cycles"]), form(row), row["what"], *_promise(row)]


def _hourglass(row: Row) -> list[str]:
    choice = f"{100 * row['choice']:.1f} %"
    return [model(row), str(row["frames"]), str(row["batch"]), form(row), *_promise(row), choice]


def _promise(row: Row) -> list[str]:
    return [f"{row[key]:.2f}" for key in ("macs", "speed-up", "reached")]


def _pose(row: Row) -> list[str]:
    if row["what"] == "decode":
        return [NO_FIGURE, str(row["batch"]), form(row), "decode", f"{row['persons/s']:,.0f} persons/s"]
    rate = f"{row['images/s, wrapped']:,.0f} images/s"
    if row["what"] == "training":
        beside = f"{row['ratio']:.3f} of the loop by hand, {row['over one cycle']:.2f} of one cycle"
        beside += f" (MACs {row['MACs over one cycle']:.2f})"
    else:
        beside = f"{row['ratio']:.3f} of the plain model, prepared {row['speed-up, prepared']:.2f} times as fast, "
        beside += f"in bfloat16 {row['speed-up, prepared bf16']:.2f}"
    return [model(row), str(row["batch"]), form(row), row["what"], f"{rate}; {beside}"]


def _study(row: Row) -> list[str]:
    return [str(row["cycles"]), str(row["batch"]), form(row), f"{row['images/s']:,.0f}"]


_TABLES: dict[str, tuple[list[str], Callable[[Row], list[str]]]] = {
    "overhead": (["model", "cycles", "batch", "form", "what", "ratio", "±"], _overhead),
    "pruning": (["model", "batch", "cycles", "form", "part", "MACs", "speed-up", "reached"], _pruning),
    "hourglass_speed": (["model", "frames", "batch", "form", "MACs", "speed-up", "reached", "choice"], _hourglass),
    "pose_speed": (["model", "batch", "form", "what", "figure"], _pose),
    "study_speed": (["cycles", "batch", "form", "images/s"], _study),
}
