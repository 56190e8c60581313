"""Drop tokens part of the way through a model's stack, in place, and undo it."""

from __future__ import annotations

import inspect
import math
from collections.abc import Iterator, Sequence
from typing import Any, TypeVar

from torch import Tensor, nn

from cycledistill.errors import StackError
from cycledistill.plugin.state import HOURGLASS_STATE, ON_THE_FULL_GRID, PRUNE_STATE
from cycledistill.plugin.swap import Swapped, has_plugin, swap, swapped_since, unswap
from cycledistill.prune.checks import PARTS, check_block, check_layers, check_parts, trial
from cycledistill.prune.modules import PrunedBlock, PrunedMlp, PrunedModel, PrunedNorm, PrunedQkv, PruneState
from cycledistill.prune.scoring_tokens import resolve_scoring_tokens
from cycledistill.stack.find import Stack, choose_stack

Model = TypeVar("Model", bound=nn.Module)

_PARTS = dict(zip(PARTS, (PrunedQkv, PrunedNorm, PrunedMlp), strict=True))
_PLUGINS = (PrunedModel, PrunedBlock, *_PARTS.values())
_DATA_PARALLEL = ("DistributedDataParallel", "DataParallel", "FullyShardedDataParallel")


class Pruning:
    """The handle ``model.pruning`` of a pruned model. It holds no parameters and no module."""

    def __init__(self, stack: Stack, layers: tuple[int, ...], keep: float, query: slice, first: int) -> None:
        self._stack, self._layers = stack, layers
        self._keep = _fraction(keep)
        self.query, self.first = query, first
        self._index: Tensor | None = None

    @property
    def stack(self) -> Stack:
        """The blocks: ``.path`` and ``.depth``."""
        return self._stack

    @property
    def layers(self) -> tuple[int, ...]:
        """Numbers of the blocks that drop tokens, from 0, ascending."""
        return self._layers

    @property
    def keep(self) -> float:
        """The fraction of the droppable tokens that each pruning layer keeps; settable between forwards.

        It is a setting, not a mode: training and evaluation prune alike. At 1.0 nothing is dropped, bit for bit.
        """
        return self._keep

    @keep.setter
    def keep(self, keep: float) -> None:
        self._keep = _fraction(keep)

    @property
    def index(self) -> Tensor | None:
        """Tokens kept at the end of the last forward: (B, k) positions among the droppable tokens, best score first.

        ``None`` before the first forward, and after one in which nothing was dropped.
        """
        return self._index

    def show(self, index: Tensor | None) -> None:
        """Take note of the tokens kept so far in this forward."""
        # While a model is exported, what arrives here is a stand-in without data.
        self._index = index if type(index) is Tensor else None

    def count(self, number: int) -> int:
        """How many of ``number`` droppable tokens a pruning layer keeps: ``ceil(number * keep)``."""
        return math.ceil(number * self._keep - 1e-9)  # 100 * 0.07 is 7.000000000000001 in floating point

    def __repr__(self) -> str:
        query = f"{self.query.start}:{self.query.stop}"
        return f"Pruning({self._stack.path} at {self._layers}, keep={self._keep}, query={query}, first={self.first})"


def wrap_pruning(
    model: Model,
    layers: Sequence[int] = (3, 6, 9),
    keep: float = 0.7,
    *,
    blocks: str = "auto",
    query: str | slice = "prefix",
) -> Model:
    """Drop tokens between attention and MLP of some blocks, in place, and return the model.

    Each pruning layer scores the tokens by the attention that the query tokens pay to them in that layer (mean over
    heads, summed over query tokens) and keeps ``ceil(n * keep)`` of the n droppable ones, the best score first. The
    query tokens, and all in front of them, are never dropped and stay first. Positions, rotary tables and masks that
    the model hands to its blocks follow the tokens. No gradient flows through the choice. Parameters, their names and
    order do not change. With :func:`wrap_cyclic`, before or after it, the first cycle prunes and the others run on the
    survivors.

    Args:
        model: A vision transformer whose blocks have ``norm1``, ``attn.qkv`` (called as a module), ``norm2`` and
            ``mlp``, the state (B, N, C), and at least one query token.
        layers: Blocks that prune, counted from 0 within the stack.
        keep: Fraction kept by each of them, above 0 and at most 1.
        blocks: The stack, as for :func:`wrap_cyclic`.
        query: Which tokens score the others: ``"prefix"`` (the model's ``num_prefix_tokens``), a name among the model's
            ``token_groups`` such as ``"keypoint"``, or a slice of the token axis.

    Raises:
        StackError: Blocks of another kind, no query tokens, a model that needs its full grid of tokens, a model that is
            pruned, compiled, scripted or inside a data-parallel wrapper, or an argument out of its range. The model is
            then as it was.

    Example:
        >>> model = wrap_pruning(timm.create_model("deit_tiny_patch16_224"), layers=(3, 6, 9), keep=0.7)
        >>> logits = model(torch.randn(2, 3, 224, 224))
        >>> model.pruning.index.shape   # 196 -> 138 -> 97 -> 68 patches
        torch.Size([2, 68])

    Source: PPT (ECCV 2022), section 3.2, human token identification.
    """
    _check_wrappable(model)
    stack = _choose_stack(model, blocks)
    if any(HOURGLASS_STATE in module.__dict__ for module in stack.modules(model)):
        raise StackError(
            f'blocks="{blocks}": an hourglass drops frames in these blocks; one of the two can act on a stack'
        )
    pruned = check_layers(layers, stack)
    tokens, first = resolve_scoring_tokens(model, query, stack)
    handle = Pruning(stack, pruned, keep, tokens, first)
    for number in pruned:
        check_parts(stack, number, stack.modules(model)[number])
    # On copies first: a refusal leaves the model as it was.
    seen = trial(model, stack, pruned[0], lambda twin: _install(twin, Pruning(stack, pruned, 0.5, tokens, first)))
    if seen is not None:
        check_block(stack, pruned[0], stack.modules(model)[pruned[0]], tokens, seen)
    _install(model, handle)
    return model


