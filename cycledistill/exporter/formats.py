"""The formats a model is exported to: each is written, read back, and run as a function of the model's inputs."""

from __future__ import annotations

import io
import json
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from cycledistill.exporter.compare import Run, batched
from cycledistill.exporter.errors import ExportError, in_words, not_converted, not_loaded, not_traced, quiet
from cycledistill.exporter.onnx_files import new_session
from cycledistill.files import os_errors
from cycledistill.inputs import Call
from cycledistill.metadata.read import PT2_FILE
from cycledistill.plugin.torch_private import tree_flatten_with_path, tree_leaves, tree_unflatten
from cycledistill.versions import require

INLINE = 1_900_000_000
"""Bytes of weights up to which an ONNX file holds them itself; protobuf ends at 2 GiB."""


def write_graph(kind: str, model: nn.Module, call: Call, path: Path, dynamic: bool, words: Mapping[str, str]) -> Run:
    """Write ``model`` as ``"onnx"`` or ``"pt2"`` and read it back; raises as :func:`export` does."""
    name = type(model).__name__
    with torch.no_grad(), quiet():
        if kind == "pt2":
            return _program(name, _traced(model, call, dynamic)[0], path, words)
        require("onnx", "onnxscript", "onnx-ir", "onnxruntime")
        try:
            import onnxruntime  # noqa: F401  (before minutes of work)
            import onnxscript  # noqa: F401  (torch's exporter says less clearly that it is missing)
        except ImportError as error:
            raise ImportError(f'{error}: pip install "cycledistill[onnx]"') from error
        program, free = _traced(model, call, dynamic)
        types = {x.dtype for x in (*program.state_dict.values(), *tree_leaves(call)) if isinstance(x, Tensor)}
        try:
            _to_onnx(program, path, free, words)
        except OSError:
            raise
        except Exception as error:
            raise ExportError(not_converted(name, error)) from error
        return _runtime(_session(name, path, types))


def _traced(model: nn.Module, call: Call, dynamic: bool) -> tuple[Any, Any]:
    """The model as a graph, and which dimensions of its inputs are free."""
    name = type(model).__name__
    # A batch of 1 would be taken for a constant.
    args, kwargs = batched(call, 2) if dynamic else call
    shapes = torch.export.ShapesCollection()
    if dynamic:
        batch = torch.export.Dim("batch")
        for leaf in tree_leaves((args, kwargs)):
            if isinstance(leaf, Tensor) and leaf.ndim:
                shapes[leaf] = {0: batch}
    try:
        free = shapes.dynamic_shapes(model, args, kwargs) if dynamic else None
        return torch.export.export(model, args, kwargs, dynamic_shapes=free), free
    except Exception as error:  # exporters raise whatever the traced code raises, and dozens of classes of their own
        reason = not_traced(name, error)
        if dynamic and _fixed(model, call):
            reason += ". At a fixed batch size it can be: give dynamic_batch=False"
        raise ExportError(reason) from error


def _fixed(model: nn.Module, call: Call) -> bool:
    """Whether the model can be traced at the batch size of ``call`` alone."""
    try:
        torch.export.export(model, *call)
    except Exception:  # the first failure is the one to tell of
        return False
    return True


def write_state_dict(model: nn.Module, path: Path, words: Mapping[str, str]) -> float:
    """Write the state dict as safetensors, under the plain model's keys, and check it as it is read back."""
    require("safetensors")
    try:
        from safetensors import SafetensorError
        from safetensors.torch import load_file, save_file
    except ImportError as error:
        raise ImportError(f'{error}: pip install "safetensors"') from error
    state = {name: x.detach().cpu().contiguous().clone() for name, x in model.state_dict().items()}
    with os_errors(SafetensorError):
        save_file(state, path, metadata={**words, "format": "pt"})
    back = load_file(path)
    if any(not torch.equal(_bytes(back[name]), _bytes(x)) for name, x in state.items()):
        raise ExportError(f"{path.name}: the weights read back differ from those written; is the disk full?")
    return 0.0


def _bytes(x: Tensor) -> Tensor:
    return x.flatten().view(torch.uint8)  # nan equals nan


def _program(name: str, program: Any, path: Path, words: Mapping[str, str]) -> Run:
    program.graph.eliminate_dead_code()  # at an exit above 1: the tail of the first cycle
    written = io.BytesIO()  # given a path, PyTorch ends the process where the disk is full
    try:
        torch.export.save(program, written, extra_files={PT2_FILE: json.dumps(dict(words))})
        path.write_bytes(written.getbuffer())
        module = torch.export.load(path).module()
    except OSError:
        raise
    except Exception as error:  # whatever the serialiser does not know
        raise ExportError(f"{name} cannot be saved as pt2 and read back: {in_words(error)}") from error

    def run(inputs: Call) -> list[Tensor]:
        with torch.no_grad():
            return [x.cpu() for x in tree_leaves(module(*inputs[0], **inputs[1])) if isinstance(x, Tensor)]

    return run


def _to_onnx(program: Any, path: Path, free: Any, words: Mapping[str, str]) -> None:
    from onnx_ir.passes.common import CommonSubexpressionEliminationPass

    weights = sum(x.numel() * x.element_size() for x in program.state_dict.values())
    made = torch.onnx.export(
        program,
        dynamo=True,
        verbose=False,
        optimize=False,
        output_names=_output_names(program),
        dynamic_shapes=free,  # for the name of the free dimension alone
    )
    assert made is not None
    # Equal nodes are merged first: optimizing folds constants before it does so itself, and would leave the transposes
    # of weights that cycles share (used twice) in the graph. Quantisers pass over products of weights out of a node.
    CommonSubexpressionEliminationPass()(made.model)
    made.optimize()
    made.model.metadata_props.update(words)
    made.save(path, external_data=weights > INLINE)


def _session(name: str, path: Path, types: set[torch.dtype]) -> Any:
    try:
        return new_session(path)
    except Exception as error:
        odd = sorted(str(kind) for kind in types if kind.is_floating_point and kind is not torch.float32)
        raise ExportError(not_loaded(name, error, odd)) from error


def _runtime(session: Any) -> Run:
    names = [entry.name for entry in session.get_inputs()]

    def run(inputs: Call) -> list[Tensor]:
        given = [x.cpu().numpy() for x in tree_leaves(inputs) if isinstance(x, Tensor)]
        return [torch.from_numpy(x) for x in session.run(None, dict(zip(names, given, strict=True)))]

    return run


def _output_names(program: Any) -> list[str] | None:
    """Names from where each tensor stands in what the model returns; the exporter's own where that gives none."""
    spec = program.call_spec.out_spec
    paths = [path for path, _ in tree_flatten_with_path(tree_unflatten(range(spec.num_leaves), spec))[0]]
    names = ["_".join(re.sub(r"\W", "", str(key)) for key in path) for path in paths]
    names = [name if name[:1].isalpha() else f"output_{name}".rstrip("_") for name in names]
    taken = {*names, *program.graph_signature.user_inputs}
    whole = all(isinstance(entry, str) for entry in program.graph_signature.user_outputs)  # no None among them
    return names if whole and len(taken) == len(names) + len(program.graph_signature.user_inputs) else None
