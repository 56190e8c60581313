"""What a multi-view model is called with, checked before anything runs: lists of tensors, one entry a view."""

from __future__ import annotations

import torch
from torch import Tensor

Shape = tuple[int | str, ...]


def check_views(views: object, shape: tuple[int, ...], like: Tensor) -> int:
    """Refuse what is no list of views of one batch; the number of samples.

    Args:
        views: What was given.
        shape: Of one sample of a view, as the model was built for.
        like: A weight, of the dtype and on the device that are expected.

    Raises:
        ValueError: Not a list or tuple, an empty one, or an entry that is no tensor or does not fit.
    """
    listed = _listed("views", views, ("B", *shape))
    if not listed:
        raise ValueError(f"views: no view is given; a list with {_one_a_view(('B', *shape))} is expected")
    first = listed[0]
    batch = first.shape[0] if isinstance(first, Tensor) and first.ndim else 0
    for number, entry in enumerate(listed):
        _check_entry(f"views[{number}]", entry, (batch, *shape), like, "that of the first view")
    return batch


def check_places(name: str, given: object, shape: tuple[int, ...], views: int, like: Tensor) -> list[Tensor]:
    """Refuse what is no list of a tensor for each view; the list.

    Args:
        name: Of the argument.
        given: What was given.
        shape: Of an entry, the number of samples first.
        views: How many there are.
        like: A weight, of the dtype and on the device that are expected.

    Raises:
        ValueError: Not a list or tuple, of another length, or an entry that is no tensor or does not fit.
    """
    listed = _listed(name, given, ("B", *shape[1:]))
    if len(listed) != views:
        raise ValueError(
            f"{name}: {len(listed)} entries for {views} views; {_one_a_view(('B', *shape[1:]))} is expected, in the "
            "order of the views"
        )
    return [_check_entry(f"{name}[{n}]", entry, shape, like, "that of the views") for n, entry in enumerate(listed)]


def _listed(name: str, given: object, shape: Shape) -> list[object]:
    if isinstance(given, (list, tuple)):
        return list(given)
    hint = ""
    if isinstance(given, Tensor):
        hint = f"; list({name}), if its first axis counts views" if given.ndim > len(shape) else f"; [{name}] is a list"
    elif isinstance(given, dict):
        hint = f"; list({name}.values()), in one order for all arguments"
    raise ValueError(f"{name}: {_called(given)} is given; a list with {_one_a_view(shape)} is expected{hint}")


def _check_entry(name: str, entry: object, shape: tuple[int, ...], like: Tensor, batch_of: str) -> Tensor:
    if not isinstance(entry, Tensor):
        hint = "" if type(entry).__name__ != "ndarray" else f"; torch.from_numpy(...).to({like.dtype}) makes one"
        raise ValueError(f"{name} is {_called(entry)}: a tensor {_written(('B', *shape[1:]))} is expected{hint}")
    if tuple(entry.shape) != shape:
        raise ValueError(
            f"{name} has shape {tuple(entry.shape)}: {_written(shape if shape[0] else ('B', *shape[1:]))} is expected, "
            f"the number of samples being {batch_of} and the rest what the model was built for (see model.config)"
        )
    if entry.device != like.device and not like.is_meta:  # meta: weights that are brought in for the forward
        raise ValueError(f"{name} is on {entry.device}, the model on {like.device}: .to({str(like.device)!r}) moves it")
    if entry.dtype != like.dtype and not _is_cast(entry):
        raise ValueError(
            f"{name} is {entry.dtype}: {like.dtype}, as the model's weights, is expected; .to({like.dtype})"
        )
    return entry


def _is_cast(entry: Tensor) -> bool:
    """Whether a mixed-precision forward casts it by itself."""
    return not entry.is_meta and entry.is_floating_point() and torch.is_autocast_enabled(entry.device.type)


def _called(given: object) -> str:
    if given is None:
        return "None"
    kind = type(given).__name__
    shape = getattr(given, "shape", None)
    return f"one {kind}" + (f" {tuple(shape)}" if isinstance(shape, tuple) else "")


def _one_a_view(shape: Shape) -> str:
    return f"one tensor {_written(shape)} for each view"


def _written(shape: Shape) -> str:
    return f"({', '.join(map(str, shape))})"