def unwrap_pruning(model: Model) -> Model:
    """Give ``model`` its original classes again, in place, and return it; weights and keys are untouched.

    Raises:
        StackError: The model is not pruned, or another tool (FSDP2, parametrize) swapped a class since.

    Example:
        >>> unwrap_pruning(model)(images)   # all tokens again
    """
    handle = getattr(model, "pruning", None)
    if not isinstance(handle, Pruning):
        inner = " (unwrap its .module)" if type(model).__name__ in _DATA_PARALLEL else ""
        raise StackError(f"{type(model).__name__} is not wrapped by wrap_pruning, so there is nothing to undo{inner}")
    swapped = [(name, m) for name, m in model.named_modules() if _settings_of(m) is handle]
    for name, module in swapped:
        other = swapped_since(module)
        if other is not None:
            raise StackError(
                f"{name} became a {other} after wrapping: another tool swapped its class. Undo that first, then call "
                "unwrap_pruning(model)"
            )
    for _, module in swapped:
        for plugin in _PLUGINS:
            if has_plugin(module, plugin):
                unswap(module, plugin)
        delattr(module, PRUNE_STATE)
    del model.pruning
    return model


def _choose_stack(model: nn.Module, blocks: str) -> Stack:
    try:
        return choose_stack(model, blocks)
    except StackError as refusal:  # its advice is the call that the user made
        raise StackError(str(refusal).replace("wrap_cyclic(", "wrap_pruning(")) from None


def _install(model: nn.Module, handle: Pruning) -> None:
    done: list[tuple[nn.Module, type[Swapped]]] = []
    try:
        for module, plugin, site in _roles(model, handle):
            swap(module, plugin)
            done.append((module, plugin))
            setattr(module, PRUNE_STATE, site)
    except TypeError as error:
        for module, plugin in done:
            unswap(module, plugin)
            module.__dict__.pop(PRUNE_STATE, None)
        raise StackError(f"Python cannot change the class of a {type(module).__name__} in it: {error}") from error
    model.pruning = handle  # type: ignore[assignment]


def _roles(model: nn.Module, handle: Pruning) -> Iterator[tuple[nn.Module, type[Swapped], PruneState]]:
    if any(hasattr(model, name) for name in ON_THE_FULL_GRID):
        yield model, PrunedModel, PruneState(handle, handle.stack.path, -1, False, ())
    for number, block in enumerate(handle.stack.modules(model)):
        parameters = tuple(inspect.signature(block.forward).parameters)
        prunes = number in handle.layers
        site = PruneState(handle, handle.stack.path, number, prunes, parameters)
        yield block, PrunedBlock, site
        if prunes:
            yield from ((block.get_submodule(part), plugin, site) for part, plugin in _PARTS.items())


def _settings_of(module: nn.Module) -> Any:
    return getattr(module.__dict__.get(PRUNE_STATE), "settings", None)


def _fraction(keep: float) -> float:
    if isinstance(keep, bool) or not isinstance(keep, (int, float)) or not 0 < keep <= 1:
        raise StackError(f"keep={keep!r}: a fraction of the tokens is expected, above 0 and at most 1")
    return float(keep)


def _check_wrappable(model: nn.Module) -> None:
    if not isinstance(model, nn.Module):
        raise StackError(f"wrap_pruning takes a torch.nn.Module, and was given a {type(model).__name__}")
    name = type(model).__name__
    if any(PRUNE_STATE in module.__dict__ for module in model.modules()):
        raise StackError(f"this {name} is already pruned: set model.pruning.keep, or call unwrap_pruning first")
    # A ScriptModule and an OptimizedModule know the classes they were made from.
    kinds = {type(module).__name__ for module in model.modules()} & {"OptimizedModule", "RecursiveScriptModule"}
    if kinds:
        raise StackError(f"this {name} holds a {kinds.pop()}: wrap the plain model, then compile it")
    if name in _DATA_PARALLEL:
        raise StackError(f"this is a {name}: wrap the model inside, wrap_pruning(model.module)")
    if hasattr(model, "pruning"):
        raise StackError(f"this {name} has an attribute of its own called 'pruning', the handle's name: rename it")
