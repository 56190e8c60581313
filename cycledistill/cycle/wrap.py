"""Turn a model into a Multi-Cycled Transformer in place, and back."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Literal, TypeVar

import torch
from torch import nn
from torch.nn.utils import parametrize

from cycledistill.cycle.handle import Cyclic, Scheme
from cycledistill.cycle.modules import BlockState, CycledBlock, EarlyModule, EarlyState
from cycledistill.cycle.root import CycledRoot, RootState
from cycledistill.cycle.segments import blocks_to_cycle, check_cycled, chosen_behind
from cycledistill.plugin.handle import CYCLE_STATE
from cycledistill.plugin.install import Plugin, Role, handle_of, install, refuse, remove
from cycledistill.stack.choose import choose_stack
from cycledistill.stack.find import Stack
from cycledistill.stack.given import Inputs, argument_names
from cycledistill.stack.probe import has_forward

Model = TypeVar("Model", bound=nn.Module)

PLUGIN = Plugin("cyclic", CYCLE_STATE, (CycledRoot, CycledBlock, EarlyModule), change="model.cyclic.cycles")


def wrap_cyclic(
    model: Model,
    cycles: int = 2,
    distill: Scheme = "exits",
    *,
    blocks: str = "auto",
    tokens: Mapping[str, slice] | None = None,
    batch_norm: Literal["freeze", "update"] = "freeze",
    inputs: Inputs | None = None,
) -> Model:
    """Make ``model`` a Multi-Cycled Transformer, in place, and return it.

    While training, tokens pass ``cycles`` times through the same blocks, every cycle predicts through the model's own
    head, and the forward returns a :class:`CycleOutput`. In eval the model runs one cycle and is bit for bit the model
    that was given, or ``model.cyclic.exit`` cycles on request. Parameters, their names and order do not change.

    Args:
        model: Any module that holds a stack of blocks.
        cycles: How often the stack runs in a training forward, at least 1.
        distill: Which cycles meet the task loss, and what later ones teach earlier ones: a preset (``"exits"``, the
            task loss on every cycle and nothing else; ``"sdpose"``, ``"elt"``, ``"mct"``), a :class:`Distill`,
            a callable ``(CycleOutput) -> scalar tensor``, or ``None``.
        blocks: The stack: ``"auto"``, or a path such as ``"encoder.layers"``, ``"blocks[0:10]"``, or one module that
            is the whole stack.
        tokens: Named groups of tokens, slices of dimension 1 of a (B, N, C) state. Default: ``prefix`` and ``patch``
            where the model declares a prefix that is in the stack, else the one group ``all``.
        batch_norm: ``"freeze"``: running statistics belong to the first cycle, the one that is deployed.
            ``"update"``: every cycle moves them.
        inputs: What the trial of this call runs a copy of the model with, without data, where it cannot guess it: a
            tensor, a tuple of arguments, or a mapping of keyword arguments, as the model is called.

    Raises:
        StackError: No stack, several, one that changes shape, a path that does not exist, a model that is wrapped,
            compiled, scripted, traced or inside a data-parallel wrapper, whose forward was replaced on the object, or
            that has an attribute ``cyclic`` of its own, a frozen stack, or an argument out of its range. The model is
            then as it was.
        ValueError: An unknown preset or an invalid scheme.

    Example:
        >>> model = wrap_cyclic(timm.create_model("deit_tiny_patch16_224"), cycles=2)
        >>> out = model(torch.randn(4, 3, 224, 224))
        >>> len(out), out[0].shape
        (2, torch.Size([4, 1000]))

    Source: SDPose (CVPR 2024), section 3.2, the Multi-Cycled Transformer.
    """
    refuse(model, PLUGIN, scripted_parts=True)
    cyclic = Cyclic(cycles, distill, tokens, batch_norm, blocks)
    stack = choose_stack(model, blocks_to_cycle(model, blocks), PLUGIN.verb, inputs)
    check_cycled(model, stack)
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
    remove(model, PLUGIN)
    return model


def move_cycles(model: nn.Module, stack: Stack) -> None:
    """Cycle other blocks of a wrapped model, with the same handle; a refusal leaves it as it was."""
    cyclic: Cyclic = handle_of(model, "cyclic")
    before = cyclic.stack
    remove(model, PLUGIN)
    try:
        _attach(model, cyclic, stack)
    except BaseException:
        _attach(model, cyclic, before)
        raise


def settle_cycles(model: nn.Module) -> None:
    """Fit the cycles of a model, if it has any, to its hourglass, which came or went.

    Cycles that found their blocks themselves move to the blocks after the last prune point; others must fit. A refusal
    leaves them as they were.
    """
    cyclic: Cyclic | None = handle_of(model, "cyclic")
    if cyclic is None:
        return
    if cyclic.found_its_blocks and handle_of(model, "hourglass") is not None:
        move_cycles(model, choose_stack(model, blocks_to_cycle(model, "auto")))
    else:
        check_cycled(model, cyclic.stack)
        cyclic.run_first_cycle_whole(chosen_behind(model, cyclic.stack))


def _attach(model: nn.Module, cyclic: Cyclic, stack: Stack) -> None:
    cyclic.bind(model, stack)
    cyclic.run_first_cycle_whole(chosen_behind(model, stack))
    install(model, PLUGIN, cyclic, _roles(model, cyclic))


def _roles(model: nn.Module, cyclic: Cyclic) -> Iterator[Role]:
    container = cyclic.stack.path.split("[")[0]
    blocks = cyclic.stack.modules(model)
    numbers = {id(block): index for index, block in enumerate(blocks)}
    inside = {id(module) for block in blocks for module in block.modules()}
    for key, (name, module) in enumerate(model.named_modules()):
        if id(module) in numbers:
            yield module, CycledBlock, BlockState(cyclic.recorder, numbers[id(module)], argument_names(module))
        elif id(module) in inside or not has_forward(module):
            continue
        elif any(id(child) in numbers for child in module.modules()):
            yield module, CycledRoot, RootState(cyclic, container[len(name) :].lstrip("."))
        elif not isinstance(module, torch.jit.ScriptModule) and not parametrize.is_parametrized(module):
            yield module, EarlyModule, EarlyState(cyclic.recorder, key)
