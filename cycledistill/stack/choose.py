"""Choose the stack that a verb acts on, and say why when there is none to take."""

from __future__ import annotations

import re
from itertools import takewhile

from torch import nn

from cycledistill.errors import ChainError, StackError
from cycledistill.stack.find import (
    ATTENTION,
    Stack,
    can_run,
    find_stacks,
    is_container,
    is_convolutional,
    is_in_model_itself,
    known_of,
    named_blocks,
    no_path,
    outermost_runs,
    stack_of,
    trace_containers,
)
from cycledistill.stack.given import Inputs
from cycledistill.stack.links import Named, Trace, check_chain, second_run
from cycledistill.stack.probe import probe


def choose_stack(
    model: nn.Module, blocks: str = "auto", verb: str = "wrap_cyclic", inputs: Inputs | None = None
) -> Stack:
    """The stack ``blocks`` names, or the one the automatic rule takes; refusals give advice on calls of ``verb``.

    The rule: the whole chain with the most parameters, if it holds at least a quarter of the model's, no other run
    has the same block class, and there is no other tower that may be meant. ``inputs`` are those of `find_stacks`.

    Raises:
        StackError: No such path, a leaf, blocks that do not chain or change shape, no stack, or several; or ``inputs``
            that the model does not take, or that do not reach the blocks.
    """
    if not isinstance(blocks, str):
        raise StackError(f'blocks={blocks!r}: "auto" or a path such as "encoder.layers" or "blocks[0:10]" is expected')
    return _automatic(model, verb, inputs) if blocks == "auto" else _explicit(model, blocks, verb, inputs)


def _automatic(model: nn.Module, verb: str, inputs: Inputs | None) -> Stack:
    runs = outermost_runs(model, trace_containers(model, inputs), inputs is not None)
    stacks = [run for run in runs if not is_in_model_itself(run.path)]
    whole = [run for run in runs if run.whole and (run not in stacks or not is_convolutional(run, model))]
    # Inputs that were given reach what is meant, which may be a small part of a larger model.
    reached = sum(run.parameters for run in runs) if inputs is not None else float("inf")
    large = bool(whole) and (whole[0].share >= 0.25 or 4 * whole[0].parameters >= reached)
    if large and sum(run.block == whole[0].block for run in runs) == 1:
        if whole[0] not in stacks:
            raise no_path(model)
        towers = [whole[0], *(run for run in whole[1:] if _is_another_tower(run, whole[0], model))]
        if len(towers) > 1:
            raise _several_towers(model, towers, verb)
        return whole[0]
    if runs and runs[0] not in stacks:
        raise no_path(model)
    name = type(model).__name__
    attention = [stack for stack in stacks if stack.attention]
    for proposed in outermost_runs(model, trace=None) if not attention else ():
        if proposed.attention and not is_in_model_itself(proposed.path):
            _tried(model, proposed.path, verb, inputs)  # says what the trial saw against it
    if not stacks:
        single = _container_of_one(model)
        candidate = "" if single is None else f' Here "{single}" holds one block, which can be a stack if it is named.'
        raise StackError(
            f"{name} has no stack: no container holds two or more blocks of one class that keep their input's shape. "
            "Name the container of the blocks, or one module that maps tokens to tokens of the same shape: "
            f'{verb}(model, blocks="{single or "path.to.module"}").{candidate}'
        )
    if not attention:
        raise StackError(
            f"{name} has no attention stack: none of its {len(stacks)} runs of equal blocks holds a module named as "
            "attention, as in a convolutional network. A run can still be taken by its path, for example "
            f'{verb}(model, blocks="{stacks[0].path}")'
        )
    raise StackError(
        f"{name} has no single stack to take: no chain that fills its container holds a quarter of the parameters "
        f"and has a block class of its own.{_listing(attention, verb)}"
    )


