"""``verify``: every claim about one model, checked on it."""

from __future__ import annotations

import warnings
from collections.abc import Iterator
from typing import Any

import torch
from torch import nn

from cycledistill.cycle.wrap import wrap_cyclic
from cycledistill.errors import StackError
from cycledistill.inputs import Call, Inputs, call_of, describe, with_data
from cycledistill.plugin.handle import KINDS, handle_of
from cycledistill.plugin.install import check_module
from cycledistill.plugin.swap import Swapped
from cycledistill.plugin.torch_private import compiled_from, is_compiled
from cycledistill.stack.probe import guess_inputs
from cycledistill.verification.claims import check_model
from cycledistill.verification.oracle.copies import shared_copy, without_hooks
from cycledistill.verification.oracle.plain import plain
from cycledistill.verification.oracle.state import as_it_was, seed
from cycledistill.verification.oracle.subject import Subject, calm, unsettle
from cycledistill.verification.table import FAILED, NOT_CHECKED, NotChecked, Row, Verification


def verify(model: nn.Module, inputs: Inputs | None = None) -> Verification:
    """Prove on a model, with whatever stands around it, what the tests of this project prove on theirs.

    Each claim is held against something that is none of the library's own cycles: the plain model, which is the same
    object with its modules' own classes; the plain model with its blocks listed N times; a loop by hand; the attention
    that is seen as it is computed. Adapters, hooks, checkpointing and quantised layers take part as they are.
    Dropout is off meanwhile, and weights that are all equal (a LoRA's zeros) are moved a little, for they would hide
    what they multiply; the model is left as it was, to the bit. Its own hooks fire, as in any forward.

    Args:
        model: A wrapped model, one with wrapped models inside, or a plain one, of which a copy is wrapped by
            ``wrap_cyclic(copy)``. It may be compiled. It needs its weights, on any device.
        inputs: What it is called with: a tensor, a tuple of arguments, or keyword arguments by name. Two samples are
            enough. They also tell which stack of a plain model is meant. Default: noise of the size that it declares.

    Returns:
        A :class:`Verification`; printed, a table of what was proved, how, and with which result.

    Raises:
        StackError: ``model`` is no module, is scripted, on the meta device or inside a data-parallel wrapper, or is
            plain and refused by ``wrap_cyclic``.
        ValueError: No inputs were given, and none that run can be guessed.

    Example:
        >>> model = wrap_cyclic(timm.create_model("deit_tiny_patch16_224"), cycles=2)
        >>> result = verify(model)
        >>> result.ok
        True
        >>> print(result)   # a row a claim: what, proved by, result
    """
    check_module(model, "verify")
    compiled = model if is_compiled(model) else None
    model = compiled_from(model)
    _refuse(model)
    with warnings.catch_warnings(), as_it_was(model):
        warnings.simplefilter("ignore")  # a forward's warnings are no claim; those of the user's own runs still come
        given = None
        if not any(isinstance(module, Swapped) for module in model.modules()):
            given, model = model, _wrapped_copy(model, inputs)
        call = _call(model, inputs)
        unsettle(model)
        calm(model)
        rows: list[Row] = []
        where = []
        for path, subject in _subjects(model, call, given):
            where.append(_words(path, subject))
            found = check_model(subject, compiled if not path else None)
            rows += [_inside(path, row) for row in found]
        if given is None:  # after forwards, in which a handle takes on copies that another tool made of its parts
            rows[:0] = _orphans(model)
    return Verification("\n".join((f"{type(model).__name__} on {describe(call)}", *where)), tuple(rows))


def _refuse(model: nn.Module) -> None:
    name = type(model).__name__
    if isinstance(model, torch.jit.ScriptModule):
        raise StackError(f"this {name} is scripted or traced: verify the Python model behind it")
    wrapper = next((each.__name__ for each in type(model).__mro__ if each.__name__ in _DATA_PARALLEL), None)
    if wrapper is not None:
        raise StackError(f"this is a {wrapper}: verify the model inside, verify(model.module)")
    if any(each.is_meta for each in (*model.parameters(), *model.buffers())):
        raise StackError(f"this {name} is on the meta device, without weights: build it on a device, then verify it")


