"""Models by name: a timm name, ``torchvision:NAME``, or ``hf:TYPE``.

TYPE is a Hugging Face model type such as ``vit`` (its default configuration) or a folder with a config.json. Nothing is
downloaded, and weights are random, but for those of a folder where they are asked for.
"""

from __future__ import annotations

import importlib
import os
from pathlib import Path
from types import ModuleType

import torch
from torch import Tensor, nn

from cycledistill.commands.arguments import check_positive, no_such
from cycledistill.commands.named.hugging_face import configured, loaded
from cycledistill.versions import require

_ELSEWHERE = ("hf-hub", "hf_hub", "local-dir")
"""What timm's names of models with weights of their own begin with."""


def saved_folder(name: str) -> Path | None:
    """The folder of Hugging Face that a name means, whose weights `build` can load."""
    source, _, rest = name.partition(":")
    return Path(rest) if source == "hf" and os.path.isdir(rest) else None


def build(name: str, size: int | None, device: str, *, weights: bool = False) -> tuple[nn.Module, Tensor | None]:
    """The model, and the image to run it on where a size was asked for but the model cannot be built for it.

    Args:
        name: See above.
        size: Height and width of its images, where another than its own is asked for.
        device: Where it is built.
        weights: Load those of a folder, see `saved_folder`; all other models have random ones.

    Raises:
        ValueError: There is no such model, or none for such images; a library is not installed; a folder holds other
            weights than it says, or none.
    """
    check_positive("--img-size", size)
    source, _, rest = name.partition(":")
    builders = {"torchvision": _torchvision, "hf": _saved if weights and saved_folder(name) else _hugging_face}
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
        raise ValueError(no_such("timm model", name, timm.list_models()))
    if size is not None:
        try:
            return timm.create_model(name, img_size=size)
        except TypeError as error:
            if "img_size" not in str(error):
                raise
    return timm.create_model(name)


def _refuse_path(name: str) -> None:
    """A path where a name belongs, or a model with weights of its own, is no mistyped name."""
    if name.partition(":")[0] in _ELSEWHERE:
        raise ValueError(
            f"{name}: models by name are built with random weights, and this one has its own. In Python they are "
            f"loaded: cycledistill.export(timm.create_model({name!r}, pretrained=True).eval(), 'model.onnx')"
        )
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
        raise ValueError(no_such("torchvision model", name, models.list_models()))
    return models.get_model(name, weights=None, **({} if size is None else {"image_size": size}))


def _hugging_face(name: str, size: int | None) -> nn.Module:
    return configured(_library("transformers"), name, size)


def _saved(name: str, size: int | None) -> nn.Module:
    return loaded(_library("transformers"), name, size)


def _library(name: str) -> ModuleType:
    require(name)
    try:
        return importlib.import_module(name)
    except ImportError as error:
        package = name.partition(".")[0]
        raise ValueError(
            f"{package} is not installed, and models of that source need it: pip install {package}"
        ) from error


def _declared(model: nn.Module) -> int | None:
    size = getattr(getattr(model, "patch_embed", None), "img_size", None)
    return size[0] if isinstance(size, (tuple, list)) and size[0] == size[-1] else None


def _channels(model: nn.Module) -> int:
    return next((m.in_channels for m in model.modules() if isinstance(m, nn.Conv2d)), 3)
