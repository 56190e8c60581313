"""Drop frames part of the way through a temporal transformer and recover them at its end, in place, and undo it."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from typing import Any, Literal, TypeVar

import torch
from torch import Tensor, nn

from cycledistill.cycle.wrap import settle_cycles
from cycledistill.errors import StackError
from cycledistill.hourglass.checks import (
    LENGTHS,
    check_batch_first,
    check_centre,
    check_cycles_of_same_module,
    check_keep,
    check_layers,
    check_recover,
    check_select,
    declared,
    guess_heads,
    guess_width,
    one_of,
    size,
    token_axis,
)
from cycledistill.hourglass.frames import HourglassState
from cycledistill.hourglass.handle import Hourglass
from cycledistill.hourglass.layout import Layout, resolve_layout
from cycledistill.hourglass.modules import (
    HourglassBlock,
    HourglassRoot,
    QkvRecorder,
    attention_over_frames,
    attention_roles,
)
from cycledistill.hourglass.recovery import FrameRecovery, RankPositions
from cycledistill.hourglass.settings import LEARNED, Select, Settings, check_noise
from cycledistill.plugin.handle import HOURGLASS_STATE
from cycledistill.plugin.install import Plugin, Role, install, refuse, remove
from cycledistill.stack.choose import advice, choose_stack
from cycledistill.stack.find import Stack
from cycledistill.stack.given import Inputs
from cycledistill.stack.probe import has_forward
from cycledistill.stack.taken import is_taken

Model = TypeVar("Model", bound=nn.Module)

PLUGIN = Plugin("hourglass", HOURGLASS_STATE, (HourglassBlock, HourglassRoot, QkvRecorder))

_LEVELS = "levels"
"""The blocks of this project's lifting models."""

_Added = tuple[nn.ModuleList, FrameRecovery]
"""The modules with weights: positions by rank for each prune point, and the recovery."""


