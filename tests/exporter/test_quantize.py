"""Exported files in eight-bit integers: every exit as small as the first, near the original, and honest about it."""

from __future__ import annotations

import math
import os
from collections import Counter
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from cycledistill import wrap_cyclic
from cycledistill.exporter import ExportError, export, quantize
from cycledistill.exporter.agreement import compare_outputs
from cycledistill.exporter.quantize import KINDS
from tests.oracle import Truth

onnx = pytest.importorskip("onnx")
runtime = pytest.importorskip("onnxruntime")
pytest.importorskip("onnxscript")

pytestmark = [
    pytest.mark.filterwarnings("ignore::DeprecationWarning"),
    pytest.mark.filterwarnings("ignore::FutureWarning"),
    pytest.mark.filterwarnings("ignore::UserWarning"),
]

inf, nan = math.inf, math.nan
DIM, TOKENS = 48, 4  # below 8192 numbers a weight is folded whatever uses it


class Block(nn.Module):
    """Two linear layers and what stands between them in a transformer."""

    def __init__(self) -> None:
        super().__init__()
        self.norm, self.up, self.down = nn.LayerNorm(DIM), nn.Linear(DIM, 4 * DIM), nn.Linear(4 * DIM, DIM)

    def forward(self, x: Tensor) -> Tensor:
        return x + self.down(nn.functional.gelu(self.up(self.norm(x))))


class Small(nn.Module):
    """A patch embedding, two blocks and a head: the least that shows all kinds of products by weights."""

    def __init__(self) -> None:
        super().__init__()
        self.embed = nn.Conv1d(3, DIM, 8, 8)
        self.blocks = nn.Sequential(Block(), Block())
        self.head = nn.Linear(DIM, 20)

    def forward(self, signal: Tensor) -> Tensor:
        return self.head(self.blocks(self.embed(signal).transpose(1, 2)).mean(1))


def small() -> nn.Module:
    """No two of its weights are equal, for equal ones are stored once."""
    torch.manual_seed(0)
    model = Small().eval()
    for parameter in model.parameters():
        nn.init.normal_(parameter, std=0.2)
    return model


def signals(batch: int = 4) -> Tensor:
    return torch.randn(batch, 3, 8 * TOKENS, generator=torch.Generator().manual_seed(1))


@pytest.fixture(scope="module")
def files(tmp_path_factory: pytest.TempPathFactory) -> dict[int, Path]:
    """Exit -> the file of the model there."""
    folder = tmp_path_factory.mktemp("files")
    model = wrap_cyclic(small(), 3, None, blocks="blocks")
    return {
        exit: export(model, folder / f"{exit}.onnx", signals(), exit=exit, metadata={"joints": "[]"}).path
        for exit in (1, 2, 3)
    }


def run(path: Path, x: Tensor) -> Tensor:
    session = runtime.InferenceSession(path, providers=["CPUExecutionProvider"])
    return torch.from_numpy(session.run(None, {"signal": x.numpy()})[0])


def operations(path: Path) -> Counter[str]:
    return Counter(node.op_type for node in onnx.load(path).graph.node)


def bytes_of_weights(path: Path, kind: int) -> int:
    stored = onnx.load(path).graph.initializer
    return sum(len(onnx.numpy_helper.to_array(x).tobytes()) for x in stored if x.data_type == kind)


@pytest.mark.slow
def test_onnx_runtime_s_own_quantiser_takes_every_exit_as_it_takes_the_first(
    files: dict[int, Path], tmp_path: Path
) -> None:
    """Four linear layers a cycle and the head; a weight behind a node would be passed over without a word."""
    from onnxruntime.quantization import quantize_dynamic

    for exit, path in files.items():
        made = tmp_path / path.name
        quantize_dynamic(path, made, op_types_to_quantize=["MatMul", "Gemm"])
        assert operations(made)["MatMulInteger"] == 4 * exit + 1
        weights = onnx.TensorProto.INT8
        assert bytes_of_weights(made, weights) >= 4 * 4 * DIM**2 + 20 * DIM
        assert bytes_of_weights(made, weights) < 4 * 4 * DIM**2 + 20 * DIM + 100  # once, whatever the exit
        assert os.path.getsize(made) - 4 * 3 * 8 * DIM < 0.75 * os.path.getsize(path)


