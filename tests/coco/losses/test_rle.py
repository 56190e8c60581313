"""Residual log-likelihood estimation and the regression heads around it, against densities and sums by hand."""

from __future__ import annotations

import math

import pytest
import torch
from torch import nn
from torch.nn import functional as F

from cycledistill import CycleLoss
from cycledistill.integrations.coco import RLELoss, create_pose_model
from cycledistill.integrations.coco.data.joints import COCO
from cycledistill.integrations.coco.evaluation.coordinates import decode_coordinates, flip_back_coordinates
from cycledistill.integrations.coco.losses.rle import RealNVP

KEYS = [
    f"{net}.{i}.{layer}.{part}" for net in "st" for i in range(6) for layer in (0, 2, 4) for part in ("weight", "bias")
]


@pytest.fixture
def flow() -> RealNVP:
    """A flow far from the identity."""
    model = RealNVP().double()
    for parameter in model.parameters():
        nn.init.normal_(parameter, std=0.2)
    return model


def test_names_and_sizes_are_those_of_the_published_checkpoints() -> None:
    model = RealNVP()
    assert set(model.state_dict()) == {*KEYS, "loc", "cov", "mask"}
    assert sum(each.numel() for each in model.parameters()) == 53_784
    assert model.mask.tolist() == [[0, 1], [1, 0]] * 3
    assert all(each.abs().max() < 0.01 for name, each in model.named_parameters() if name.endswith("weight"))


def test_the_flow_is_a_density(flow: RealNVP) -> None:
    axis = torch.linspace(-12, 12, 241, dtype=torch.float64)
    points = torch.cartesian_prod(axis, axis)
    with torch.no_grad():
        mass = flow(points).exp().sum() * (axis[1] - axis[0]) ** 2
    assert mass.item() == pytest.approx(1.0, abs=1e-3)


def test_log_density_against_the_jacobian_of_the_map(flow: RealNVP) -> None:
    def to_prior(x: torch.Tensor) -> torch.Tensor:
        z = x
        for index in range(5, -1, -1):
            kept = flow.mask[index]
            held = kept * z
            scale, shift = flow.s[index](held) * (1 - kept), flow.t[index](held) * (1 - kept)
            z = held + (1 - kept) * (z - shift) * torch.exp(-scale)
        return z

    point = torch.tensor([0.7, -1.3], dtype=torch.float64)
    jacobian = torch.autograd.functional.jacobian(to_prior, point)
    z = to_prior(point)
    want = -0.5 * (z @ z) - math.log(2 * math.pi) + torch.linalg.slogdet(jacobian).logabsdet
    assert flow(point[None]).item() == pytest.approx(want.item(), abs=1e-10)


def test_the_loss_term_by_term() -> None:
    loss = RLELoss()
    for parameter in loss.parameters():
        nn.init.normal_(parameter, std=0.2)
    predicted, target = torch.randn(2, 3, 4), torch.rand(2, 3, 2)
    weight = torch.tensor([[1.0, 0.0, 1.0], [1.0, 1.0, 0.5]])
    want = 0.0
    for b in range(2):
        for k in range(3):
            sigma = predicted[b, k, 2:].sigmoid()
            error = (predicted[b, k, :2] - target[b, k]) / (sigma + 1e-9)
            log_phi = loss.flow_model(error[None])[0]
            terms = sigma.log() - log_phi + (2 * sigma).log() + error.abs()
            want += (terms * weight[b, k]).sum() / 2
    torch.testing.assert_close(loss(predicted, target, weight), torch.as_tensor(want))
    torch.testing.assert_close(loss(predicted, target), loss(predicted, target, torch.ones(2, 3, 1)))


def test_the_loss_survives_tiny_deviations() -> None:
    loss = RLELoss()
    predicted = torch.tensor([[[0.5, 0.5, -80.0, -80.0]]], requires_grad=True)
    value = loss(predicted, torch.tensor([[[0.5, 0.5]]]))
    value.backward()
    assert value.isfinite()
    assert predicted.grad is not None
    assert predicted.grad.isfinite().all()


@pytest.mark.parametrize(
    ("predicted", "target"), [((2, 3, 5), (2, 3, 2)), ((2, 3, 4), (2, 3, 4)), ((2, 3, 4), (2, 2, 2))]
)
def test_shapes_that_do_not_belong_together_are_refused(predicted: tuple[int, ...], target: tuple[int, ...]) -> None:
    with pytest.raises(ValueError, match=r"\(B, K, 4\)"):
        RLELoss()(torch.zeros(predicted), torch.zeros(target))


