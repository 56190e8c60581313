"""What an hourglass must give, one clip and one frame at a time, without any of the library's code."""

from __future__ import annotations

import math
from typing import Any

import torch
from torch import Tensor, nn


def chosen(frames: Tensor, keep: int, always: int | None = None) -> list[int]:
    """Density peaks over the vectors (F, C) of one clip; of equal densities the earlier counts as denser."""
    number, width = frames.shape
    apart = [[float((a - b).norm()) / math.sqrt(width) for b in frames] for a in frames]
    density = [-(sorted(row)[1] ** 2) / 2 for row in apart]  # the nearest of all is the frame itself
    scores = []
    for i in range(number):
        denser = [
            apart[i][j]
            for j in range(number)
            if density[j] > density[i] + 1e-12 or (abs(density[j] - density[i]) <= 1e-12 and j < i)
        ]
        gap = min(denser) if denser else max(max(row) for row in apart)
        scores.append(math.inf if i == always else math.exp(density[i]) * gap)
    best = sorted(range(number), key=lambda i: (-scores[i], i))[:keep]
    return sorted(best)


def choose(x: Any, keep: int, always: int | None = None) -> Tensor:
    """Frame numbers (B, K) of a state (B, F, C), (B, F, J, C) averaged over J, or a tuple side by side."""
    vectors = torch.cat(x, -1) if isinstance(x, tuple) else x.mean(2) if x.ndim == 4 else x
    return torch.tensor([chosen(clip, keep, always) for clip in vectors.detach()])


def take(x: Any, index: Tensor) -> Any:
    if isinstance(x, tuple):
        return tuple(take(each, index) for each in x)
    return torch.stack([clip[numbers] for clip, numbers in zip(x, index, strict=True)])


def add(x: Any, table: Tensor) -> Any:
    """A table (1, K, C) on a state of any form."""
    if isinstance(x, tuple):
        return tuple(each + table for each in x)
    return x + (table if x.ndim == 3 else table[:, :, None])


def recover(module: nn.Module, x: Any, index: Tensor | None = None) -> Any:
    """Attention of the queries over the kept frames, head by head; the residual is the query.

    With an index it is a local one: scores fall with the distance in time.
    """
    if isinstance(x, tuple):
        return tuple(recover(module, each, index) for each in x)
    if x.ndim == 4:
        return torch.stack([recover(module, x[:, :, joint], index) for joint in range(x.shape[2])], 2)
    heads, width = module.heads, x.shape[-1] // module.heads
    q, k, v = module.q(module.query), module.k(x), module.v(x)
    mixed = []
    for head in range(heads):
        part = slice(head * width, (head + 1) * width)
        scores = q[..., part] @ k[..., part].transpose(1, 2) / math.sqrt(width)
        if index is not None:
            away = [[[abs(f - int(i)) for i in clip] for f in range(q.shape[1])] for clip in index]
            slope = 2 ** (1 - 3 * head / (heads - 1)) * index.shape[1] / q.shape[1]
            scores = scores - slope * torch.tensor(away, dtype=x.dtype)
        mixed.append(scores.softmax(-1) @ v[..., part])
    return module.query + module.proj(torch.cat(mixed, -1))


def by_hand(
    plain: Any, added: Any, poses: Tensor, layers: tuple[int, ...], keep: tuple[int, ...], cycles: int = 1
) -> tuple[list[Tensor], list[Any], list[Tensor]]:
    """Outputs and tokens of every cycle of the levels after the last prune point, and the frames kept at each point."""
    x, kept = plain.embed(poses), []
    numbers = torch.arange(poses.shape[1]).expand(len(poses), -1)
    for number, level in enumerate(plain.levels):
        if number in layers:
            point = layers.index(number)
            index = choose(x, keep[point])
            numbers = numbers.gather(1, index)
            kept.append(numbers)
            x = add(take(x, index), added.prune[point].pos)
        x = level(*x) if isinstance(x, tuple) else level(x)
    tokens = [x]
    for _ in range(cycles - 1):
        for level in plain.levels[layers[-1] :]:
            x = level(*x) if isinstance(x, tuple) else level(x)
        tokens.append(x)
    local = numbers if added.recover.local else None
    return [finish(plain, added, each, local) for each in tokens], tokens, kept


def finish(plain: Any, added: Any, x: Any, index: Tensor | None = None) -> Tensor:
    normed = plain.norm(*x) if isinstance(x, tuple) else plain.norm(x)
    recovered = recover(added.recover, normed, index)
    return plain.head(sum(recovered) if isinstance(x, tuple) else recovered)
