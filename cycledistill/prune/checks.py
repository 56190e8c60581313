"""What must hold before a model is pruned: its blocks and their parts, a forward without data, one block's numbers."""

from __future__ import annotations

import logging
from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor, nn

from cycledistill.errors import StackError
from cycledistill.plugin.parts import submodule
from cycledistill.plugin.swap import bare, recipe_of
from cycledistill.plugin.torch_private import tree_leaves, tree_map, tree_map_only
from cycledistill.prune.scores import scoring_attention, tables_in
from cycledistill.stack.copies import bare_copy, plain_copy, unnoticed
from cycledistill.stack.find import Stack
from cycledistill.stack.given import Inputs
from cycledistill.stack.probe import run_meta, trial_calls

_logger = logging.getLogger(__name__)

PART_PATHS = ("attn.qkv", "norm2", "mlp")
Arguments = tuple[tuple[Any, ...], dict[str, Any]]


def check_layers(layers: Sequence[int], stack: Stack) -> tuple[int, ...]:
    """The numbers of the blocks that drop tokens, ascending; refuses what are no numbers of blocks of ``stack``."""
    numbers = tuple(layers) if isinstance(layers, (tuple, list, range)) else ()
    whole = all(isinstance(number, int) and not isinstance(number, bool) for number in numbers)
    if not numbers or not whole or len(set(numbers)) != len(numbers):
        raise StackError(f"layers={layers!r}: different whole numbers are expected, as (3, 6, 9)")
    stack.check_numbers(f"layers={layers!r}", numbers)
    return tuple(sorted(numbers))


def check_parts(stack: Stack, number: int, block: nn.Module) -> None:
    """Refuse a block without the parts that pruning acts on, or whose attention does not say its heads and scale."""
    missing = [part for part in ("norm1", *PART_PATHS) if submodule(block, part) is None]
    if missing:
        raise StackError(
            f'blocks="{stack.path}": block {number}, a {recipe_of(block)[0].__name__}, has no {", ".join(missing)}. '
            "Pruning serves blocks with norm1, attn.qkv (called as a module), norm2 and mlp, as timm's plain vision "
            "transformers have"
        )
    attention: Any = block.attn
    lacking = [name for name in ("num_heads", "scale") if not hasattr(attention, name)]
    if lacking:
        raise StackError(
            f'blocks="{stack.path}": the attention of block {number}, a {type(attention).__name__}, has no '
            f"{', '.join(lacking)}, which its scores need"
        )


@unnoticed()
def trial(
    model: nn.Module, stack: Stack, number: int, install: Callable[[nn.Module], None], inputs: Inputs | None
) -> Arguments | None:
    """Run a meta copy of ``model`` as it is, then pruned by ``install``; refuse a model whose pruned copy does not run.

    Returns:
        What block ``number`` of the plain copy was given (meta tensors), or ``None`` where it did not run: no input was
        given and none could be guessed, or the forward took another way.
    """
    given: list[Arguments] = []
    shadow = bare_copy(model)
    if shadow is None:
        return None
    hook = stack.modules(shadow)[number].register_forward_pre_hook(
        lambda _, args, kwargs: given.append((args, kwargs)), with_kwargs=True
    )
    for call in trial_calls(model, inputs, batch=2):
        try:
            run_meta(shadow, call)
        except Exception as error:  # a wrong guess of the input fails anywhere inside the model
            _logger.debug("trial of %s failed: %s", type(model).__name__, error)
            given.clear()
            continue
        hook.remove()
        if not given:
            return None
        install(shadow)
        try:
            run_meta(shadow, call)
        except StackError:
            raise
        except Exception as error:
            raise StackError(
                f'blocks="{stack.path}": {type(model).__name__} runs with all its tokens and fails once some are '
                f"dropped, so something in it needs the full grid (a bias or a reshape of that length, say): {error}"
            ) from error
        return given[0]
    return None


def check_call(stack: Stack, number: int, block: nn.Module, scoring: slice, call: Arguments) -> None:
    """`check_block` in the first forward of a model whose trial did not run the block: by two samples of its call."""
    batch = next((len(leaf) for leaf in tree_leaves(call) if isinstance(leaf, Tensor) and leaf.ndim), 0)
    two = tree_map_only(Tensor, lambda x: x[:2] if x.ndim and len(x) == batch else x, call)
    with torch.no_grad(), torch.autocast("cpu", enabled=False):
        check_block(stack, number, block, scoring, two)


