"""Models by name: a timm name, ``torchvision:NAME``, or ``hf:TYPE``.

TYPE is a Hugging Face model type such as ``vit`` (its default configuration) or a folder with a config.json. Nothing is
downloaded and no weights are needed: models are built without data.
"""

from __future__ import annotations

import difflib
import importlib
import os
from collections.abc import Sequence
from types import ModuleType
from typing import Any

import torch
from torch import Tensor, nn

from cycledistill.commands.arguments import check_positive
from cycledistill.versions import require


def build(name: str, size: int | None, device: str) -> tuple[nn.Module, Tensor | None]:
    """The model, and the image to run it on where a size was asked for but the model cannot be built for it.

    Raises:
        ValueError: There is no such model, or none for such images; a library is not installed.
    """
    check_positive("--img-size", size)
    source, _, rest = name.partition(":")
    builders = {"torchvision": _torchvision, "hf": _hugging_face}
    try:
        with torch.device(device):
            model = builders[source](rest, size) if source in builders and rest else _timm(name, size)
    except (AssertionError, RuntimeError, TypeError) as error:
        given = "" if size is None else f" with --img-size {size}"
        raise ValueError(f"{name} cannot be built{given}: {type(error).__name__}: {error}") from error
    if size is None or source in builders or _declared(model) == size:
        return model, None
    return model, torch.zeros(1, _channels(model), size, size, device=device)


def _timm(name: str, size: int | None) -> nn.Module:
    timm = _library("timm")
    if not timm.is_model(name):
        _refuse_path(name)
        raise ValueError(_unknown("timm model", name, timm.list_models()))
    if size is not None:
        try:
            return timm.create_model(name, img_size=size)
        except TypeError as error:
            if "img_size" not in str(error):
                raise
    return timm.create_model(name)


def _refuse_path(name: str) -> None:
    """A path where a name belongs is no mistyped name."""
    if os.path.exists(name):
        raise ValueError(
            f"{name} is a {'folder' if os.path.isdir(name) else 'file'}, and this command builds a model by its name: "
            "a timm name, torchvision:NAME, or hf:FOLDER for a folder of Hugging Face. Runs and checkpoints are taken "
            "by `cycledistill evaluate`, `predict`, `export` and `insight`"
        )
    if os.sep in name:
        raise ValueError(f"there is no such file or folder as {name}, nor is it the name of a model")


def _torchvision(name: str, size: int | None) -> nn.Module:
    models = _library("torchvision.models")
    if name not in models.list_models():
        raise ValueError(_unknown("torchvision model", name, models.list_models()))
    return models.get_model(name, weights=None, **({} if size is None else {"image_size": size}))


def _hugging_face(name: str, size: int | None) -> nn.Module:
    transformers = _library("transformers")
    overrides: dict[str, Any] = {} if size is None else {"image_size": size}
    if os.path.isdir(name):
        config = transformers.AutoConfig.from_pretrained(name, local_files_only=True, **overrides)
    else:
        known = list(transformers.CONFIG_MAPPING.keys())
        if name not in known:
            raise ValueError(_unknown("Hugging Face model type, nor a folder", name, known))
        config = transformers.AutoConfig.for_model(name, **overrides)
    for auto in (transformers.AutoModelForImageClassification, transformers.AutoModel):
        if type(config) in auto._model_mapping:
            return auto.from_config(config)
    raise ValueError(f"hf:{name} has no model that transformers builds from a configuration alone")


def _library(name: str) -> ModuleType:
    require(name)
    try:
        return importlib.import_module(name)
    except ImportError as error:
        package = name.partition(".")[0]
        raise ValueError(
            f"{package} is not installed, and models of that source need it: pip install {package}"
        ) from error


def _unknown(what: str, name: str, known: Sequence[str]) -> str:
    near = difflib.get_close_matches(name, known, n=3, cutoff=0.6)
    hint = f"; nearest: {', '.join(near)}" if near else ""
    return f"{name!r} is no {what}{hint}"


def _declared(model: nn.Module) -> int | None:
    size = getattr(getattr(model, "patch_embed", None), "img_size", None)
    return size[0] if isinstance(size, (tuple, list)) and size[0] == size[-1] else None


def _channels(model: nn.Module) -> int:
    return next((m.in_channels for m in model.modules() if isinstance(m, nn.Conv2d)), 3)
