"""Drop tokens part of the way through a model's stack, in place, and undo it."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import TypeVar

from torch import nn

from cycledistill.errors import StackError
from cycledistill.plugin.handle import PRUNE_STATE
from cycledistill.plugin.install import Plugin, Role, install, refuse, remove
from cycledistill.prune.checks import check_block, check_layers, check_parts, trial
from cycledistill.prune.handle import Pruning
from cycledistill.prune.modules import PrunedBlock, PrunedModel, PrunedModelState
from cycledistill.prune.parts import PARTS, PruneState
from cycledistill.prune.scoring_tokens import resolve_scoring_tokens
from cycledistill.stack.choose import choose_stack
from cycledistill.stack.given import Inputs, argument_names
from cycledistill.stack.taken import is_taken

Model = TypeVar("Model", bound=nn.Module)

PLUGIN = Plugin("pruning", PRUNE_STATE, (PrunedModel, PrunedBlock, *PARTS.values()), change="model.pruning.keep")


def wrap_pruning(
    model: Model,
    layers: Sequence[int] = (3, 6, 9),
    keep: float = 0.7,
    *,
    blocks: str = "auto",
    query: str | slice = "prefix",
    inputs: Inputs | None = None,
) -> Model:
    """Drop tokens between attention and MLP of some blocks, in place, and return the model.

    Each block of ``layers`` scores the tokens by the attention that the scoring tokens pay to them there (mean over
    heads, summed over scoring tokens) and keeps ``ceil(n * keep)`` of the n droppable ones, the best score first. The
    scoring tokens, and all in front of them, are never dropped and stay first. Positions, rotary tables and masks that
    the model hands to its blocks follow the tokens. No gradient flows through the choice. Parameters, their names and
    order do not change. With :func:`wrap_cyclic`, before or after it, the first cycle prunes and the others run on the
    kept tokens.

    Args:
        model: A vision transformer whose blocks have ``norm1``, ``attn.qkv`` (called as a module), ``norm2`` and
            ``mlp``, tokens (B, N, C), and at least one scoring token.
        layers: Blocks that drop tokens, counted from 0 within the stack.
        keep: Fraction kept by each of them, above 0 and at most 1.
        blocks: The stack, as for :func:`wrap_cyclic`.
        query: The scoring tokens: ``"prefix"`` (the model's ``num_prefix_tokens``), a name among the model's
            ``token_groups`` such as ``"keypoint"``, or a slice of the token axis.
        inputs: What the trial of this call runs a copy of the model with, without data, where it cannot guess it: a
            tensor, a tuple of arguments, or a mapping of keyword arguments, as the model is called.

    Raises:
        StackError: Blocks of another kind, no scoring tokens, a model that needs its full grid of tokens, one that is
            pruned, compiled, scripted or inside a data-parallel wrapper, or an argument out of its range. The model is
            then as it was.

    Example:
        >>> model = wrap_pruning(timm.create_model("deit_tiny_patch16_224"), layers=(3, 6, 9), keep=0.7)
        >>> logits = model(torch.randn(2, 3, 224, 224))
        >>> model.pruning.index.shape   # 196 -> 138 -> 97 -> 68 patches
        torch.Size([2, 68])

    Source: PPT (ECCV 2022), section 3.2, human token identification.
    """
    refuse(model, PLUGIN)
    stack = choose_stack(model, blocks, PLUGIN.verb, inputs)
    if is_taken(model, stack, "hourglass"):
        raise StackError(
            f'blocks="{blocks}": an hourglass drops frames in these blocks; one of the two can act on a stack'
        )
    pruned = check_layers(layers, stack)
    scoring, first = resolve_scoring_tokens(model, query, stack)
    handle = Pruning(stack, pruned, keep, scoring, first)
    for number in pruned:
        check_parts(stack, number, stack.modules(model)[number])
    # On copies first: a refusal leaves the model as it was.
    half = Pruning(stack, pruned, 0.5, scoring, first)
    seen = trial(model, stack, pruned[0], lambda copied: install(copied, PLUGIN, half, _roles(copied, half)), inputs)
    if seen is not None:
        check_block(stack, pruned[0], stack.modules(model)[pruned[0]], scoring, seen)
    handle.is_verified = seen is not None
    install(model, PLUGIN, handle, _roles(model, handle))
    return model


def unwrap_pruning(model: Model) -> Model:
    """Give ``model`` its original classes again, in place, and return it; weights and keys are untouched.

    Raises:
        StackError: The model is not pruned, or another tool (FSDP2, parametrize) swapped a class since.

    Example:
        >>> unwrap_pruning(model)(images)   # all tokens again
    """
    remove(model, PLUGIN)
    return model


def _roles(model: nn.Module, handle: Pruning) -> Iterator[Role]:
    container = handle.stack.path.split("[")[0]
    yield model, PrunedModel, PrunedModelState(handle, container, *handle.stack.span(model))
    for number, block in enumerate(handle.stack.modules(model)):
        state = PruneState(handle, number, argument_names(block))
        if number in handle.layers:
            state.attention = block.get_submodule("attn")
        yield block, PrunedBlock, state
        if number in handle.layers:
            yield from ((block.get_submodule(part), plugin, state) for part, plugin in PARTS.items())