_DATA_PARALLEL = {"DistributedDataParallel", "DataParallel", "FullyShardedDataParallel"}


def _wrapped_copy(model: nn.Module, inputs: Inputs | None) -> nn.Module:
    try:
        copied = shared_copy(model)
    except NotChecked as error:
        raise StackError(f"{error}; wrap it, then verify the wrapped model") from error
    trainable = any(each.requires_grad for each in model.parameters())
    with without_hooks(copied):  # the user's: wrapping is not to run them
        return wrap_cyclic(copied, 2 if trainable else 1, None, inputs=inputs)


def _call(model: nn.Module, inputs: Inputs | None) -> Call:
    """What the model is called with: the given inputs on its device, or the first guess that runs."""
    if inputs is not None:
        return with_data(call_of(inputs), model)
    tried = []
    for guess in guess_inputs(model, batch=2):
        call = with_data(guess, model)
        try:
            with plain(model), torch.no_grad():
                model.eval()(*call[0], **call[1])
            return call
        except NotChecked:
            return call
        except Exception as error:  # a wrong guess fails anywhere inside the model
            tried.append(f"{describe(call)} ({type(error).__name__})")
    raise ValueError(
        f"no inputs were given, and {type(model).__name__} declares no size that runs; tried: "
        f"{', '.join(tried) or 'none'}. Give some, such as verify(model, torch.randn(2, 3, 224, 224))"
    )


def _subjects(model: nn.Module, call: Call, given: nn.Module | None) -> Iterator[tuple[str, Subject]]:
    """The wrapped modules in a model, each with what it is called with when the model runs."""
    wrapped = {module: path for path, module in model.named_modules() if any(handle_of(module, kind) for kind in KINDS)}
    calls: dict[nn.Module, Call] = {model: call}

    def note(module: nn.Module, args: Any, kwargs: Any) -> None:
        calls.setdefault(module, (args, kwargs))

    inside = [module for module in wrapped if module is not model]
    handles = [module.register_forward_pre_hook(note, with_kwargs=True) for module in inside]
    try:
        if inside:
            seed()
            with plain(model), torch.no_grad():  # plainly: whether the wrapped ones run is among the claims
                model.eval()(*call[0], **call[1])
    finally:
        for handle in handles:
            handle.remove()
    for module, path in wrapped.items():
        if module in calls:
            yield path, Subject(module, *calls[module], given=given)


def _orphans(model: nn.Module) -> Iterator[Row]:
    """Parts of a wrapped model whose handle is gone: they train one cycle, or drop tokens that no setting rules."""
    handles = {kind: [handle_of(module, kind) for module in model.modules()] for kind in KINDS}
    lost = [
        name
        for name, module in model.named_modules()
        for kind, about in KINDS.items()
        if about.state in vars(module)
        and not any(each is not None and each.owns(vars(module)[about.state]) for each in handles[kind])
    ]
    if lost:
        yield Row(
            "plug-ins have their handle",
            "the model's own attributes",
            FAILED,
            f"{lost[0] or 'the model'} was taken out of a wrapped model, and no handle rules it here: it trains one "
            "cycle alone. Unwrap this model and wrap it again",
        )
    elif not any(found for kind in handles.values() for found in kind):
        yield Row("plug-ins have their handle", "the model's own attributes", NOT_CHECKED, "no plug-in is here")


def _words(path: str, subject: Subject) -> str:
    found = [repr(handle) for handle in map(subject.handle, KINDS) if handle is not None]
    return f"{path or 'model'}: {', '.join(found)}"


def _inside(path: str, row: Row) -> Row:
    return Row(f"{path}: {row.claim}", *list(vars(row).values())[1:]) if path else row
