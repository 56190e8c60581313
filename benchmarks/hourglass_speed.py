"""What does the hourglass save? The measured speed-up of lifting models beside the one that the counted work promises.

    python benchmarks/hourglass_speed.py                                   # on the GPU if there is one, else on the CPU
    python benchmarks/hourglass_speed.py --device cpu --models hot_mixste --frames 81 --batch 1 --repeats 3

A model against the same with a third of the frames kept, in eval, in one process, in interleaved rounds whose order
turns each time; a speed-up is the median over the rounds of the ratio within a round. Both sides use the same fused
attention (``scaled_dot_product_attention``).

MACs      multiply-accumulates of the full model over those of the pruned one, attention counted
reached   the speed-up over that ratio. Bar at 243 frames: 0.85 for MixSTE and MotionBERT
choice    the share of choosing frames (pooling, distances, scores) in the pruned forward. Bar at 243 frames:
          3 % for MixSTE and MotionBERT, 12 % for MHFormer. Small lifters with one token a frame have no bar
unfused   the full model's time with attention as two products and a softmax, over its time with the fused kernel

CPU: one thread, process CPU time, float32. GPU: CUDA events, bfloat16 autocast, no bars.
"""

from __future__ import annotations

import copy
import sys
from collections.abc import Callable
from typing import Any

import torch
from common import (  # beside this file
    Row,
    best,
    conditions,
    macs,
    paired_ratio,
    precision,
    progress,
    show,
    speed_parser,
    start,
    write,
)
from torch import Tensor
from torch.nn.attention import SDPBackend, sdpa_kernel

from cycledistill.cost.timing import interleaved
from cycledistill.hourglass.selection import full_precision, pool_frames, tpc
from cycledistill.integrations.human36m import build_lifter, lifter_config

MODELS = ("hot_mixste", "hot_motionbert", "tpc_mhformer", "hot_frame_lifter")
BAR, BAR_FRAMES = 0.85, 243
CHOICE_BARS = {"hot_mixste": 0.03, "hot_motionbert": 0.03, "tpc_mhformer": 0.12}


class Case:
    """A model with and without the hourglass, at one clip length and batch."""

    def __init__(self, name: str, frames: int, batch: int, device: torch.device) -> None:
        torch.manual_seed(0)
        self.device = device
        # the layer is that of the published model, the share a third for all
        pruned = lifter_config(name, frames=frames, keep=frames // 3)
        with torch.device(device):
            self.pruned = build_lifter(pruned).eval()
            self.full = build_lifter(lifter_config(name, frames=frames, layer=None, keep=None)).eval()
        config = self.full.config
        self.clips = torch.randn(batch, frames, config.joints, config.in_channels, device=device)
        self.tokens, self.keep = self._at_the_prune_point(), frames // 3

    def _at_the_prune_point(self) -> Tensor:
        with torch.no_grad():
            tokens = self.full.embed(self.clips)
            for level in self.full.levels[: self.pruned.hourglass.layers[0]]:
                tokens = level(tokens)
        return tokens

    def calls(self, unfused: bool, form: Callable[[Any], Any] = lambda call: call) -> dict[str, Callable[[], Any]]:
        """What is timed; ``form`` makes something else of each forward, such as a compiled one."""
        calls: dict[str, Callable[[], Any]] = {
            "full": self._forward(form(self.full)),
            "pruned": self._forward(form(self.pruned)),
            "choice": form(self._choose),
        }
        if unfused:
            calls["unfused"] = self._unfused(calls["full"])
        return calls

    def _forward(self, model: Callable[[Tensor], Tensor]) -> Callable[[], Tensor]:
        def run() -> Tensor:
            with torch.no_grad(), precision(self.device):
                return model(self.clips)

        return run

    def _unfused(self, full: Callable[[], Tensor]) -> Callable[[], Tensor]:
        def run() -> Tensor:
            with sdpa_kernel(SDPBackend.MATH):
                return full()

        return run

    def _choose(self) -> Tensor:
        """What the prune point does, on its own tokens."""
        with full_precision(self.tokens):
            return tpc(pool_frames(self.tokens, self.full.pool), self.keep)

    def mac_ratio(self) -> float:
        """Multiply-accumulates of the full forward over those of the pruned one."""
        full, pruned = (copy.deepcopy(model).to("meta") for model in (self.full, self.pruned))
        clips = self.clips.to("meta")
        return macs(full, clips) / macs(pruned, clips)


def measure(name: str, frames: int, batch: int, device: torch.device, repeats: int) -> Row:
    """The row of one model, clip length and batch."""
    case = Case(name, frames, batch, device)
    seconds = interleaved(case.calls(unfused=batch == 1), device, repeats)
    row: Row = {"model": name, "frames": frames, "batch": batch} | figures(case, seconds)
    return row | {"bars": verdicts(row) if device.type == "cpu" else {}}


def figures(case: Case, seconds: dict[str, list[float]]) -> Row:
    """What the times of the calls say."""
    speedup, spread = paired_ratio(seconds, "full", "pruned")
    share, _ = paired_ratio(seconds, "choice", "pruned")
    ratio = case.mac_ratio()
    row = {"macs": ratio, "speed-up": speedup, "spread": spread, "reached": speedup / ratio, "choice": share}
    row["unfused"] = paired_ratio(seconds, "unfused", "full")[0] if "unfused" in seconds else None
    return row | best(seconds)


def verdicts(row: Row) -> dict[str, bool]:
    """Whether a row passes its bars, for those it has."""
    if row["frames"] != BAR_FRAMES or row["model"] not in CHOICE_BARS:
        return {}
    passed = {"choice": row["choice"] < CHOICE_BARS[row["model"]]}
    return passed | ({"reached": row["reached"] >= BAR} if row["model"] != "tpc_mhformer" else {})


def table(rows: list[Row]) -> str:
    """The rows as text, with a verdict where there is a bar."""
    lines = [
        f"{'model':<18}{'F':>5}{'batch':>6}{'MACs':>7}{'speed-up':>10}{'+-':>6}{'reached':>9}{'choice':>8}  unfused"
    ]
    for row in rows:
        verdict = "".join(f"  {what} {'pass' if passed else 'FAIL'}" for what, passed in row["bars"].items())
        unfused = "-" if row["unfused"] is None else f"{row['unfused']:.2f}"
        lines.append(
            f"{row['model']:<18}{row['frames']:>5}{row['batch']:>6}{row['macs']:>7.2f}{row['speed-up']:>10.2f}"
            f"{row['spread']:>6.2f}{row['reached']:>9.3f}{100 * row['choice']:>7.2f}%{unfused:>9}{verdict}"
        )
    return "\n".join(lines)


def main(argv: list[str] | None = None) -> int:
    """Measure, print the table, write the JSON."""
    parser = speed_parser(__doc__, "hourglass_speed", MODELS, "lifting models with one prune point", repeats=5)
    parser.add_argument("--frames", nargs="+", type=int, default=[81, 243])
    parser.add_argument("--batch", nargs="+", type=int, default=[1, 8])
    options = parser.parse_args(argv)
    device = start(parser, options)
    record: Row = {"conditions": conditions(device, options.repeats), "bar": BAR, "choice bars": CHOICE_BARS}
    record["rows"] = rows = []
    for name in options.models:
        for frames in options.frames:
            for batch in options.batch:
                progress(name, f"{frames} frames", f"batch {batch}")
                rows.append(measure(name, frames, batch, device, options.repeats))
    show(record, table(rows))
    write(options.out, record)
    return 0 if all(all(row["bars"].values()) for row in rows) else 1


if __name__ == "__main__":
    sys.exit(main())
