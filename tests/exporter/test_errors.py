"""What export refuses is told apart: bad arguments, inputs the model does not take, and what no file can hold."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from cycledistill.exporter.export import ExportError, export
from tests import toys

pytestmark = [
    pytest.mark.filterwarnings("ignore::DeprecationWarning"),
    pytest.mark.filterwarnings("ignore::FutureWarning"),
    pytest.mark.filterwarnings("ignore::UserWarning"),
]


class Image(nn.Module):
    """Takes pictures of three channels and an even side."""

    def __init__(self) -> None:
        super().__init__()
        self.stem = nn.Conv2d(3, 4, 2, 2)

    def forward(self, image: Tensor) -> dict[str, Any]:
        if image.shape[-1] % 2:
            raise AssertionError("an even side is needed")
        return {"map": self.stem(image), "stride": 2}


def picture(*shape: int) -> Tensor:
    return torch.randn(*shape or (1, 3, 8, 8), generator=torch.Generator().manual_seed(0))


def the_map(out: dict[str, Any]) -> Tensor:
    return out["map"]


@pytest.mark.parametrize("ending", ["onnx", "pt2"])
@pytest.mark.parametrize(
    ("inputs", "message"),
    [
        (picture(1, 3, 9, 9), r"forward takes \(image\), does not run on 1 x 3 x 9 x 9: an even side is needed"),
        (picture(1, 1, 8, 8), r"does not run on 1 x 1 x 8 x 8: .*expected input\[1, 1, 8, 8\] to have 3 channels"),
        ({"picture": picture()}, r"does not run on picture 1 x 3 x 8 x 8: .*unexpected keyword argument 'picture'"),
        ([picture()], "does not run on list: .*A list is one argument; give several as a tuple"),
        (picture()[:0], "inputs of 0 x 3 x 8 x 8: a batch of at least 1"),
    ],
)
def test_inputs_that_the_model_does_not_take(ending: str, inputs: Any, message: str, tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=message) as caught:
        export(Image().eval(), tmp_path / f"model.{ending}", inputs, postprocess=the_map)
    assert "dynamic_batch" not in str(caught.value)
    assert os.listdir(tmp_path) == []


def test_postprocessing_that_cannot_be(tmp_path: Path) -> None:
    model, path = Image().eval(), tmp_path / "model.pt2"
    wrong: Any = 3
    with pytest.raises(TypeError, match="postprocess=3: a callable"):
        export(model, path, picture(), postprocess=wrong)
    with pytest.raises(ValueError, match=r"postprocess fails on what Image returns \(dict\): 'heat' \(KeyError\)"):
        export(model, path, picture(), postprocess=lambda out: out["heat"])
    with pytest.raises(ValueError, match="no place in a file of weights"):
        export(model, tmp_path / "model.safetensors", postprocess=the_map)


def test_outputs_that_a_file_cannot_hold(tmp_path: Path) -> None:
    class Silent(nn.Module):
        def forward(self, x: Tensor) -> None:
            return None

    for ending in ("onnx", "pt2"):
        with pytest.raises(ExportError, match=r"returns no tensor \(NoneType\)"):
            export(Silent().eval(), tmp_path / f"model.{ending}", picture())
    with pytest.raises(ExportError, match=r"output\['stride'\] is of type int; onnx files give tensors.*postprocess="):
        export(Image().eval(), tmp_path / "model.onnx", picture())
    assert export(Image().eval(), tmp_path / "model.pt2", picture()).max_difference == 0
    assert os.listdir(tmp_path) == ["model.pt2"]


def test_arguments_that_contradict_themselves(tmp_path: Path) -> None:
    model: Any = Image().eval()
    wrong: Any = "vit"
    with pytest.raises(TypeError, match="model='vit': a torch.nn.Module is expected"):
        export(wrong, tmp_path / "model.pt2")
    with pytest.raises(ValueError, match=r"is a folder: give the path of a file, such as .*model\.pt2"):
        export(model, tmp_path, picture(), format="pt2")
    with pytest.raises(ValueError, match=r"format='safetensors', but '.*b\.onnx' has the ending of 'onnx'"):
        export(model, tmp_path / "b.onnx", format="safetensors")
    for tolerance in (-1.0, float("nan"), float("inf")):
        with pytest.raises(ValueError, match=f"tolerance={tolerance}: a finite number of at least 0"):
            export(model, tmp_path / "model.pt2", picture(), tolerance=tolerance)
    with pytest.raises(ValueError, match="exit=2: this Image is not wrapped, and has exit 1 only$"):
        export(model, tmp_path / "model.pt2", picture(), exit=2)
    assert os.listdir(tmp_path) == []


def test_weights_need_no_inputs(tmp_path: Path) -> None:
    done = export(toys.make().eval(), tmp_path / "model.safetensors")
    assert (done.inputs, done.dynamic_batch) == ("", False)


def test_weights_that_are_nan_are_written_as_they_are(tmp_path: Path) -> None:
    model = nn.Linear(2, 2).eval()
    nn.init.constant_(model.weight, float("nan"))
    export(model, tmp_path / "model.safetensors")
    assert os.listdir(tmp_path) == ["model.safetensors"]


def test_a_batch_size_that_the_model_itself_refuses(tmp_path: Path) -> None:
    class Pair(nn.Module):
        def forward(self, x: Tensor) -> Tensor:
            return x.view(2, -1) + 1

    with pytest.raises(ExportError, match=r"Pair runs on 2 x 3, but not at another .* on 3 x 3.*dynamic_batch=False"):
        export(Pair().eval(), tmp_path / "model.pt2", picture(2, 3))
    assert export(Pair().eval(), tmp_path / "model.pt2", picture(2, 3), dynamic_batch=False).max_difference == 0


class Foreign(nn.Module):
    def forward(self, x: Tensor) -> Tensor:
        return torch.from_numpy(x.numpy() * 2)


class Branch(nn.Module):
    def forward(self, x: Tensor) -> Tensor:
        return x + 1 if x.sum() > 0 else x


@pytest.mark.parametrize("model", [Foreign(), Branch()], ids=lambda model: type(model).__name__)
def test_a_fixed_batch_size_is_advised_where_it_helps_alone(
    model: nn.Module, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(ExportError, match=r"`return .*` \(test_errors\.py, line \d+\)") as caught:
        export(model.eval(), tmp_path / "model.pt2", picture(2, 3))
    assert "dynamic_batch" not in str(caught.value)
    assert capfd.readouterr().err == ""


@pytest.mark.slow
def test_onnx_errors_are_plain_sentences(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    pytest.importorskip("onnxruntime")

    class Eigen(nn.Module):
        def forward(self, x: Tensor) -> Tensor:
            return torch.linalg.eigvals(x).real

    model = nn.Sequential(nn.Conv2d(3, 4, 2)).eval().bfloat16()
    for each, inputs, message in (
        (Eigen(), picture(2, 3, 3), r"the operation aten\.linalg_eig cannot be exported to ONNX: "),
        (model, picture().bfloat16(), r"The model is in torch\.bfloat16: cast it to float32 first, model\.float\(\)"),
    ):
        with pytest.raises(ExportError, match=message) as caught:
            export(each.eval(), tmp_path / "model.onnx", inputs)
        said = str(caught.value)
        assert "\x1b" not in said and "dynamic_batch" not in said and ".export-" not in said
    assert capfd.readouterr().err == ""
    assert os.listdir(tmp_path) == []


def test_the_size_that_a_nested_backbone_declares(tmp_path: Path) -> None:
    transformers = pytest.importorskip("transformers")
    backbone = transformers.VitPoseBackboneConfig(
        hidden_size=16, num_hidden_layers=1, num_attention_heads=2, image_size=[64, 48]
    )
    config = transformers.VitPoseConfig(backbone_config=backbone, num_labels=5)
    model = transformers.VitPoseForPoseEstimation(config).eval()
    assert export(model, tmp_path / "model.pt2").inputs == "pixel_values 1 x 3 x 64 x 48"
