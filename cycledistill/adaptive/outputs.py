"""Outputs of a model, split and joined by sample."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from cycledistill.cycle.snapshot import same_value
from cycledistill.plugin.torch_private import keystr, tree_flatten, tree_leaves_with_path, tree_unflatten


def check_outputs(output: Any, batch: int) -> None:
    """Refuse an output that is not one row a sample.

    Raises:
        TypeError: An entry is no tensor of ``batch`` rows; it is named.
    """
    found = False
    for path, leaf in tree_leaves_with_path(output):
        if isinstance(leaf, Tensor):
            found = True
            if leaf.ndim == 0 or leaf.shape[0] != batch:
                raise TypeError(
                    f"the model's output{at(path)} is a tensor {tuple(leaf.shape)}, and a batch of {batch} samples "
                    f"has {batch} rows in its first dimension: AdaptiveExit puts outputs together sample by sample. "
                    "Call the model so that it returns one row a sample (without labels, say, whose loss is one number)"
                )
        elif leaf is not None and not isinstance(leaf, (str, int, float)):
            raise TypeError(
                f"the model's output{at(path)} is a {type(leaf).__name__}, which cannot be split by sample: tensors "
                "with one row a sample, or tuples, lists and dicts of them are expected"
            )
    if not found:
        raise TypeError(f"the model returned a {type(output).__name__} without tensors, so there is no row a sample")


def check_plain(outputs: Sequence[Any]) -> None:
    """Refuse outputs at several exits that differ in what is no tensor: samples of two exits have one output.

    Raises:
        TypeError: They do.
    """
    paths = [path for path, _ in tree_leaves_with_path(outputs[0])]
    for path, entries in zip(paths, zip(*(tree_flatten(output)[0] for output in outputs), strict=False), strict=False):
        if not isinstance(entries[0], Tensor) and not all(same_value(entry, entries[0]) for entry in entries):
            raise TypeError(
                f"the model's output{at(path)} is {', '.join(f'{entry!r:.80}' for entry in entries)} at its exits, and "
                "is no row a sample: samples of several exits have one output. Return a tensor with one row each"
            )


def rows_of_output(output: Any, rows: Tensor) -> Any:
    """The samples at ``rows`` of an output."""
    leaves, spec = tree_flatten(output)
    return tree_unflatten([x.index_select(0, rows) if isinstance(x, Tensor) else x for x in leaves], spec)


def put_together(found: Sequence[tuple[Tensor, Any]]) -> Any:
    """One output of several, each with the numbers of its samples in the batch.

    Raises:
        TypeError: They are not put together alike, or differ in what is no tensor.
    """
    if len(found) == 1:
        return found[0][1]
    order = torch.cat([rows for rows, _ in found]).argsort()
    columns = [tree_flatten(each) for _, each in found]
    specs = [spec for _, spec in columns]
    if any(spec != specs[0] for spec in specs):
        raise TypeError("the model's output is put together in another way at later exits, so samples cannot be joined")
    check_plain([output for _, output in found])
    leaves = [
        torch.cat(entries).index_select(0, order) if isinstance(entries[0], Tensor) else entries[0]
        for entries in zip(*(leaves for leaves, _ in columns), strict=True)
    ]
    return tree_unflatten(leaves, specs[0])


def at(path: Any) -> str:
    """Where in a value a leaf stands, in words; nothing for a value that is the leaf."""
    return f" at {keystr(path)}" if path else ""
