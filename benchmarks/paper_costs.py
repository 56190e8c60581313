"""What do the pose models cost, by which rule of counting, and do the printed figures agree?

    python benchmarks/paper_costs.py                    # all models; a few seconds, no data, no GPU
    python benchmarks/paper_costs.py --names sdpose_t   # some

Models are built on the meta device for 256x192 images and 17 keypoints, one image. Multiply-accumulates in G = 1e9:

true          convolutions, linear layers and attention's two products, one cycle (what eval runs)
train         the same in a training forward with all cycles
mmcv          the rule of mmcv's get_model_complexity_info, behind SDPose's "GFLOPs": layers alone, attention's products
              not counted; BatchNorm, LayerNorm, ReLU and upsampling are. Its "parameters" are the trainable ones
hrnet         the rule of HRNet's get_model_summary, behind the figures of TokenPose and PPT, in 2^30: convolutions and
              linear layers, the latter times the number of tokens instead of their input channels
transformer   PPT's "GFLOPs^T": 10 N C^2 + 2 N^2 C a layer, in 2^30

A printed figure agrees if it is the count, rounded to its last digit (from two decimals, as mmcv prints).
PPT's `true` contains the scores of the keypoint rows, 0.002 G, which its own code reads off the attention it forms.

Then the multi-view PPT on four views of 256x256: `true`, less those scores, beside the count of the authors' code; and
the rule of mmcv, which the paper's 11.2 and 9.6 are nearest to.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from common import RESULTS, columns, macs, study_parser, write  # beside this file
from torch import nn

from cycledistill.integrations.coco import create_pose_model, list_pose_models, pose_model_config
from cycledistill.integrations.coco.models.config import TokenPoseConfig
from cycledistill.integrations.human36m.multiview.config import MultiViewConfig
from cycledistill.integrations.human36m.multiview.model import create_multiview

Record = dict[str, Any]


@dataclass(frozen=True)
class Printed:
    """A printed pair of figures: millions of parameters, and G of multiply-accumulates by one of the rules."""

    source: str
    rule: str
    parameters: str | None
    macs: str


def _sdpose(parameters: str, macs: str) -> Printed:
    return Printed("SDPose", "mmcv", parameters, macs)


def _ppt(parameters: str | None, macs: str, source: str = "PPT") -> Printed:
    return Printed(source, "hrnet", parameters, macs)


PRINTED: dict[str, tuple[Printed, ...]] = {
    "tokenpose_t": (_ppt(None, "1.29", "TokenPose"),),
    "tokenpose_s_v1": (_sdpose("6.6", "2.4"),),
    "tokenpose_s_v1_original": (_ppt("6.6", "2.2"),),
    "tokenpose_s_v2": (_sdpose("6.2", "4.7"),),
    "tokenpose_b": (_ppt("13.5", "5.7"),),
    "tokenpose_b_narrow": (_sdpose("13.2", "5.2"),),
    "tokenpose_l_d6": (_ppt("20.8", "9.1"),),
    "sdpose_t": (_sdpose("4.4", "1.8"),),
    "sdpose_s_v1": (_sdpose("6.6", "2.4"),),
    "sdpose_s_v2": (_sdpose("6.2", "4.7"),),
    "sdpose_b_narrow": (_sdpose("13.2", "5.2"),),
    "sdpose_reg": (_sdpose("5.4", "2.4"),),
    "sdpose_s_v1_ppt": (_sdpose("6.6", "2.0"),),
    "distilpose_s": (_sdpose("5.4", "2.4"), Printed("DistilPose", "mmcv", None, "2.38")),
    "ppt_s": (_sdpose("6.6", "2.0"),),
    "ppt_s_original": (_ppt("6.6", "1.6"),),
    "ppt_b": (_ppt(None, "5.0"),),
    "ppt_b_narrow": (_sdpose("13.2", "4.7"),),
    "ppt_l_d6": (_ppt("20.8", "8.7"),),
}
"""Model -> printed figures. SDPose: its tables 1 to 3; PPT and TokenPose: the tables of their papers."""


VIEWS = 4
MULTIVIEW: dict[str, tuple[dict[str, Any], float | None, str | None]] = {
    "views apart, unpruned": ({"fused_layers": 0, "keep": 1.0}, None, "11.2"),
    "views apart": ({"fused_layers": 0, "keep": 0.7}, 10.347, "9.6"),
    "last two layers fused": ({"fused_layers": 2, "keep": 0.7}, 10.451, None),
    "last two layers fused, unpruned": ({"fused_layers": 2, "keep": 1.0}, 13.194, None),
}
"""Options -> G that the authors' code counts, and what the paper prints for Human3.6M."""


