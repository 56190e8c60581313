"""Drop frames part of the way through a temporal transformer and recover them at its end, in place, and undo it."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from typing import Any, Literal, TypeVar

import torch
from torch import Tensor, nn

from cycledistill.cycle.segments import blocks_to_cycle, check_cycled, chosen_behind
from cycledistill.cycle.wrap import cyclic_of, move_cycles
from cycledistill.errors import StackError
from cycledistill.hourglass.checks import (
    DATA_PARALLEL,
    LENGTHS,
    check_batch_first,
    check_centre,
    check_keep,
    check_layers,
    check_recover,
    check_select,
    check_wrappable,
    declared,
    guess_heads,
    guess_width,
    one_of,
    size,
)
from cycledistill.hourglass.handle import Hourglass
from cycledistill.hourglass.layout import resolve_layout
from cycledistill.hourglass.modules import HourglassLevel, HourglassRoot, HourglassState, QkvRecorder, QkvState
from cycledistill.hourglass.recovery import FrameRecovery, RankPositions
from cycledistill.hourglass.settings import Select, Settings, check_noise
from cycledistill.plugin.state import HOURGLASS_STATE, PRUNE_STATE
from cycledistill.plugin.swap import Swapped, has_plugin, swap, swapped_since, unswap
from cycledistill.stack.find import Stack, choose_stack

Model = TypeVar("Model", bound=nn.Module)

_PLUGINS = (HourglassLevel, HourglassRoot, QkvRecorder)
_Role = tuple[nn.Module, type[Swapped], Any]


def wrap_hourglass(
    model: Model,
    *,
    blocks: str = "levels",
    layer: int | Sequence[int] = 3,
    keep: int | float | Sequence[int | float] = 81,
    select: Select = "tpc",
    recover: bool | str = True,
    recover_after: str | None = None,
    layout: tuple[Callable[..., Tensor], Callable[[Tensor], Any]] | None = None,
    pool: Literal["mean", "concat"] | None = None,
    heads: int | None = None,
    frames: int | None = None,
    width: int | None = None,
    centre: int | bool | None = None,
    neighbours: int = 2,
    noise: str | Tensor | torch.Generator | None = None,
    exact: bool = True,
    tie: Literal["index", "noise"] | None = None,
    lengths: Literal["exact", "shorter", "any"] | None = None,
) -> Model:
    """Make a temporal transformer run its later levels on some of the frames, in place, and return it.

    Before level ``layer`` it keeps ``keep`` frames of every clip, and after the levels it recovers all of them. By
    default the frames are chosen by density clustering (TPC), the same in every run, and recovered by a learned
    attention (TRA). The host's own parameters keep their names. Added are, with ``recover=True`` alone, one table of
    positions by rank for each prune point (``prune.{i}.pos``) and the recovery (``recover.*``). Training and
    evaluation prune alike. With ``wrap_cyclic``, before or after it, the levels after the last prune point are cycled,
    on frames that the first cycle chose.

    Args:
        model: A model with a stack of levels that keep the number of frames and hold nothing for one frame alone; what
            stands before them adds all positions.
        blocks: The levels: a path as for ``wrap_cyclic``, or ``"auto"``.
        layer: The level in front of which frames are dropped, from 0, or several, ascending.
        keep: Frames kept there: a number, or a share of the clip's (a float up to 1). One for each of several levels.
        select: ``"tpc"``; ``"uniform"``, evenly spaced; ``"motion"``, those that differ most from the frame before;
            ``"attention"``, those most attended in the level before; or a callable ``(tokens (B, F, J, C), keep)`` to
            frame numbers (B, keep), called without gradients, and again where activation checkpointing runs the
            level again, so that its random numbers do not shift those of dropout.
        recover: ``True``, learned attention; ``"linear"`` or ``"nearest"``, interpolation along time; ``False``, the
            model returns the kept frames alone, whose numbers are ``model.hourglass.index``.
        recover_after: Path of the module in whose output all frames return. Default: for ``True`` the ``norm`` beside
            or above the levels, for interpolation the model's ``head``, else the last level.
        layout: Two functions, from the state of the levels to (B, F, J, C) and back, where it is neither that, nor
            (B, F, C), nor a tuple of such tensors. The first may take the number of frames as a second argument.
        pool: How the J tokens of a frame become one vector for the choice: ``"mean"`` or ``"concat"``. Default: what
            the model declares as ``pool``, else ``"mean"``.
        heads: Heads of the recovery. Default: those of the levels.
        frames: Frames of a clip, for the tables of ``recover=True``. Default: what the model or its
            ``config`` declares.
        width: Channels of a token. Default: those of the levels.
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

    Raises:
        StackError: No such levels, a level or a number of frames out of range, a model that is wrapped, compiled,
            scripted or inside a data-parallel wrapper, cycles across the prune point, a size that is not known, or
            another argument out of its range. The model is then as it was.

    Example:
        >>> model = wrap_hourglass(lifter, layer=3, keep=81)     # MixSTE: 8 levels, clips (B, 243, 17, 2)
        >>> model(clips).shape, model.hourglass.index.shape
        (torch.Size([2, 243, 17, 3]), torch.Size([2, 81]))

    Source: HoT, "Hourglass Tokenizer for Efficient Transformer-Based 3D Human Pose Estimation" (CVPR 2024).
    """
    check_wrappable(model)
    stack = _choose_stack(model, blocks)
    if layout is None:
        check_batch_first(stack, stack.modules(model))
    layers, recover = check_layers(layer, stack), check_recover(recover)
    frames = declared(model, "frames") if frames is None else frames
    if frames is not None or recover is True:
        frames = size("frames", frames, None, "recover=True learns a query for every frame of a clip")
    host_lengths = declared(model, "lengths")
    settings = Settings(
        layers=layers,
        keep=check_keep(keep, layers, frames),
        select=check_select(select, stack, layers),
        recover=recover,
        pool=one_of("pool", pool or declared(model, "pool") or "mean", ("mean", "concat")),
        frames=frames,
        lengths=one_of("lengths", lengths or (host_lengths if host_lengths in LENGTHS else "exact"), LENGTHS),
        centre=check_centre(centre, recover, frames),
        neighbours=size("neighbours", neighbours, None, ""),
        exact=one_of("exact", exact, (True, False)),
        tie=one_of("tie", tie, (None, "index", "noise")),
        noise=check_noise(noise),
    )
    end, after = _recovery_place(model, stack, layers, recover, recover_after)
    handle = Hourglass(stack, settings, end, after, added=settings.learns)
    added = _tables(model, stack, settings, heads, width) if settings.learns else None
    roles = list(_roles(model, handle, resolve_layout(layout), added))
    _install(model, handle, roles, added)
    return model


def unwrap_hourglass(model: Model) -> Model:
    """Take the hourglass off, in place, and return the model: all frames run through all levels again.

    The weights of the host stay; those that the hourglass added go with it. Cycles stay on the levels they were on.

    Raises:
        StackError: The model has no hourglass, or another tool (FSDP2, parametrize) swapped a class since.

    Example:
        >>> unwrap_hourglass(model).state_dict()   # loads strictly into the model that was wrapped
    """
    handle = getattr(model, "hourglass", None)
    if not isinstance(handle, Hourglass):
        inner = " (unwrap its .module)" if type(model).__name__ in DATA_PARALLEL else ""
        raise StackError(f"{type(model).__name__} is not wrapped by wrap_hourglass, so there is nothing to undo{inner}")
    swapped = [(name, m) for name, m in model.named_modules() if _handle_at(m) is handle]
    for name, module in swapped:
        other = swapped_since(module)
        if other is not None:
            raise StackError(
                f"{name or 'the model'} became a {other} after wrapping: another tool swapped its class. Undo that "
                "first, then call unwrap_hourglass(model)"
            )
    for _, module in swapped:
        _take_off(module)
    if handle._added:
        del model.prune, model.recover
    cyclic = cyclic_of(model)
    if cyclic is not None:
        cyclic._whole_first = False
    del model.hourglass
    return model


def _recovery_place(
    model: nn.Module, stack: Stack, layers: tuple[int, ...], recover: bool | str, path: str | None
) -> tuple[int, str | None]:
    """The number of the level after which frames may return, and the path of the module in whose output they do."""
    last = stack.depth - 1
    if recover is False:
        if path is not None:
            raise StackError(f"recover_after={path!r}: with recover=False no frames are recovered; leave it out")
        return last, None
    levels = stack.modules(model)
    names = {id(module): name for name, module in model.named_modules()}
    if path is None:
        return last, names[id(_default_place(model, stack, recover) or levels[last])]
    try:
        place = model.get_submodule(path) if path else None
    except AttributeError:
        place = None
    if place is None or type(place).forward is nn.Module.forward:
        raise StackError(
            f"recover_after={path!r}: {type(model).__name__} has no module of this path that is called, in whose "
            "output the frames could return"
        )
    number = next((number for number, level in enumerate(levels) if level is place), last)
    if number < layers[-1]:
        raise StackError(f"recover_after={path!r} is level {number}, before the last prune point, {layers[-1]}")
    return number, path


def _default_place(model: nn.Module, stack: Stack, recover: bool | str) -> nn.Module | None:
    container = stack.path.split("[")[0]
    owners = [model.get_submodule(container.rpartition(".")[0]), model]
    for name in ("norm",) if recover is True else ("head", "norm"):
        for owner in owners:
            found = getattr(owner, name, None)
            if isinstance(found, nn.Module):
                return found
    return None


def _tables(
    model: nn.Module, stack: Stack, settings: Settings, heads: int | None, width: int | None
) -> tuple[nn.ModuleList, FrameRecovery]:
    """The modules with weights, on the device and of the type of the levels."""
    taken = [name for name in ("prune", "recover") if hasattr(model, name)]
    if taken:
        raise StackError(f"this {type(model).__name__} has attributes of its own called {taken}: rename them")
    level = stack.modules(model)[settings.layers[0]]
    why = "recover=True learns positions and an attention"
    channels = size("width", width, guess_width(model, level), why)
    frames = settings.frames
    assert frames is not None
    recovery = FrameRecovery(frames, channels, size("heads", heads, guess_heads(model, level), why))
    counts = [settings.count(point, frames) for point in range(len(settings.layers))]
    prune = nn.ModuleList(RankPositions(count, channels) for count in counts)
    like = next((each for each in level.parameters() if each.is_floating_point()), None)
    for module in (prune, recovery):
        module.train(model.training)
        if like is not None:
            module.to(device=like.device, dtype=like.dtype)
    return prune, recovery


def _roles(
    model: nn.Module, handle: Hourglass, layout: Any, added: tuple[nn.ModuleList, FrameRecovery] | None
) -> Iterator[_Role]:
    levels = handle.stack.modules(model)
    states: dict[int, HourglassState] = {}
    names = {id(module): name for name, module in model.named_modules()}

    def state_of(module: nn.Module) -> HourglassState:
        return states.setdefault(id(module), HourglassState(handle, layout, names[id(module)]))

    acting = {id(levels[number]): levels[number] for number in handle.layers}
    for point, number in enumerate(handle.layers):
        state_of(levels[number]).point = point
        state_of(levels[number]).positions = added[0][point] if added is not None else None  # type: ignore[assignment]
    if handle.recover_after is not None:
        back, last = model.get_submodule(handle.recover_after), levels[handle._end]
        acting |= {id(back): back, id(last): last}
        state_of(last).ends, state_of(back).returns = True, True
        state_of(back).recovery = added[1] if added is not None else None
    for module in acting.values():
        yield module, HourglassLevel, state_of(module)
    inside = {id(module) for level in levels for module in level.modules()}
    for module in model.modules():
        called = type(module).forward is not nn.Module.forward or module is model
        if called and id(module) not in inside and any(child is levels[0] for child in module.modules()):
            yield module, HourglassRoot, state_of(module)
    if handle._settings.select == "attention":
        for number in handle.layers:
            yield from _attention_roles(handle, number, levels[number - 1])


def _attention_roles(handle: Hourglass, number: int, level: nn.Module) -> Iterator[_Role]:
    found = [
        module
        for module in level.modules()
        if isinstance(getattr(module, "qkv", None), nn.Module) and hasattr(module, "num_heads")
    ]
    # Lifting hosts say with `axis` what an attention mixes: 1 is frames.
    temporal = [module for module in found if getattr(module, "axis", 1) == 1]
    if not temporal:
        raise StackError(
            f'select="attention": the level before {number}, a {type(level).__name__}, has no attention over frames '
            'with num_heads and a qkv layer, whose output tells who attends to whom. Use select="tpc", or a callable'
        )
    for module in temporal:
        yield module.qkv, QkvRecorder, QkvState(handle, module)  # type: ignore[misc]


def _install(
    model: nn.Module, handle: Hourglass, roles: list[_Role], added: tuple[nn.ModuleList, FrameRecovery] | None
) -> None:
    done = []
    try:
        for module, plugin, state in roles:
            swap(module, plugin)
            done.append(module)
            setattr(module, HOURGLASS_STATE, state)
        model.hourglass = handle  # type: ignore[assignment]
        _settle_cycles(model)
    except (TypeError, StackError) as error:
        for module in done:
            _take_off(module)
        model.__dict__.pop("hourglass", None)
        if isinstance(error, StackError):
            raise
        raise StackError(f"Python cannot change the class of a module in this model: {error}") from error
    if added is not None:
        model.prune, model.recover = added


def _settle_cycles(model: nn.Module) -> None:
    """Cycles that found their blocks themselves move to the levels after the last prune point; others must fit."""
    cyclic = cyclic_of(model)
    if cyclic is not None and cyclic._asked == "auto":
        move_cycles(model, choose_stack(model, blocks_to_cycle(model, "auto")))
    elif cyclic is not None:
        check_cycled(model, cyclic.stack)
        cyclic._whole_first = chosen_behind(model, cyclic.stack)


def _take_off(module: nn.Module) -> None:
    for plugin in _PLUGINS:
        if has_plugin(module, plugin):
            unswap(module, plugin)
    module.__dict__.pop(HOURGLASS_STATE, None)


def _handle_at(module: nn.Module) -> Any:
    return getattr(module.__dict__.get(HOURGLASS_STATE), "handle", None)


def _choose_stack(model: nn.Module, blocks: str) -> Stack:
    try:
        stack = choose_stack(model, blocks)
    except StackError as refusal:  # its advice is the call that the user made
        raise StackError(str(refusal).replace("wrap_cyclic(", "wrap_hourglass(")) from None
    if any(PRUNE_STATE in module.__dict__ for module in stack.modules(model)):
        raise StackError(
            f'blocks="{blocks}": wrap_pruning drops tokens in these blocks; one of the two can act on a stack'
        )
    if stack.span(model)[0] is None:
        raise StackError(
            f'blocks="{blocks}" is one module: name the container of the levels, between which frames drop'
        )
    return stack
