"""Which training command a model is of: by its run's ``recipe.json``, its folder's ``config.json``, its file's words.

Nothing of the model is loaded.
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from cycledistill.recipes.config.packaged import commands_with, training_commands
from cycledistill.recipes.errors import CheckpointError
from cycledistill.terminal.loading import say_loading

_MUTE = "does not say of which model its weights are"


def command_of(model: str, config: str | None = None) -> str:
    """The training command whose a model is: ``"coco"``.

    Args:
        model: A run's folder, a checkpoint, a file of weights, a folder that ``save_pretrained`` wrote, or a name on
            the hub.
        config: The recipe that was named beside it, which says it of a file that does not.

    Raises:
        CheckpointError: There is no such model, or nothing says whose it is.
    """
    say_loading()  # PyTorch reads it
    if os.path.isfile(model):
        return _of_file(Path(model), config)
    from cycledistill.recipes.hub.files import find_files, is_published

    if is_published(model):
        return _of_published(find_files(model).config, f"{model}, config.json")
    from cycledistill.recipes.weights.checkpoint import find_checkpoint, read_recipe

    return str(read_recipe(find_checkpoint(model))["command"])


def _of_published(config: Mapping[str, Any], where: str) -> str:
    return _of_class(_class_in(config), where)


def _class_in(config: Mapping[str, Any]) -> object:
    """The class by a published model's config: ours says it, timm's an architecture; ``None`` of others."""
    return config.get("model_class", "timm" if "architecture" in config else None)


def _of_file(path: Path, config: str | None) -> str:
    """The command of a file of weights: of the folder that it lies in, by its words, or by the recipe named."""
    from cycledistill.recipes.hub.files import find_files, published_beside
    from cycledistill.recipes.weights.checkpoint import read_recipe
    from cycledistill.recipes.weights.files import read_metadata, refuse_exported

    if (path.parent / "recipe.json").is_file():
        return str(read_recipe(path.parent)["command"])
    refuse_exported(path)
    words = read_metadata(path)
    if words.get("config_class"):
        return _of_class(words["config_class"], str(path))
    trained = _built_from(words.get("built_from"))
    if trained is not None:
        return _of_class(trained, str(path))
    named = [command for command, each in training_commands().items() if words.get("class") in each.holds]
    if named:
        return named[0]
    folder = published_beside(path)
    beside = {} if folder is None else find_files(folder).config
    if _class_in(beside) is not None:  # timm's files say nothing themselves
        return _of_published(beside, f"{folder}, config.json")
    if config is not None:
        return _of_recipe(config, path)
    said = f"says that its weights are of {words['model']}, and not how that is built" if words.get("model") else _MUTE
    raise CheckpointError(
        f"{path} {said}: name a recipe of that model (--config NAME; `cycledistill recipes` lists them)"
    )


def _built_from(text: str | None) -> object:
    from cycledistill.recipes.reading.texts import parse_json  # it needs more than help may load

    try:
        found = parse_json(text or "{}", "built_from", CheckpointError)
    except CheckpointError:
        return None
    return found.get("model_class") if isinstance(found, dict) else None


def _of_class(name: object, where: str) -> str:
    commands = training_commands()
    for command, each in commands.items():
        if name in each.holds:
            return command
    what = f"a {name}" if name else "a model whose class is not named"
    raise CheckpointError(
        f"{where}: {what}, which is of none of the commands that are installed: {', '.join(commands)}"
    )


def _of_recipe(config: str, path: Path) -> str:
    found = commands_with(config)
    if len(found) == 1:
        return found[0]
    raise CheckpointError(
        f"{path} {_MUTE}, nor does the name of the recipe {config}: say the "
        f"command before the file, one of {', '.join(training_commands())}"
    )
