"""Train or evaluate a model with mmpose's Runner.

    python -m cycledistill.integrations.mmpose.train sdpose_t --data-root /data/coco
    python -m cycledistill.integrations.mmpose.train sdpose_t --evaluate runs/mmpose/sdpose_t/weights.safetensors
    python -m cycledistill.integrations.mmpose.train my_config.py --work-dir runs/mine --resume --trust-checkpoint
    torchrun --nproc_per_node 8 -m cycledistill.integrations.mmpose.train sdpose_t --launcher pytorch

mmpose's own ``tools/train.py`` imports mmpose before a config could bring in what it needs here; this command imports
it with those stand-ins, and takes them away before the run begins. Weights that do not fit the model are refused.
"""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from typing import Any

import torch
import torch.distributed as dist

from cycledistill import StackError
from cycledistill.inert import named_as_keys
from cycledistill.recipes.errors import CheckpointError, RecipeError

from .checkpoint import TRUST
from .loading import config_path, list_configs, load_mmpose
from .options import check_files, read_config


def main(arguments: Sequence[str] | None = None) -> None:
    """Train, or evaluate with ``--evaluate``; errors of use end the process with one message and exit code 2."""
    parser = _parser()
    asked = parser.parse_args(arguments)
    if asked.resume and not asked.trust_checkpoint:
        parser.exit(2, f"error: --resume: {TRUST}\n")
    try:
        path = config_path(asked.config)
        load_mmpose()
    except (FileNotFoundError, ImportError) as error:
        parser.exit(2, f"error: {error}\n")
    try:
        config = read_config(path, asked)
        check_files(config, ("test",) if asked.evaluate else ("train", "val"))
        run(config, evaluate=bool(asked.evaluate), trusted=asked.trust_checkpoint)
    except (CheckpointError, RecipeError, StackError) as error:
        parser.exit(2, f"error: {error}\n")


def run(config: Any, evaluate: bool = False, trusted: bool = False) -> Any:
    """Run a config of mmengine; `load_mmpose` must have been called.

    Args:
        config: An ``mmengine.Config``.
        evaluate: Evaluate the weights of ``config.load_from`` rather than train.
        trusted: Checkpoints are your own, and may run code when they are read.

    Returns:
        The model that was trained, or the metrics.

    Raises:
        CheckpointError: Weights that cannot be read, or that are of another model.
    """
    from .runner import StrictRunner

    started = _start_gloo(config)
    try:
        runner = StrictRunner.from_cfg(config)
        runner.trusted = trusted
        with named_as_keys("model.head.distill."):
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
    start = parser.add_mutually_exclusive_group()
    start.add_argument("--resume", nargs="?", const="auto", help="go on from this checkpoint, or from the latest")
    start.add_argument("--evaluate", metavar="FILE", help="evaluate these weights, or this checkpoint, instead")
    parser.add_argument(
        "--trust-checkpoint", action="store_true", help="the checkpoint is your own: reading it may run code"
    )
    parser.add_argument("--launcher", choices=("none", "pytorch"), default="none", help="pytorch: under torchrun")
    parser.add_argument("--cfg-options", nargs="+", metavar="KEY=VALUE", help="settings that replace the config's")
    return parser


if __name__ == "__main__":
    main()