class RuleCounter:
    """Counts by the rules of mmcv and of HRNet while a model runs.

    Example:
        >>> with RuleCounter(model) as counter:
        ...     model(images)
        >>> counter.mmcv, counter.hrnet
    """

    def __init__(self, model: nn.Module) -> None:
        self.mmcv, self.hrnet = 0, 0
        self._model = model

    def __enter__(self) -> RuleCounter:
        self._handles = [module.register_forward_hook(self._note) for module in self._model.modules()]
        return self

    def __exit__(self, *error: object) -> None:
        for handle in self._handles:
            handle.remove()

    def _note(self, module: nn.Module, args: tuple[Any, ...], out: Any) -> None:
        if isinstance(module, nn.Conv2d):
            count = out.numel() * module.in_channels * math.prod(module.kernel_size)
            self.mmcv += count
            self.hrnet += count
        elif isinstance(module, nn.Linear):
            # mmcv adds a bias once, whatever the number of tokens.
            self.mmcv += out.numel() * module.in_features + (0 if module.bias is None else module.out_features)
            self.hrnet += out.numel() * args[0].shape[1]
        elif isinstance(module, (nn.BatchNorm2d, nn.LayerNorm)):
            self.mmcv += 2 * args[0].numel()
        elif isinstance(module, (nn.ReLU, nn.Upsample)):
            self.mmcv += out.numel()


def examine(name: str) -> Record:
    """Parameters and multiply-accumulates of one model, next to what was printed."""
    config = pose_model_config(name)
    with torch.device("meta"):
        model = create_pose_model(name)
        image = torch.zeros(1, 3, *config.network.image_size)
    parameters = list(model.parameters())
    record: Record = {
        "name": name,
        "parameters": sum(each.numel() for each in parameters),
        "trainable": sum(each.numel() for each in parameters if each.requires_grad),
        "true": macs(model.eval(), image) / 1e9,
        "train": macs(model.train(), image) / 1e9 if config.cycles is not None else None,
        "cycles": config.cycles or 1,
        "transformer": _transformer(config.network, config.prune_layers, config.keep) / 2**30,
    }
    with torch.no_grad(), RuleCounter(model.eval()) as counter:
        model(image)
    record |= {"mmcv": counter.mmcv / 1e9, "hrnet": counter.hrnet / 2**30}
    return record | {"printed": [_compare(printed, record) for printed in PRINTED.get(name, ())]}


def examine_multiview(name: str) -> Record:
    """Multiply-accumulates of the multi-view PPT, without the code of rays, which the authors' figures leave out."""
    options, official, paper = MULTIVIEW[name]
    with torch.device("meta"):
        model = create_multiview(ray_encoding=False, **options).eval()
        views = [torch.zeros(1, *model.config.view_shape)] * VIEWS
    with torch.no_grad(), RuleCounter(model) as counter:
        model(views)
    record: Record = {"name": name, "true": macs(model, views) / 1e9, "mmcv": counter.mmcv / 1e9}
    record |= {"less scores": record["true"] - _scores(model.config) / 1e9, "official": official, "paper": paper}
    agrees = official is None or abs(record["less scores"] - official) <= 6e-4
    return record | {"agrees": agrees}


