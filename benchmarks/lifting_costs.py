"""What do the lifting models cost, with and without the hourglass, and do the published figures agree?

    python benchmarks/lifting_costs.py                       # all rows; a few seconds, no data, no GPU
    python benchmarks/lifting_costs.py --names hot_mixste    # some

Models are built on the meta device and run on one clip of the length they were published for, 17 joints. GFLOPs are
2 per multiply-accumulate, in 1e9:

linear      convolutions and linear layers alone: the convention of the papers
attention   attention's two products
choice      the distances between frames by which the hourglass chooses

"official code" is what the authors' code counts by the same two conventions; "paper" is the figure that the paper
prints, linear (taken from notes, not read again in the paper). A figure agrees if it differs by at most a unit of its
last digit.

Ours is below the official code where frames are recovered: the query of that attention is the same for every joint, so
it is projected once and not once a joint. "as official" adds what that saves; by nothing else may the two differ.
"""

from __future__ import annotations

import sys
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any

import torch
from common import RESULTS, columns, study_parser, write  # beside this file

from cycledistill.cost.macs import MacCounter, Macs
from cycledistill.integrations.human36m import Lifter, create_lifter

Record = dict[str, Any]


@dataclass(frozen=True)
class Known:
    """Figures to compare with: millions of parameters, GFLOPs of the official code, GFLOPs that the paper prints."""

    parameters: str
    linear: str
    attention: str | None = None
    paper: str | None = None


KNOWN: dict[str, Known] = {
    "mixste": Known("33.784", "277.25", "17.60", "277.25"),
    "hot_mixste": Known("35.000", "167.51", "8.67", "167.52"),
    "tpc_mixste": Known("33.784", "251.28", "15.56", "251.29"),
    "mhformer": Known("31.516", "14.14", "2.29", "14.15"),
    "tpc_mhformer": Known("31.516", "8.22", "0.94", "8.22"),
    "motionbert": Known("42.466", "348.81"),
    "motionbert_lite": Known("16.002", "131.09", "11.00", "131.09"),
    "hot_motionbert": Known("16.348", "63.21", "3.65", "63.21"),
}


def examine(name: str) -> Record:
    """Parameters and FLOPs of one model, next to what is known of it."""
    with torch.device("meta"):
        model = create_lifter(name).eval()
        config = model.config
        clip = torch.zeros(1, config.frames, config.joints, config.in_channels)
    all_of_it = _count(model, clip)
    handle = getattr(model, "hourglass", None)
    chosen = _choice(model)
    attention = 2 * (all_of_it.attention - chosen) / 1e9
    linear = 2 * all_of_it.weights / 1e9
    record: Record = {
        "name": name,
        "frames": config.frames,
        "kept": None if handle is None else list(handle.keep),
        "parameters": sum(each.numel() for each in model.parameters()),
        "linear": linear,
        "as official": linear + 2 * _shared_query(model) / 1e9,
        "attention": attention,
        "choice": 2 * chosen / 1e9,
    }
    known = KNOWN.get(name)
    return record if known is None else record | {"known": asdict(known), "agrees": _compare(known, record)}


def _count(model: Lifter, clip: torch.Tensor) -> Macs:
    with torch.no_grad(), MacCounter(model) as counter:
        model(clip)
    return counter.read()


def _choice(model: Lifter) -> int:
    """MACs of the distances: one product of (F, width) with its transpose at each prune point."""
    handle = getattr(model, "hourglass", None)
    if handle is None:
        return 0
    frames = [model.config.frames, *handle.keep[:-1]]
    width = model.config.dim * (3 if model.pool == "concat" else 1)
    return sum(count * count * width for count in frames)


def _shared_query(model: Lifter) -> int:
    """MACs that the official code spends on the same projection for all joints but one."""
    recovers = getattr(getattr(model, "hourglass", None), "recover", False) is True
    return (model.config.joints - 1) * model.config.frames * model.config.dim**2 if recovers else 0


def _compare(known: Known, record: Record) -> dict[str, bool]:
    counted = {
        "parameters": record["parameters"] / 1e6,
        "linear": record["as official"],
        "attention": record["attention"],
        "paper": record["as official"],
    }
    told = {what: text for what, text in asdict(known).items() if text is not None}
    return {what: abs(float(text) - counted[what]) <= 1.01 * 10.0 ** -_decimals(text) for what, text in told.items()}


def _decimals(text: str) -> int:
    return len(text.partition(".")[2])


def report(records: Sequence[Record]) -> str:
    """The records as a table."""
    head = ("model", "F", "kept", "parameters", "linear", "as official", "attention", "choice")
    rows = [(*head, "official code: M / linear / attention", "paper", "")]
    for record in records:
        known, agrees = record.get("known", {}), record.get("agrees", {})
        figures = (f"{record[key]:.2f}" for key in ("linear", "as official", "attention", "choice"))
        kept = "-" if record["kept"] is None else ", ".join(map(str, record["kept"]))
        official = " / ".join(known.get(key) or "-" for key in ("parameters", "linear", "attention"))
        off = [what for what, right in agrees.items() if not right]
        verdict = f"DIFFERS: {', '.join(off)}" if off else "agrees" if agrees else ""
        counts = (str(record["frames"]), kept, f"{record['parameters']:,}")
        rows.append((record["name"], *counts, *figures, official, known.get("paper") or "-", verdict))
    return columns(rows)


def main(argv: Sequence[str] | None = None) -> int:
    """Count, print, write."""
    parser = study_parser(__doc__, RESULTS / "lifting_costs.json")
    parser.add_argument("--names", nargs="*", default=None, help="models (default: all with published figures)")
    options = parser.parse_args(argv)
    try:
        records = [examine(name) for name in options.names or KNOWN]
    except ValueError as error:
        parser.error(str(error))
    sys.stdout.write(report(records) + "\n")
    write(options.out, {"joints": 17, "clips": 1, "models": records})
    return 0 if all(all(record.get("agrees", {}).values()) for record in records) else 1


if __name__ == "__main__":
    raise SystemExit(main())
