"""Compiled, exported and in 16 bits, an hourglass answers as it does in eager mode."""

from __future__ import annotations

import copy
from pathlib import Path

import pytest
import torch
from torch import Tensor, nn

from tests.hourglass.models import FrameModel, JointModel, TupleModel, awake, build, poses
from tests.hourglass.wrapped import KINDS, close, gradients, wrap


@pytest.mark.slow
@pytest.mark.parametrize(
    ("kind", "recover"), [(FrameModel, True), (FrameModel, "linear"), (JointModel, "local"), (TupleModel, False)]
)
@pytest.mark.usefixtures("cuda_in_use")
def test_compiles_whole(kind: type[nn.Module], recover: bool | str) -> None:
    model, x = wrap(build(kind), (1, 3), (8, 3), recover=recover), poses()
    eager = copy.deepcopy(model)
    backend = "aot_eager" if recover is True else "eager"  # as traced, but for one: that takes a fraction of the time
    fast = torch.compile(model, backend=backend, fullgraph=True)
    model.train()
    eager.train()
    got, want = gradients(model, fast(x)), gradients(eager, eager(x))
    for name in want:
        torch.testing.assert_close(got[name], want[name], rtol=1e-9, atol=1e-10, msg=name)
    assert all(torch.equal(a, b) for a, b in zip(model.hourglass.index, eager.hourglass.index, strict=True))
    if recover is False:  # in eval fewer things are asked: one stands for all
        with torch.no_grad():
            close(fast.eval()(x), eager.eval()(x))


@pytest.mark.slow
@pytest.mark.usefixtures("cuda_in_use")
def test_compiles_whole_under_autocast() -> None:
    model, x = wrap(build().float(), recover="linear"), poses().float()
    fast = torch.compile(model, backend="aot_eager", fullgraph=True)
    with torch.no_grad(), torch.autocast("cpu", torch.bfloat16):
        want = model(x)
        index = model.hourglass.index
        torch.testing.assert_close(fast(x), want, rtol=0.05, atol=0.05)
    assert torch.equal(model.hourglass.index, index)  # chosen in full precision


@pytest.mark.slow
@pytest.mark.parametrize("select", ["tpc", "uniform", "motion", "attention"])
@pytest.mark.usefixtures("cuda_in_use")
def test_exports(select: str) -> None:
    model, x = wrap(build(JointModel), select=select), poses()
    want = model(x)
    index = model.hourglass.index
    program = torch.export.export(model, (x,))
    close(program.module()(x), want)
    other = poses()
    close(program.module()(other), model(other))
    assert index.shape == (2, 5)


@pytest.mark.slow
@pytest.mark.usefixtures("cuda_in_use")
def test_exports_for_any_number_of_clips() -> None:
    model = awake(wrap(build(JointModel), (1, 3), (8, 3)))
    program = torch.export.export(model, (poses(),), dynamic_shapes={"poses": {0: torch.export.Dim("clips", min=2)}})
    for batch in (2, 5):
        x = poses(batch)
        close(program.module()(x), model(x))


@pytest.mark.slow
@pytest.mark.parametrize("recover", [True, "linear"])
@pytest.mark.filterwarnings("ignore")  # the exporter's own
@pytest.mark.usefixtures("cuda_in_use")
def test_runs_in_onnx(tmp_path: Path, recover: bool | str) -> None:
    pytest.importorskip("onnxscript")
    # Up to 1.23 its optimizer fuses the products of 64-bit numbers into an operation it has for 32 bits alone.
    runtime = pytest.importorskip("onnxruntime", minversion="1.24")
    model, x = wrap(build(), recover=recover).float(), poses().float()
    torch.onnx.export(model, (x,), tmp_path / "model.onnx", dynamo=True, verbose=False)
    session = runtime.InferenceSession(tmp_path / "model.onnx")
    for given in (x, poses().float()):
        got = torch.from_numpy(session.run(None, {session.get_inputs()[0].name: given.numpy()})[0])
        torch.testing.assert_close(got, model(given), rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("kind", KINDS)
def test_sixteen_bits(kind: type[nn.Module]) -> None:
    model, x = awake(wrap(build(kind))).float(), poses().float()
    want = model(x)
    index = model.hourglass.index
    with torch.autocast("cpu", torch.bfloat16):
        out = model(x)
    assert out.shape == want.shape
    model.hourglass.index = index  # rounded tokens may choose others
    half = copy.deepcopy(model).bfloat16()
    for got in (half(x.bfloat16()), _autocast(model, x)):
        assert (got.float() - want).abs().max() < 0.1 * want.abs().max()
    model.bfloat16()
    model.hourglass.index = None
    model(x.bfloat16()).float().sum().backward()
    assert model.hourglass.index.shape == (2, 5)
    assert model.recover.query.grad.dtype == torch.bfloat16


def _autocast(model: nn.Module, x: Tensor) -> Tensor:
    with torch.autocast("cpu", torch.bfloat16):
        return model(x)
