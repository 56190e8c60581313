"""A file with decoding inside gives the joints that decoding in Python gives."""

from __future__ import annotations

import json
from contextlib import nullcontext
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn

pytest.importorskip("onnxruntime")
pytest.importorskip("onnxscript")
pytest.importorskip("pycocotools")

from cycledistill import at_exit
from cycledistill.exporter.export import ExportError, export
from cycledistill.integrations.coco import create_pose_model
from cycledistill.integrations.coco.data.dataset import MEAN, STD
from cycledistill.integrations.coco.data.joints import COCO, JointSet
from cycledistill.integrations.coco.decoded import DecodedPose
from cycledistill.integrations.coco.deploy import prepare_for_inference
from cycledistill.integrations.coco.evaluation.coordinates import decode_coordinates
from cycledistill.integrations.coco.evaluation.decode import decode_heatmaps, to_image
from cycledistill.recipes.weights.files import read_metadata
from tests.coco.test_deploy import trained_looking

pytestmark = [
    pytest.mark.filterwarnings("ignore::DeprecationWarning"),
    pytest.mark.filterwarnings("ignore::FutureWarning"),
    pytest.mark.filterwarnings("ignore::UserWarning"),
]
GOLDEN = Path(__file__).parents[1] / "golden"
METHODS = ("dark", "quarter", "none")


class Given(nn.Module):
    """A pose model whose heatmaps are its input: leaves nothing but decoding."""

    def __init__(self, size: tuple[int, int]) -> None:
        super().__init__()
        self.config = SimpleNamespace(image_size=size)

    def forward(self, images: Tensor) -> Tensor:
        return images


def decoding(size: tuple[int, int], method: Any) -> DecodedPose:
    return DecodedPose(Given(size).eval(), method)  # type: ignore[arg-type]


def run(path: Path, images: Tensor) -> dict[str, Tensor]:
    """What a file says, ONNX by ONNX Runtime."""
    if path.suffix == ".pt2":
        return torch.export.load(path).module()(images)
    import onnxruntime

    session = onnxruntime.InferenceSession(path, providers=["CPUExecutionProvider"])
    names = [output.name for output in session.get_outputs()]
    return dict(zip(names, map(torch.from_numpy, session.run(names, {"images": images.numpy()})), strict=True))


@pytest.mark.slow
@pytest.mark.parametrize(("method", "name"), [("dark", "preds_noflip"), ("quarter", "preds_default")])
def test_the_file_decodes_as_the_golden(method: str, name: str, fill: Any, tmp_path: Path) -> None:
    with np.load(GOLDEN / "decode.npz") as file:
        golden = {key: torch.from_numpy(file[key]) for key in file.files}
    maps = torch.from_numpy(fill.synth_heatmaps("A"))
    found = run(export(decoding((64, 48), method), tmp_path / "maps.onnx", maps[:1]).path, maps)
    placed = to_image(found["keypoints"], golden["centers"], golden["scales"], (64, 48))
    assert float((placed - golden[name]).abs().max()) <= 5e-6 * float(golden[name].abs().max())
    assert torch.equal(found["scores"], golden["maxvals_noflip"][..., 0])


@pytest.mark.slow
@pytest.mark.parametrize(("method", "ending"), [*((method, "onnx") for method in METHODS), ("dark", "pt2")])
def test_maps_with_zeros_borders_and_nothing_at_all(method: Any, ending: str, tmp_path: Path) -> None:
    generator = torch.Generator().manual_seed(5)
    maps = torch.relu(torch.randn(6, 4, 32, 24, generator=generator) - 2.5)  # meets the floor of DARK's logarithm
    maps[0, 0] = 0
    maps[1, :, 0, 0] = maps[2, :, 31, 23] = 9.0
    done = export(decoding((128, 96), method), tmp_path / f"maps.{ending}", maps[:2])
    found = run(done.path, maps)
    positions, scores = decode_heatmaps(maps, method)
    torch.testing.assert_close(found["keypoints"], positions * 4, rtol=0, atol=2e-3)
    torch.testing.assert_close(found["scores"], scores, rtol=0, atol=0)
    assert scores[0, 0] == 0 and positions.unique().numel() > 15
    if ending == "onnx":
        assert_no_numbers_of_64_bits(done.path)


