"""Evaluation of a model: perfect maps give AP 1, exits, shares of processes, and mean OKS and PCK by hand."""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn

pytest.importorskip("pycocotools")

from cycledistill.integrations.coco.data.annotations import annotated_persons
from cycledistill.integrations.coco.data.dataset import PersonCrops
from cycledistill.integrations.coco.data.images import ImageStore
from cycledistill.integrations.coco.data.joints import COCO, CROWDPOSE, HAND, JOINT_SETS
from cycledistill.integrations.coco.evaluation.accuracy import mean_oks, pck
from cycledistill.integrations.coco.evaluation.ground_truth import load_ground_truth
from cycledistill.integrations.coco.evaluation.measure import EvalSettings, evaluate, predict_persons
from cycledistill.integrations.coco.losses.targets import heatmap_targets
from cycledistill.integrations.coco.losses.token_reg import TokenRegLoss
from cycledistill.integrations.coco.models.registry import create_pose_model
from tests.coco.figures import write_dots

SIZE, MAP = (256, 192), (64, 48)


class Oracle(nn.Module):
    """Stands for a perfect model: answers with the target maps of the persons, in their order."""

    def __init__(self, crops: PersonCrops, batch_size: int, joints: Any, head: str) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.zeros(1))
        self.config = dataclasses.make_dataclass("C", ["image_size", "heatmap_size", "num_keypoints", "head"])(
            SIZE, MAP, len(joints), head
        )
        self.crops, self.batch_size, self.order, self.head = crops, batch_size, list(joints.flip_order), head
        self.seen = 0

    def forward(self, images: Tensor) -> Tensor:
        mirrored = self.seen % 2 == 1
        first = self.seen // 2 * self.batch_size
        self.seen += 1
        keys = [(0, index) for index in range(first, min(first + self.batch_size, len(self.crops)))]
        batch = self.crops.__getitems__(keys)
        place, visible = batch["joints"], batch["visible"]
        if mirrored:  # as a strided network sees it: flipping back shifts by a pixel of the map
            place = place[:, self.order].clone()
            place[..., 0] = SIZE[1] - place[..., 0]
            visible = visible[:, self.order]
        if self.head == "heatmap":
            return heatmap_targets(place, visible, SIZE, MAP)[0]
        sure = torch.full((*place.shape[:2], 2), -10.0)
        return torch.cat([place / torch.tensor([SIZE[1], SIZE[0]]), sure], dim=-1)


