"""What users give a verb for its trial: a call, held against the forward, and judged where it fails."""

from __future__ import annotations

import inspect
import logging
import re
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn
from torch.overrides import TorchFunctionMode

from cycledistill.errors import StackError
from cycledistill.plugin.torch_private import tree_leaves, tree_map_only

_logger = logging.getLogger(__name__)

Inputs = torch.Tensor | tuple[Any, ...] | Mapping[str, Any]
"""What a model is called with, as users give it: a tensor, a tuple of arguments, or keyword arguments by name."""

Call = tuple[tuple[Any, ...], dict[str, Any]]
"""What a model is called with: positional and keyword arguments of its forward."""


def call_of(inputs: Inputs) -> Call:
    """What users give, as positional and keyword arguments."""
    if isinstance(inputs, Mapping):
        return (), dict(inputs)
    return (inputs if isinstance(inputs, tuple) else (inputs,)), {}


def argument_names(module: nn.Module) -> tuple[str, ...]:
    """Names of the arguments of a module's forward, in the order of its signature."""
    try:
        return tuple(inspect.signature(module.forward).parameters)
    except (TypeError, ValueError):  # a forward that Python cannot look into
        return ()


def describe(given: Call) -> str:
    """The arguments in words, tensors by shape, and by type where it is not float32: ``"1 x 3 x 224 x 224 uint8"``."""
    args, kwargs = given
    named = [("", x) for x in args] + [(f"{name} ", x) for name, x in kwargs.items()]
    return ", ".join(name + (_in_words(x) if isinstance(x, Tensor) else type(x).__name__) for name, x in named)


def _in_words(tensor: Tensor) -> str:
    kind = "" if tensor.dtype == torch.float32 else str(tensor.dtype).removeprefix("torch.")
    return f"{' x '.join(map(str, tensor.shape))} {kind}".strip()


def in_types_of(other: Call, given: Call) -> Call:
    """A call with its floating-point tensors in the type of another's: as autocast has them, which spares meta."""
    types = [leaf.dtype for leaf in tree_leaves(other) if isinstance(leaf, Tensor) and leaf.is_floating_point()]
    as_there: Call = tree_map_only(Tensor, lambda x: x.to(types[0]) if types and x.is_floating_point() else x, given)
    return as_there


def given_call(model: nn.Module, inputs: Inputs) -> Call:
    """The call that users give a verb for its trial, on the meta device.

    Raises:
        StackError: There is no tensor in it, or the model's forward has no such arguments.
    """
    given: object = inputs  # what callers without types pass
    if isinstance(given, list):
        raise StackError(
            "inputs=[...]: a list is none of the kinds that are taken: a tensor, a tuple of arguments, or a mapping of "
            "keyword arguments. Give a tuple"
        )
    call = call_of(inputs)
    if not any(isinstance(leaf, torch.Tensor) for leaf in tree_leaves(call)):
        raise StackError(
            f"inputs={type(inputs).__name__} without a tensor: what the model is called with is expected, a tensor, a "
            "tuple of arguments, or a mapping of keyword arguments"
        )
    try:
        inspect.signature(model.forward).bind(*call[0], **call[1])
    except TypeError as error:
        takes = ", ".join(argument_names(model))
        raise StackError(
            f"inputs: the forward of this {type(model).__name__} takes ({takes}), and cannot be called with them "
            f"({error}). Give a tensor, a tuple of arguments, or a mapping of keyword arguments"
        ) from None
    except ValueError:  # a forward that Python cannot look into
        pass
    on_meta: Call = tree_map_only(torch.Tensor, lambda x: x.detach().to("meta"), call)
    return on_meta


@contextmanager
def unused_told(copied: nn.Module, given: Call | None) -> Iterator[None]:
    """Tell of tensors that only a forward's ``**kwargs`` or ``*args`` take, and that a trial in the block ignored.

    It may be a slip (nothing refuses a misspelt name), or what a trial does not run: labels are for training.
    """
    loose = {} if given is None else _loose_tensors(copied, given)
    if not loose:
        yield
        return
    with _Looked() as looked:
        hook = copied.register_forward_hook(lambda _, __, output: looked.note(output))  # handed through is used
        try:
            yield
        finally:
            hook.remove()
    unused = [name for name, tensor in loose.items() if id(tensor) not in looked.at]
    if unused:
        _logger.warning(
            "inputs: nothing used %s in a trial of this %s in eval mode, whose forward takes it without a name, as it "
            "takes anything: (%s). Where it is not for training alone, look for a slip in its name",
            ", ".join(map(repr, unused)),
            type(copied).__name__,
            ", ".join(argument_names(copied)),
        )


@contextmanager
def untold() -> Iterator[None]:
    """No line about inputs in the block, whose trials are not the user's own."""
    before, _logger.disabled = _logger.disabled, True
    try:
        yield
    finally:
        _logger.disabled = before


class _Looked(TorchFunctionMode):
    """Notes the tensors that any function or attribute of PyTorch is asked of."""

    def __init__(self) -> None:
        super().__init__()
        self.at: set[int] = set()

    def note(self, tree: Any) -> None:
        self.at |= {id(leaf) for leaf in tree_leaves(tree) if isinstance(leaf, Tensor)}

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        self.note((args, kwargs))
        return func(*args, **(kwargs or {}))


def _loose_tensors(model: nn.Module, given: Call) -> dict[str, Tensor]:
    """Tensors among the arguments for which a forward has no name, by what they were given as."""
    try:
        signature = inspect.signature(model.forward)
    except ValueError:  # a forward that Python cannot look into
        return {}
    bound = signature.bind(*given[0], **given[1]).arguments
    found: dict[str, Any] = {}
    for name, parameter in signature.parameters.items():
        if parameter.kind is parameter.VAR_KEYWORD:
            found |= bound.get(name, {})
        elif parameter.kind is parameter.VAR_POSITIONAL:
            found |= {f"{name}[{number}]": each for number, each in enumerate(bound.get(name, ()))}
    return {name: each for name, each in found.items() if isinstance(each, Tensor)}


def judge_failed(model: nn.Module, given: Call, error: Exception, runs: Call | None) -> None:
    """What becomes of inputs that a copy without data did not run with; ``runs`` is a guess that it does run with.

    They are refused where the copy can run and the error is none that lies in its lack of data; else a line tells.

    Raises:
        StackError: They are refused.
    """
    name, reason = type(model).__name__, f"{type(error).__name__}: {error}"
    if runs is not None and not is_of_the_copy(error):
        raise StackError(
            f"inputs: this {name} does not run with {describe(given)} ({reason}), and does with {describe(runs)}. Give "
            "what it is called with, or leave inputs out"
        )
    _logger.warning(
        "the inputs given for %s (%s) do not run on a copy of it without data (%s), so they showed nothing: the stack "
        "was told by its structure alone, and is verified in the first forward. Where the model itself does not run "
        "with them either (wrong sizes, a wrong type), give others",
        name,
        describe(given),
        reason,
    )


def is_of_the_copy(error: Exception) -> bool:
    """Whether an error may come of the meta device: an operation that needs data, or that has no form without."""
    return isinstance(error, (NotImplementedError, StackError)) or bool(re.search(r"\bmeta\b", str(error), re.I))