@pytest.mark.slow
def test_files_hold_each_weight_once_and_answer_as_before(files: dict[int, Path]) -> None:
    numbers = sum(parameter.numel() for parameter in small().parameters())
    truth = Truth(small())
    for exit, path in files.items():
        assert 4 * numbers <= bytes_of_weights(path, onnx.TensorProto.FLOAT) < 4 * numbers + 100
        with torch.no_grad():
            torch.testing.assert_close(run(path, signals()), truth(exit, signals()), rtol=1e-4, atol=1e-5)


@pytest.mark.slow
@pytest.mark.parametrize(("kind", "left"), [("dynamic", 1), ("static", 0)])  # what is left: the convolution
def test_every_exit_is_quantised_alike(kind: Any, left: int, files: dict[int, Path], tmp_path: Path) -> None:
    truth = Truth(small())
    for exit, path in files.items():
        done = quantize(path, tmp_path / path.name, [signals(), signals(2)], kind=kind)
        assert (done.products, done.left) == (4 * exit + 1 + (1 - left), left)
        assert done.size == os.path.getsize(done.path) < done.size_before == os.path.getsize(path)
        with torch.no_grad():
            want, got = truth(exit, signals()), run(done.path, signals())
        error = float((got - want).norm() / want.norm())
        assert 0 < error < 0.05
        assert done.agreement["output"].relative == pytest.approx(error, rel=0.5)
        assert done.agreement["output"].same is not None
        words = {each.key: each.value for each in onnx.load(done.path).metadata_props}
        assert (words["joints"], words["exit"], words["model"]) == ("[]", str(exit), "Small")
        assert f'"kind": "{kind}"' in words["quantization"]
    assert sorted(os.listdir(tmp_path)) == ["1.onnx", "2.onnx", "3.onnx"]


@pytest.mark.slow
def test_without_calibration_the_comparison_says_that_it_is_on_noise(files: dict[int, Path], tmp_path: Path) -> None:
    done = quantize(files[2], tmp_path / "small.onnx")
    assert "noise" in done.compared_on and "noise" in str(done)
    assert "int8 (dynamic)" in str(done) and " MB" in str(done)


def by_hand(path: Path, shape: list[Any], weight: Tensor, *nodes: tuple[str, list[str], str]) -> Path:
    """A file of nodes (operation, inputs, output) from ``x`` to ``y``, with the weight ``w``."""
    made = onnx.helper.make_graph(
        [onnx.helper.make_node(kind, inputs, [output], name=output) for kind, inputs, output in nodes],
        "by hand",
        [onnx.helper.make_tensor_value_info("x", onnx.TensorProto.FLOAT, shape)],
        [onnx.helper.make_tensor_value_info("y", onnx.TensorProto.FLOAT, [None] * len(shape))],
        [onnx.numpy_helper.from_array(weight.numpy(), "w")],
    )
    versions = {"opset_imports": [onnx.helper.make_opsetid("", 18)], "ir_version": 9}
    onnx.save(onnx.helper.make_model(made, **versions), path)
    return path


def test_a_file_from_elsewhere_with_its_transposes_is_quantised_too(tmp_path: Path) -> None:
    nodes = ("Transpose", ["w"], "t"), ("MatMul", ["x", "t"], "y")
    path = by_hand(tmp_path / "made.onnx", [4, 100], torch.randn(20, 100), *nodes)
    done = quantize(path, tmp_path / "small.onnx")
    assert done.products == 1
    assert 0 < done.agreement["y"].relative < 0.05


def test_a_file_with_nothing_to_quantise_is_refused_and_not_copied(tmp_path: Path) -> None:
    path = by_hand(tmp_path / "made.onnx", [1, 3, 8, 8], torch.randn(16, 3, 3, 3), ("Conv", ["x", "w"], "y"))
    with pytest.raises(ExportError, match="nothing to quantise.* its 1 products .*Convolutions are taken by kind='sta"):
        quantize(path, tmp_path / "small.onnx")
    assert os.listdir(tmp_path) == ["made.onnx"]


def test_small_filters_keep_their_precision(tmp_path: Path) -> None:
    """The last step of decoding heatmaps is such a filter."""
    path = by_hand(tmp_path / "made.onnx", [1, 1, 8, 8], torch.randn(1, 1, 3, 3), ("Conv", ["x", "w"], "y"))
    with pytest.raises(ExportError, match="nothing to quantise"):
        quantize(path, tmp_path / "small.onnx", [torch.randn(1, 1, 8, 8)], kind="static")


