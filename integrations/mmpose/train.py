"""Train or evaluate a model with mmpose's Runner.

    python -m cycledistill.integrations.mmpose.train sdpose_t --data-root /data/coco
    python -m cycledistill.integrations.mmpose.train my_config.py --work-dir runs/mine --resume --trust-checkpoint
    torchrun --nproc_per_node 8 -m cycledistill.integrations.mmpose.train sdpose_t --launcher pytorch

mmpose's own ``tools/train.py`` imports mmpose before a config could bring in what it needs here; this command imports
it with those stand-ins, and takes them away before the run begins.
"""

from __future__ import annotations

import argparse
import os
import pickle
import sys
from collections.abc import Sequence
from contextlib import nullcontext
from pathlib import Path
from typing import Any

import torch
import torch.distributed as dist

from .loading import config_path, list_configs, load_mmpose
from .shims import trusted_checkpoints

_TRUST = (
    "mmengine's checkpoints hold pickled objects beside tensors, and reading them can run code. Add --trust-checkpoint "
    "if the file is your own, or take a .pth file of weights alone, as "
    "python -m cycledistill.integrations.mmpose.convert writes it"
)


def main(arguments: Sequence[str] | None = None) -> None:
    """Train, or evaluate with ``--evaluate``; errors of use end the process with one message."""
    asked = _parser().parse_args(arguments)
    if asked.resume and not asked.trust_checkpoint:
        sys.exit(f"error: --resume: {_TRUST}")
    try:
        path = config_path(asked.config)
        load_mmpose()
    except (FileNotFoundError, ImportError) as error:
        sys.exit(f"error: {error}")
    config = _read_config(path, asked)
    trusted = asked.evaluate or (asked.resume if asked.resume != "auto" else f"the latest file in {config.work_dir}")
    try:
        with trusted_checkpoints(trusted) if asked.trust_checkpoint and trusted else nullcontext():
            run(config, evaluate=bool(asked.evaluate))
    except pickle.UnpicklingError as error:
        sys.exit(f"error: load_from={config.load_from}: {_TRUST}\n({str(error).splitlines()[0]})")


def run(config: Any, evaluate: bool = False) -> Any:
    """Run a config of mmengine; `load_mmpose` must have been called.

    Args:
        config: An ``mmengine.Config``.
        evaluate: Evaluate the weights of ``config.load_from`` rather than train.

    Returns:
        The model that was trained, or the metrics.
    """
    from mmengine.runner import Runner

    started = _start_gloo(config)
    try:
        runner = Runner.from_cfg(config)
        return runner.test() if evaluate else runner.train()
    finally:
        if started:
            dist.destroy_process_group()


def _start_gloo(config: Any) -> bool:
    """Join the other processes on a CPU, which mmengine's own way of joining needs a GPU for."""
    if config.get("launcher", "none") != "pytorch" or torch.cuda.is_available() or dist.is_initialized():
        return False
    dist.init_process_group("gloo")
    config.setdefault("model_wrapper_cfg", {"type": "MMDistributedDataParallel", "device_ids": None})
    return True


def _read_config(path: Path, asked: argparse.Namespace) -> Any:
    from mmengine.config import Config, DictAction

    config = Config.fromfile(str(path))
    config.launcher = asked.launcher
    config.work_dir = asked.work_dir or config.get("work_dir") or os.path.join("runs", "mmpose", path.stem)
    _set_data(config, asked.data_root, asked.boxes)
    if asked.cfg_options:  # mmengine's own grammar: KEY=VALUE, lists as [a,b]
        collected = argparse.ArgumentParser()
        collected.add_argument("--options", nargs="+", action=DictAction)
        config.merge_from_dict(collected.parse_args(["--options", *asked.cfg_options]).options)
    if asked.resume:
        config.resume, config.load_from = True, None if asked.resume == "auto" else asked.resume
    elif asked.evaluate:
        config.load_from = asked.evaluate
    return config


def _set_data(config: Any, root: str | None, boxes: str | None) -> None:
    """Move the data to another folder, and evaluate in other boxes, in every part of a config that names them."""
    for part in ("train", "val", "test"):
        loader, evaluator = config.get(f"{part}_dataloader"), config.get(f"{part}_evaluator")
        if loader is None:
            continue
        dataset = loader.dataset
        before = dataset.get("data_root", "")
        if root is not None:
            dataset.data_root = root
            for holder, name in ((dataset, "bbox_file"), (evaluator, "ann_file")):
                path = None if holder is None else holder.get(name)
                if path and path.startswith(before):
                    holder[name] = os.path.join(root, path.removeprefix(before))
        if boxes is not None and part != "train":
            dataset.bbox_file = None if boxes == "annotated" else boxes


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m cycledistill.integrations.mmpose.train",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("config", help=f"a config file of mmpose's, or one of {', '.join(list_configs())}")
    parser.add_argument("--work-dir", help="where logs and checkpoints go; default: runs/mmpose/CONFIG")
    parser.add_argument("--data-root", help="the folder of the data, in place of the config's")
    parser.add_argument("--boxes", help="a file of detected persons to evaluate in, or: annotated")
    parser.add_argument("--resume", nargs="?", const="auto", help="go on from this checkpoint, or from the latest")
    parser.add_argument("--evaluate", metavar="CHECKPOINT", help="evaluate this checkpoint instead of training")
    parser.add_argument(
        "--trust-checkpoint", action="store_true", help="the checkpoint is your own: reading it may run code"
    )
    parser.add_argument("--launcher", choices=("none", "pytorch"), default="none", help="pytorch: under torchrun")
    parser.add_argument("--cfg-options", nargs="+", metavar="KEY=VALUE", help="settings that replace the config's")
    return parser


if __name__ == "__main__":
    main()
