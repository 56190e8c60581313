"""Classifiers in the form that timm publishes them in, here or on the Hugging Face hub."""

from __future__ import annotations

import json
import logging
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from timm.data.imagenet_info import ImageNetInfo, infer_imagenet_subset
from torch import nn

from cycledistill import rewrap
from cycledistill.metadata.model import tell
from cycledistill.plugin.plain import SAVED
from cycledistill.recipes.errors import CheckpointError
from cycledistill.recipes.hub.files import find_beside, find_files, published_beside
from cycledistill.recipes.weights import read_weights
from cycledistill.recipes.weights.checkpoint import load_weights
from cycledistill.recipes.weights.files import read_metadata

from .recipe import RecipeError
from .training.build import create_plain

_logger = logging.getLogger(__name__)

_TOLD = ("input_size", "mean", "std", "crop_pct", "crop_mode", "interpolation", "label_names", "label_descriptions")
"""What a config says of the images that the weights were trained on."""

_WORDS = {"label_names": "classes"}
"""What files of weights call the same otherwise."""

_OF_FILES = ("pretrained", "checkpoint_path", "cache_dir", "pretrained_cfg", "pretrained_cfg_overlay")
"""Arguments of `timm.create_model` that name other weights."""


def load_published(name: str | Path) -> nn.Module:
    """A classifier from a folder of ``config.json`` and ``model.safetensors``, or from the hub, in eval mode.

    The form is timm's (``timm.models.save_for_hf(model, folder, safe_serialization=True)``, ``push_to_hf_hub``). Where
    ``cycledistill.json`` lies beside them, which ``save_wrapping`` writes, the model is wrapped as it was, without its
    scheme of distillation; else it is plain.

    Args:
        name: A folder, or a name on the hub.

    Raises:
        CheckpointError: There is no such model, a file is missing or torn, or it is no classifier of timm.

    Example:
        >>> load_published("timm/deit_tiny_patch16_224.fb_in1k").num_classes
        1000
    """
    files = find_files(name)
    config, where = files.config, f"{name}, config.json"
    if "model_class" in config:
        raise CheckpointError(f"{where}: a {config['model_class']!s:.80}, and no classifier of timm")
    told = config.get("pretrained_cfg", config)
    arguments, count = config.get("model_args", {}), config.get("num_classes")
    if not isinstance(told, dict) or not isinstance(arguments, dict) or not isinstance(config.get("architecture"), str):
        raise CheckpointError(f"{where}: no classifier of timm, whose config has architecture and pretrained_cfg")
    if not isinstance(count, int) or isinstance(count, bool) or count < 2:
        raise CheckpointError(f"{where}: num_classes is {count!r:.80}; a classifier has 2 or more")
    others = sorted(set(_OF_FILES) & arguments.keys())
    if others:
        raise CheckpointError(f"{where}: model_args name other weights ({', '.join(others)}), which are not loaded")
    try:
        arguments = {key: value for key, value in arguments.items() if key != "num_classes"}
        model = create_plain(config["architecture"], arguments, num_classes=count)
    except RecipeError as error:
        raise CheckpointError(f"{where}: {error}") from error
    load_weights(model, read_weights(files.weights), name, "its config.json is of another model")
    tell(model, **_said(config), num_classes=count)
    _name_classes(model, name)
    wrapping = find_beside(name, SAVED)
    return (model if wrapping is None else rewrap(model, wrapping.parent, distill=None)).eval()


def words_in(file: str | Path) -> dict[str, str]:
    """What a file of weights says of itself; in a folder that timm wrote, the ``config.json`` beside it says the rest.

    Raises:
        CheckpointError: A torn file, or a torn ``config.json``.

    Example:
        >>> words_in("saved/model.safetensors")["classes"]
        '["cat", "dog"]'
    """
    folder = published_beside(file)
    said = {} if folder is None else _said(find_files(folder).config)
    beside = {_WORDS.get(name, name): json.dumps(each) for name, each in said.items()}
    return beside | read_metadata(file)


def _said(config: Mapping[str, Any]) -> dict[str, Any]:
    """What a config of timm says of the images that the weights were trained on."""
    told = config.get("pretrained_cfg")
    sources = (told if isinstance(told, Mapping) else {}, config)
    return {name: each for source in sources for name, each in source.items() if name in _TOLD}


def _name_classes(model: nn.Module, where: str | Path) -> None:
    """Of a model without names whose number of classes is that of an ImageNet set: those, as timm does it."""
    told: Any = model.pretrained_cfg
    subset = None if told.get("label_names") else infer_imagenet_subset(model)
    if subset:
        told["label_names"] = tuple(ImageNetInfo(subset).label_names())
        _logger.info("%s does not name its %d classes: taken for those of %s", where, model.num_classes, subset)
