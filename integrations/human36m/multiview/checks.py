"""What a multi-view model is called with, checked before anything runs: lists of tensors, one entry a view."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor


def check_views(
    name: str, given: object, shape: tuple[int, ...], like: Tensor, views: Sequence[Tensor] | None = None
) -> list[Tensor]:
    """Refuse what is no list of a tensor for each view, all of one batch; the list.

    Args:
        name: Of the argument.
        given: What was given.
        shape: Of one sample of an entry.
        like: A weight, of the dtype and on the device that are expected.
        views: The views that the entries belong to; default, ``given`` are the views.

    Raises:
        ValueError: Not a list or tuple, of another length, or an entry that is no tensor or does not fit.
    """
    each = f"one tensor (B, {', '.join(map(str, shape))}) for each view"
    if not isinstance(given, (list, tuple)):
        raise ValueError(
            f"{name}: {_called(given)} is given; a list with {each} is expected{_hint(name, given, shape)}"
        )
    if views is None and not given:
        raise ValueError(f"{name}: no view is given; a list with {each} is expected")
    if views is not None and len(given) != len(views):
        raise ValueError(
            f"{name}: {len(given)} entries for {len(views)} views; {each} is expected, in the order of the views"
        )
    first = (given if views is None else views)[0]
    batch = first.shape[0] if isinstance(first, Tensor) and first.ndim else "B"
    return [_check_entry(f"{name}[{number}]", entry, (batch, *shape), like) for number, entry in enumerate(given)]


def _check_entry(name: str, entry: object, shape: tuple[int | str, ...], like: Tensor) -> Tensor:
    expected = f"({', '.join(map(str, shape))}) is expected"
    if not isinstance(entry, Tensor):
        hint = f"; torch.from_numpy(...).to({like.dtype}) makes one" if type(entry).__name__ == "ndarray" else ""
        raise ValueError(f"{name} is {_called(entry)}: a tensor {expected}{hint}")
    if tuple(entry.shape) != shape:
        raise ValueError(
            f"{name} has shape {tuple(entry.shape)}: {expected}, as many samples as the first view has, and the rest "
            "what the model was built for (see model.config)"
        )
    if entry.device != like.device and not like.is_meta:  # meta: weights that are brought in for the forward
        raise ValueError(f"{name} is on {entry.device}, the model on {like.device}: .to({str(like.device)!r}) moves it")
    cast = not entry.is_meta and entry.is_floating_point() and torch.is_autocast_enabled(entry.device.type)
    if entry.dtype != like.dtype and not cast:  # a mixed-precision forward casts by itself
        raise ValueError(
            f"{name} is {entry.dtype}: {like.dtype}, as the model's weights, is expected; .to({like.dtype})"
        )
    return entry


def _hint(name: str, given: object, shape: tuple[int, ...]) -> str:
    if isinstance(given, dict):
        return f"; list({name}.values()), in one order for all arguments"
    if not isinstance(given, Tensor):
        return ""
    stacked = given.ndim > len(shape) + 1
    return f"; list({name}), if its first axis counts views" if stacked else f"; [{name}] is a list"


def _called(given: object) -> str:
    if given is None:
        return "None"
    shape = getattr(given, "shape", None)
    return f"one {type(given).__name__}" + (f" {tuple(shape)}" if isinstance(shape, tuple) else "")
