"""What an AdaptiveExit is given: models that can be served, and settings in their range."""

from __future__ import annotations

import math
import numbers
from collections.abc import Mapping, Sequence
from typing import Any

from torch import nn

from cycledistill.cycle.handle import Cyclic
from cycledistill.errors import StackError
from cycledistill.plugin.install import check_module, handle_of
from cycledistill.plugin.torch_private import is_compiled


def servable(model: nn.Module) -> Cyclic:
    """The handle of a model that can be served; refuses others.

    Raises:
        StackError: With what to do.
    """
    check_module(model, "AdaptiveExit")
    name = type(model).__name__
    if is_compiled(model):
        raise StackError(f"this {name} is compiled, whose graph has one exit: give AdaptiveExit the plain model")
    cyclic: Cyclic | None = handle_of(model, "cyclic")
    inner = getattr(model, "module", None)
    if cyclic is None and isinstance(inner, nn.Module) and handle_of(inner, "cyclic") is not None:
        raise StackError(f"this is a {name}: give AdaptiveExit the model inside, AdaptiveExit(model.module)")
    if cyclic is None:
        raise StackError(
            f"this {name} is not wrapped, so it has one exit: call wrap_cyclic(model) first, or give AdaptiveExit the "
            "part of it that is wrapped"
        )
    if handle_of(model, "hourglass") is not None:
        raise StackError(
            "an hourglass recovers the frames of all clips of a batch by one record of those kept, so clips cannot "
            "leave the batch: use a fixed exit (model.cyclic.exit), or unwrap_hourglass(model) first"
        )
    sharded = [each for each in model.modules() if _SHARDED & {cls.__name__ for cls in type(each).__mro__}]
    if sharded:
        raise StackError(
            "the parameters of this model are sharded (FSDP), and processes whose samples stop at other exits would "
            "wait for each other for ever: gather the weights into a plain model"
        )
    return cyclic


_SHARDED = {"FullyShardedDataParallel", "FSDPModule"}


def checked_options(given: bool | Mapping[str, Any]) -> dict[str, Any] | None:
    """Options of `torch.compile`, or ``None`` where nothing is compiled.

    Raises:
        ValueError: Something else was given.
    """
    if isinstance(given, bool):
        return {} if given else None
    if not isinstance(given, Mapping) or "fullgraph" in given:
        raise ValueError(f"compile={given!r}: True, False, or options of torch.compile without fullgraph are expected")
    return dict(given)


def checked_exits(exits: Sequence[int]) -> tuple[int, ...]:
    """Numbers of cycles, ascending.

    Raises:
        ValueError: They are not.
    """
    found = tuple(exits) if isinstance(exits, Sequence) else ()
    if not found or any(type(each) is not int or not 1 <= each <= 10_000 for each in found):
        raise ValueError(f"exits={exits!r}: whole numbers of cycles from 1 on are expected, such as (1, 2, 3)")
    if list(found) != sorted(set(found)):
        raise ValueError(f"exits={exits!r}: ascending numbers are expected, none twice")
    return found


def checked_threshold(given: Any, number: int, named: bool) -> tuple[float, ...] | None:
    """One threshold for each of the ``number`` exits before the last.

    Args:
        given: One number for all, or one each (a list, an array, a tensor), or ``None``.
        number: How many.
        named: Whether they are for a confidence in [0, 1].

    Raises:
        ValueError: Another number of them, or one out of its range.
    """
    if given is None:
        return None if number else ()  # one exit takes all
    # Of numpy and torch, and of Python's own arrays, which have no dimensions.
    listed = given.tolist() if hasattr(given, "tolist") and getattr(given, "ndim", 1) <= 1 else given
    each = tuple(listed) if isinstance(listed, Sequence) and not isinstance(listed, str) else (listed,) * number
    if len(each) != number:
        raise ValueError(f"threshold={given!r}: one number, or {number} are expected, one for each exit but the last")
    for value in each if isinstance(listed, Sequence) else (listed,):
        real = not isinstance(value, bool) and isinstance(value, numbers.Real) and not math.isnan(value)
        if not real or (named and not (0 <= value <= 1 or value == math.inf)):
            allowed = "in [0, 1], or math.inf (none may leave here)" if named else "that is not NaN"
            raise ValueError(f"threshold={given!r}: a number {allowed} is expected; {value!r} is not one")
    return tuple(float(value) for value in each)
