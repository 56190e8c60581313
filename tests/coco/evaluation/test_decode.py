"""Heatmap targets and decoding, against the goldens and against a plain per-joint OpenCV version."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from cycledistill.integrations.coco.data.joints import COCO, CROWDPOSE
from cycledistill.integrations.coco.evaluation.decode import decode_heatmaps, flip_back, to_image
from cycledistill.integrations.coco.losses.targets import heatmap_targets

GOLDEN = Path(__file__).parents[2] / "golden"


@pytest.fixture
def decoded() -> dict[str, torch.Tensor]:
    with np.load(GOLDEN / "decode.npz") as file:
        return {name: torch.from_numpy(file[name]) for name in file.files}


def image_positions(maps: torch.Tensor, golden: dict[str, torch.Tensor], method: Any = "dark") -> torch.Tensor:
    positions, _ = decode_heatmaps(maps, method)
    return to_image(positions, golden["centers"], golden["scales"], (64, 48))


def close(got: torch.Tensor, want: torch.Tensor, tolerance: float = 5e-6) -> None:
    assert float((got - want).abs().max()) <= tolerance * float(want.abs().max())


def test_plain_decoding_equals_the_golden(decoded: dict[str, torch.Tensor], fill: Any) -> None:
    maps = torch.from_numpy(fill.synth_heatmaps("A"))
    close(image_positions(maps, decoded), decoded["preds_noflip"])
    close(image_positions(maps, decoded, "quarter"), decoded["preds_default"])
    assert torch.equal(decode_heatmaps(maps)[1], decoded["maxvals_noflip"][..., 0])


@pytest.mark.parametrize("shift", [False, True])
def test_flip_averaged_decoding_equals_the_golden(decoded: dict[str, torch.Tensor], fill: Any, shift: bool) -> None:
    mirrored = torch.from_numpy(fill.flipped_heatmaps("B"))
    maps = (torch.from_numpy(fill.synth_heatmaps("A")) + flip_back(mirrored, COCO.flip_order, shift)) / 2
    close(image_positions(maps, decoded), decoded["preds_flip_shift" if shift else "preds_flip_noshift"])


def opencv_dark(heatmap: np.ndarray, kernel: int) -> np.ndarray:
    """The method as the paper writes it, one joint at a time, smoothing the whole map."""
    cv2 = pytest.importorskip("cv2")
    height, width = heatmap.shape
    y, x = np.unravel_index(heatmap.argmax(), heatmap.shape)
    border = (kernel - 1) // 2
    padded = cv2.GaussianBlur(np.pad(heatmap, border), (kernel, kernel), 0)
    smooth = padded[border:-border, border:-border] * (heatmap.max() / padded[border:-border, border:-border].max())
    log = np.log(np.maximum(smooth, 1e-10)).astype(np.float64)
    place = np.array([x, y], dtype=np.float64)
    if 1 < x < width - 2 and 1 < y < height - 2:
        gradient = np.array([log[y, x + 1] - log[y, x - 1], log[y + 1, x] - log[y - 1, x]]) / 2
        mixed = log[y + 1, x + 1] - log[y - 1, x + 1] - log[y + 1, x - 1] + log[y - 1, x - 1]
        along = [log[y, x + 2] - 2 * log[y, x] + log[y, x - 2], log[y + 2, x] - 2 * log[y, x] + log[y - 2, x]]
        hessian = np.array([[along[0], mixed], [mixed, along[1]]]) / 4
        if np.linalg.det(hessian) != 0:
            place -= np.linalg.solve(hessian, gradient)
    return place


def test_smoothing_only_around_the_maximum_equals_smoothing_the_map() -> None:
    generator = torch.Generator().manual_seed(5)
    # Sparse maps have zeros near the maximum, where the floor of the logarithm and the rescaling matter.
    maps = torch.relu(torch.randn(40, 1, 32, 24, generator=generator) - 2.5)
    got, _ = decode_heatmaps(maps, kernel=11)
    for heatmap, place in zip(maps[:, 0].numpy(), got[:, 0].numpy(), strict=True):
        if heatmap.max() > 0:
            np.testing.assert_allclose(place, opencv_dark(heatmap, 11), atol=2e-3)


def test_an_empty_map_has_no_position() -> None:
    positions, scores = decode_heatmaps(torch.zeros(1, 2, 8, 6))
    assert torch.equal(positions, torch.full((1, 2, 2), -1.0))
    assert torch.equal(scores, torch.zeros(1, 2))


def test_targets_equal_the_golden() -> None:
    with np.load(GOLDEN / "target.npz") as file:
        golden = {name: torch.from_numpy(file[name]) for name in file.files}
    visible = golden["target_weight"][..., 0]
    maps, weights = heatmap_targets(golden["joints"], visible, (256, 192), (64, 48))
    assert torch.equal(weights, visible)
    close(maps[:, :, ::2, ::2], golden["target_slice"])
    close(maps.sum((2, 3)), golden["target_sum"], 1e-5)


@pytest.mark.parametrize(("joint", "weight"), [((-25.0, 100.0), 1.0), ((-30.0, 100.0), 0.0), ((216.0, 9.0), 0.0)])
def test_a_joint_whose_gaussian_is_off_the_map_has_no_weight(joint: tuple[float, float], weight: float) -> None:
    maps, weights = heatmap_targets(torch.tensor([[joint]]), torch.ones(1, 1), (256, 192), (64, 48))
    assert float(weights) == weight
    assert (float(maps.abs().sum()) > 0) == bool(weight)


def test_decoding_a_target_gives_its_joint_back() -> None:
    generator = torch.Generator().manual_seed(1)
    joints = torch.rand(8, 17, 2, generator=generator) * torch.tensor([140.0, 200.0]) + 26
    maps, _ = heatmap_targets(joints, torch.ones(8, 17), (256, 192), (64, 48))
    positions, scores = decode_heatmaps(maps)
    assert float((positions * 4 - joints).abs().max()) < 2e-2
    assert float(scores.min()) > 0.9


@pytest.mark.parametrize("joints", [COCO, CROWDPOSE])
def test_flipping_twice_changes_nothing(joints: Any) -> None:
    maps = torch.randn(2, len(joints), 8, 6)
    assert torch.equal(flip_back(flip_back(maps, joints.flip_order, False), joints.flip_order, False), maps)


@pytest.mark.parametrize(
    ("call", "says"),
    [
        (lambda: decode_heatmaps(torch.zeros(17, 8, 6)), r"\(B, K, H, W\) is expected"),
        (lambda: decode_heatmaps(torch.zeros(1, 1, 8, 6), "best"), "'best'"),  # type: ignore[arg-type]
        (lambda: decode_heatmaps(torch.zeros(1, 1, 8, 6), kernel=4), "odd"),
    ],
)
def test_bad_input_is_named(call: Any, says: str) -> None:
    with pytest.raises(ValueError, match=says):
        call()