@unnoticed()
def check_block(stack: Stack, number: int, block: nn.Module, scoring: slice, given: Arguments) -> None:
    """Compare what pruning assumes with what a block computes, on a copy with random weights and inputs.

    Raises:
        StackError: The attention is not softmax attention as read from ``qkv``, or norm and MLP mix tokens.
    """
    args, kwargs = tree_map(_random_like, given)
    try:
        shadow = _random_copy(block)
        shadow(*args, **kwargs)
    except Exception as error:  # weights that cannot be copied (sharded, quantised), or run on no CPU: no verdict
        _logger.debug("block %d of %s is not checked, no copy runs: %r", number, stack.path, error)
        return
    try:
        attention_agrees = _attention_agrees(shadow, args, kwargs, scoring)
        mlp_agrees = _mlp_agrees(shadow, args, kwargs)
    except Exception as error:  # no verdict either, but of a copy that runs: a fault of the check itself, perhaps
        _logger.warning("block %d of %s is not checked, the check failed: %r", number, stack.path, error, exc_info=True)
        return
    if not attention_agrees:
        raise StackError(
            f'blocks="{stack.path}": the attention of block {number}, a {type(shadow.attn).__name__}, is not plain '
            "softmax attention of the queries, keys and values that its qkv returns, so scores cannot be read there"
        )
    if not mlp_agrees:
        raise StackError(
            f'blocks="{stack.path}": norm2 and mlp of block {number} mix tokens, so they cannot run on some alone'
        )


def _random_copy(block: nn.Module) -> Any:
    shadow = bare(plain_copy(block)).float().eval().requires_grad_(False)
    generator = torch.Generator().manual_seed(0)
    shadow = shadow.cpu()  # fails for a block on the meta device, which has nothing to check
    for parameter in shadow.parameters():  # those of a fresh model may hide a part behind zeros
        spread = parameter[0].numel() ** -0.5 if parameter.ndim > 1 else 0.2
        values = torch.randn(parameter.shape, generator=generator) * spread
        parameter.copy_(values if parameter.ndim > 1 else 1.0 + values)
    return shadow


def _random_like(value: Any) -> Any:
    if not isinstance(value, Tensor):
        return value
    if not value.is_floating_point():
        return torch.ones(value.shape, dtype=value.dtype)
    return torch.randn(value.shape, generator=torch.Generator().manual_seed(1))


def _attention_agrees(shadow: Any, args: tuple[Any, ...], kwargs: dict[str, Any], scoring: slice) -> bool:
    """Whether the first scoring token gets the same when every token's value is the mix that it pays attention to."""
    seen: dict[str, Any] = {}
    handles = [
        shadow.attn.register_forward_pre_hook(
            lambda _, args, kwargs: seen.update(call=(args, kwargs)), with_kwargs=True
        ),
        shadow.attn.register_forward_hook(lambda _, args, output: seen.update(output=output)),
        shadow.attn.qkv.register_forward_hook(lambda _, args, output: seen.update(qkv=output.clone())),
    ]
    shadow(*args, **kwargs)
    for handle in handles:
        handle.remove()
    (args, kwargs), qkv, output = seen["call"], seen["qkv"], seen["output"]
    row = slice(scoring.start, scoring.start + 1)
    attention = scoring_attention(shadow.attn, qkv, row, **tables_in(kwargs))
    heads = qkv.unflatten(2, (3, shadow.attn.num_heads, -1))
    mixed = attention @ heads[:, :, 2].transpose(1, 2)
    heads = heads.clone()
    heads[:, :, 2] = mixed.transpose(1, 2)
    replaced = shadow.attn.qkv.register_forward_hook(lambda *_: heads.flatten(2))
    again = shadow.attn(*args, **kwargs)
    replaced.remove()
    return torch.allclose(again[:, row], output[:, row], rtol=1e-3, atol=1e-4)


def _mlp_agrees(shadow: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> bool:
    """Whether norm2 and MLP give every other token the same when the rest is left out."""
    tokens = args[0] if args else next(iter(kwargs.values()))
    every_other = tokens[:, ::2]
    return torch.allclose(
        shadow.mlp(shadow.norm2(every_other)), shadow.mlp(shadow.norm2(tokens))[:, ::2], rtol=1e-3, atol=1e-4
    )