def _scores(config: MultiViewConfig) -> int:
    """What it costs to form the attention of the keypoint tokens once more where tokens are dropped."""
    count, visual = 0, math.prod(config.grid)
    for _ in config.prune_layers if config.keep < 1 else ():
        count += VIEWS * config.num_keypoints * config.dim * (config.num_keypoints + visual)
        visual = math.ceil(visual * config.keep)
    return count


def _transformer(config: TokenPoseConfig, prune_layers: Sequence[int], keep: float) -> float:
    """PPT's count of the layers alone; a layer that prunes counts at the number of tokens it leaves."""
    visual, total = math.prod(config.grid), 0.0
    for layer in range(config.depth):
        visual = math.ceil(visual * keep) if layer in prune_layers else visual
        tokens = config.num_keypoints + visual
        total += 10 * tokens * config.dim**2 + 2 * tokens**2 * config.dim
    return total


def _compare(printed: Printed, record: Record) -> Record:
    counted = {"parameters": record["trainable"] / 1e6, "macs": record[printed.rule]}
    told = {"parameters": printed.parameters, "macs": printed.macs}
    agrees = {what: _agrees(text, counted[what]) for what, text in told.items() if text is not None}
    return {"source": printed.source, "rule": printed.rule, **told, "agrees": agrees}


def _agrees(text: str, value: float) -> bool:
    """Whether ``value``, first rounded to two decimals, then to those of ``text``, may print as ``text``."""
    decimals = len(text.partition(".")[2])
    return abs(float(text) - value) <= 0.5 * 10**-decimals + (0.005 if decimals < 2 else 0)


def report(records: Sequence[Record]) -> str:
    """The records as a table."""
    head = ("model", "parameters", "trainable", "true", "train", "mmcv", "hrnet", "transf.", "printed: M / G by rule")
    rows = [head]
    for record in records:
        figures = [f"{record[key]:.4f}" if record[key] is not None else "-" for key in ("true", "train")]
        figures += [f"{record[key]:.4f}" for key in ("mmcv", "hrnet", "transformer")]
        count = (f"{record['parameters']:,}", f"{record['trainable']:,}")
        rows.append((record["name"], *count, *figures, "; ".join(map(_words, record["printed"])) or "-"))
    return columns(rows)


def report_multiview(records: Sequence[Record]) -> str:
    """The multi-view records as a table."""
    rows = [("multi-view PPT, four views", "true", "less scores", "official code", "mmcv", "paper", "")]
    for record in records:
        official = "-" if record["official"] is None else f"{record['official']:.3f}"
        verdict = "" if record["official"] is None else "agrees" if record["agrees"] else "DIFFERS"
        counts = (f"{record['true']:.4f}", f"{record['less scores']:.4f}", official, f"{record['mmcv']:.4f}")
        rows.append((record["name"], *counts, record["paper"] or "-", verdict))
    return columns(rows)


def _words(printed: Record) -> str:
    off = [what for what, agrees in printed["agrees"].items() if not agrees]
    verdict = f"DIFFERS: {', '.join(off)}" if off else "agrees"
    return f"{printed['source']} {printed['parameters'] or '-'} / {printed['macs']} by {printed['rule']}: {verdict}"


def main(argv: Sequence[str] | None = None) -> int:
    """Count, print, write."""
    parser = study_parser(__doc__, RESULTS / "paper_costs.json")
    parser.add_argument("--names", nargs="*", default=None, help="models (default: all)")
    options = parser.parse_args(argv)
    try:
        records = [examine(name) for name in options.names or list_pose_models()]
    except ValueError as error:
        parser.error(str(error))
    views = [] if options.names else [examine_multiview(name) for name in MULTIVIEW]
    print(report(records))
    if views:
        print(f"\n{report_multiview(views)}")
    write(options.out, {"image": [256, 192], "keypoints": 17, "models": records, "multiview": views})
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
