"""The runtimes that `edge.py` tries, each a function from a model to a deployed one; see the guide "To the edge"."""

from __future__ import annotations

import copy
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from cycledistill import export
from cycledistill.exporter import quantize


@dataclass(frozen=True)
class Subject:
    """A model in eval mode that answers at an exit, and images (1, 3, H, W) to calibrate and to test it on."""

    model: nn.Module
    exit: int
    calibration: list[Tensor]
    tests: list[Tensor]


@dataclass(frozen=True)
class Built:
    """A deployed model: the function it is now, and its bytes."""

    run: Callable[[Tensor], Tensor]
    size: int


def eager(subject: Subject, folder: Path) -> Built:
    """PyTorch as it is."""
    return Built(subject.model, sum(x.numel() * x.element_size() for x in subject.model.state_dict().values()))


def onnx(subject: Subject, folder: Path) -> Built:
    """ONNX Runtime, float32."""
    return _session(_exported(subject, folder))


def onnx_dynamic(subject: Subject, folder: Path) -> Built:
    """ONNX Runtime, int8 with ranges measured in every call."""
    return _session(quantize(_exported(subject, folder), folder / "int8.onnx").path)


def onnx_static(subject: Subject, folder: Path) -> Built:
    """ONNX Runtime, int8 with calibrated ranges."""
    done = quantize(_exported(subject, folder), folder / "int8.onnx", subject.calibration, kind="static")
    return _session(done.path)


def openvino(subject: Subject, folder: Path) -> Built:
    """OpenVINO on the exported file, float32."""
    import openvino as ov

    return _compiled(ov.Core().read_model(_exported(subject, folder)), folder)


def openvino_nncf(subject: Subject, folder: Path) -> Built:
    """OpenVINO, int8 by NNCF."""
    import nncf
    import openvino as ov

    model = ov.Core().read_model(_exported(subject, folder))
    data = nncf.Dataset([x.numpy() for x in subject.calibration])
    return _compiled(nncf.quantize(model, data, model_type=nncf.ModelType.TRANSFORMER), folder)


def torchao_int8(subject: Subject, folder: Path) -> Built:
    """Torchao in eager PyTorch, weights and activations in int8."""
    from torchao.quantization import Int8DynamicActivationInt8WeightConfig, quantize_

    model = copy.deepcopy(subject.model)
    quantize_(model, Int8DynamicActivationInt8WeightConfig())
    torch.save(model.state_dict(), folder / "written")
    return Built(model, (folder / "written").stat().st_size)


def aot_inductor(subject: Subject, folder: Path) -> Built:
    """AOTInductor: compiled to a library, float32."""
    program = torch.export.export(subject.model, (subject.tests[0],))
    path = torch._inductor.aoti_compile_and_package(program, package_path=str(folder / "model.pt2"))
    return Built(torch._inductor.aoti_load_package(path), Path(path).stat().st_size)


def executorch(subject: Subject, folder: Path) -> Built:
    """ExecuTorch with XNNPACK, float32."""
    return _lowered(torch.export.export(subject.model, (subject.tests[0],)), folder)


def executorch_int8(subject: Subject, folder: Path) -> Built:
    """ExecuTorch with XNNPACK, int8 with calibrated ranges."""
    from executorch.backends.xnnpack.quantizer import xnnpack_quantizer as xnnpack
    from torchao.quantization.pt2e.quantize_pt2e import convert_pt2e, prepare_pt2e

    example = (subject.tests[0],)
    settings = xnnpack.get_symmetric_quantization_config(is_per_channel=True)
    graph = torch.export.export(subject.model, example).module()
    prepared = prepare_pt2e(graph, xnnpack.XNNPACKQuantizer().set_global(settings))
    for image in subject.calibration:
        prepared(image)
    return _lowered(torch.export.export(convert_pt2e(prepared), example), folder)


def _exported(subject: Subject, folder: Path) -> Path:
    return export(subject.model, folder / "model.onnx", subject.tests[0], exit=subject.exit, dynamic_batch=False).path


def _session(path: Path) -> Built:
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = options.inter_op_num_threads = 1
    session = onnxruntime.InferenceSession(path, options, providers=["CPUExecutionProvider"])
    name = session.get_inputs()[0].name
    return Built(lambda x: torch.from_numpy(session.run(None, {name: x.numpy()})[0]), path.stat().st_size)


def _compiled(model: Any, folder: Path) -> Built:
    import openvino as ov

    place = folder / "written.xml"
    ov.save_model(model, place, compress_to_fp16=False)
    settings = {"INFERENCE_NUM_THREADS": 1, "NUM_STREAMS": 1, "INFERENCE_PRECISION_HINT": "f32"}
    ready = ov.Core().compile_model(model, "CPU", settings)
    size = sum(each.stat().st_size for each in (place, place.with_suffix(".bin")))
    return Built(lambda x: torch.from_numpy(ready([x.numpy()])[0].copy()), size)


def _lowered(program: Any, folder: Path) -> Built:
    from executorch.backends.xnnpack.partition.xnnpack_partitioner import XnnpackPartitioner
    from executorch.exir import to_edge_transform_and_lower
    from executorch.runtime import Runtime

    edge = to_edge_transform_and_lower(program, partitioner=[XnnpackPartitioner()])
    with (folder / "written.pte").open("wb") as file:
        edge.to_executorch().write_to_file(file)
    loaded = Runtime.get().load_program(folder / "written.pte")
    method = loaded.load_method("forward")
    return Built(lambda x: method.execute([x])[0].clone(), (folder / "written.pte").stat().st_size)


BACKENDS: dict[str, Callable[[Subject, Path], Built]] = {
    "eager": eager,
    "onnx": onnx,
    "onnx-int8-dynamic": onnx_dynamic,
    "onnx-int8-static": onnx_static,
    "openvino": openvino,
    "openvino-int8-nncf": openvino_nncf,
    "torchao-int8": torchao_int8,
    "aot-inductor": aot_inductor,
    "executorch": executorch,
    "executorch-int8": executorch_int8,
}
NEEDS: dict[str, tuple[str, ...]] = {
    "eager": (),
    "onnx": ("onnxruntime", "onnxscript"),
    "onnx-int8-dynamic": ("onnxruntime", "onnxscript"),
    "onnx-int8-static": ("onnxruntime", "onnxscript"),
    "openvino": ("openvino", "onnxscript"),
    "openvino-int8-nncf": ("openvino", "nncf", "onnxscript"),
    "torchao-int8": ("torchao",),
    "aot-inductor": (),
    "executorch": ("executorch",),
    "executorch-int8": ("executorch", "torchao"),
}
