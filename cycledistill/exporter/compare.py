"""What a model gives before it is exported, and whether the written file gives the same."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from cycledistill.exporter.errors import ExportError, in_words
from cycledistill.inputs import Call, describe
from cycledistill.plugin.torch_private import keystr, tree_flatten_with_path, tree_leaves, tree_map_only
from cycledistill.stack.given import argument_names

Run = Callable[[Call], list[Tensor]]
"""A written file as a function: the inputs of the model to the tensors it returns, on the CPU."""

OTHER_BATCH = 3
"""The second batch size of the comparison: neither the usual 1 of the inputs nor the 2 of the export."""

SMALL = 1e-4
"""Outputs below this are compared as if they were of this size: they may be what rounding left of larger values."""


@dataclass(frozen=True)
class Sample:
    """Inputs, and what the model makes of them: tensors on the CPU by their path in its output, ``"['logits']"``."""

    inputs: Call
    outputs: dict[str, Tensor]


def batched(call: Call, size: int) -> Call:
    """The call with the samples of every tensor repeated, or cut, to ``size``."""
    return tree_map_only(Tensor, lambda x: x[torch.arange(size, device=x.device) % len(x)] if x.ndim else x, call)


def default_tolerance(model: nn.Module, call: Call) -> float:
    """0.001, or ten rounding steps of the coarsest type in a model of half precision: 0.01 float16, 0.08 bfloat16."""
    types = {x.dtype for x in (*model.parameters(), *tree_leaves(call)) if isinstance(x, Tensor)}
    return max([1e-3, *(10 * torch.finfo(half).eps for half in types & {torch.float16, torch.bfloat16})])


def run_eagerly(
    model: nn.Module, postprocess: Callable[[Any], Any] | None, call: Call, dynamic: bool, kind: str
) -> list[Sample]:
    """Run the model before anything is exported, so that inputs it does not take are told from what cannot be exported.

    `ValueError` where it does not run on the inputs, `ExportError` where the file could not hold what it returns.
    """
    samples = [Sample(call, _outputs(model, postprocess, call, kind))]
    if dynamic:
        more = batched(call, OTHER_BATCH)
        try:
            samples.append(Sample(more, _outputs(model, postprocess, more, kind)))
        except ValueError as error:
            raise ExportError(
                f"{type(model).__name__} runs on {describe(call)}, but not at another batch size, which the file is to "
                f"leave free: {error}. Give dynamic_batch=False"
            ) from error
    return samples


def _outputs(model: nn.Module, postprocess: Callable[[Any], Any] | None, call: Call, kind: str) -> dict[str, Tensor]:
    name = type(model).__name__
    with torch.no_grad():
        try:
            made = model(*call[0], **call[1])
        except Exception as error:  # a wrong input fails anywhere inside the model
            lists = any(isinstance(x, list) for x in call[0])
            hint = ". A list is one argument; give several as a tuple" if lists else ""
            takes = ", ".join(argument_names(model))
            raise ValueError(
                f"{name}, whose forward takes ({takes}), does not run on {describe(call)}: {in_words(error)}{hint}"
            ) from error
        try:
            made = made if postprocess is None else postprocess(made)
        except Exception as error:
            raise ValueError(
                f"postprocess fails on what {name} returns ({type(made).__name__}): {in_words(error)}"
            ) from error
    return _tensors(name, made, kind)


def _tensors(name: str, made: Any, kind: str) -> dict[str, Tensor]:
    plain: tuple[type, ...] = () if kind == "onnx" else (int, float, str)
    found: dict[str, Tensor] = {}
    for key, leaf in tree_flatten_with_path(made)[0]:
        path = keystr(key)
        if isinstance(leaf, Tensor):
            found[path] = leaf.detach().cpu().clone()
            if leaf.numel() and bool(_real(leaf).isnan().all()):
                raise ExportError(f"{name}: output{path} is nan throughout, to which no file can be compared")
        elif leaf is not None and not isinstance(leaf, plain):
            raise ExportError(
                f"{name}: output{path} is of type {type(leaf).__name__}; {kind} files give tensors, and lists, tuples "
                "and dicts of them. Pick those by postprocess="
            )
    if not found:
        raise ExportError(f"{name} returns no tensor ({type(made).__name__}), and a file gives tensors")
    if not any(x.numel() for x in found.values()):
        raise ExportError(f"{name} returns no numbers with these inputs, so there is nothing to compare a file to")
    return found


def compare(name: str, run: Run, samples: list[Sample], tolerance: float) -> float:
    """Largest difference between the written file's outputs and the model's.

    Each output is compared by itself: a difference may be ``tolerance`` times the output's largest finite value.
    Infinities of one sign agree, and nan with nan. Integers and booleans must be equal.

    Raises:
        ExportError: A difference is larger, or the file does not run.
    """
    largest = 0.0
    for sample in samples:
        try:
            got = run(sample.inputs)
        except Exception as error:  # a runtime raises what it likes
            raise ExportError(
                f"the exported {name} does not run on {describe(sample.inputs)}: {in_words(error)}. Nothing was written"
            ) from error
        want = sample.outputs
        if [x.shape for x in got] != [x.shape for x in want.values()]:
            shapes = f"{[tuple(x.shape) for x in got]}, not {[tuple(x.shape) for x in want.values()]}"
            raise ExportError(f"the exported {name} returns {shapes}. Nothing was written")
        for (path, ours), theirs in zip(want.items(), got, strict=True):
            largest = max(largest, _checked(f"the exported {name}: output{path}", theirs, ours, tolerance))
    return largest


def _checked(what: str, theirs: Tensor, ours: Tensor, tolerance: float) -> float:
    a, b = _real(theirs), _real(ours)
    unequal = ~((a == b) | (a.isnan() & b.isnan()))
    if not unequal.any():
        return 0.0
    gap = float((a - b).abs()[unequal].max())  # nan or inf where only one of them is finite
    if not gap < float("inf"):
        raise ExportError(f"{what} is nan or infinite where the model's is not, or the reverse. Nothing was written")
    scale = float(b[b.isfinite()].abs().max())
    exact = not (ours.is_floating_point() or ours.is_complex())
    allowed = 0.0 if exact else tolerance * max(scale, SMALL)
    if gap > allowed:
        bound = "integers must be equal" if exact else f"tolerance={tolerance:.3g} allows {allowed:.3g}"
        raise ExportError(
            f"{what} differs from the model's by {gap:.3g}, and the largest value of that is {scale:.3g}: {bound}. "
            "Nothing was written"
        )
    return gap


def _real(x: Tensor) -> Tensor:
    return (torch.view_as_real(x) if x.is_complex() else x).double()
