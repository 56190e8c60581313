"""Exported files compute what the model computes, at every exit, or nothing is written."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from cycledistill import wrap_cyclic
from cycledistill.exporter.export import ExportError, export
from cycledistill.metadata.model import words_of
from cycledistill.metadata.read import read_words
from tests import toys
from tests.oracle import Truth

pytestmark = [
    pytest.mark.filterwarnings("ignore::DeprecationWarning"),
    pytest.mark.filterwarnings("ignore::FutureWarning"),
    pytest.mark.filterwarnings("ignore::UserWarning"),
    pytest.mark.usefixtures("cuda_in_use"),
]


def wrapped(cls: type[nn.Module] = toys.ToyViT, blocks: str = "auto", **options: Any) -> nn.Module:
    return wrap_cyclic(toys.make(cls, **options).float().eval(), 2, blocks=blocks)


def image(batch: int = 1) -> Tensor:
    return torch.randn(batch, 4, toys.FEATURES, generator=torch.Generator().manual_seed(1))


@pytest.mark.slow
@pytest.mark.parametrize(("ending", "asked"), [("onnx", 1), ("onnx", None), ("pt2", 2), ("pt2", None)])
def test_files_give_the_exit_asked_for_or_that_of_the_model(ending: str, asked: int | None, tmp_path: Path) -> None:
    model, exit = wrapped(depth=2), asked or 3
    truth = Truth(toys.make(depth=2).float().eval())
    model.cyclic.exit = 3
    done = export(model, tmp_path / f"model.{ending}", image(), exit=asked)
    assert model.cyclic.exit == 3
    assert (done.format, done.exit, done.dynamic_batch) == (ending, exit, True)
    assert read_words(done.path)["exit"] == str(exit)
    assert done.max_difference < 1e-5
    x = image(5)
    if ending == "pt2":
        got = torch.export.load(done.path).module()(x)
    else:
        runtime = pytest.importorskip("onnxruntime")
        session = runtime.InferenceSession(done.path, providers=["CPUExecutionProvider"])
        got = torch.from_numpy(session.run(None, {session.get_inputs()[0].name: x.numpy()})[0])
    with torch.no_grad():
        torch.testing.assert_close(got, truth(exit, x), rtol=1e-4, atol=1e-5)
    assert os.listdir(tmp_path) == [done.path.name]


def test_weights_say_the_exit_of_the_model(tmp_path: Path) -> None:
    path, model = tmp_path / "model.safetensors", wrapped()
    for exit in (1, 2):
        model.cyclic.exit = exit
        assert (export(model, path).exit, read_words(path)["exit"]) == (exit, str(exit))
        assert words_of(model)["exit"] == str(exit)
    assert (export(model, path, exit=1).exit, read_words(path)["exit"]) == (1, "1")
    assert words_of(toys.make())["exit"] == "1"


def test_exits_that_differ_inside_a_model_are_asked_for(tmp_path: Path) -> None:
    both = nn.ModuleList([wrapped(), wrapped()]).eval()
    both[1].cyclic.exit = 2
    with pytest.raises(ValueError, match="answer at exits 1, 2: give exit="):
        export(both, tmp_path / "model.safetensors")
    assert export(both, tmp_path / "model.safetensors", exit=2).exit == 2


def test_weights_are_those_of_the_plain_model(tmp_path: Path) -> None:
    from safetensors.torch import load_file

    model, plain = wrapped(), toys.make().float()
    done = export(model, tmp_path / "model.safetensors", image())
    plain.load_state_dict(load_file(done.path), strict=True)
    assert done.max_difference == 0


@pytest.mark.slow
def test_postprocessing_is_in_the_file(tmp_path: Path) -> None:
    model = wrapped()
    done = export(model, tmp_path / "model.pt2", image(), postprocess=lambda out: out.softmax(-1))
    got = torch.export.load(done.path).module()(image(3))
    torch.testing.assert_close(got.sum(-1), torch.ones(3))


@pytest.mark.slow
def test_a_declared_size_needs_no_inputs(tmp_path: Path) -> None:
    timm = pytest.importorskip("timm")
    done = export(timm.create_model("test_vit", img_size=32).eval(), tmp_path / "model.pt2")
    assert done.inputs == "1 x 3 x 32 x 32"


def test_modes_and_arguments_that_cannot_be(tmp_path: Path) -> None:
    path = tmp_path / "model.pt2"
    model = wrapped().train()
    with pytest.raises(ExportError, match=r"training mode, in which it runs 2 cycles.*eval\(\)"):
        export(model, path, image())
    model.eval().blocks[1].train()
    with pytest.raises(ExportError, match=r"'blocks\.1' is in training mode"):
        export(model, path, image())
    model.eval()
    for keywords, message in (
        ({"format": "tflite"}, "'onnx', 'pt2', 'safetensors'"),
        ({"exit": 0}, "exit=0"),
        ({"inputs": "image"}, "a tensor, a tuple"),
        ({"inputs": None}, "declares no size that runs"),
    ):
        with pytest.raises(ValueError, match=message):
            export(model, path, **{"inputs": image(), **keywords})
    with pytest.raises(ValueError, match="not wrapped"):
        export(toys.make().eval(), path, image(), exit=2)
    with pytest.raises(ValueError, match="no folder"):
        export(model, tmp_path / "no" / "model.pt2", image())
    assert os.listdir(tmp_path) == []


def test_an_operation_that_cannot_be_exported_is_named(tmp_path: Path) -> None:
    pytest.importorskip("onnxscript")

    class Eigen(nn.Module):
        def forward(self, x: Tensor) -> Tensor:
            return torch.linalg.eigvals(x).real

    with pytest.raises(ExportError, match=r"aten\.linalg_eig"):
        export(Eigen().eval(), tmp_path / "model.onnx", torch.randn(2, 3, 3))
    assert os.listdir(tmp_path) == []


@pytest.mark.parametrize("ending", ["onnx", "pt2"])
def test_a_line_that_reads_values_is_named(ending: str, tmp_path: Path) -> None:
    pytest.importorskip("onnxscript")

    class Branch(nn.Module):
        def forward(self, x: Tensor) -> Tensor:
            return x + 1 if x.sum() > 0 else x

    with pytest.raises(ExportError, match=r"Branch .* read by `return x \+ 1 if x.sum\(\) > 0 else x` \(test_exp"):
        export(Branch().eval(), tmp_path / f"model.{ending}", torch.randn(2, 3))
    assert os.listdir(tmp_path) == []


class Named(nn.Module):
    def forward(self, image: Tensor, mask: Tensor | None = None) -> dict[str, Any]:
        return {"logits": image + 1, "parts": (image * 2, image * 3)}


@pytest.mark.slow
@pytest.mark.parametrize(
    ("postprocess", "names"),
    [
        (None, ["logits", "parts_0", "parts_1"]),
        (lambda out: out["parts"], ["output_0", "output_1"]),
        (lambda out: out["logits"], ["output"]),
    ],
)
def test_inputs_and_outputs_of_an_onnx_file_have_the_model_s_names(
    postprocess: Any, names: list[str], tmp_path: Path
) -> None:
    runtime = pytest.importorskip("onnxruntime")
    done = export(Named().eval(), tmp_path / "model.onnx", torch.randn(2, 3), postprocess=postprocess)
    session = runtime.InferenceSession(done.path, providers=["CPUExecutionProvider"])
    assert [(entry.name, entry.shape) for entry in session.get_inputs()] == [("image", ["batch", 3])]
    assert [(entry.name, entry.shape) for entry in session.get_outputs()] == [(name, ["batch", 3]) for name in names]


def test_names_that_would_clash_are_left_to_the_exporter(tmp_path: Path) -> None:
    runtime = pytest.importorskip("onnxruntime")

    class Clash(nn.Module):
        def forward(self, x: Tensor) -> dict[str, Tensor]:
            return {"x": x + 1}

    done = export(Clash().eval(), tmp_path / "model.onnx", torch.randn(2, 3))
    session = runtime.InferenceSession(done.path, providers=["CPUExecutionProvider"])
    assert [entry.name for entry in session.get_outputs()] != ["x"]


def test_a_model_of_one_batch_size(tmp_path: Path) -> None:
    class Pairs(nn.Module):
        def forward(self, x: Tensor) -> Tensor:
            return x.view(2, -1)

    with pytest.raises(ExportError, match=r"constant \(2\)\. At a fixed batch size it can.*dynamic_batch=False"):
        export(Pairs().eval(), tmp_path / "model.pt2", torch.randn(2, 3, 4))
    assert not export(Pairs().eval(), tmp_path / "model.pt2", torch.randn(2, 3, 4), dynamic_batch=False).dynamic_batch


def test_a_file_that_differs_is_not_written(tmp_path: Path, monkeypatch: Any) -> None:
    from cycledistill.exporter import formats as export_formats

    load = torch.export.load

    class Off:
        def __init__(self, path: Path) -> None:
            self.program = load(path)

        def module(self) -> Any:
            return lambda x: self.program.module()(x) + 0.1

    monkeypatch.setattr(export_formats.torch.export, "load", Off)
    with pytest.raises(ExportError, match="differs from the model's by 0.1"):
        export(wrapped(), tmp_path / "model.pt2", image())
    assert os.listdir(tmp_path) == []
