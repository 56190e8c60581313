"""What ``config.json`` says of a published model: plain data to dataclasses and back, and nothing that names code."""

from __future__ import annotations

import dataclasses
import logging
from collections.abc import Iterable, Mapping
from typing import Any, TypeVar

from torch import nn

from cycledistill.cycle.groups import ALL
from cycledistill.plugin.handle import KINDS, handle_of
from cycledistill.recipes.config.distillation import plain_distill, read_distill
from cycledistill.recipes.config.overrides import did_you_mean
from cycledistill.recipes.errors import RecipeError

_logger = logging.getLogger(__name__)

T = TypeVar("T")


def read_fields(cls: type[T], data: Mapping[str, Any], prefix: str = "") -> T:
    """A dataclass from plain data; lists become tuples, and the dataclass checks the values.

    Raises:
        RecipeError: Not a mapping, or fields that the dataclass does not have.
        ValueError: A value that the dataclass refuses.
    """
    if not isinstance(data, Mapping):
        raise RecipeError(f"{prefix.rstrip('.')}={data!r}: fields by name are expected")
    check_names(data, [each.name for each in dataclasses.fields(cls)], prefix)  # type: ignore[arg-type]
    return cls(**{name: _tuples(value) for name, value in data.items()})


def read_model_fields(cls: type[T], network: type[Any], data: Mapping[str, Any]) -> T:
    """A model's config, which holds its network's as ``network`` and its scheme as ``distill``, from plain data.

    Raises:
        ValueError: As for `read_fields`, or ``network`` is missing.
    """
    fields = dict(data)
    fields["network"] = read_fields(network, take(fields, "network"), "network.")
    if "distill" in fields:
        fields["distill"] = scheme_of(fields["distill"])
    return read_fields(cls, fields)


def check_names(given: Iterable[str], known: list[str], prefix: str = "") -> None:
    """Refuse names that are not known."""
    for name in given:
        if name not in known:
            raise RecipeError(f"unknown field '{prefix}{name}'.{did_you_mean(name, known)} Known: {', '.join(known)}")


def take(data: dict[str, Any], name: str) -> Any:
    """Take a field out of plain data."""
    if name not in data:
        raise RecipeError(f"the field {name!r} is missing; there are: {', '.join(data) or 'none'}")
    return data.pop(name)


def cycles_of(model: nn.Module) -> dict[str, Any]:
    """The fields ``cycles`` and ``distill`` of a model; empty for one that is not wrapped.

    A scheme that is code is not written, with a warning: whoever loads the model gives one, or trains without.
    """
    handle = handle_of(model, "cyclic")
    if handle is None:
        return {}
    try:
        return {"cycles": handle.cycles, "distill": plain_distill(handle.distill)}
    except RecipeError as error:
        _logger.warning("%s; the config has distill=null, so give distill=... to from_pretrained to train on", error)
        return {"cycles": handle.cycles, "distill": None}


def scheme_of(value: Any) -> Any:
    """The scheme that ``distill`` in a config, or an argument of that name, stands for."""
    return read_distill(value) if value is None or isinstance(value, (str, dict)) else value


def describe(model: nn.Module) -> dict[str, Any]:
    """What a config must be able to say of a model, as sentences and how they end: plug-ins and weights."""
    said = {f"model.{name} acts on": _place(handle_of(model, name)) for name in KINDS}
    groups = getattr(handle_of(model, "cyclic"), "groups", None)
    shapes = {f"{name} is": tuple(tensor.shape) for name, tensor in model.state_dict().items()}
    return said | {"model.cyclic distils the tokens": dict(groups or ALL)} | shapes


def contradictions(own: Mapping[str, Any], config: Mapping[str, Any], shown: int = 3) -> str:
    """Where a model's description is not that of a model built from its config, in words; empty where it is."""
    other = [each for each in {**own, **config} if own.get(each) != config.get(each)]
    told = [
        f"{each} {own.get(each, 'missing')}, and the config can say only: {config.get(each, 'none')}" for each in other
    ]
    return "; ".join(told[:shown]) + (f" and {len(other) - shown} more" if len(other) > shown else "")


def _place(handle: Any) -> str:
    """Where a plug-in acts, in words."""
    if handle is None:
        return "nothing"
    told = (("layers", "at"), ("query", "by the tokens"), ("settings", "with"))
    parts = [f"{word} {getattr(handle, part)}" for part, word in told if hasattr(handle, part)]
    frozen = ["with BatchNorm frozen"] if getattr(handle, "freezes_batch_norm", False) else []
    return " ".join([handle.stack.path, *parts, *frozen])


def _tuples(value: Any) -> Any:
    return tuple(map(_tuples, value)) if isinstance(value, list) else value