def wrap_hourglass(
    model: Model,
    *,
    blocks: str = _LEVELS,
    layer: int | Sequence[int] = 3,
    keep: int | float | Sequence[int | float] = 81,
    select: Select = "tpc",
    recover: bool | str = True,
    recover_after: str | None = None,
    layout: tuple[Callable[..., Tensor], Callable[[Tensor], Any]] | None = None,
    pool: Literal["mean", "concat"] | None = None,
    heads: int | None = None,
    frames: int | None = None,
    prefix: int | Literal["auto"] = "auto",
    width: int | None = None,
    centre: int | bool | None = None,
    neighbours: int = 2,
    noise: str | Tensor | torch.Generator | None = None,
    exact: bool = True,
    tie: Literal["index", "noise"] | None = None,
    lengths: Literal["exact", "shorter", "any"] | None = None,
    inputs: Inputs | None = None,
) -> Model:
    """Make a temporal transformer run its later blocks on some of the frames, in place, and return it.

    Before block ``layer`` it keeps ``keep`` frames of every clip, and after the blocks it recovers all of them. By
    default the frames are chosen by density clustering (TPC), the same in every run, and recovered by a learned
    attention (TRA). The model's own parameters keep their names. Added are, with ``recover=True`` alone, one table of
    positions by rank for each prune point (``prune.{i}.pos``) and the recovery (``recover.*``). Training and
    evaluation prune alike. With ``wrap_cyclic``, before or after it, the blocks after the last prune point are cycled,
    on frames that the first cycle chose.

    Args:
        model: A model with blocks that keep the number of frames and hold nothing for one frame alone; what
            stands before them adds all positions.
        blocks: The stack: a path as for ``wrap_cyclic``, or ``"auto"``. The default is the name of the blocks in this
            project's lifting models: no clip can be guessed to tell them apart by, and ``"auto"`` goes by the
            parameters, so in MHFormer, whose levels are of two kinds, it would take the encoders of the stem.
        layer: The block in front of which frames are dropped, from 0, or several, ascending.
        keep: Frames kept there: a number, or a share of the clip's (a float up to 1). One for each of several.
        select: ``"tpc"``; ``"uniform"``, evenly spaced; ``"motion"``, those that differ most from the frame before;
            ``"attention"``, those most attended in the block before; or a callable ``(tokens (B, F, J, C), keep)`` to
            frame numbers (B, keep), called without gradients, and again where activation checkpointing runs the
            block again, so that its random numbers do not shift those of dropout.
        recover: ``True``, learned attention, as published; ``"local"``, the same with scores that fall with the
            distance in time, so that clips move early in training; ``"linear"`` or ``"nearest"``, interpolation along
            time; ``False``, the model returns the kept frames alone, whose numbers are ``model.hourglass.index``.
        recover_after: Path of the module in whose output all frames return. Default: for ``True`` and ``"local"`` the
            ``norm`` beside or above the blocks, for interpolation the model's ``head``, else the last block.
        layout: Two functions, from the tokens of the blocks to (B, F, J, C) and back, where it is neither that, nor
            (B, F, C), nor a tuple of such tensors. The first may take the number of frames as a second argument.
        pool: How the J tokens of a frame become one vector for the choice: ``"mean"`` or ``"concat"``. Default: what
            the model declares as ``pool``, else ``"mean"``.
        heads: Heads of the recovery. Default: those of the blocks.
        frames: Frames of a clip, for the tables of a learned recovery, and what the token axis is held against.
            Default: what the model or its ``config`` declares (``frames``, or the ``num_frames`` of a video).
        prefix: Tokens in front, on axis 1 of what the blocks take, that are never dropped nor counted, as a class
            token. ``"auto"``: as the model declares, by ``num_prefix_tokens``, a group ``"prefix"`` in
            ``token_groups``, or parameters named as such tokens are (``cls_token``, ``register_tokens``). ``layout``
            is given the tokens behind them.
        width: Channels of a token. Default: those of the blocks.
        centre: A frame that is always kept: its number, ``True`` for the middle one, (F - 1) // 2, or ``False``.
            Default: ``True`` with ``recover=False``, else ``False``.
        neighbours: Nearest frames that make up a density in TPC, the frame itself included; at most those left.
        noise: In TPC, ``None``, ``"uniform"`` as in the official code, a tensor (B, F) of numbers in [0, 1), or a
            generator that draws them. See :func:`cycledistill.hourglass.selection.tpc`, also for ``exact`` and ``tie``.
        exact: In TPC, distances by exact arithmetic.
        tie: In TPC, what decides between equal densities.
        lengths: Clips of another length than the tables: ``"exact"`` refuses them, ``"shorter"`` takes shorter ones,
            with the first entries, ``"any"`` takes all, with the tables interpolated along time; ``keep`` is then in
            proportion. Default: what the model declares as ``lengths``, else ``"exact"``.
        inputs: What the trial of this call runs a copy of the model with, without data, where it cannot guess it: a
            tensor, a tuple of arguments, or a mapping of keyword arguments, as the model is called.

    Raises:
        StackError: No such blocks, a block or a number of frames out of range, a model that is wrapped, compiled,
            scripted or inside a data-parallel wrapper, cycles across the prune point, a size that is not known, a
            token axis that is not one of frames, or another argument out of its range. The model is then as it was.

    Example:
        >>> model = wrap_hourglass(lifter, layer=3, keep=81)     # MixSTE: 8 blocks, clips (B, 243, 17, 2)
        >>> model(clips).shape, model.hourglass.index.shape
        (torch.Size([2, 243, 17, 3]), torch.Size([2, 81]))

    Source: HoT, "Hourglass Tokenizer for Efficient Transformer-Based 3D Human Pose Estimation" (CVPR 2024).
    """
    refuse(model, PLUGIN)
    check_cycles_of_same_module(model)
    stack = _choose_stack(model, blocks, inputs)
    if layout is None:
        check_batch_first(stack, stack.modules(model))
    layers, recover = check_layers(layer, stack), check_recover(recover)
    own_lengths = declared(model, "lengths")
    lengths = one_of("lengths", lengths or (own_lengths if own_lengths in LENGTHS else "exact"), LENGTHS)
    axis = token_axis(model, prefix, frames, lengths)
    frames = axis.frames
    if frames is not None or recover in LEARNED:
        frames = size("frames", frames, None, f"recover={recover!r} learns a query for every frame of a clip")
    if layout is None and stack.shape is not None and len(stack.shape) == 3:
        axis.check(stack.path, stack.shape[1], flat=True)
    settings = Settings(
        layers=layers,
        keep=check_keep(keep, layers, frames),
        select=check_select(select, stack, layers),
        recover=recover,
        pool=one_of("pool", pool or declared(model, "pool") or "mean", ("mean", "concat")),
        frames=frames,
        prefix=axis.prefix,
        lengths=lengths,
        centre=check_centre(centre, recover, frames),
        neighbours=size("neighbours", neighbours, None, ""),
        exact=one_of("exact", exact, (True, False)),
        tie=one_of("tie", tie, (None, "index", "noise")),
        noise=check_noise(noise),
    )
    end, after = _recovery_module(model, stack, layers, recover, recover_after)
    handle = Hourglass(stack, settings, axis, end, after)
    added = _tables(model, stack, settings, heads, width) if settings.learns else None
    _install(model, handle, _roles(model, handle, resolve_layout(layout), added))
    if added is not None:
        model.prune, model.recover = added
    return model


