"""Exported files on a GPU: PyTorch programs, traced TorchScript, ONNX where the runtime has its CUDA provider."""

from __future__ import annotations

import io
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor, nn
from torch.export.passes import move_to_device_pass

from cycledistill import at_exit, export, wrap_cyclic
from tests.gpu.running import toy, toy_batch
from tests.oracle import Truth, assert_same

pytestmark = pytest.mark.gpu


@pytest.fixture(params=[1, 2, 3])
def exit(request: pytest.FixtureRequest) -> int:
    return request.param


@pytest.fixture
def model(device: torch.device) -> nn.Module:
    return wrap_cyclic(toy().eval(), 2, "exits").to(device)


@pytest.fixture
def x(device: torch.device) -> Tensor:
    return toy_batch(device)[0]


@pytest.fixture
def want(exit: int, device: torch.device, x: Tensor) -> Tensor:
    with torch.no_grad():
        return Truth(toy().eval().to(device))(exit, x)


def test_a_program_written_on_the_gpu(
    model: nn.Module, exit: int, x: Tensor, want: Tensor, tmp_path: Path, device: torch.device
) -> None:
    path = export(model, tmp_path / "model.pt2", x, exit=exit).path
    with torch.no_grad():
        assert_same(torch.export.load(path).module()(x), want, rtol=1e-4)
        assert_same(torch.export.load(path).module()(x[:3]), want[:3], rtol=1e-4)


def test_a_program_written_on_the_cpu_and_moved(
    model: nn.Module, exit: int, x: Tensor, want: Tensor, tmp_path: Path, device: torch.device
) -> None:
    path = export(model.cpu(), tmp_path / "model.pt2", x.cpu(), exit=exit).path
    program = move_to_device_pass(torch.export.load(path), str(device))
    with torch.no_grad():
        assert_same(program.module()(x), want, rtol=1e-4)


@pytest.mark.filterwarnings("ignore:.torch.jit")  # deprecated, and still read by others
@pytest.mark.filterwarnings("ignore::torch.jit.TracerWarning")
def test_torchscript(model: nn.Module, exit: int, x: Tensor, want: Tensor, device: torch.device) -> None:
    with at_exit(model, exit), torch.no_grad():
        file = io.BytesIO()
        torch.jit.save(torch.jit.trace(model, (x,)), file)
        file.seek(0)
        for _ in range(3):  # kernels are fused after the first calls
            assert_same(torch.jit.load(file, map_location=device)(x), want, rtol=1e-4)
            file.seek(0)


def test_onnx(model: nn.Module, exit: int, x: Tensor, want: Tensor, tmp_path: Path, device: torch.device) -> None:
    runtime = pytest.importorskip("onnxruntime")
    pytest.importorskip("onnxscript")
    provider = "CUDAExecutionProvider" if device.type == "cuda" else "CPUExecutionProvider"
    if provider not in runtime.get_available_providers():
        pytest.skip("this onnxruntime has no CUDA provider (the package onnxruntime-gpu has)")
    path = export(model.cpu(), tmp_path / "model.onnx", x.cpu(), exit=exit).path
    session = runtime.InferenceSession(path, providers=[provider])
    if provider not in session.get_providers():
        pytest.skip("onnxruntime could not load its CUDA provider's libraries")
    (got,) = session.run(None, {session.get_inputs()[0].name: x.cpu().numpy()})
    np.testing.assert_allclose(got, want.cpu().numpy(), rtol=1e-3, atol=1e-4)
