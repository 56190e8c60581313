"""A config of mmengine with the launcher's options in it, and whether the files that it names are there."""

from __future__ import annotations

import argparse
import os
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from cycledistill.recipes.errors import RecipeError


def read_config(path: Path, asked: argparse.Namespace) -> Any:
    """The ``mmengine.Config`` of a file, with the launcher's options.

    Raises:
        RecipeError: A file that is no config, or options that do not go into it.
    """
    from mmengine.config import Config
    from mmengine.config.utils import ConfigParsingError

    try:
        config = Config.fromfile(str(path))
    except (OSError, SyntaxError, ConfigParsingError) as error:
        raise RecipeError(f"{path}: cannot be read as a config: {error}") from error
    config.launcher = asked.launcher
    config.work_dir = asked.work_dir or config.get("work_dir") or os.path.join("runs", "mmpose", path.stem)
    set_data(config, asked.data_root, asked.boxes)
    _set_options(config, asked.cfg_options or ())
    if asked.resume:
        config.resume, config.load_from = True, None if asked.resume == "auto" else asked.resume
    elif asked.evaluate:
        config.resume, config.load_from, config.load_strict = False, asked.evaluate, True
    return config


def set_data(config: Any, root: str | None, boxes: str | None) -> None:
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


def check_files(config: Any, parts: Sequence[str]) -> None:
    """Look for the files of data and weights, before minutes go by in reading those that are there.

    Args:
        config: The ``mmengine.Config``.
        parts: Which are going to run: ``"train"``, ``"val"``, ``"test"``.

    Raises:
        RecipeError: Some are missing; they are named.
    """
    missing: list[str] = []
    for path in _files(config, parts):
        beneath = any(Path(folder) in Path(path).parents for folder in missing)
        if path not in missing and not beneath and "://" not in path and not os.path.exists(path):
            missing.append(path)
    if missing:
        raise RecipeError(
            f"no such file or folder: {', '.join(missing)}. --data-root names the folder of the data, --boxes the file "
            "of detected persons (or: annotated), --evaluate, --resume and load_from a file of weights"
        )


def _files(config: Any, parts: Sequence[str]) -> Iterator[str]:
    """Every path that these parts read, folders before what they hold; data sets made of others are left to mmpose."""
    if config.get("load_from"):
        yield config.load_from
    for part in parts:
        loader, evaluators = config.get(f"{part}_dataloader") or {}, config.get(f"{part}_evaluator") or {}
        evaluators = evaluators if isinstance(evaluators, (list, tuple)) else [evaluators]
        dataset = loader.get("dataset", {})
        root = dataset.get("data_root") or ""
        yield from [root] if root else []
        within = [dataset.get("ann_file"), *(dataset.get("data_prefix") or {}).values()]
        yield from (os.path.join(root, path) for path in within if path and isinstance(path, str))
        alone = [dataset.get("bbox_file"), *(each.get("ann_file") for each in evaluators)]
        yield from (path for path in alone if path)


def _set_options(config: Any, options: Sequence[str]) -> None:
    from mmengine.config import DictAction

    for option in options:
        if "=" not in option:
            raise RecipeError(f"--cfg-options {option}: KEY=VALUE is expected, such as train_cfg.max_epochs=10")
    if not options:
        return
    collected = argparse.ArgumentParser()
    collected.add_argument("--options", nargs="+", action=DictAction)  # mmengine's own grammar, lists as [a,b]
    try:
        config.merge_from_dict(collected.parse_args(["--options", *options]).options)
    except (AssertionError, AttributeError, IndexError, KeyError, TypeError, ValueError) as error:
        raise RecipeError(f"--cfg-options {' '.join(options)}: does not go into this config: {error}") from error
