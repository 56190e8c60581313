"""The plug-ins of token pruning: a block that drops tokens between its attention and its MLP, without knowing it.

One forward of a pruned model, in the names of this package:

1. The model makes its tokens (B, N, C) and hands them to block 0. They carry no mark: all N are there, and
   ``Pruning.show(None)`` clears the index of the forward before.
2. A block that drops none (:class:`PrunedBlock`) runs as it is.
3. A block of ``Pruning.layers`` opens a :class:`PruneCall` and runs its own forward on the tokens that entered:
   the attention mixes all of them, and :class:`PrunedQkv` keeps what ``attn.qkv`` returned; ``norm2``
   (:class:`PrunedNorm`) scores them (:func:`token_scores`), chooses the kept ones (``local``) and normalises these
   alone; ``mlp`` (:class:`PrunedMlp`) runs on the kept tokens and puts its result into zeros of the full length, so
   that the block's own residual sum fits. Of that sum the block returns the kept tokens, (B, first + k, C).
   These three stand in `parts.py`; where another tool replaced one since (an adapter), the block finds what is there.
4. :func:`mark_kept_tokens` writes on what the block returns which tokens of the full grid it holds
   (:class:`KeptTokens`). The next block reads the mark (:func:`kept_tokens_of`), and takes from its other arguments
   (positions, rotary tables, masks) the part of these tokens (:func:`take_argument`).
5. The rest of the model runs on the kept tokens. ``model.pruning.index`` are those of the last block that dropped some.

A further cycle starts from marked tokens: a mark of the block itself or of a later one says that it drops no more
(``again``). A checkpointed block that runs again in the backward finds the same mark, makes the same choice, and leaves
the handle alone. All of this acts in ``__call__``, outside hooks: a hook sees what was computed.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import wraps
from itertools import zip_longest
from typing import Any

from torch import Tensor, nn

from cycledistill.errors import StackError
from cycledistill.plugin.handle import KINDS, PRUNE_STATE
from cycledistill.plugin.install import ON_THE_FULL_GRID, refuse_replica
from cycledistill.plugin.rows import take_rows
from cycledistill.plugin.running import is_eager
from cycledistill.plugin.saved import saving_of
from cycledistill.plugin.swap import Swapped
from cycledistill.plugin.torch_private import module_inside, recomputing
from cycledistill.prune.checks import check_call
from cycledistill.prune.handle import Pruning
from cycledistill.prune.kept_tokens import KeptTokens, kept_tokens_of, mark_kept_tokens, take_argument
from cycledistill.prune.parts import PruneCall, PruneState, are_known, move_parts, refusal


@dataclass
class PrunedModelState:
    """The state of the model itself: its handle, and where its blocks stand."""

    handle: Pruning
    container: str
    span: tuple[int, int] | None
    """Where in the container they begin and end; ``None`` for one module that is the whole stack."""
    siblings: int
    """How many modules the container holds."""

    def blocks(self, model: nn.Module) -> list[nn.Module]:
        """The modules that now stand where the blocks stood; none where their container is gone, or shrank or grew."""
        try:
            container = model.get_submodule(self.container)
        except AttributeError:
            return []
        if self.span is None:
            return [container]
        siblings = list(container.children())
        return siblings[slice(*self.span)] if len(siblings) == self.siblings else []


class PrunedBlock(Swapped):
    """A block of a pruned stack: takes its arguments for the kept tokens, and drops some if it is its turn."""

    swap_order = KINDS["pruning"].swap_order
    drops_tokens = True

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        """Run on the kept tokens, and mark on the output which ones these are."""
        state: PruneState = self.__dict__[PRUNE_STATE]
        tokens = args[0] if args else kwargs[state.parameters[0]]
        kept = kept_tokens_of(tokens)
        if kept is not None:
            # The tokens were returned by this block or a later one: this is a further cycle, which drops no more.
            again = kept.again or state.block <= kept.block
            args = tuple(
                arg if arg is tokens else take_argument(name, arg, kept)
                for name, arg in zip_longest(state.parameters[: len(args)], args, fillvalue="")
            )
            kwargs = {name: arg if arg is tokens else take_argument(name, arg, kept) for name, arg in kwargs.items()}
        else:
            again = False
            if state.block == 0 and not recomputing():
                state.handle.show(None)
        if again or state.block not in state.handle.layers:
            output = super().__call__(*args, **kwargs)  # type: ignore[misc]
        else:
            output, kept = self._drop(state, tokens, kept, args, kwargs)
        if kept is not None:
            mark_kept_tokens(output, replace(kept, block=state.block, again=again))
        return output

    def _drop(
        self, state: PruneState, tokens: Tensor, kept: KeptTokens | None, args: tuple[Any, ...], kwargs: dict[str, Any]
    ) -> tuple[Any, KeptTokens | None]:
        handle = state.handle
        refuse_replica(self, "pruning")
        _check_droppable(state, tokens)
        entered = tokens.shape[1]
        count = handle.count(entered - handle.first)
        if count >= entered - handle.first:
            return super().__call__(*args, **kwargs), kept  # type: ignore[misc]
        if not are_known(self, state):
            move_parts(self, state, (args, kwargs))
        elif not handle.is_verified and is_eager():
            check_call(handle.stack, state.block, self, handle.query, (args, kwargs))  # type: ignore[arg-type]
            handle.is_verified = True
        arguments = {**dict(zip(state.parameters, args, strict=False)), **kwargs}
        call = state.call = PruneCall(self.attn, arguments, entered, count)  # type: ignore[attr-defined]
        try:
            output = super().__call__(*args, **kwargs)  # type: ignore[misc]
        finally:
            state.call = None
        if call.local is None or call.rows is None or not call.mlp_done:
            raise refusal(
                state, "did not run attn.qkv, norm2 and mlp in this order, one call each; it cannot be pruned"
            )
        if kept is None:  # what entered is the full grid
            kept = KeptTokens(call.local, handle.first, entered, state.block)
        else:
            kept = kept.then(call.local, state.block)
        if not recomputing():
            handle.show(kept.index)
        return take_rows(output, call.rows), kept

    def __prepare_scriptable__(self) -> nn.Module:
        raise refusal(
            self.__dict__[PRUNE_STATE],
            "cannot be compiled by torch.jit.script, which drops no token: use torch.jit.trace, torch.export, ONNX",
        )


class PrunedModel(Swapped):
    """The whole model: refuses blocks that are pruned no more, and what would put kept tokens back on the full grid."""

    swap_order = KINDS["pruning"].swap_order

    @classmethod
    def namespace(cls, below: type) -> dict[str, Any]:
        """Wrap every method by which users enter the blocks; names, signatures and docs stay the base's."""
        names = (name for name in dir(below) if name.startswith("forward") or name in ON_THE_FULL_GRID)
        methods = (name for name in names if inspect.isfunction(inspect.getattr_static(below, name)))
        return saving_of(below) | {name: _entry(name, getattr(below, name)) for name in methods}


