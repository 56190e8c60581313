"""What ``config.json`` says of a published model: plain data to dataclasses and back, and nothing that names code."""

from __future__ import annotations

import dataclasses
import json
import logging
from collections.abc import Iterable, Mapping
from typing import Any, TypeVar

from torch import nn

from cycledistill.cycle.groups import ALL
from cycledistill.recipes.config.distillation import plain_distill, read_distill
from cycledistill.recipes.config.overrides import nearest
from cycledistill.recipes.errors import RecipeError

_logger = logging.getLogger(__name__)

T = TypeVar("T")


def read_fields(cls: type[T], data: Mapping[str, Any], place: str = "") -> T:
    """A dataclass from plain data; lists become tuples, and the dataclass checks the values.

    Args:
        cls: The dataclass.
        data: Field -> value.
        place: What the fields stand in, for messages: ``"network."``.

    Raises:
        RecipeError: Not a mapping, or fields that the dataclass does not have.
        ValueError: A value that the dataclass refuses.
    """
    if not isinstance(data, Mapping):
        raise RecipeError(f"{place.rstrip('.')}={data!r}: fields by name are expected")
    check_names(data, [each.name for each in dataclasses.fields(cls)], place)  # type: ignore[arg-type]
    return cls(**{name: _tuples(value) for name, value in data.items()})


def check_names(given: Iterable[str], known: list[str], place: str = "") -> None:
    """Refuse names that are not known.

    Raises:
        RecipeError: The first of them, with the nearest known one.
    """
    for name in given:
        if name not in known:
            raise RecipeError(f"unknown field '{place}{name}'.{nearest(name, known)} Known: {', '.join(known)}")


def take(data: dict[str, Any], name: str) -> Any:
    """Take a field out of plain data.

    Raises:
        RecipeError: It is not there.
    """
    if name not in data:
        raise RecipeError(f"the field {name!r} is missing; there are: {', '.join(data) or 'none'}")
    return data.pop(name)


def as_json(value: Any) -> Any:
    """The same as JSON gives it back: tuples are lists."""
    return json.loads(json.dumps(value))


def cycles_of(model: nn.Module) -> dict[str, Any]:
    """The fields ``cycles`` and ``distill`` of a model; empty for one that is not wrapped.

    A scheme that is code is not written, with a warning: whoever loads the model gives one, or trains without.
    """
    handle: Any = getattr(model, "cyclic", None)
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


def unlike_config(model: nn.Module, built: nn.Module) -> str:
    """Plug-ins and weights by which a model differs from one that was built from its config, in words."""
    own, other = _plugins(model), _plugins(built)
    for what, told in own.items():
        if told != other[what]:
            return f"{what} {told}, and the config can say only: {other[what]}"
    shapes, expected = ({name: tuple(x.shape) for name, x in each.state_dict().items()} for each in (model, built))
    names = [name for name in {**shapes, **expected} if shapes.get(name) != expected.get(name)]
    shown = [f"{name} is {shapes.get(name, 'missing')}, expected {expected.get(name, 'none')}" for name in names[:3]]
    return "; ".join(shown) + (f" and {len(names) - 3} more" if len(names) > 3 else "")


def _plugins(model: nn.Module) -> dict[str, str]:
    """What each plug-in acts on, and which tokens are distilled, in words."""
    handles = {name: getattr(model, name, None) for name in ("cyclic", "pruning", "hourglass")}
    groups = dict(getattr(handles["cyclic"], "groups", None) or ALL)
    told = {f"model.{name} acts on": _acts_on(handle) for name, handle in handles.items()}
    return told | {"model.cyclic distils the tokens": str(groups)}


def _acts_on(handle: Any) -> str:
    """Where a plug-in acts, in words."""
    if handle is None:
        return "nothing"
    told = (("layers", "at"), ("query", "by the tokens"), ("settings", "with"))
    parts = [f"{word} {getattr(handle, part)}" for part, word in told if hasattr(handle, part)]
    frozen = ["with BatchNorm frozen"] if getattr(handle, "freezes_batch_norm", False) else []
    return " ".join([handle.stack.path, *parts, *frozen])


def _tuples(value: Any) -> Any:
    return tuple(map(_tuples, value)) if isinstance(value, list) else value