def unwrap_hourglass(model: Model) -> Model:
    """Take the hourglass off, in place, and return the model: all frames run through all blocks again.

    The model's own weights stay; those that the hourglass added go with it. Cycles stay on the blocks they were on.

    Raises:
        StackError: The model has no hourglass, or another tool (FSDP2, parametrize) swapped a class since.

    Example:
        >>> unwrap_hourglass(model).state_dict()   # loads strictly into the model that was wrapped
    """
    handle: Hourglass | None = remove(model, PLUGIN)
    if handle is not None and handle.settings.learns:
        del model.prune, model.recover
    settle_cycles(model)
    return model


def _recovery_module(
    model: nn.Module, stack: Stack, layers: tuple[int, ...], recover: bool | str, path: str | None
) -> tuple[int, str | None]:
    """The number of the block after which frames may return, and the path of the module in whose output they do."""
    last = stack.depth - 1
    if recover is False:
        if path is not None:
            raise StackError(f"recover_after={path!r}: with recover=False no frames are recovered; leave it out")
        return last, None
    blocks = stack.modules(model)
    if path is None:
        names = {module: name for name, module in model.named_modules()}
        return last, names[_default_module(model, stack, recover) or blocks[last]]
    try:
        module = model.get_submodule(path) if path else None
    except AttributeError:
        module = None
    if module is None or not has_forward(module):
        raise StackError(
            f"recover_after={path!r}: {type(model).__name__} has no module of this path that is called, in whose "
            "output the frames could return"
        )
    number = next((number for number, block in enumerate(blocks) if block is module), last)
    if number < layers[-1]:
        raise StackError(f"recover_after={path!r} is block {number}, before the last prune point, {layers[-1]}")
    return number, path


def _default_module(model: nn.Module, stack: Stack, recover: bool | str) -> nn.Module | None:
    container = stack.path.split("[")[0]
    owners = [model.get_submodule(container.rpartition(".")[0]), model]
    for name in ("norm",) if recover in LEARNED else ("head", "norm"):
        for owner in owners:
            found = getattr(owner, name, None)
            if isinstance(found, nn.Module):
                return found
    return None


def _tables(model: nn.Module, stack: Stack, settings: Settings, heads: int | None, width: int | None) -> _Added:
    """The modules with weights, on the device and of the type of the blocks."""
    taken = [name for name in ("prune", "recover") if hasattr(model, name)]
    if taken:
        raise StackError(f"this {type(model).__name__} has attributes of its own called {taken}: rename them")
    block = stack.modules(model)[settings.layers[0]]
    why = f"recover={settings.recover!r} learns positions and an attention"
    channels = size("width", width, guess_width(model, block), why)
    frames = settings.frames
    assert frames is not None
    heads = size("heads", heads, guess_heads(model, block), why)
    recovery = FrameRecovery(frames, channels, heads, local=settings.recover == "local")
    counts = [settings.count(point, frames) for point in range(len(settings.layers))]
    prune = nn.ModuleList(RankPositions(count, channels) for count in counts)
    like = next((each for each in block.parameters() if each.is_floating_point()), None)
    for module in (prune, recovery):
        module.train(model.training)
        if like is not None:
            module.to(device=like.device, dtype=like.dtype)
    return prune, recovery