def _is_another_tower(run: Stack, chosen: Stack, model: nn.Module) -> bool:
    """Whether another run may be meant as well: it is deep, and stands in a part of its own, or the trial ran one only.

    As image and text towers, encoder and decoder; not the few blocks behind a stack, nor stages.
    """
    if not run.attention or 4 * run.depth < chosen.depth:
        return False
    if (run.shape is None) != (chosen.shape is None):
        return True
    one, other = (path.split("[")[0].split(".")[:-1] for path in (run.path, chosen.path))  # what holds the containers
    shared = [a for a, _ in takewhile(lambda both: both[0] == both[1], zip(one, other, strict=False))]
    return len(shared) < min(len(one), len(other)) and not is_container(model.get_submodule(".".join(shared)))


def _several_towers(model: nn.Module, towers: list[Stack], verb: str) -> StackError:
    ran = {tower.shape is not None for tower in towers}
    guessed = [tower.path for tower in towers if tower.shape is None] if len(ran) == 2 else []
    unseen = f" (the inputs that were guessed do not reach {', '.join(guessed)})" if guessed else ""
    return StackError(
        f"{type(model).__name__} has {len(towers)} towers, and it cannot be told which is meant{unseen}: name its "
        f"blocks, or give inputs that run one of them alone, {verb}(model, inputs=...).{_listing(towers, verb)}"
    )


def _container_of_one(model: nn.Module) -> str | None:
    """The outermost container that holds a single block, and in it attention; as in a stack that is one block deep."""
    for name, module in model.named_modules():
        blocks = list(module.children()) if name and is_container(module) else []
        if len(blocks) == 1 and can_run(blocks[0]):
            if any(ATTENTION.search(type(each).__name__) for each in blocks[0].modules()):
                return name
    return None


def advice(model: nn.Module, refused: str, verb: str = "wrap_cyclic") -> str:
    """The candidates of ``model`` other than the refused path, as the end of an error message.

    Where a trial shows that the module around the blocks keeps the shape of its tokens, cycles may take all of it.
    """
    around = refused.split("[")[0].rpartition(".")[0]
    listing = _listing([stack for stack in find_stacks(model) if stack.path != refused], verb)
    if verb != "wrap_cyclic" or not around or is_container(model.get_submodule(around)):
        return listing
    try:
        trace = probe(model, [around])
        check_chain([(around, model.get_submodule(around))], [(trace or {}).get(around, [])], around)
    except StackError:
        return listing
    return (
        f"{listing} The module that runs these blocks, with what it does between them, can be cycled as one: "
        f'{verb}(model, blocks="{around}")'
    )


def _listing(stacks: list[Stack], verb: str) -> str:
    if not stacks:
        return ""
    lines = "\n".join(f"  {stack}" for stack in stacks)
    return f' Candidates:\n{lines}\nTake one of them, for example {verb}(model, blocks="{stacks[0].path}")'


def _explicit(model: nn.Module, path: str, verb: str, inputs: Inputs | None) -> Stack:
    named, trace = _tried(model, path, verb, inputs)
    total = sum(parameter.numel() for parameter in model.parameters()) or 1
    return stack_of(path, named, "[" not in path, total, trace)


def _tried(model: nn.Module, path: str, verb: str, inputs: Inputs | None) -> tuple[Named, Trace | None]:
    """The blocks that a path names, and what a trial showed of them; refused where that speaks against a stack."""
    named = named_blocks(model, path)
    above = [path[: dot.start()] for dot in re.finditer(r"\.", path.split("[")[0])]
    ran = probe(model, [name for name, _ in named] + above, inputs)
    trace = known_of(named, ran)
    if trace is None and ran is not None and inputs is not None:
        raise StackError(
            f'blocks="{path}": the inputs that were given run none of these blocks. Give inputs that reach them, or '
            "leave inputs out: what runs is then verified in the first training forward"
        )
    if trace is not None:
        network = next((each for each in above if len(trace[each]) > 1), None)
        if network is not None and all(len(trace[name]) == len(trace[network]) for name, _ in named):
            raise second_run(path, network, verb)
        try:
            check_chain(named, [trace[name] for name, _ in named], path)
        except ChainError as refusal:
            raise StackError(f"{refusal}.{advice(model, path, verb)}") from None
    return named, trace