def _entry(name: str, method: Callable[..., Any]) -> Callable[..., Any]:
    @wraps(method)
    def enter(self: Any, *args: Any, **kwargs: Any) -> Any:
        # A slice of a pruned Sequential is a new object of its class, and has no state.
        state: PrunedModelState | None = self.__dict__.get(PRUNE_STATE)
        if state is None:
            return method(self, *args, **kwargs)
        _check_unedited(self, state)
        if name in ON_THE_FULL_GRID and state.handle.keep < 1:
            raise StackError(
                f"{name} puts tokens back on the grid of patches, and this model drops some: set "
                "model.pruning.keep = 1.0, or unwrap_pruning(model)"
            )
        return method(self, *args, **kwargs)

    return enter


def _check_unedited(model: nn.Module, state: PrunedModelState) -> None:
    handle, numbers = state.handle, []
    for block in map(module_inside, state.blocks(model)):
        own: PruneState | None = vars(block).get(PRUNE_STATE) if issubclass(type(block), PrunedBlock) else None
        numbers.append(own.block if own is not None and own.handle is handle else None)
    if numbers != list(range(handle.stack.depth)):
        raise StackError(
            f'blocks="{handle.stack.path}": the blocks are not those that were pruned: they were unwrapped on their '
            "own, or the model was edited since. Call unwrap_pruning(model), then wrap_pruning(model) again if its "
            "tokens are to be dropped"
        )


def _check_droppable(state: PruneState, tokens: Tensor) -> None:
    if tokens.ndim != 3 or tokens.shape[1] <= state.handle.first:
        raise refusal(
            state,
            f"received tokens of shape {tuple(tokens.shape)}: pruning takes (B, N, C) with tokens after the first "
            f"{state.handle.first}, which are never dropped",
        )