def _roles(model: nn.Module, handle: Hourglass, layout: Layout, added: _Added | None) -> list[Role]:
    acting = _acting(model, handle, layout, added)
    states = {state.path: state for state in acting}
    roles: list[Role] = [(model.get_submodule(state.path), HourglassBlock, state) for state in acting]
    for path, root in _roots(model, handle.stack):
        state = states.get(path) or HourglassState(handle, layout, path)
        if root is model:
            state.acting = tuple(sorted(acting, key=lambda each: each.path.count(".")))
        roles.append((root, HourglassRoot, state))
    for state in acting:
        roles += attention_roles(model.get_submodule(state.path), state)
    return roles


def _acting(model: nn.Module, handle: Hourglass, layout: Layout, added: _Added | None) -> list[HourglassState]:
    """The states of the blocks in front of which frames are dropped, of the last one, and of where frames return."""
    paths = {module: path for path, module in model.named_modules()}
    blocks = [paths[block] for block in handle.stack.modules(model)]
    points = {blocks[number]: point for point, number in enumerate(handle.layers)}
    last = back = None
    if handle.recover_after is not None:
        last, back = blocks[handle.end], paths[model.get_submodule(handle.recover_after)]
    prune, recovery = added if added is not None else (None, None)
    states = []
    read = {}
    if handle.settings.select == "attention":
        read = {
            blocks[number - 1]: attention_over_frames(model, blocks[number - 1], number) for number in handle.layers
        }
    for path in dict.fromkeys([*points, *filter(None, (back, last)), *read]):
        state = HourglassState(handle, layout, path, points.get(path), ends=path == last, returns=path == back)
        state.attention = read.get(path, ())
        if prune is not None and state.point is not None:
            state.positions = prune[state.point]  # type: ignore[assignment]
        if state.returns:
            state.recovery = recovery
        states.append(state)
    return states


def _roots(model: nn.Module, stack: Stack) -> Iterator[tuple[str, nn.Module]]:
    """The model and the modules between it and its blocks, those that are called."""
    blocks = stack.modules(model)
    inside = {module for block in blocks for module in block.modules()}
    for path, module in model.named_modules():
        called = has_forward(module) or module is model
        if called and module not in inside and any(child is blocks[0] for child in module.modules()):
            yield path, module


def _install(model: nn.Module, handle: Hourglass, roles: list[Role]) -> None:
    install(model, PLUGIN, handle, roles)
    try:
        settle_cycles(model)
    except BaseException:
        remove(model, PLUGIN)
        settle_cycles(model)
        raise


def _choose_stack(model: nn.Module, blocks: str, inputs: Inputs | None) -> Stack:
    if blocks == _LEVELS and not hasattr(model, _LEVELS):  # which need not have been typed
        raise StackError(
            f"{type(model).__name__} has no {_LEVELS}, the blocks that {PLUGIN.verb} takes where none are named: name "
            f'the container of the blocks, {PLUGIN.verb}(model, blocks="path.to.blocks"), or pass blocks="auto"'
            f"{advice(model, blocks, PLUGIN.verb).rstrip()}"
        )
    stack = choose_stack(model, blocks, PLUGIN.verb, inputs)
    if is_taken(model, stack, "pruning"):
        raise StackError(
            f'blocks="{blocks}": wrap_pruning drops tokens in these blocks; one of the two can act on a stack'
        )
    if stack.span(model)[0] is None:
        raise StackError(
            f'blocks="{blocks}" is one module: name the container of the blocks, between which frames drop'
        )
    return stack