@pytest.fixture(scope="module")
def dots(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_dots(tmp_path_factory.mktemp("dots") / "set")


@pytest.mark.parametrize("head", ["heatmap", "rle"])
def test_perfect_predictions_have_ap_one(dots: Path, head: str, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level("INFO")
    annotations = json.loads((dots / "annotations" / "val.json").read_text())
    persons = annotated_persons(annotations, COCO, SIZE)
    images = ImageStore(dots / "pictures")
    model = Oracle(PersonCrops(persons, images, COCO, SIZE), 6, COCO, head)  # counts its calls: it runs whole
    truth = load_ground_truth(annotations, COCO)
    settings = EvalSettings(nms=None, batch_size=6)
    found = evaluate(model, persons, images, COCO, truth, settings=settings, progress=True)[1]
    assert found["AP"] == found["AP75"] == found["AR"] == pytest.approx(1.0)
    assert found["oks"] > 0.99 and found["pck"] == 1.0
    assert "evaluate: 0 of 2 batches" in caplog.text


def test_categories_are_averaged_where_that_is_asked(dots: Path) -> None:
    """One of two categories is found: as poses alone, eleven of twelve, by category the half."""
    annotations = json.loads((dots / "annotations" / "val.json").read_text())
    annotations["annotations"][0]["category_id"] = 2
    persons = annotated_persons(annotations, COCO, SIZE)
    truth = load_ground_truth(annotations, COCO)
    rest, images = persons[1:], ImageStore(dots / "pictures")
    for by_category, above, below in ((False, 0.85, 0.95), (True, 0.49, 0.51)):
        model = Oracle(PersonCrops(rest, images, COCO, SIZE), 11, COCO, "heatmap")
        settings = EvalSettings(nms=None, batch_size=11, by_category=by_category)
        assert above < evaluate(model, rest, images, COCO, truth, settings=settings)[1]["AP"] < below


def test_every_exit_is_the_models_own(dots: Path) -> None:
    torch.manual_seed(0)
    options = {"backbone": "none", "patch_size": (16, 12), "dim": 16, "depth": 2, "heads": 2, "cycles": 2}
    model = create_pose_model("sdpose_s_v1", **options).eval()
    annotations = json.loads((dots / "annotations" / "val.json").read_text())
    persons = annotated_persons(annotations, COCO, SIZE)[:4]
    images = ImageStore(dots / "pictures")
    model.cyclic.exit = 2
    found = predict_persons(model, persons, images, COCO, exits=(1, 3), settings=EvalSettings(batch_size=3))
    assert model.cyclic.exit == 2 and set(found) == {1, 3}
    assert sorted(found[1]) == [0, 1, 2, 3] and found[1][0].shape == (17, 3)
    assert not np.array_equal(found[1][0], found[3][0])
    alone = predict_persons(model, persons[2:3], images, COCO, exits=(3,))
    np.testing.assert_allclose(alone[3][0], found[3][2], rtol=1e-3, atol=1e-3)
    with pytest.raises(ValueError, match=r"predicts 17 joints, crowdpose has 14.*num_keypoints=14"):
        predict_persons(model, persons, images, CROWDPOSE)
    with pytest.raises(ValueError, match="not wrapped"):
        predict_persons(create_pose_model("tokenpose_t"), persons, images, COCO, exits=(2,))


def test_large_batches_run_in_parts_on_a_cpu(dots: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    torch.manual_seed(0)
    options = {"backbone": "none", "patch_size": (16, 12), "dim": 16, "depth": 1, "heads": 2, "cycles": 2}
    model: Any = create_pose_model("sdpose_s_v1", **options)
    annotations = json.loads((dots / "annotations" / "val.json").read_text())
    persons = annotated_persons(annotations, COCO, SIZE)[:5]
    assert len(persons) == 5
    embed, ran = model.embed, []
    monkeypatch.setattr(model, "embed", lambda images: (ran.append(len(images)), embed(images))[1], raising=False)
    pictures = ImageStore(dots / "pictures")
    found = predict_persons(model, persons, pictures, COCO, settings=EvalSettings(batch_size=5))[1]
    assert ran == [4, 1, 4, 1]  # the mirrored pictures too
    alone = predict_persons(model, persons, pictures, COCO, settings=EvalSettings(batch_size=1))[1]
    for index, placed in found.items():
        np.testing.assert_allclose(placed, alone[index], rtol=1e-3, atol=1e-3)


def test_mean_oks_and_pck_by_hand() -> None:
    truth = np.zeros((2, 17, 2))
    truth[:, COCO.names.index("right_hip")] = (30.0, 40.0)  # 50 from the left shoulder
    visible = np.zeros((2, 17))
    shown = [COCO.names.index(name) for name in ("left_shoulder", "right_hip")]
    visible[0, shown] = 1
    predicted = truth.copy()
    predicted[0, shown[0]] += (0.0, 10.1)  # just too far; an unlabelled joint does not count
    predicted[0, 0] += 1000
    assert pck(predicted, truth, visible, COCO) == 0.5
    predicted[0, shown[0]] = (0.0, 9.9)
    assert pck(predicted, truth, visible, COCO) == 1.0
    area = np.array([900.0, 1.0])
    sigma = COCO.sigmas[shown[0]]
    expected = (1 + np.exp(-(9.9**2) / (2 * 900 * (2 * sigma) ** 2))) / 2
    assert mean_oks(predicted, truth, visible, area, COCO) == pytest.approx(expected)
    assert mean_oks(predicted, truth, 0 * visible, area, COCO) == 0
    assert pck(predicted, truth, 0 * visible, COCO) == 0


@pytest.mark.slow
def test_distilposes_loss_moves_every_number_towards_the_truth() -> None:
    loss = TokenRegLoss(MAP)
    target = torch.rand(2, 17, 2) * 0.8 + 0.1
    weight = torch.ones(2, 17)
    weight[0, 0] = 0
    raw = torch.zeros(2, 17, 5, requires_grad=True)
    optimizer = torch.optim.Adam([raw], lr=0.05)
    for _ in range(600):
        predicted = torch.cat([raw[..., :2].sigmoid(), raw[..., 2:3], torch.nn.functional.softplus(raw[..., 3:])], -1)
        value = loss(predicted, target, weight)
        optimizer.zero_grad()
        value.backward()
        optimizer.step()
    predicted = predicted.detach()
    seen = weight > 0
    assert (predicted[..., :2] - target)[seen].abs().max() < 0.01
    assert (predicted[..., 2][seen] - 1).abs().max() < 0.1  # as sure as the position is right
    assert (predicted[..., 3:][seen] - 2).abs().max() < 0.2  # the targets' width
    assert raw.grad is not None and raw.grad[0, 0, :2].abs().max() == 0
    with pytest.raises(ValueError, match="two deviations"):
        loss(predicted[..., :4], target)


class Regressed(nn.Module):
    """Answers the picture with one table of numbers, and the mirrored picture with another."""

    def __init__(self, tables: Tensor, head: str) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.zeros(1))
        self.config = dataclasses.make_dataclass("C", ["image_size", "heatmap_size", "num_keypoints", "head"])(
            SIZE, MAP, tables.shape[1], head
        )
        self.tables, self.calls = tables, 0

    def forward(self, images: Tensor) -> Tensor:
        self.calls += 1
        return self.tables[(self.calls - 1) % 2].expand(len(images), -1, -1)


@pytest.mark.parametrize("head", ["rle", "token_reg"])
def test_the_flip_test_averages_deviations_and_not_their_logits(dots: Path, head: str) -> None:
    """By hand, as the authors of SDPose-Reg do: sigmoid, swap, average; the score is the mean of 1 - deviation."""
    tables = torch.randn(2, 17, 4 if head == "rle" else 5, generator=torch.Generator().manual_seed(3)) * 2
    annotations = json.loads((dots / "annotations" / "val.json").read_text())
    persons = annotated_persons(annotations, COCO, SIZE)[:1]
    found = predict_persons(Regressed(tables, head), persons, ImageStore(dots / "pictures"), COCO)[1][0]
    there, mirrored = tables.double().numpy()
    width, height = persons[0].scale.astype(float) * 200
    left, top = persons[0].center - np.array([width, height]) / 2
    for joint in range(17):
        twin = joint if joint == 0 else joint + 1 if joint % 2 else joint - 1
        place = (there[joint, 0] + 1 - mirrored[twin, 0]) / 2, (there[joint, 1] + mirrored[twin, 1]) / 2
        if head == "rle":
            deviations = 1 / (1 + np.exp(-np.stack([there[joint, 2:], mirrored[twin, 2:]])))
            score = 1 - deviations.mean()
        else:
            score = (there[joint, 2] + mirrored[twin, 2]) / 2
        expected = (left + place[0] * width, top + place[1] * height, score)
        np.testing.assert_allclose(found[joint], expected, rtol=1e-4, atol=1e-3)


def test_pck_by_the_head_the_box_and_not_at_all() -> None:
    mpii = JOINT_SETS["mpii"]
    top, neck = mpii.names.index("head_top"), mpii.names.index("upper_neck")
    truth, visible = np.zeros((2, 16, 2)), np.ones((2, 16))
    truth[0, top] = (0.0, 20.0)
    visible[1, neck] = 0  # its head cannot be measured: it does not count
    predicted = truth.copy()
    predicted[0, :4, 0] += (9.9, 10.0, 10.1, 30.0)  # half a head is 10
    predicted[1] += 1000
    assert pck(predicted, truth, visible, mpii) == 14 / 16
    assert pck(predicted, truth, visible, mpii, fraction=1.0) == 15 / 16
    hand = HAND
    truth, visible = np.zeros((1, 21, 2)), np.ones((1, 21))
    predicted = truth.copy()
    predicted[0, :3, 1] += (19.9, 20.1, 50.0)
    assert pck(predicted, truth, visible, hand, np.array([100.0])) == 19 / 21
    assert pck(predicted, truth, visible, hand, np.array([0.0])) == 0
    with pytest.raises(ValueError, match="box_sides are needed for 'bbox'"):
        pck(predicted, truth, visible, hand)
    with pytest.raises(ValueError, match="measure PCK by 'none'"):
        pck(predicted, truth, visible, dataclasses.replace(hand, pck="none"))


def test_without_a_reference_there_is_no_pck(dots: Path) -> None:
    annotations = json.loads((dots / "annotations" / "val.json").read_text())
    for reference in ("bbox", "none"):
        joints = dataclasses.replace(COCO, pck=reference)
        persons = annotated_persons(annotations, joints, SIZE)
        assert {person.box_side for person in persons} == {60.0}
        model = Oracle(PersonCrops(persons, ImageStore(dots / "pictures"), joints, SIZE), 6, joints, "rle")
        truth, settings = load_ground_truth(annotations, joints), EvalSettings(nms=None, batch_size=6)
        found = evaluate(model, persons, ImageStore(dots / "pictures"), joints, truth, settings=settings)[1]
        assert found.get("pck") == {"bbox": 1.0, "none": None}[reference]
