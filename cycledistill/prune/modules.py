"""The plug-ins of token pruning: a block that drops tokens between its attention and its MLP, without knowing it.

Inside a pruning block, ``qkv`` keeps its output; ``norm2`` scores the tokens and normalises the survivors alone; the
MLP puts its result into zeros of the full length, so that the block's own residual sum fits; and the block returns the
rows of the survivors. All of that acts in ``__call__``, outside hooks: a hook sees what was computed.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import wraps
from itertools import zip_longest
from typing import Any, Protocol

import torch
from torch import Tensor, nn

from cycledistill.errors import StackError
from cycledistill.plugin.rows import flat_rows, put_rows, take_rows, with_first
from cycledistill.plugin.state import ON_THE_FULL_GRID, PRUNE_STATE
from cycledistill.plugin.swap import Swapped
from cycledistill.plugin.torch_private import is_replica, recomputing
from cycledistill.prune.kept_tokens import KeptTokens, kept_tokens_of, mark_kept_tokens, take_argument
from cycledistill.prune.scores import token_scores


class Settings(Protocol):
    """What the blocks ask of the handle ``model.pruning``."""

    query: slice
    first: int

    @property
    def keep(self) -> float:
        """Fraction of the tokens that each pruning layer keeps."""

    def count(self, number: int) -> int:
        """How many of ``number`` droppable tokens a pruning layer keeps."""

    def show(self, index: Tensor | None) -> None:
        """Take note of the tokens kept so far in this forward."""


@dataclass
class PruneState:
    """The place of a block, shared with its ``qkv``, ``norm2`` and ``mlp``."""

    settings: Settings
    path: str
    block: int
    prunes: bool
    parameters: tuple[str, ...]
    call: PruneCall | None = None

    def error(self, what: str) -> StackError:
        """A refusal that names this block."""
        return StackError(f'blocks="{self.path}": block {self.block} {what}')


@dataclass
class PruneCall:
    """One call of a pruning block, from its entry to its return."""

    attention: nn.Module
    named: dict[str, Any]
    number: int
    count: int
    qkv: Tensor | None = None
    local: Tensor | None = None
    rows: Tensor | None = None
    mlp_done: bool = False


class PrunedBlock(Swapped):
    """A block of a pruned stack: takes its arguments for the tokens that are left, and drops some if it is its turn."""

    swap_order = 20
    drops_tokens = True

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        """Run on the tokens that are left, and note on the output which ones these are."""
        site: PruneState = self.__dict__[PRUNE_STATE]
        state = args[0] if args else kwargs[site.parameters[0]]
        kept = kept_tokens_of(state)
        if kept is not None:
            # The state was returned by this block or a later one: this is a further cycle, which prunes no more.
            again = kept.again or site.block <= kept.block
            args = tuple(
                arg if arg is state else take_argument(name, arg, kept)
                for name, arg in zip_longest(site.parameters[: len(args)], args, fillvalue="")
            )
            kwargs = {name: arg if arg is state else take_argument(name, arg, kept) for name, arg in kwargs.items()}
        else:
            again = False
            if site.block == 0 and not recomputing():
                site.settings.show(None)
        if again or not site.prunes:
            output = super().__call__(*args, **kwargs)  # type: ignore[misc]
        else:
            output, kept = self._drop(site, state, kept, args, kwargs)
        if kept is not None:
            mark_kept_tokens(output, replace(kept, block=site.block, again=again))
        return output

    def _drop(
        self, site: PruneState, state: Tensor, kept: KeptTokens | None, args: tuple[Any, ...], kwargs: dict[str, Any]
    ) -> tuple[Any, KeptTokens | None]:
        settings = site.settings
        if is_replica(self):
            raise site.error(
                "is a replica of torch.nn.DataParallel, whose threads share one record of the forward: use "
                "torch.nn.parallel.DistributedDataParallel"
            )
        if state.ndim != 3 or state.shape[1] <= settings.first:
            raise site.error(
                f"received a state {tuple(state.shape)}: pruning takes (B, N, C) with tokens after the first "
                f"{settings.first}, which are never dropped"
            )
        number = state.shape[1]
        count = settings.count(number - settings.first)
        if count >= number - settings.first:
            return super().__call__(*args, **kwargs), kept  # type: ignore[misc]
        named = {**dict(zip(site.parameters, args, strict=False)), **kwargs}
        call = site.call = PruneCall(self.attn, named, number, count)  # type: ignore[attr-defined]
        try:
            output = super().__call__(*args, **kwargs)  # type: ignore[misc]
        finally:
            site.call = None
        if call.local is None or call.rows is None or not call.mlp_done:
            raise site.error("did not run attn.qkv, norm2 and mlp in this order, one call each; it cannot be pruned")
        if kept is None:
            index = torch.arange(number - settings.first, device=state.device).expand(state.shape[0], -1)
            kept = KeptTokens(index, settings.first, number, site.block)
        kept = kept.then(call.local, site.block)
        if not recomputing():
            settings.show(kept.index)
        return take_rows(output, call.rows), kept

    def __prepare_scriptable__(self) -> nn.Module:
        raise self.__dict__[PRUNE_STATE].error(
            "cannot be compiled by torch.jit.script, which would drop no token: use torch.jit.trace, torch.export, ONNX"
        )


class PrunedModel(Swapped):
    """The whole model: refuses what would put the tokens that are left back on the full grid of patches."""

    swap_order = 20

    @classmethod
    def namespace(cls, below: type) -> dict[str, Any]:
        """The methods of timm models that return maps of intermediate layers."""
        names = (name for name in ON_THE_FULL_GRID if hasattr(below, name))
        return {name: _on_the_full_grid(name, getattr(below, name)) for name in names}


def _on_the_full_grid(name: str, method: Callable[..., Any]) -> Callable[..., Any]:
    @wraps(method)
    def enter(self: Any, *args: Any, **kwargs: Any) -> Any:
        site: PruneState = self.__dict__[PRUNE_STATE]
        if site.settings.keep < 1:
            raise StackError(
                f"{name} puts tokens back on the grid of patches, and this model drops some: set "
                "model.pruning.keep = 1.0, or unwrap_pruning(model)"
            )
        return method(self, *args, **kwargs)

    return enter


class PrunedQkv(Swapped):
    """The projection to queries, keys and values: keeps its output for the scores."""

    swap_order = 20

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        """Project, and keep the result where the block is pruning."""
        output = super().__call__(*args, **kwargs)  # type: ignore[misc]
        call = self.__dict__[PRUNE_STATE].call
        if call is not None:
            call.qkv = output
        return output


class PrunedNorm(Swapped):
    """The norm before the MLP: chooses the survivors and normalises these alone."""

    swap_order = 20

    def __call__(self, x: Tensor, *args: Any, **kwargs: Any) -> Any:
        """Normalise the survivors (B, first + k, C) of ``x`` (B, N, C)."""
        site: PruneState = self.__dict__[PRUNE_STATE]
        call = site.call
        if call is None:
            return super().__call__(x, *args, **kwargs)  # type: ignore[misc]
        if call.qkv is None or call.rows is not None or call.qkv.shape[:2] != x.shape[:2]:
            raise site.error(
                "does not call attn.qkv once, as a module, on the (B, N, C) tokens that norm2 then receives; attention "
                "in windows, with a functional projection or in parallel with the MLP is not served"
            )
        call.local = _choose(site, call)
        call.rows = flat_rows(with_first(call.local, site.settings.first), call.number)
        return super().__call__(take_rows(x, call.rows), *args, **kwargs)  # type: ignore[misc]


class PrunedMlp(Swapped):
    """The MLP: runs on the survivors and returns its result among zeros."""

    swap_order = 20

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        """Run on (B, first + k, C), and return (B, N, C)."""
        site: PruneState = self.__dict__[PRUNE_STATE]
        call = site.call
        output = super().__call__(*args, **kwargs)  # type: ignore[misc]
        if call is None:
            return output
        if call.rows is None or call.mlp_done or output.shape[1] != site.settings.first + call.count:
            raise site.error("does not run norm2 directly before mlp, one call each; it cannot be pruned")
        call.mlp_done = True
        return put_rows(output, call.rows, call.number)


def _choose(site: PruneState, call: PruneCall) -> Tensor:
    """Positions (B, k) of the survivors among the droppable tokens, the highest score first."""
    given = {
        kind: value
        for kind in ("rope", "mask")
        for name, value in call.named.items()
        if kind in name and isinstance(value, Tensor)
    }
    if call.named.get("is_causal"):
        raise site.error("attends causally: its first tokens see none of the others, so they cannot score them")
    settings = site.settings
    assert call.qkv is not None
    scores = token_scores(call.attention, call.qkv, settings.query, settings.first, **given)
    return scores.topk(call.count, dim=1).indices
