"""Turn a model into a Multi-Cycled Transformer in place, and back."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any, Literal, TypeVar

import torch
from torch import nn
from torch.nn.utils import parametrize

from cycledistill.cycle.handle import Cyclic, Scheme
from cycledistill.cycle.modules import BlockState, CycledBlock, EarlyModule, Recorder
from cycledistill.cycle.root import CycledRoot, RootState
from cycledistill.cycle.segments import blocks_to_cycle, check_cycled, chosen_behind
from cycledistill.errors import StackError
from cycledistill.plugin.state import CYCLE_STATE
from cycledistill.plugin.swap import Swapped, has_plugin, swap, swapped_since, unswap
from cycledistill.stack.find import Stack, choose_stack
from cycledistill.stack.probe import argument_names

Model = TypeVar("Model", bound=nn.Module)

_PLUGINS = (CycledRoot, CycledBlock, EarlyModule)
_DATA_PARALLEL = ("DistributedDataParallel", "DataParallel", "FullyShardedDataParallel")


def wrap_cyclic(
    model: Model,
    cycles: int = 2,
    distill: Scheme = "sdpose",
    *,
    blocks: str = "auto",
    tokens: Mapping[str, slice] | None = None,
    batch_norm: Literal["freeze", "update"] = "freeze",
) -> Model:
    """Make ``model`` a Multi-Cycled Transformer, in place, and return it.

    While training, tokens pass ``cycles`` times through the same blocks, every cycle predicts through the model's own
    head, and the forward returns a :class:`CycleOutput`. In eval the model runs one cycle and is bit for bit the model
    that was given, or ``model.cyclic.exit`` cycles on request. Parameters, their names and order do not change.

    Args:
        model: Any module that holds a stack of blocks.
        cycles: How often the stack runs in a training forward, at least 1.
        distill: What later cycles teach earlier ones: a preset (``"sdpose"``, ``"exits"``, ``"elt"``, ``"mct"``), a
            :class:`Distill`, a callable ``(CycleOutput) -> scalar tensor``, or ``None``.
        blocks: The stack: ``"auto"``, or a path such as ``"encoder.layers"``, ``"blocks[0:10]"``, or one module that
            is the whole stack.
        tokens: Named groups of tokens, slices of dimension 1 of a (B, N, C) state. Default: ``prefix`` and ``patch``
            where the model declares a prefix that is in the stack, else the one group ``all``.
        batch_norm: ``"freeze"``: running statistics belong to the first cycle, the one that is deployed.
            ``"update"``: every cycle moves them.

    Raises:
        StackError: No stack, several, one that changes shape, a path that does not exist, a model that is wrapped,
            compiled, scripted, or inside a data-parallel wrapper, a frozen stack, or an argument out of its range. The
            model is then as it was.
        ValueError: An unknown preset or an invalid scheme.

    Example:
        >>> model = wrap_cyclic(timm.create_model("deit_tiny_patch16_224"), cycles=2)
        >>> out = model(torch.randn(4, 3, 224, 224))
        >>> len(out), out[0].shape
        (2, torch.Size([4, 1000]))

    Source: SDPose (CVPR 2024), section 3.2, the Multi-Cycled Transformer.
    """
    _check_wrappable(model)
    cyclic = Cyclic(cycles, distill, tokens, batch_norm)
    stack = choose_stack(model, blocks_to_cycle(model, blocks))
    check_cycled(model, stack)
    cyclic._asked = blocks
    _attach(model, cyclic, stack)
    return model


def unwrap_cyclic(model: Model) -> Model:
    """Give ``model`` its original class again, in place, and return it; weights and keys are untouched.

    A part taken from a wrapped model, a copy of its encoder say, has no handle; it gets its own classes again too.

    Raises:
        StackError: The model is not wrapped, or another tool (FSDP2, parametrize) swapped a class since.

    Example:
        >>> unwrap_cyclic(model).state_dict()   # loads strictly into the model that was wrapped
    """
    cyclic = getattr(model, "cyclic", None)
    swapped = [(name, m) for name, m in model.named_modules() if _is_swapped(m)]
    if isinstance(cyclic, Cyclic):
        # A swapped module without a state is a slice of a swapped Sequential that took its place.
        swapped = [(name, m) for name, m in swapped if _recorder_of(m) in (cyclic._recorder, None)]
    elif not swapped or any(cyclic_of(module) is not None for module in model.modules()):
        inner = " (unwrap its .module)" if type(model).__name__ in _DATA_PARALLEL else ""
        raise StackError(f"{type(model).__name__} is not wrapped by wrap_cyclic, so there is nothing to undo{inner}")
    for name, module in swapped:
        other = swapped_since(module)
        if other is not None:
            raise StackError(
                f"{name or 'the model'} became a {other} after wrapping: another tool swapped its class. Undo that "
                "first, then call unwrap_cyclic(model)"
            )
    for _, module in swapped:
        for plugin in _PLUGINS:
            if has_plugin(module, plugin):
                unswap(module, plugin)
        module.__dict__.pop(CYCLE_STATE, None)
    if isinstance(cyclic, Cyclic):
        del model.cyclic
    return model


def cyclic_of(model: nn.Module) -> Cyclic | None:
    """The handle of a model that :func:`wrap_cyclic` was called on."""
    cyclic = model.__dict__.get("cyclic")
    return cyclic if isinstance(cyclic, Cyclic) else None


def move_cycles(model: nn.Module, stack: Stack) -> None:
    """Cycle other blocks of a wrapped model, with the same handle; a refusal leaves it as it was."""
    cyclic = model.cyclic
    assert isinstance(cyclic, Cyclic)
    before = cyclic.stack
    unwrap_cyclic(model)
    try:
        _attach(model, cyclic, stack)
    except StackError:
        _attach(model, cyclic, before)
        raise


def _attach(model: nn.Module, cyclic: Cyclic, stack: Stack) -> None:
    cyclic._bind(model, stack)
    cyclic._whole_first = chosen_behind(model, stack)
    _swap_all(list(_roles(model, cyclic)))
    model.cyclic = cyclic  # type: ignore[assignment]


def _roles(model: nn.Module, cyclic: Cyclic) -> Iterator[tuple[nn.Module, type[Swapped], Any]]:
    container = cyclic.stack.path.split("[")[0]
    blocks = cyclic.stack.modules(model)
    places = {id(block): index for index, block in enumerate(blocks)}
    inside = {id(module) for block in blocks for module in block.modules()}
    for key, (name, module) in enumerate(model.named_modules()):
        if id(module) in places:
            yield module, CycledBlock, BlockState(cyclic._recorder, places[id(module)], argument_names(module))
        elif id(module) in inside or type(module).forward is nn.Module.forward:
            continue
        elif any(id(child) in places for child in module.modules()):
            yield module, CycledRoot, RootState(cyclic, container[len(name) :].lstrip("."))
        elif not isinstance(module, torch.jit.ScriptModule) and not parametrize.is_parametrized(module):
            yield module, EarlyModule, BlockState(cyclic._recorder, key)


def _swap_all(roles: list[tuple[nn.Module, type[Swapped], Any]]) -> None:
    done: list[tuple[nn.Module, type[Swapped]]] = []
    try:
        for module, plugin, state in roles:
            swap(module, plugin)
            done.append((module, plugin))
            setattr(module, CYCLE_STATE, state)
    except TypeError as error:
        for module, plugin in done:
            unswap(module, plugin)
            module.__dict__.pop(CYCLE_STATE, None)
        name = type(module).__name__
        raise StackError(f"Python cannot change the class of a {name} in this model: {error}") from error


def _is_swapped(module: nn.Module) -> bool:
    return any(has_plugin(module, plugin) for plugin in _PLUGINS)


def _recorder_of(module: nn.Module) -> Recorder | None:
    return getattr(module.__dict__.get(CYCLE_STATE), "recorder", None)


def _check_wrappable(model: nn.Module) -> None:
    if not isinstance(model, nn.Module):
        raise StackError(f"wrap_cyclic takes a torch.nn.Module, and was given a {type(model).__name__}")
    name = type(model).__name__
    if isinstance(getattr(model, "cyclic", None), Cyclic):
        raise StackError(f"this {name} is already wrapped: set model.cyclic.cycles, or call unwrap_cyclic(model) first")
    if any(_is_swapped(module) for module in model.modules()):
        raise StackError(
            f"something in this {name} is already wrapped, or was taken from a wrapped model: call unwrap_cyclic on it "
            "first"
        )
    if isinstance(model, torch.jit.ScriptModule):
        raise StackError(f"this {name} is scripted or traced: wrap the Python model it was made from")
    if any(type(module).__name__ == "OptimizedModule" for module in model.modules()):
        raise StackError(
            f"this {name} is compiled, or holds a compiled module: wrap the plain model, then compile it: "
            "torch.compile(wrap_cyclic(model))"
        )
    if "forward" in model.__dict__:
        raise StackError(
            f"the forward of this {name} was replaced on the object (by accelerator.prepare, for example), so cycles "
            "would never be entered: wrap the model first, then prepare or patch it"
        )
    if name in _DATA_PARALLEL:
        raise StackError(f"this is a {name}: wrap the model inside, wrap_cyclic(model.module), before or after")
    if hasattr(model, "cyclic"):
        raise StackError(f"this {name} has an attribute of its own called 'cyclic', the handle's name: rename it")
