"""On a CPU a large batch runs in parts: the C library gives a whole one's buffers back to the kernel at every call.

glibc's ``malloc`` maps every buffer above 32 MiB anew, and trims its heap when that much is free at its end; the kernel
then hands out the pages again one fault at a time. ``benchmarks/sub_batches.py`` measures what that costs and where
parts pay.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, TypeVar

import torch
from torch import Tensor, nn

from cycledistill.plugin.handle import handle_of
from cycledistill.plugin.torch_private import (
    forward_hooks,
    forward_pre_hooks,
    has_global_hooks,
    is_compiled,
    is_tracing,
    tree_flatten,
    tree_leaves,
    tree_unflatten,
)

T = TypeVar("T")

_BATCH_NORMS = (nn.BatchNorm1d, nn.BatchNorm2d, nn.BatchNorm3d, nn.SyncBatchNorm)

SUB_BATCH = 4
"""Samples a part: so few that a pose model's largest buffer at 256x192, 12 MiB, is below those 32; and enough that
several threads still have work in each of its layers."""


def in_sub_batches(
    model: nn.Module, *batched: Any, size: int | None = SUB_BATCH, call: Callable[..., T] | None = None
) -> T:
    """``model(*batched)``, on a CPU in parts of ``size`` samples whose outputs are joined.

    It runs whole where parts would not be the same, or would be seen: on other devices; while something compiles,
    exports or traces, and for a model that was compiled; where BatchNorm looks at the batch, in training mode and
    without running statistics; with a handle, anywhere inside, that shows what the last forward did
    (``model.pruning.index``, ``model.hourglass.index``); and with forward hooks. A model that looks at the batch in a
    way of its own must not be given.

    Args:
        model: What runs.
        *batched: Its arguments: tensors, or tuples, lists and dicts of tensors, all with one length in their first
            dimension. Each part is given whatever else is among them (flags, numbers, tensors without dimensions,
            ``None``) as it is; a tensor that all samples share is no argument here: let ``call`` hold it.
        size: The most samples a part; ``None``: whole. Where all parts would be as long, the last is halved, so that
            outputs over samples tell themselves from those of a fixed length (which parts of 1 cannot).
        call: What is called in place of the model.

    Returns:
        What the whole batch gives: tensors, or tuples, lists and dicts of tensors over the batch.

    Raises:
        ValueError: Tensors of several lengths; an output that is no tensor over the batch, so that it cannot be joined
            (text and ``None`` are kept; a number may have been made of the part's samples).

    Example:
        >>> heatmaps = in_sub_batches(pose, torch.zeros(5, 3, 256, 192))  # pose(4 images), then pose(1 image)
    """
    run: Callable[..., T] = model if call is None else call
    if size is None or torch.compiler.is_compiling() or is_tracing():
        return run(*batched)
    leaves, spec = tree_flatten(batched)
    tensors = [leaf for leaf in leaves if _is_over_samples(leaf)]
    if not tensors or not all(map(_is_of_a_cpu, tensors)):
        return run(*batched)
    samples = _common_length(tensors)
    if samples <= size or not _looks_at_each_sample_alone(model):
        return run(*batched)
    lengths, parts, start = _lengths(samples, size), [], 0
    for length in lengths:
        part = [leaf[start : start + length] if _is_over_samples(leaf) else leaf for leaf in leaves]
        parts.append(run(*tree_unflatten(part, spec)))
        start += length
    return _joined(parts, lengths)


def check_size(size: int | None, name: str) -> None:
    """Refuse what is no number of samples.

    Raises:
        ValueError: Neither a whole number of at least 1 nor ``None``.
    """
    if size is not None and (isinstance(size, bool) or not isinstance(size, int) or size < 1):
        raise ValueError(f"{name}={size!r}: a whole number of at least 1, or None for whole batches, is expected")


def _lengths(samples: int, size: int) -> list[int]:
    """Of the parts; not all the same, so that no dimension of a fixed length can pass for that of the samples."""
    lengths = [min(size, samples - start) for start in range(0, samples, size)]
    if len(set(lengths)) == 1 and size > 1:
        lengths[-1:] = [size - size // 2, size // 2]
    return lengths


def _is_over_samples(leaf: Any) -> bool:
    return isinstance(leaf, Tensor) and leaf.ndim > 0


def _is_of_a_cpu(tensor: Tensor) -> bool:
    """On a CPU, and no stand-in such as the fake tensors of a trace."""
    return type(tensor) in (Tensor, nn.Parameter) and tensor.device.type == "cpu"


def _common_length(tensors: Sequence[Tensor]) -> int:
    lengths = {len(tensor) for tensor in tensors}
    if len(lengths) > 1:
        shapes = ", ".join(str(tuple(tensor.shape)) for tensor in tensors)
        raise ValueError(
            f"tensors of shape {shapes}: one length in the first dimension is expected; what all samples share belongs "
            "into call=, e.g. functools.partial(model, mask=mask)"
        )
    return lengths.pop()


def _looks_at_each_sample_alone(model: nn.Module) -> bool:
    """Whether the same comes out of parts, and nobody is told how often modules ran."""
    if is_compiled(model) or has_global_hooks():
        return False
    return not any(
        module.training
        or forward_hooks(module)
        or forward_pre_hooks(module)
        or any(handle_of(module, kind) is not None for kind in ("pruning", "hourglass"))
        or (isinstance(module, _BATCH_NORMS) and module.running_mean is None)
        for module in model.modules()
    )


def _joined(parts: Sequence[T], lengths: Sequence[int]) -> T:
    """The parts' outputs one behind the other, in the structure that each has."""
    _, spec = tree_flatten(parts[0])
    columns = zip(*(tree_leaves(part) for part in parts), strict=True)
    joined: T = tree_unflatten([_column(column, lengths) for column in columns], spec)
    return joined


def _column(column: Sequence[Any], lengths: Sequence[int]) -> Any:
    if all(map(_is_over_samples, column)) and [len(each) for each in column] == list(lengths):
        return torch.cat(list(column))
    first = column[0]
    if first is not None and (not isinstance(first, str) or any(each != first for each in column)):
        shown = f"a tensor of shape {tuple(first.shape)}" if isinstance(first, Tensor) else repr(first)
        raise ValueError(
            f"the model returned {shown} for {lengths[0]} samples: a tensor over the samples is expected, to be joined "
            "with those of other parts; use size=None"
        )
    return first