def assert_no_numbers_of_64_bits(path: Path) -> None:
    """TensorRT refuses them."""
    import onnx

    graph = onnx.load(path).graph
    types = {info.type.tensor_type.elem_type for info in (*graph.value_info, *graph.input, *graph.output)}
    types |= {constant.data_type for constant in graph.initializer}
    types |= {each.i for node in graph.node if node.op_type == "Cast" for each in node.attribute if each.name == "to"}
    assert onnx.TensorProto.DOUBLE not in types and onnx.TensorProto.FLOAT in types


def test_single_precision_moves_joints_by_less_than_a_ten_thousandth_of_a_pixel(
    fill: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    maps = torch.from_numpy(fill.synth_heatmaps("A"))
    exact, _ = decode_heatmaps(maps)
    monkeypatch.setattr(torch.compiler, "is_exporting", lambda: True)
    moved = float((decode_heatmaps(maps)[0] - exact).abs().max())
    assert 0 < moved < 5e-5


@pytest.mark.slow
@pytest.mark.parametrize("ending", ["onnx", "pt2", "safetensors"])
def test_a_file_says_joints_and_images_and_how_it_was_made(ending: str, tmp_path: Path) -> None:
    sizes = {"image_size": (32, 32), "backbone": "none", "patch_size": (16, 16), "dim": 16, "depth": 1, "heads": 2}
    model = create_pose_model("sdpose_s_v1", **sizes).eval()
    model.joints = COCO.to_dict() | {"name": "mine"}
    exported = DecodedPose(model, "none") if ending != "safetensors" else model
    path = export(exported, tmp_path / f"pose.{ending}", exit=2, metadata={"who": "me"}).path
    if ending == "onnx":
        import onnx

        words = {each.key: each.value for each in onnx.load(path).metadata_props}
    elif ending == "pt2":
        extra = {"metadata.json": ""}
        torch.export.load(path, extra_files=extra)
        words = json.loads(extra["metadata.json"])
    else:
        words = read_metadata(path)
    assert JointSet.from_dict(json.loads(words["joints"])).name == "mine"
    assert (json.loads(words["mean"]), json.loads(words["std"])) == ([*MEAN], [*STD])
    assert json.loads(words["input_size"]) == [32, 32] and (words["exit"], words["who"]) == ("2", "me")
    assert {"cycledistill", "torch"} <= json.loads(words["versions"]).keys() and json.loads(words["cycles"]) == 2


def test_joints_are_told_by_their_number_where_a_model_carries_none() -> None:
    decoded = DecodedPose(create_pose_model("tokenpose_t", num_keypoints=14, dim=16, depth=1, heads=2))
    assert json.loads(decoded.export_metadata()["joints"])["name"] == "crowdpose"
    assert "joints" not in DecodedPose(create_pose_model("tokenpose_t", 5, dim=16, depth=1, heads=2)).export_metadata()


def steady_images(model: nn.Module, method: Any, count: int) -> Tensor:
    """Images on which rounding decides about no joint's place, as it would on a plateau of its map.

    The maps of untrained models have plateaus, and there two right programs need not agree. So the place of every joint
    stays where it is, to a hundredth of a pixel, when noise of 3e-6 of the largest value is added to its map: twice
    what single precision leaves open (1.6e-6 against double).
    """
    generator, found = torch.Generator().manual_seed(1), []
    for _ in range(rounds := 60):
        images = torch.randn(batch := 16, 3, 64, 48, generator=generator)
        maps = model(images)
        if maps.ndim != 4:  # coordinates
            return images[:count]
        noise = [3e-6 * maps.abs().max() * torch.randn(maps.shape, generator=generator) for _ in range(3)]
        places = decode_heatmaps(maps, method)[0]
        moved = torch.stack([(decode_heatmaps(maps + each, method)[0] - places).abs() for each in noise])
        found += [image for image, by in zip(images, moved.amax((0, 2, 3)), strict=True) if by < 0.01]
        if len(found) >= count:
            return torch.stack(found[:count])
    raise AssertionError(f"{len(found)} of {rounds * batch} images are steady")


@pytest.mark.slow
@pytest.mark.parametrize(
    ("name", "method", "exit", "ending"),
    [
        ("sdpose_s_v1", "quarter", 2, "onnx"),
        ("sdpose_t", "dark", 3, "pt2"),
        ("sdpose_s_v1_ppt", "dark", 2, "onnx"),
        ("sdpose_reg", "dark", 2, "onnx"),
        ("distilpose_s", "dark", 1, "pt2"),
    ],
)
def test_models_with_decoding_inside(name: str, method: Any, exit: int, ending: str, tmp_path: Path) -> None:
    pruned = {"prune_layers": (1,)} if "ppt" in name else {}
    model = trained_looking(name, depth=2 if pruned else 1, **pruned).eval()
    with at_exit(model, exit) if exit > 1 else nullcontext():
        example = steady_images(model, method, 2)  # others are decoded otherwise for a rounding's sake
    done = export(DecodedPose(model, method), tmp_path / f"pose.{ending}", example, exit=exit)
    assert (done.exit, done.dynamic_batch) == (exit, True)
    if exit > 1:
        model.cyclic.exit = exit
    with torch.no_grad():
        images = steady_images(model, method, 5)
        predicted = model(images)
    found = run(done.path, images)
    if predicted.ndim == 4:
        positions, scores = decode_heatmaps(predicted, method)
        positions = positions * 4
    else:
        positions, scores = decode_coordinates(predicted)
        positions = positions * torch.tensor([48.0, 64.0])
    torch.testing.assert_close(found["keypoints"], positions, rtol=1e-4, atol=0.01)  # pixels
    torch.testing.assert_close(found["scores"], scores, rtol=1e-4, atol=1e-5)
    assert float(positions.std()) > 1


@pytest.mark.slow
def test_a_prepared_model_and_a_size_of_its_own(tmp_path: Path) -> None:
    model = trained_looking("sdpose_s_v1", depth=1)
    done = export(DecodedPose(prepare_for_inference(model)), tmp_path / "pose.onnx")
    assert done.inputs == "1 x 3 x 64 x 48"
    images = torch.randn(3, 3, 64, 48)
    with torch.no_grad():
        torch.testing.assert_close(run(done.path, images), DecodedPose(model.eval())(images), rtol=1e-3, atol=0.02)


@pytest.mark.parametrize("method", METHODS)
@pytest.mark.usefixtures("cuda_in_use")
def test_decoding_compiles_into_one_graph(method: Any) -> None:
    maps = torch.relu(torch.randn(3, 4, 32, 24) - 2.5)
    compiled = torch.compile(decode_heatmaps, backend="aot_eager", fullgraph=True)
    torch.testing.assert_close(compiled(maps, method), decode_heatmaps(maps, method), rtol=0, atol=1e-3)


def test_what_cannot_be(tmp_path: Path) -> None:
    model = create_pose_model("sdpose_s_v1", image_size=(64, 48), dim=24, depth=2, heads=2)
    with pytest.raises(ValueError, match="'best'"):
        DecodedPose(model, "best")  # type: ignore[arg-type]
    with pytest.raises(ValueError, match=r"training mode.*eval\(\)"):
        DecodedPose(model)(torch.zeros(2, 3, 64, 48))
    with pytest.raises(ExportError, match=r"training mode.*eval\(\)"):
        export(DecodedPose(model), tmp_path / "pose.onnx", torch.zeros(1, 3, 64, 48))
    with pytest.raises(ValueError, match=r"\(B, 3, 64, 48\) is expected"):
        DecodedPose(model.eval())(torch.zeros(1, 3, 48, 64))
