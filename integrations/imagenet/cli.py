"""The command line, shared by the training command and the example."""

from __future__ import annotations

import argparse
from collections.abc import Mapping
from typing import Any

from cycledistill.recipes.checkpoint import find_checkpoint, read_recipe

from .config import Config, ConfigError, load_config

# flag -> (config key, help); None: no key of the config
_FLAGS: dict[str, tuple[str, type, str]] = {
    "--data-dir": ("data.dir", str, "folder with the splits: class folders, .tar or Parquet files"),
    "--model": ("model.name", str, "timm model name"),
    "--cycles": ("cyclic.cycles", int, "cycles while training (1: the plain model)"),
    "--distill": ("cyclic.distill", str, "preset: sdpose, exits, elt, mct, or none"),
    "--output": ("run.output", str, "folder for logs and checkpoints"),
    "--epochs": ("schedule.epochs", int, "length of the schedule"),
    "--batch-size": ("data.batch_size", int, "images a process and step"),
    "--workers": ("data.workers", int, "loader processes"),
    "--device": ("run.device", str, "cpu, cuda or auto"),
    "--seed": ("run.seed", int, "seed of everything random"),
    "--max-steps": ("run.max_steps", int, "stop after so many steps, with a checkpoint"),
}


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the recipe's options to ``parser``; :func:`config_from_args` reads them."""
    parser.add_argument(
        "--config", help="YAML file, or a packaged recipe: deit_tiny, imagenette_96, cifar10_32, cpu_96"
    )
    for flag, (key, kind, text) in _FLAGS.items():
        parser.add_argument(flag, type=kind, metavar=key, help=text)
    parser.add_argument("--set", action="append", default=[], metavar="a.b=c", help="any key of the recipe; repeatable")
    parser.add_argument(
        "--resume", metavar="PATH", help="a run's folder, a checkpoint, or 'auto': the last in --output"
    )
    parser.add_argument("--evaluate", metavar="PATH", help="measure a run, a checkpoint or a weights file; no training")


def config_from_args(args: argparse.Namespace) -> Config:
    """The recipe: defaults, then ``--config`` (with ``--evaluate``, else the checkpoint's own), options, ``--set``.

    Raises:
        ConfigError: Unknown keys, wrong types or values.
    """
    source: str | Mapping[str, Any] | None = args.config
    if args.evaluate and not args.config and not _is_file(args.evaluate):
        source = read_recipe(find_checkpoint(args.evaluate)).get("config", {})
    if args.evaluate and args.resume:
        raise ConfigError("--evaluate and --resume exclude each other.")
    options: list[Any] = []
    for flag, (key, _, _) in _FLAGS.items():
        value = getattr(args, flag.lstrip("-").replace("-", "_"))
        if value is not None:
            options.append((key, None if key == "cyclic.distill" and value == "none" else value))
    return load_config(source, [*options, *args.set])


def _is_file(path: str) -> bool:
    return path.endswith((".safetensors", ".pth", ".pt", ".bin"))