def test_arguments_that_cannot_be(tmp_path: Path) -> None:
    path = tmp_path / "model.onnx"
    path.write_bytes(b"no model")
    out = tmp_path / "small.onnx"
    for keywords, message in (
        ({"kind": "static"}, "kind='static' fixes the ranges .* calibration="),
        ({"kind": "int4"}, "'dynamic' or 'static' is expected"),
        ({"calibration": signals()}, r"give a list of batches, \[batch\]"),
        ({"target": path}, "is the original: give another name, such as model-int8.onnx"),
        ({"target": tmp_path}, "the name of a file"),
        ({"target": tmp_path / "small.pt"}, "small.pt is to be an ONNX file: a name that ends in .onnx"),
        ({"path": tmp_path / "no.onnx"}, "there is no such file"),
    ):
        with pytest.raises(ValueError, match=message):
            quantize(**{"path": path, "target": out, **keywords})
    with pytest.raises(ExportError, match="is not taken by ONNX Runtime"):
        quantize(path, out)
    assert os.listdir(tmp_path) == ["model.onnx"]


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize(
    ("inputs", "message"),
    [
        (torch.zeros(0, 100), r"input x of shape \(0, 100\) holds no inputs"),
        (torch.full((2, 100), nan), "input x is not finite"),
        (torch.full((2, 100), inf), "input x is not finite"),
    ],
    ids=["none", "nan", "inf"],
)
def test_calibration_by_nothing_or_by_nan_is_refused(kind: Any, inputs: Tensor, message: str, tmp_path: Path) -> None:
    path = by_hand(tmp_path / "made.onnx", ["batch", 100], torch.randn(100, 20), ("MatMul", ["x", "w"], "y"))
    with pytest.raises(ValueError, match=message):
        quantize(path, tmp_path / "small.onnx", [torch.randn(2, 100), inputs], kind=kind)
    assert os.listdir(tmp_path) == ["made.onnx"]


def test_a_file_that_answers_nan_is_not_called_near(tmp_path: Path) -> None:
    nodes = ("MatMul", ["x", "w"], "t"), ("Log", ["t"], "y")
    path = by_hand(tmp_path / "made.onnx", [4, 100], -torch.rand(100, 20), *nodes)
    with pytest.raises(ExportError, match="output y of the original is nan"):
        quantize(path, tmp_path / "small.onnx", [torch.rand(4, 100)])
    assert os.listdir(tmp_path) == ["made.onnx"]


@pytest.mark.slow
def test_calibration_that_does_not_fit(files: dict[int, Path], tmp_path: Path) -> None:
    out = tmp_path / "small.onnx"
    for batches, message in (
        ([], "holds no inputs"),
        ([signals()[:, :2]], r"signal of shape \(4, 2, 32\): the file takes \('batch', 3, 32\)"),
        ([{"image": signals()}], "inputs image: the file takes signal, by name"),
    ):
        with pytest.raises(ValueError, match=message):
            quantize(files[1], out, batches, kind="static")
    assert not out.exists()


@pytest.mark.parametrize(
    ("original", "other", "relative", "same"),
    [
        (torch.tensor([[3.0, 4.0], [4.0, 3.0]]), torch.tensor([[3.0, 4.0], [3.0, 4.0]]), 0.2, 0.5),
        (torch.eye(4).view(1, 2, 2, 4), torch.eye(4).view(1, 2, 2, 4), 0.0, 1.0),
        (torch.tensor([3.0, 4.0]), torch.tensor([3.0, 4.0]), 0.0, None),
        (torch.zeros(2), torch.zeros(2), 0.0, None),
        (torch.zeros(2), torch.ones(2), float("inf"), None),
        (torch.tensor([[3.0, 4.0, -inf]]), torch.tensor([[3.0, 4.5, -inf]]), 0.1, 1.0),
        (torch.zeros(0, 3), torch.zeros(0, 3), nan, None),
        (torch.tensor([[nan, 1.0], [4.0, 3.0]]), torch.tensor([[nan, 1.0], [4.0, 3.0]]), nan, 0.5),
        (torch.tensor([[3.0, 4.0]]), torch.tensor([[3.0, nan]]), nan, 0.0),
        (torch.zeros(2), torch.full((2,), nan), nan, None),
    ],
    ids=["classes", "maps", "numbers", "zeros", "off", "masked", "nothing", "nan", "nan in one", "nan of zeros"],
)
def test_agreement_by_hand(original: Tensor, other: Tensor, relative: float, same: float | None) -> None:
    found = compare_outputs([original], [other])
    assert found.relative == pytest.approx(relative, nan_ok=True)
    assert found.same == same
