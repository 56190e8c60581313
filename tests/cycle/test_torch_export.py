"""The eval model exports, at exit 1 and 2: torch.export, ONNX, fx, jit.trace; jit.script says what to do."""

from __future__ import annotations

import copy
import io
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from cycledistill import StackError, unwrap_cyclic, wrap_cyclic
from tests import toys
from tests.oracle import Truth, assert_same

pytestmark = [
    pytest.mark.filterwarnings("ignore::DeprecationWarning"),
    pytest.mark.filterwarnings("ignore::FutureWarning"),
    pytest.mark.filterwarnings("ignore::UserWarning"),
    pytest.mark.filterwarnings("ignore::torch.jit.TracerWarning"),
    pytest.mark.usefixtures("cuda_in_use"),
]
MODELS = {
    "toy": (toys.ToyViT, "auto"),
    "taps": (toys.TapViT, "auto"),
    "two_states": (toys.TwoStateViT, "blocks"),
    "slicing": (toys.SlicingViT, "blocks"),
}


def prepared(name: str, exit: int) -> tuple[nn.Module, Tensor, Tensor]:
    """A wrapped eval model at one exit, an input, and what the eager model gives for it."""
    cls, path = MODELS[name]
    model = toys.make(cls).float().eval()
    x = toys.batch()[0].float()
    wrap_cyclic(model, 2, blocks=path)
    model.cyclic.exit = exit
    with torch.no_grad():
        return model, x, model(x)


@pytest.mark.slow
@pytest.mark.parametrize("exit", [1, 2, 3])
@pytest.mark.parametrize("name", MODELS)
def test_torch_export(name: str, exit: int) -> None:
    model, x, want = prepared(name, exit)
    program = torch.export.export(model, (x,))
    assert_same(program.module()(x), want, rtol=1e-6)
    assert set(program.state_dict) == set(model.state_dict())
    file = io.BytesIO()
    torch.export.save(program, file)
    file.seek(0)
    assert_same(torch.export.load(file).module()(x), want, rtol=1e-6)


@pytest.mark.parametrize("exit", [1, 2])
def test_torch_export_with_a_dynamic_batch(exit: int) -> None:
    model, x, _ = prepared("toy", exit)
    program = torch.export.export(model, (x,), dynamic_shapes={"x": {0: torch.export.Dim("batch", min=2, max=64)}})
    more = torch.randn(7, 4, toys.FEATURES)
    assert_same(program.module()(more), model(more), rtol=1e-6)


def test_export_at_exit_one_is_the_export_of_the_base() -> None:
    model, x, _ = prepared("toy", 1)
    base = unwrap_cyclic(copy.deepcopy(model))
    ops = [
        [str(n.target) for n in torch.export.export(m, (x,)).graph.nodes if n.op == "call_function"]
        for m in (model, base)
    ]
    assert ops[0] == ops[1] and ops[0]


def test_export_at_exit_two_holds_one_tail() -> None:
    model, x, _ = prepared("toy", 2)
    program = torch.export.export(model, (x,))
    program.graph.eliminate_dead_code()
    norms = [n for n in program.graph.nodes if "layer_norm" in str(n.target)]
    assert len(norms) == 2 * 3 * 2 + 1


@pytest.mark.slow
@pytest.mark.parametrize("exit", [1, 2])
def test_onnx_gives_the_same_numbers(exit: int, tmp_path: Path) -> None:
    pytest.importorskip("onnxscript")
    runtime = pytest.importorskip("onnxruntime")
    model, x, want = prepared("toy", exit)
    path = tmp_path / "model.onnx"
    torch.onnx.export(model, (x,), path, dynamo=True, verbose=False)
    session = runtime.InferenceSession(path, providers=["CPUExecutionProvider"])
    (got,) = session.run(None, {session.get_inputs()[0].name: x.numpy()})
    np.testing.assert_allclose(got, want.numpy(), rtol=1e-4, atol=1e-5)


