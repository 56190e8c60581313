"""Views cut from pictures, and their joints put back, against OpenCV and the crops of COCO's models."""

from __future__ import annotations

import cv2
import numpy as np
import pytest
import torch

from cycledistill.integrations.coco.data.annotations import box_to_crop
from cycledistill.integrations.coco.data.augment import crop_matrix
from cycledistill.integrations.coco.evaluation.decode import to_image
from cycledistill.integrations.human36m.errors import LiftingDataError
from cycledistill.integrations.human36m.multiview.crops import cut_view, heatmap_to_picture, normalize_view, view_matrix

BOX = (120.0, 40.0, 180.0, 300.0)


@pytest.mark.parametrize("size", [(256, 256), (256, 192)])
def test_a_view_is_the_crop_that_single_view_models_take(size: tuple[int, int]) -> None:
    center, scale = box_to_crop(BOX, size)
    matrix = view_matrix(BOX, size)
    assert np.abs(matrix - crop_matrix(center, scale, 0.0, size)).max() < 1e-4
    positions, maps = torch.rand(1, 17, 2) * 40, (size[0] // 4, size[1] // 4)
    expected = to_image(positions, torch.from_numpy(center)[None], torch.from_numpy(scale)[None], maps)
    assert np.abs(heatmap_to_picture(positions, matrix) - expected.numpy()).max() < 1e-3


def test_a_cut_view_is_that_of_warp_affine() -> None:
    blocks = np.random.default_rng(0).integers(0, 256, (12, 16, 3), dtype=np.uint8)
    picture = cv2.resize(blocks, (400, 300), interpolation=cv2.INTER_CUBIC)
    matrix = view_matrix(BOX)  # reaches over the lower border
    expected = cv2.warpAffine(picture, matrix, (256, 256), flags=cv2.INTER_LINEAR)
    assert torch.equal(cut_view(picture[..., ::-1], matrix), cut_view(picture[..., ::-1].copy(), matrix))  # OpenCV's
    off = cut_view(picture, matrix) - normalize_view(torch.from_numpy(expected).permute(2, 0, 1))
    assert off.abs().mean() < 0.004  # OpenCV's weights have five bits
    assert off.abs().max() < 0.5  # at the black border


def test_views_are_normalised_as_imagenet_is() -> None:
    assert normalize_view(torch.full((2, 3, 1, 1), 255.0))[1, :, 0, 0].tolist() == pytest.approx(
        [2.2489, 2.4286, 2.64], abs=1e-4
    )


@pytest.mark.parametrize(
    ("call", "said"),
    [
        (lambda: view_matrix((0, 0, 0, 5)), "above 0 are expected"),
        (lambda: view_matrix((0, 0, 5)), "box: shape"),  # type: ignore[arg-type]
        (lambda: cut_view(np.zeros((5, 5, 3)), view_matrix(BOX)), r"float64 \(5, 5, 3\): an array of uint8"),  # type: ignore[arg-type]
        (lambda: heatmap_to_picture(torch.zeros(1, 2), np.zeros((2, 3))), "cannot be undone"),
    ],
    ids=["empty box", "three numbers", "picture of floats", "matrix"],
)
def test_what_is_refused(call: object, said: str) -> None:
    with pytest.raises(LiftingDataError, match=said):
        call()  # type: ignore[operator]
