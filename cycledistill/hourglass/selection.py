"""Which frames of a clip to keep: pure functions from tokens to frame numbers; nothing here is learned.

Every choice is made without gradients, in at least 32 bits, sample by sample, and comes in the order of time.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, Literal

import torch
from torch import Tensor
from torch.nn import functional

from cycledistill.plugin.running import has_autocast

TIE_NOISE = 1e-6
"""Weight of the noise that the official code adds to densities."""


@contextmanager
def full_precision(tensor: Tensor) -> Iterator[None]:
    """No gradients and no autocast: densities differ by less than 16-bit numbers can hold."""
    kind = tensor.device.type
    with torch.no_grad():
        if has_autocast(kind):
            with torch.autocast(kind, enabled=False):
                yield
        else:
            yield


def pool_frames(tokens: Tensor, how: Literal["mean", "concat"]) -> Tensor:
    """One vector a frame from the tokens (B, F, J, C) of a clip.

    Args:
        tokens: (B, F, J, C).
        how: ``"mean"`` over the J axis, (B, F, C); ``"concat"`` puts its entries side by side, (B, F, J * C).
    """
    dtype = torch.promote_types(tokens.dtype, torch.float32)
    return tokens.mean(dim=2, dtype=dtype) if how == "mean" else tokens.flatten(2).to(dtype)


def tpc(
    pooled: Tensor,
    keep: int,
    *,
    neighbours: int = 2,
    forced: Tensor | None = None,
    noise: Tensor | None = None,
    exact: bool = True,
    tie: Literal["index", "noise"] | None = None,
) -> Tensor:
    """Token pruning cluster: keep the frames that are dense among their neighbours and far from denser ones.

    ``score = density * distance to the nearest denser frame``, where ``density = exp(-mean squared distance to the
    nearest frames)``. The two frames of a pair that are each other's nearest have the same density. The official code
    lets noise decide between them, so that its choice depends on a seed; here, by default, the earlier counts as the
    denser one. ``noise=torch.rand(B, F), exact=False`` is the official behaviour.

    Args:
        pooled: One vector a frame, (B, F, C).
        keep: Frames to keep, K, at least 1 and at most F.
        neighbours: Nearest frames that make up a density, the frame itself included.
        forced: (B, F), true for frames that are kept whatever their score.
        noise: (B, F), uniform in [0, 1); 1e-6 of it is added to the densities.
        exact: Distances by 64-bit arithmetic, symmetric to the last bit, and 0 between equal frames. ``False``:
            ``torch.cdist`` in 32 bits, whose rounding is as large as the noise.
        tie: What decides between equal densities: ``"index"``, the earlier frame is denser; ``"noise"``, neither is.
            Default: ``"index"`` without noise, ``"noise"`` with it.

    Returns:
        Frame numbers (B, K), int64, ascending.

    Raises:
        ValueError: ``pooled`` is not (B, F, C), or ``keep`` or ``neighbours`` is out of range.

    Example:
        >>> tpc(torch.tensor([[[0.0], [0.1], [5.0], [5.1], [9.0]]]), keep=3)
        tensor([[0, 2, 4]])

    Source: HoT (CVPR 2024), section 3.2, after density peaks clustering with k nearest neighbours (DPC-KNN).
    """
    _check(pooled, keep)
    if not 1 <= neighbours <= pooled.shape[1]:
        raise ValueError(f"neighbours={neighbours}: a number from 1 to the {pooled.shape[1]} frames is expected")
    with full_precision(pooled):
        apart = _distances(pooled, exact)
        near = apart.topk(neighbours, dim=-1, largest=False).values
        density = -near.square().mean(dim=-1)
        if not exact or noise is not None:
            density = density.exp()
        if noise is not None:
            density = density + TIE_NOISE * noise.to(density)
        denser = density.unsqueeze(1) > density.unsqueeze(2)
        if (tie or ("index" if noise is None else "noise")) == "index":
            denser = denser | _earlier_of_equal(density)
        farthest = apart.amax(dim=(1, 2), keepdim=True)
        gap = torch.where(denser, apart, farthest).amin(dim=-1)
        if not exact:
            score = density * gap
        else:  # by logarithms: the density of far-apart tokens is too small for a floating-point number
            score = (density if noise is None else density.log()) + gap.log()
        return _best(score, keep, forced)


def motion(pooled: Tensor, keep: int, *, forced: Tensor | None = None) -> Tensor:
    """Keep the frames that differ most from the frame before them; the first counts as not moving.

    Arguments and result as for :func:`tpc`.
    """
    _check(pooled, keep)
    with full_precision(pooled):
        moved = (pooled[:, 1:] - pooled[:, :-1]).norm(dim=-1)
        return _best(functional.pad(moved, (1, 0)), keep, forced)


def uniform(pooled: Tensor, keep: int, *, forced: Tensor | None = None) -> Tensor:
    """Keep frames at equal distances, from the first to the last; one alone is the middle one.

    Args:
        pooled: (B, F, C), of which only the shape matters.
        keep: Frames to keep, K.
        forced: (B, F), true for at most one frame of a sample. It takes the place of the nearest of the others.

    Returns:
        Frame numbers (B, K), ascending.
    """
    _check(pooled, keep)
    frames, device = pooled.shape[1], pooled.device
    step = torch.arange(keep, device=device)
    even = (2 * step * (frames - 1) + keep - 1) // (2 * (keep - 1)) if keep > 1 else step + (frames - 1) // 2
    index = even.expand(pooled.shape[0], -1)
    if forced is None:
        return index
    wanted = forced.int().argmax(dim=1, keepdim=True)
    replaced = (index - wanted).abs().argmin(dim=1, keepdim=True)
    return index.scatter(1, replaced, wanted)


def most_attended(
    attention: list[tuple[Any, Tensor]], keep: int, prefix: int = 0, *, forced: Tensor | None = None
) -> Tensor:
    """Keep the frames that receive most attention, summed over heads, queries, and whatever else there is.

    Args:
        attention: Attention modules (``num_heads``, and where they have them ``scale``, ``q_norm``, ``k_norm``) with
            what their ``qkv`` returned, (B, N, F, 3 * H * D): N lines of F frames, queries, then keys, then values.
        keep: As for :func:`tpc`, whose result this has too.
        prefix: Tokens in front of the frames, which attend and are not chosen.
        forced: As for :func:`tpc`.
    """
    with full_precision(attention[0][1]):
        return _best(torch.stack([_received(*each) for each in attention]).sum(dim=0)[:, prefix:], keep, forced)


def _received(attention: Any, qkv: Tensor) -> Tensor:
    q, k, _ = qkv.unflatten(-1, (3, attention.num_heads, -1)).movedim(-3, 0).transpose(-3, -2).unbind(0)
    norms = (getattr(attention, name, None) for name in ("q_norm", "k_norm"))
    q, k = (each if norm is None else norm(each) for each, norm in zip((q, k), norms, strict=True))
    scale = getattr(attention, "scale", None) or 1 / math.sqrt(q.shape[-1])
    weights = ((q * scale) @ k.mT).softmax(dim=-1, dtype=torch.promote_types(q.dtype, torch.float32))
    return weights.sum(dim=(1, 2, 3))


def _distances(pooled: Tensor, exact: bool) -> Tensor:
    """Euclidean distances (B, F, F), divided by the root of the number of channels."""
    root = math.sqrt(pooled.shape[-1])
    if not exact:
        wide = pooled.to(torch.promote_types(pooled.dtype, torch.float32))
        return torch.cdist(wide, wide) / root
    wide = pooled if pooled.device.type == "mps" else pooled.double()  # Apple's GPUs have no 64-bit numbers
    size = wide.square().sum(dim=-1)
    wide = wide - wide.mean(dim=1, keepdim=True)
    product = wide @ wide.mT
    product = (product + product.mT) / 2
    norm = product.diagonal(dim1=1, dim2=2)
    squared = norm.unsqueeze(1) + norm.unsqueeze(2) - 2 * product
    # Equal frames leave rounding behind, which would make the choice between them a matter of the machine.
    rounding = 1e-13 * (size.unsqueeze(1) + size.unsqueeze(2))
    return torch.where(squared > rounding, squared, 0.0).sqrt() / root


def _earlier_of_equal(values: Tensor) -> Tensor:
    """(B, F, F): whether frame j, the last axis, has the value of frame i and stands before it."""
    frames = torch.arange(values.shape[1], device=values.device)
    return (values.unsqueeze(1) == values.unsqueeze(2)) & (frames < frames.unsqueeze(1))


def _best(score: Tensor, keep: int, forced: Tensor | None) -> Tensor:
    """The frames of the highest scores, in the order of time; of equal ones the earlier."""
    if forced is not None:
        score = score.masked_fill(forced, math.inf)
    frames = torch.arange(score.shape[1], device=score.device)
    # Counted, not sorted: what a sort does with equal scores depends on the device, and ONNX has no stable one.
    better = (score.unsqueeze(1) > score.unsqueeze(2)) | _earlier_of_equal(score)
    countdown = torch.where(better.sum(dim=-1) < keep, score.shape[1] - frames, 0)
    return countdown.topk(keep, dim=1).indices


def _check(pooled: Tensor, keep: int) -> None:
    if pooled.ndim != 3:
        raise ValueError(f"frames of shape {tuple(pooled.shape)}: (B, F, C) is expected, one vector a frame")
    if not 1 <= keep <= pooled.shape[1]:
        raise ValueError(f"keep={keep}: a number from 1 to the {pooled.shape[1]} frames is expected")