@pytest.mark.slow
@pytest.mark.parametrize("exit", [1, 2])
def test_onnx_of_a_timm_model(exit: int, tmp_path: Path) -> None:
    timm = pytest.importorskip("timm")
    pytest.importorskip("onnxscript")
    runtime = pytest.importorskip("onnxruntime")
    model = timm.create_model("test_vit", img_size=32, num_classes=5, depth=2).eval()
    truth = Truth(model)
    wrap_cyclic(model, 2)
    model.cyclic.exit = exit
    x = torch.randn(2, 3, 32, 32)
    with torch.no_grad():
        want = truth(exit, x)
    path = tmp_path / "model.onnx"
    torch.onnx.export(model, (x,), path, dynamo=True, verbose=False)
    session = runtime.InferenceSession(path, providers=["CPUExecutionProvider"])
    (got,) = session.run(None, {session.get_inputs()[0].name: x.numpy()})
    np.testing.assert_allclose(got, want.numpy(), rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("exit", [1, 2])
@pytest.mark.parametrize("name", ["toy", "taps", "two_states"])
def test_jit_trace(name: str, exit: int) -> None:
    model, x, want = prepared(name, exit)
    with torch.no_grad():
        traced = torch.jit.trace(model, (x,))
        assert_same(traced(x), want, rtol=1e-6)
        file = io.BytesIO()
        torch.jit.save(traced, file)
        file.seek(0)
        assert_same(torch.jit.load(file)(x), want, rtol=1e-6)


def test_fx_symbolic_trace_at_exit_one() -> None:
    class Traceable(toys.ToyViT):
        def forward(self, x: Tensor) -> Tensor:
            x = self.embed(x)
            for block in self.blocks:
                x = block(x)
            return self.head(self.norm(x).mean(1))

    class Leaf(torch.fx.Tracer):
        def is_leaf_module(self, module: nn.Module, name: str) -> bool:
            return isinstance(module, toys.Attention) or super().is_leaf_module(module, name)

    model = toys.make(Traceable).eval()
    x, _ = toys.batch()
    want = model(x)
    wrap_cyclic(model, 2)
    graph = torch.fx.GraphModule(model, Leaf().trace(model))
    assert_same(graph(x), want)


def test_fx_symbolic_trace_of_a_timm_model() -> None:
    timm = pytest.importorskip("timm")
    from timm.layers._fx import get_notrace_functions, get_notrace_modules
    from torchvision.models.feature_extraction import NodePathTracer

    model = timm.create_model("test_vit", img_size=32, dynamic_img_size=False).eval()
    x = torch.randn(2, 3, 32, 32)
    want = model(x)
    wrap_cyclic(model, 2)
    tracer = NodePathTracer(leaf_modules=get_notrace_modules(), autowrap_functions=get_notrace_functions())
    assert_same(torch.fx.GraphModule(model, tracer.trace(model))(x), want)


def test_jit_script_says_to_unwrap() -> None:
    model = toys.make(toys.ScriptableViT).eval()
    x, _ = toys.batch()
    want = model(x)
    wrap_cyclic(model, 2)
    with pytest.raises(StackError, match="unwrap_cyclic"):
        torch.jit.script(model)
    unwrap_cyclic(model)
    assert_same(torch.jit.script(model)(x), want, rtol=1e-12)


def test_export_in_training_mode_has_every_cycle() -> None:
    model = toys.make(depth=2)
    x, _ = toys.batch()
    want = Truth(model).cycles(2, x)
    wrap_cyclic(model, 2)
    program = torch.export.export(model, (x,))
    out = program.module()(x)
    assert_same(out.outputs, want, rtol=1e-12)


def test_feature_extractor_asks_for_the_plain_model() -> None:
    """torchvision's extractor traces the training mode too, in which a wrapped model's forward is no graph."""
    extraction = pytest.importorskip("torchvision.models.feature_extraction")
    model = wrap_cyclic(toys.make(depth=2), 2, blocks="blocks").eval()
    with pytest.raises(StackError, match="unwrap_cyclic"):
        extraction.create_feature_extractor(model, ["norm"])
    unwrap_cyclic(model)
    assert set(extraction.create_feature_extractor(model, ["norm"])(toys.batch()[0])) == {"norm"}
