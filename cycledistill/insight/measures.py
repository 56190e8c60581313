"""What cycling did to a model: attention by layer and cycle, tokens from cycle to cycle, parameters, accuracy by exit.

Functions return tensors and plain numbers; `cycledistill.insight.plots` draws them. The pictures are those of SDPose
(Chen et al., CVPR 2024): figure 2 (parameters), figures 4 and 5 (attention of keypoint tokens, by layer and cycle).
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from itertools import pairwise
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from cycledistill.cycle.exits import at_exit
from cycledistill.insight.attention import hook_attention, over_tokens
from cycledistill.insight.track import run, track_blocks
from cycledistill.plugin.install import handle_of
from cycledistill.plugin.torch_private import tree_leaves
from cycledistill.stack.given import Inputs


@dataclass(frozen=True)
class AttentionMap:
    """Attention weights of one attention in one layer and cycle.

    Attributes:
        cycle: From 1.
        layer: Number of the block in its stack, from 0.
        weights: (B, heads, rows, keys); each row sums to 1. Of attention in windows (Swin), (B * windows, heads, rows
            of the window, keys in the window), in timm's models all windows of the first image first.
        part: Which of the layer's attentions, from 0, where it has several: ConViT's by content and by position, whose
            mix is applied; those over joints and over frames of a lifting network.
    """

    cycle: int
    layer: int
    weights: Tensor
    part: int = 0


@dataclass(frozen=True)
class Drift:
    """How the tokens after a cycle differ from those before it; means over samples and tokens.

    Attributes:
        cycle: From 1; what came before cycle 1 is the input of the stack.
        norm: Euclidean norm of a token after the cycle.
        step: Norm of the change, relative to the norm before.
        cosine: Cosine between a token before and after.
        cka: Linear centred kernel alignment of all tokens before and after (Kornblith et al., ICML 2019), in [0, 1].
    """

    cycle: int
    norm: float
    step: float
    cosine: float
    cka: float


@dataclass(frozen=True)
class ParameterProfile:
    """Distribution of a model's weights.

    Attributes:
        edges: (bins + 1,) edges of the histogram.
        density: (bins,) share of the weights in each bin; the outermost also hold what lies beyond.
        near_zero: Share of weights whose magnitude is below ``threshold``.
        threshold: The bound of ``near_zero``.
        count: Number of weights.
        std: Standard deviation.
    """

    edges: Tensor
    density: Tensor
    near_zero: float
    threshold: float
    count: int
    std: float


def attention_maps(
    model: nn.Module,
    inputs: Inputs,
    *,
    cycles: int | None = None,
    rows: slice | None = None,
    blocks: str = "auto",
    mean: bool = False,
) -> list[AttentionMap]:
    """Attention weights of every layer and cycle, of wrapped and plain models, fused attention included.

    Read are ``scaled_dot_product_attention``, ``torch.nn.MultiheadAttention``, and attention written out with a softmax
    over the last axis of (B, heads, queries, keys) or, as one head, of (B, queries, queries). Attention over channels
    (XCiT, half of DaViT) is left out: it says nothing about tokens.

    Args:
        model: Any model with a stack; run in eval mode, left in the mode it was in.
        inputs: What the model is called with: a tensor (B, 3, H, W), a tuple of arguments, or keyword arguments.
        cycles: Cycles to run; default: what training runs for a wrapped model, 1 for a plain one.
        rows: Query tokens wanted, for example ``slice(0, 17)`` for keypoint tokens; default all. Fewer, less memory.
            Layers that have none of them left, after pruning, are left out.
        blocks: The stack of a plain model, as ``wrap_cyclic`` takes it.
        mean: Keep the mean over samples (windows) and heads alone, (1, 1, rows, keys). Less memory.

    Returns:
        In the order they ran, on the CPU; several of a layer are told apart by ``part``.

    Raises:
        ValueError: No attention over tokens was seen, the inputs do not fit the model, rows that no layer has, or
            ``cycles`` that are no whole number of at least 1, or more than 1 of a plain model.

    Example:
        >>> [(m.cycle, m.layer, tuple(m.weights.shape)) for m in attention_maps(vit, images, rows=slice(0, 1))][:2]
        [(1, 0, (2, 3, 1, 197)), (1, 1, (2, 3, 1, 197))]
    """
    if rows is not None and not isinstance(rows, slice):
        raise ValueError(f"rows={rows!r}: a slice of query tokens is expected, such as slice(0, 17), or None for all")
    maps: list[AttentionMap] = []
    counts, skipped = set[int](), 0
    pruning = handle_of(model, "pruning")
    scored = pruning.layers if pruning is not None else ()
    with track_blocks(model, cycles, blocks, inputs) as (modules, running):

        def add(weights: Tensor, queries: int) -> None:
            nonlocal skipped
            same = bool(maps) and (maps[-1].cycle, maps[-1].layer) == (running.cycle, running.layer)
            if running.layer is None or (same and running.layer in scored):
                return  # outside the stack, or the scores by which this layer prunes
            if not over_tokens(weights, queries, running.shape):
                skipped += 1
                return
            counts.add(queries)
            if not weights.shape[2]:
                return
            shown = weights.mean((0, 1), keepdim=True) if mean else weights
            maps.append(AttentionMap(running.cycle, running.layer, shown.cpu(), maps[-1].part + 1 if same else 0))

        with hook_attention(add, rows):
            run(model, inputs)
    if not counts:
        raise ValueError(_no_attention(modules, skipped))
    if not maps or (rows is not None and max(rows.start or 0, rows.stop or 0) > max(counts)):
        raise ValueError(f"rows={rows}: the attention has {max(counts)} query tokens at most")
    return maps


def _no_attention(modules: Sequence[nn.Module], skipped: int) -> str:
    kinds = ", ".join(sorted({type(module).__name__ for module in modules}))
    if skipped:
        return f"the attention in the stack ({kinds}) is over channels, not over tokens: there is none to show"
    return (
        f"no attention that can be read ran in the stack ({kinds}): either it has none, or its weights stay inside a "
        "kernel. Read are scaled_dot_product_attention, torch.nn.MultiheadAttention, and a softmax over the last axis "
        "of (B, heads, queries, keys) or (B, queries, queries); flex_attention and kernels of other libraries are not: "
        "switch the model to one of the former"
    )


def token_drift(model: nn.Module, inputs: Inputs, *, cycles: int | None = None, blocks: str = "auto") -> list[Drift]:
    """How much each cycle changes the tokens: norms, cosine and CKA. Of several states, the first.

    Arguments as for `attention_maps`.

    Returns:
        One a cycle. ``step``, ``cosine`` and ``cka`` are NaN where a cycle begins and ends with another number of
        tokens (the first one of a pruned model), and where one of these is NaN.

    Raises:
        ValueError: The inputs do not fit the model, or ``cycles`` as for `attention_maps`.

    Example:
        >>> [round(drift.cosine, 2) for drift in token_drift(model, images, cycles=3)]
        [0.21, 0.83, 0.95]
    """
    states: list[Tensor] = []
    with track_blocks(model, cycles, blocks, inputs) as (modules, running):

        def before(_: nn.Module, args: Any, kwargs: Any) -> None:
            if running.cycle == 1:
                states.append(_first(tree_leaves((args, kwargs))))

        def after(_: nn.Module, __: Any, output: Any) -> None:
            states.append(_first(tree_leaves(output)))

        with ExitStack() as hooks:
            hooks.callback(modules[0].register_forward_pre_hook(before, with_kwargs=True).remove)
            hooks.callback(modules[-1].register_forward_hook(after).remove)
            run(model, inputs)
    return [_drift(cycle, a, b) for cycle, (a, b) in enumerate(pairwise(states), 1)]


def parameter_profile(
    model: nn.Module, *, threshold: float = 0.01, limit: float = 0.2, bins: int = 80
) -> ParameterProfile:
    """Distribution of the weights of linear layers and convolutions (parameters of two dimensions or more).

    Args:
        model: Any model.
        threshold: Weights of a smaller magnitude count as near zero.
        limit: Ends of the histogram, -limit and limit.
        bins: Its number of bins.

    Raises:
        ValueError: The model has no such weights, or the histogram no room.
    """
    if not (0 < threshold and 0 < limit and bins >= 1):
        raise ValueError(f"threshold={threshold}, limit={limit}, bins={bins}: numbers above 0 are expected")
    tensors = [p.detach().float().flatten().cpu() for p in model.parameters() if p.ndim >= 2]
    if not tensors:
        raise ValueError(f"{type(model).__name__} has no weights of two dimensions or more")
    weights = torch.cat(tensors)
    counts = torch.histc(weights.clamp(-limit, limit), bins, -limit, limit)
    return ParameterProfile(
        edges=torch.linspace(-limit, limit, bins + 1),
        density=counts / len(weights),
        near_zero=float((weights.abs() < threshold).float().mean()),
        threshold=threshold,
        count=len(weights),
        std=float(weights.std()),
    )


def exit_scores(
    model: nn.Module,
    batches: Iterable[tuple[Any, Any]],
    exits: Sequence[int],
    score: Callable[[Any, Any], Tensor] | None = None,
) -> dict[int, float]:
    """The mean score of a wrapped model at several exits.

    Args:
        model: A wrapped model.
        batches: Pairs of inputs and targets; gone through once for all exits.
        exits: The cycles to read.
        score: Maps output and target to one number a sample, (B,). Default: whether the largest logit is the target.

    Raises:
        ValueError: A model that is not wrapped, no batches, no exits, or a score that is not one number a sample.

    Example:
        >>> exit_scores(model, loader, exits=(1, 2, 3))
        {1: 0.72, 2: 0.73, 3: 0.73}
    """
    wrapped = handle_of(model, "cyclic") is not None
    if not wrapped or not exits:
        raise ValueError(f"{type(model).__name__} {'was asked for no exits' if wrapped else 'is not wrapped'}")
    score = score or _top1
    sums, count, mode = dict.fromkeys(exits, 0.0), 0, model.training
    model.eval()
    try:
        for inputs, target in batches:
            for number in exits:
                with at_exit(model, number):
                    scores = score(run(model, inputs), target)
                if not isinstance(scores, Tensor) or scores.ndim != 1:
                    raise ValueError(
                        f"score returned {_described(scores)}: a tensor with one number a sample, (B,), is expected, "
                        'such as a loss with reduction="none" averaged over all but the first dimension'
                    )
                sums[number] += float(scores.double().sum())
            count += len(scores)
    finally:
        model.train(mode)
    if not count:
        raise ValueError("there were no batches")
    return {number: total / count for number, total in sums.items()}


def _first(leaves: list[Any]) -> Tensor:
    return next(leaf.detach().float() for leaf in leaves if isinstance(leaf, Tensor))


def _drift(cycle: int, before: Tensor, after: Tensor) -> Drift:
    a, b = before.flatten(0, -2).double(), after.flatten(0, -2).double()
    same = a.shape == b.shape
    return Drift(
        cycle=cycle,
        norm=float(b.norm(dim=-1).mean()),
        step=float(((b - a).norm(dim=-1) / a.norm(dim=-1).clamp_min(1e-12)).mean()) if same else float("nan"),
        cosine=float(F.cosine_similarity(a, b, dim=-1).mean()) if same else float("nan"),
        cka=_cka(a, b) if same else float("nan"),
    )


def _cka(a: Tensor, b: Tensor) -> float:
    """||B^T A||^2 / (||A^T A|| ||B^T B||) of centred features: Kornblith et al. 2019, equation in section 3."""
    a, b = a - a.mean(0), b - b.mean(0)
    divisor = (a.T @ a).norm() * (b.T @ b).norm()
    return float((b.T @ a).norm() ** 2 / divisor) if divisor > 0 else float("nan")


def _described(value: Any) -> str:
    return f"a tensor of shape {tuple(value.shape)}" if isinstance(value, Tensor) else f"a {type(value).__name__}"


def _top1(output: Any, target: Any) -> Tensor:
    logits = output if isinstance(output, Tensor) else getattr(output, "logits", output)
    return ((logits.argmax(-1) == target) & ~logits.isnan().any(-1)).float()  # nan would be the largest
