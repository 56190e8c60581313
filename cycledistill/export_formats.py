"""The formats a model is exported to: each is written, read back, and run as a function of the model's inputs."""

from __future__ import annotations

import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils._pytree import tree_flatten_with_path, tree_leaves, tree_map_only, tree_unflatten

from cycledistill.twin import Inputs

Run = Callable[[Inputs], list[Tensor]]
"""A written file as a function: the inputs of the model to the tensors it returns, on the CPU."""

INLINE = 1_900_000_000
"""Bytes of weights up to which an ONNX file holds them itself; protobuf ends at 2 GiB."""


class ExportError(RuntimeError):
    """A model that cannot be written, or whose file does not do what the model does."""


def write(kind: str, model: nn.Module, call: Inputs, path: Path, dynamic: bool) -> Run:
    """Write ``model`` as ``"onnx"`` or ``"pt2"`` and read it back.

    Raises:
        ExportError: The exporter refuses the model; an operation at fault is named.
        ImportError: The exporter's packages are not installed.
    """
    # A batch of 1 would be taken for a constant.
    args, kwargs = batched(call, 2) if dynamic else call
    shapes = torch.export.ShapesCollection()
    if dynamic:
        batch = torch.export.Dim("batch")
        for leaf in tree_leaves((args, kwargs)):
            if isinstance(leaf, Tensor) and leaf.ndim:
                shapes[leaf] = {0: batch}
    try:
        with torch.no_grad():
            free = shapes.dynamic_shapes(model, args, kwargs) if dynamic else None
            program = torch.export.export(model, args, kwargs, dynamic_shapes=free)
            return _onnx(program, path, free) if kind == "onnx" else _program(program, path)
    except ImportError as error:
        raise ImportError(f'{error}: pip install "cycledistill[onnx]"') from error
    except Exception as error:  # exporters raise whatever the traced code raises, and dozens of classes of their own
        raise ExportError(_reason(model, error, dynamic)) from error


def compare(model: nn.Module, run: Run, call: Inputs, dynamic: bool, tolerance: float) -> float:
    """Largest difference between the written file's outputs and the model's, over one batch size or two.

    Raises:
        ExportError: It is larger than ``tolerance`` times the model's largest output.
    """
    largest = 0.0
    for size in (None, 3) if dynamic else (None,):
        inputs = call if size is None else batched(call, size)
        with torch.no_grad():
            want = [x.cpu() for x in tree_leaves(model(*inputs[0], **inputs[1])) if isinstance(x, Tensor)]
        got = run(inputs)
        if [x.shape for x in got] != [x.shape for x in want]:
            shapes = f"{[tuple(x.shape) for x in got]}, not {[tuple(x.shape) for x in want]}"
            raise ExportError(f"the exported {type(model).__name__} returns {shapes}")
        gaps = [float((a.double() - b.double()).abs().max()) for a, b in zip(got, want, strict=True) if b.numel()]
        scale = max(float(x.double().abs().max()) for x in want if x.numel())
        largest = max(largest, *gaps)
        if not largest <= tolerance * max(scale, 1e-6):  # nan is no agreement
            raise ExportError(
                f"the exported {type(model).__name__} differs from the model by {largest:.3g}, and its largest output "
                f"is {scale:.3g}: tolerance={tolerance:g} allows {tolerance * scale:.3g}. Nothing was written"
            )
    return largest


def write_weights(model: nn.Module, path: Path) -> float:
    """Write the state dict as safetensors, under the plain model's keys, and check it as it is read back.

    Raises:
        ExportError: Two entries share memory in part, or what was read back differs.
        ImportError: safetensors is not installed.
    """
    try:
        from safetensors.torch import load_file, save_file
    except ImportError as error:
        raise ImportError(f'{error}: pip install "safetensors"') from error
    state = {name: x.detach().cpu().contiguous().clone() for name, x in model.state_dict().items()}
    save_file(state, path, metadata={"format": "pt"})
    if any(not torch.equal(x, state[name]) for name, x in load_file(path).items()):
        raise ExportError(f"{path.name}: the weights read back differ from those written; is the disk full?")
    return 0.0


def batched(call: Inputs, size: int) -> Inputs:
    """The call with the samples of every tensor repeated, or cut, to ``size``."""
    return tree_map_only(Tensor, lambda x: x[torch.arange(size, device=x.device) % len(x)] if x.ndim else x, call)


def _program(program: Any, path: Path) -> Run:
    program.graph.eliminate_dead_code()  # at an exit above 1: the tail of the first cycle
    torch.export.save(program, path)
    module = torch.export.load(path).module()

    def run(inputs: Inputs) -> list[Tensor]:
        with torch.no_grad():
            return [x.cpu() for x in tree_leaves(module(*inputs[0], **inputs[1])) if isinstance(x, Tensor)]

    return run


def _onnx(program: Any, path: Path, free: Any) -> Run:
    import onnxruntime
    import onnxscript  # noqa: F401  (torch's exporter says less clearly that it is missing)

    weights = sum(x.numel() * x.element_size() for x in program.state_dict.values())
    torch.onnx.export(
        program,
        f=path,
        dynamo=True,
        verbose=False,
        external_data=weights > INLINE,
        output_names=_output_names(program),
        dynamic_shapes=free,  # for the name of the free dimension alone
    )
    session = onnxruntime.InferenceSession(path, providers=["CPUExecutionProvider"])
    names = [entry.name for entry in session.get_inputs()]

    def run(inputs: Inputs) -> list[Tensor]:
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


def _reason(model: nn.Module, error: Exception, dynamic: bool) -> str:
    """Name the operation or the line that an exporter stumbled over; their own messages run over pages."""
    texts: list[str] = []
    cause: BaseException | None = error
    while cause is not None:
        texts.append(str(cause))
        cause = cause.__cause__ or cause.__context__
    text, name = "\n".join(texts), type(model).__name__
    found = re.search(r"OpOverload\(op='([^']+)'", text)
    if found:
        return f"{name}: the operation {found[1]} cannot be exported ({type(error).__name__})"
    line = re.search(r'raised this error:\s+File "([^"]+)", line (\d+), in \S+\s+(\S.*)', text)
    place = f"`{line[3].strip()}` ({Path(line[1]).name}, line {line[2]})" if line else ""
    if "data-dependent" in text:
        at = f" by {place}" if place else ""
        return f"{name} cannot be exported: values of a tensor are read{at}, and the file has one way for all inputs"
    first = next((line for line in texts[0].splitlines() if line.strip()), "no reason given")
    advice = " If it depends on the batch size, give dynamic_batch=False." if dynamic else ""
    return f"{name} cannot be exported: {f'{place}: ' if place else ''}{first} ({type(error).__name__}).{advice}"
