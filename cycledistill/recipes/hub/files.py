"""The files of a published model: from a folder, or from the Hugging Face hub."""

from __future__ import annotations

import functools
import logging
import os
import re
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from huggingface_hub.errors import (
    EntryNotFoundError,
    HfHubHTTPError,
    HFValidationError,
    LocalEntryNotFoundError,
    OfflineModeIsEnabled,
    RepositoryNotFoundError,
    RevisionNotFoundError,
)

from cycledistill.recipes.errors import CheckpointError
from cycledistill.recipes.hub.download import download
from cycledistill.recipes.reading.guard import first_line
from cycledistill.recipes.reading.plain import check_plain
from cycledistill.recipes.reading.texts import read_json

_logger = logging.getLogger(__name__)

CONFIG, WEIGHTS, CARD = "config.json", "model.safetensors", "README.md"


@dataclass(frozen=True)
class HubFiles:
    """A published model."""

    source: str
    config: dict[str, Any]
    weights: Path


def can_be_on_hub(name: str | Path) -> bool:
    """Whether something that is no path here can be a name on the hub: ``user/name``, and not the name of a file.

    What would lie in a folder that is here is a path that was mistyped.

    Example:
        >>> can_be_on_hub("user/name"), can_be_on_hub("runs/weights.safetensors"), can_be_on_hub("../name")
        (True, False, False)
    """
    user = Path(name).parts[0] if Path(name).parts else ""
    if os.path.isdir(user):
        return False
    return re.fullmatch(r"(?!\.{1,2}/)[\w.-]+/[\w.-]+(?<!\.pth)(?<!\.pt)(?<!\.safetensors)", str(name)) is not None


def is_published(path: str | Path) -> bool:
    """Whether a path is a folder that ``save_pretrained`` wrote, or is nothing here and can be a name on the hub."""
    if os.path.exists(path):
        return (Path(path) / CONFIG).is_file()
    return can_be_on_hub(path)


def published_beside(path: str | Path) -> Path | None:
    """The folder that ``save_pretrained`` wrote, of the file of weights in it; ``None`` of any other file."""
    file = Path(path)
    return file.parent if file.name == WEIGHTS and (file.parent / CONFIG).is_file() else None


def find_files(name: str | Path, **options: Any) -> HubFiles:
    """The files of a model in a folder, or on the hub (``options``: of `download`).

    Raises:
        CheckpointError: Neither a folder nor a repository that can be read; a file is missing; the config is no JSON.
    """
    source = str(name)
    if os.path.isdir(source):
        config, weights = (_in_folder(Path(source), file) for file in (CONFIG, WEIGHTS))
    elif os.path.exists(source):
        raise CheckpointError(
            f"{source} is a file: a folder with {CONFIG} and {WEIGHTS}, or a name on the Hugging Face hub, is expected "
            "(a file of weights alone is loaded into a model that you create)"
        )
    else:
        _tell_of_hub(source)
        config, weights = (_from_hub(source, file, options) for file in (CONFIG, WEIGHTS))
    return HubFiles(source, _read_config(config, source), weights)


@functools.cache  # whose model it is may be asked before it is loaded
def _tell_of_hub(name: str) -> None:
    _logger.info("%s: there is no such folder, so it is looked for on the Hugging Face hub", name)


def _in_folder(folder: Path, file: str) -> Path:
    if not (folder / file).is_file():
        inside = ", ".join(sorted(each.name for each in folder.iterdir())[:6]) or "nothing"
        raise CheckpointError(
            f"{folder} holds no {file} (it holds: {inside}): a folder that model.save_pretrained(folder) wrote is "
            "expected. A training run is opened by load_trained"
        )
    return folder / file


def _from_hub(name: str, file: str, options: dict[str, Any]) -> Path:
    at = f" at revision {options['revision']!r}" if options.get("revision") else ""
    try:
        return download(name, file, **options)
    except HFValidationError as error:
        reason = f"and can be no name on the Hugging Face hub, where models are called user/name: {first_line(error)}"
    except RepositoryNotFoundError as error:
        reason = (
            "and the Hugging Face hub has no model of this name that you may read. Check the name; for a private or "
            f"gated one log in (hf auth login) or pass token=...: {first_line(error)}"
        )
    except RevisionNotFoundError as error:
        reason = f"and the model of this name on the Hugging Face hub has no such revision{at}: {first_line(error)}"
    except (LocalEntryNotFoundError, OfflineModeIsEnabled) as error:
        reason = (
            f"and the Hugging Face hub cannot be reached to look for {file} there (offline?), nor is it in the cache "
            "of earlier downloads. Check the name, connect, or give a folder that model.save_pretrained(folder) wrote: "
            f"{first_line(error.__cause__ or error)}"
        )
    except EntryNotFoundError as error:
        reason = f"and the model of this name on the Hugging Face hub has no {file}{at}, so it is none of this library"
        raise CheckpointError(f"{name!r} is no folder here, {reason}") from error
    except (HfHubHTTPError, OSError) as error:
        reason = f"and {file} cannot be had from the Hugging Face hub: {first_line(error)}"
    raise CheckpointError(f"{name!r} is no folder here, {reason}")


def _read_config(path: Path, source: str) -> dict[str, Any]:
    config = read_json(path, CheckpointError, f"{source}: {CONFIG}")
    if not isinstance(config, dict):
        raise CheckpointError(f"{source}: {CONFIG} holds a {type(config).__name__}, an object is expected")
    check_plain(config, f"{source}: {CONFIG}", CheckpointError)  # a scale of Infinity would be in every output
    return config


def find_beside(name: str | Path, file: str) -> Path | None:
    """Another file of a published model, in its folder or on the hub; ``None`` where it has none.

    Raises:
        CheckpointError: The hub has it and it cannot be had.
    """
    if os.path.isdir(name):
        return Path(name) / file if (Path(name) / file).is_file() else None
    try:
        return download(str(name), file)
    except EntryNotFoundError:  # that it is not in the cache and the hub is out of reach, too
        return None
    except (HfHubHTTPError, OSError) as error:
        raise CheckpointError(f"{name}: {file} cannot be had from the Hugging Face hub: {first_line(error)}") from error
