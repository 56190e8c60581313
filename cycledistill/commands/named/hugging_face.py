"""Models of Hugging Face by a type such as ``vit``, or of a folder, with its weights where they are asked for.

No code that a folder names is run: its class is one of transformers' own.
"""

from __future__ import annotations

import os
from types import ModuleType
from typing import Any

from torch import nn

from cycledistill.commands.arguments import no_such

_AUTO = ("AutoModelForImageClassification", "AutoModel")
"""Where a configuration names no class."""


def configured(transformers: ModuleType, name: str, size: int | None) -> nn.Module:
    """A model with random weights, as a type or the configuration of a folder describes it.

    Raises:
        ValueError: Nothing of transformers is built by it.
        OSError: The folder has no config.json.
    """
    config = _config(transformers, name, size)
    found = _class(transformers, config)
    if found is not None:
        model: nn.Module = found(config)
        return model
    for auto in (getattr(transformers, each) for each in _AUTO):
        if type(config) in auto._model_mapping:
            built: nn.Module = auto.from_config(config)
            return built
    raise ValueError(f"hf:{name} has no model that transformers builds from a configuration alone")


def loaded(transformers: ModuleType, folder: str, size: int | None) -> nn.Module:
    """The model of a folder of ``save_pretrained`` with its weights, all of them.

    Raises:
        ValueError: Its weights are missing, cannot be read, or are not those of the model that its config names.
        OSError: The folder has no config.json.
    """
    config = _config(transformers, folder, size)
    found = _class(transformers, config)
    if found is None:
        raise ValueError(
            f"hf:{folder}: its config.json names no class of transformers (architectures={config.architectures!r:.80}"
            "), so which model its weights are of is not known: save it by save_pretrained"
        )
    try:
        model, info = found.from_pretrained(
            folder, config=config, local_files_only=True, use_safetensors=True, output_loading_info=True
        )
    except Exception as error:  # of files that are missing or damaged, or of other shapes, whatever comes
        given = "" if size is None else f" with --img-size {size}"
        said = (str(error).strip() or type(error).__name__).splitlines()[0][:300]
        raise ValueError(
            f"hf:{folder}: no {found.__name__} can be loaded from it{given}: {said}. Weights are read as safetensors; "
            f"a model of this type with random weights is hf:{config.model_type}"
        ) from error
    if info["missing_keys"]:
        names = sorted(info["missing_keys"])
        raise ValueError(
            f"hf:{folder} lacks {len(names)} of the weights of its {found.__name__}, which would be random: "
            f"{', '.join(names[:3])}{', ...' if len(names) > 3 else ''}"
        )
    whole: nn.Module = model
    return whole


def _config(transformers: ModuleType, name: str, size: int | None) -> Any:
    overrides: dict[str, Any] = {} if size is None else {"image_size": size}
    if os.path.isdir(name):
        return transformers.AutoConfig.from_pretrained(
            name, local_files_only=True, trust_remote_code=False, **overrides
        )
    known = list(transformers.CONFIG_MAPPING.keys())
    if name not in known:
        raise ValueError(no_such("Hugging Face model type, nor a folder", name, known))
    return transformers.AutoConfig.for_model(name, **overrides)


def _class(transformers: ModuleType, config: Any) -> Any:
    """The class that a configuration says its weights are of; ``None`` where it says none of transformers."""
    named = (getattr(transformers, str(each), None) for each in config.architectures or ())
    return next(
        (
            each
            for each in named
            if isinstance(each, type)
            and issubclass(each, transformers.PreTrainedModel)
            and getattr(each, "config_class", None) is type(config)
        ),
        None,
    )
