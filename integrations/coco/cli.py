"""The command line of training and evaluation."""

from __future__ import annotations

import argparse
import json
import logging
import os
import sys
from collections.abc import Sequence
from typing import Any

from cycledistill.recipes.errors import CheckpointError, ConfigError, NonFiniteLossError

from .images import PoseDataError
from .recipe import Recipe, list_recipes, load_recipe

# flag -> (key of the recipe, type, help)
_FLAGS: dict[str, tuple[str, type, str]] = {
    "--data-root": ("data.root", str, "folder or zip file of the data set"),
    "--model": ("model.name", str, "name of a pose model"),
    "--cycles": ("cyclic.cycles", int, "cycles while training"),
    "--output": ("run.output", str, "folder for logs and checkpoints"),
    "--epochs": ("schedule.epochs", int, "length of the schedule"),
    "--batch-size": ("data.batch_size", int, "persons a process and step"),
    "--workers": ("data.workers", int, "loader processes"),
    "--device": ("run.device", str, "auto or cpu"),
    "--seed": ("run.seed", int, "seed of everything random"),
    "--max-steps": ("run.max_steps", int, "stop after so many steps, with a checkpoint"),
}


def main(argv: Sequence[str] | None = None) -> int:
    """The command: train, resume or evaluate; the summary goes to standard output as JSON."""
    parser = _parser()
    args = parser.parse_args(argv)
    primary = os.environ.get("RANK", "0") == "0"
    logging.basicConfig(level=logging.INFO if primary else logging.ERROR, format="%(name)s: %(message)s")
    try:
        summary = _run(args)
    except (ConfigError, PoseDataError, CheckpointError, NonFiniteLossError) as error:
        # an error from a loader worker comes with the worker's traceback before its message
        parser.exit(2, f"error: {str(error).rpartition(f'{type(error).__name__}: ')[2].strip()}\n")
    except KeyboardInterrupt:
        parser.exit(130, "stopped; --resume auto goes on from the last checkpoint\n")
    if primary:
        sys.stdout.write(json.dumps(summary, indent=1) + "\n")
    return 0


def _run(args: argparse.Namespace) -> dict[str, Any]:
    # imported late: --help needs neither
    from .train import train
    from .trained import evaluate_trained, stored_recipe

    if args.evaluate and args.resume:
        raise ConfigError("--evaluate and --resume exclude each other.")
    source: Any = args.config
    if args.evaluate and not args.config and not args.evaluate.endswith((".safetensors", ".pth", ".pt")):
        source = stored_recipe(args.evaluate).to_dict()
    recipe = _recipe(args, source)
    return evaluate_trained(recipe, args.evaluate) if args.evaluate else train(recipe, args.resume)


def _recipe(args: argparse.Namespace, source: Any) -> Recipe:
    options = {}
    for flag, (key, _, _) in _FLAGS.items():
        value = getattr(args, flag.lstrip("-").replace("-", "_"))
        if value is not None:
            options[key] = value
    recipe = load_recipe(source, options)
    return load_recipe(recipe.to_dict(), args.set) if args.set else recipe


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        "cycledistill.integrations.coco.train",
        description="Train or evaluate a pose model on COCO, CrowdPose or persons in their formats.",
        epilog=f"Packaged recipes: {', '.join(list_recipes())}.",
    )
    parser.add_argument("--config", help="YAML file, or the name of a packaged recipe (below)")
    for flag, (key, kind, text) in _FLAGS.items():
        parser.add_argument(flag, type=kind, metavar=key, help=text)
    parser.add_argument("--set", action="append", default=[], metavar="a.b=c", help="any key of the recipe; repeatable")
    parser.add_argument("--resume", metavar="PATH", help="a run, a checkpoint, or 'auto': the last in --output")
    parser.add_argument("--evaluate", metavar="PATH", help="measure a run, a checkpoint or a file of weights instead")
    return parser