def test_weights_of_another_shape_are_refused() -> None:
    with pytest.raises(ValueError, match="target weights of shape"):
        RLELoss()(torch.zeros(2, 3, 4), torch.zeros(2, 3, 2), torch.ones(2, 3, 2))


def test_sdpose_reg_trains_model_and_flow_in_every_cycle() -> None:
    model = create_pose_model("sdpose_reg", image_size=(64, 48), depth=2).train()
    loss = RLELoss()
    criterion = CycleLoss(loss)
    out = model(torch.randn(2, 3, 64, 48))
    parts = criterion.parts(out, torch.rand(2, 17, 2), torch.ones(2, 17))
    assert set(parts) == {"task_1", "task_2", "token_keypoint", "token_visual"}
    sum(parts.values(), torch.zeros(())).backward()
    assert all(each.grad is not None and each.grad.any() for each in loss.parameters())
    assert model.keypoint_token.grad is not None
    assert model.keypoint_token.grad.any()


@pytest.mark.slow
def test_rle_learns_where_points_are_and_how_sure_to_be() -> None:
    # One joint is certain, the other is spread: the deviations must tell, whatever the flow does.
    generator = torch.Generator().manual_seed(0)
    spread = torch.tensor([0.01, 0.1])
    target = 0.5 + torch.randn(512, 2, 2, generator=generator) * spread[:, None]
    predicted = nn.Parameter(torch.zeros(2, 4))
    loss = RLELoss()
    optimizer = torch.optim.Adam([predicted, *loss.parameters()], lr=0.03)
    for _ in range(300):
        optimizer.zero_grad()
        loss(predicted.expand(512, 2, 4), target).backward()
        optimizer.step()
    places, scores = decode_coordinates(predicted[None].detach())
    torch.testing.assert_close(places[0], torch.full((2, 2), 0.5), atol=0.02, rtol=0)
    deviation = 1 - scores[0]
    assert deviation[1] > 4 * deviation[0]


def test_decoding_of_both_heads() -> None:
    rle = torch.tensor([[[0.25, 0.75, 0.0, math.log(3)]]])
    places, scores = decode_coordinates(rle)
    assert places.tolist() == [[[0.25, 0.75]]]
    assert scores.item() == pytest.approx(1 - (0.5 + 0.75) / 2)
    places, scores = decode_coordinates(torch.tensor([[[0.25, 0.75, 0.9, 2.0, 3.0]]]))
    assert places.tolist() == [[[0.25, 0.75]]]
    assert scores.item() == pytest.approx(0.9)
    with pytest.raises(ValueError, match=r"\(B, K, 4\) of an RLE head or"):
        decode_coordinates(torch.zeros(1, 17, 3))


@pytest.mark.parametrize("numbers", [4, 5])
def test_flipping_back_swaps_everything_and_mirrors_x(numbers: int) -> None:
    predicted = torch.rand(2, 17, numbers)
    back = flip_back_coordinates(predicted, COCO.flip_order)
    assert torch.equal(back[:, 5, 1:], predicted[:, 6, 1:])
    torch.testing.assert_close(back[:, 6, 0], 1 - predicted[:, 5, 0])
    torch.testing.assert_close(back[:, 0, 0], 1 - predicted[:, 0, 0])
    torch.testing.assert_close(flip_back_coordinates(back, COCO.flip_order), predicted)


def test_distilpose_head_bounds_its_numbers() -> None:
    model = create_pose_model("distilpose_s", image_size=(64, 48), depth=1).eval()
    for parameter in model.mlp_head.parameters():
        nn.init.normal_(parameter, std=1.0)
    with torch.no_grad():
        tokens = torch.randn(1, 17, 192)
        raw = nn.Sequential(*model.mlp_head)(tokens)
        out = model.mlp_head(tokens)
    torch.testing.assert_close(out[..., :2], raw[..., :2].sigmoid())
    assert torch.equal(out[..., 2], raw[..., 2])
    torch.testing.assert_close(out[..., 3:], F.softplus(raw[..., 3:]))
    assert (out[..., 3:] > 0).all()
