"""Torchvision's detectors: never fetched, loaded from where torch keeps weights, boxes as the models want them."""

from __future__ import annotations

import socket
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn

pytest.importorskip("torchvision")
pytest.importorskip("pycocotools")

import torchvision

from cycledistill.integrations.coco.data.images import PoseDataError
from cycledistill.integrations.coco.detector import DETECTORS, DetectorError, detect_persons, load_detector

SMALLEST = "fasterrcnn_mobilenet_v3_large_320_fpn"


@pytest.fixture
def hub(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    def refuse(*_: object) -> None:
        raise AssertionError("it tried to connect")

    monkeypatch.setattr(socket.socket, "connect", refuse)
    monkeypatch.setenv("TORCH_HOME", str(tmp_path))
    monkeypatch.setattr(torch.hub, "_hub_dir", None)
    folder = tmp_path / "hub" / "checkpoints"
    folder.mkdir(parents=True)
    return folder


def file_of(name: str) -> str:
    return str(torchvision.models.get_model_weights(name).DEFAULT.url).rpartition("/")[2]


@pytest.mark.parametrize("name", DETECTORS)
def test_missing_weights_are_named_with_their_address_and_place(hub: Path, name: str) -> None:
    weights = torchvision.models.get_model_weights(name).DEFAULT
    with pytest.raises(DetectorError, match="not downloaded unasked: save https://download.pytorch.org") as caught:
        load_detector(name)
    assert weights.url in str(caught.value) and str(hub / file_of(name)) in str(caught.value)
    assert list(hub.iterdir()) == []
    assert weights.meta["categories"][1] == "person" or weights.meta["categories"].index("person") == 1


def test_weights_that_are_there_are_loaded(hub: Path) -> None:
    torch.manual_seed(0)
    made = torchvision.models.get_model(SMALLEST, weights=None, weights_backbone=None)
    state = {key: value for key, value in made.state_dict().items() if not key.endswith("num_batches_tracked")}
    torch.save(state, hub / file_of(SMALLEST))
    detector = load_detector(SMALLEST)
    assert not detector.training
    assert torch.equal(detector.state_dict()["backbone.fpn.inner_blocks.0.0.weight"], state[
        "backbone.fpn.inner_blocks.0.0.weight"])  # fmt: skip
    found = detect_persons(detector, [np.zeros((64, 80, 3), np.uint8)], threshold=0.0)
    assert found[0].boxes.shape == (len(found[0].scores), 4)


def test_a_file_with_code_or_rubbish_is_refused(hub: Path) -> None:
    (hub / file_of(SMALLEST)).write_bytes(b"rubbish")
    with pytest.raises(DetectorError, match="these are no weights, or broken ones"):
        load_detector(SMALLEST)
    torch.save({"a": nn.Linear(1, 1)}, hub / file_of(SMALLEST))
    with pytest.raises(DetectorError, match="these are no weights"):
        load_detector(SMALLEST)


def test_weights_of_another_network_are_refused(hub: Path) -> None:
    torch.save({"a": torch.ones(2)}, hub / file_of(SMALLEST))
    with pytest.raises(DetectorError, match=rf"holds no weights of {SMALLEST}"):
        load_detector(SMALLEST)


def test_unknown_detectors_are_named() -> None:
    with pytest.raises(ValueError, match=r"'yolo' is no person detector of torchvision; known: keypointrcnn"):
        load_detector("yolo")


class Fake(nn.Module):
    """Answers like a torchvision detector: persons (1) and a dog (18)."""

    def __init__(self) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.zeros(1))
        self.seen: list[Any] = []

    def forward(self, images: list[torch.Tensor]) -> list[dict[str, torch.Tensor]]:
        self.seen += images
        corners = torch.tensor([[10.0, 20, 40, 80], [0, 0, 9, 9], [5, 5, 25, 50], [7, 7, 7, 30], [1, 1, 2, 2]])
        labels, scores = torch.tensor([1, 18, 1, 1, 1]), torch.tensor([0.5, 0.99, 0.75, 0.9, 0.1])
        return [{"boxes": corners, "labels": labels, "scores": scores}]


def test_persons_alone_as_x_y_width_height_best_first() -> None:
    fake, picture = Fake(), np.full((90, 60, 3), (255, 0, 51), np.uint8)
    found = detect_persons(fake, [picture], threshold=0.3)
    assert found[0].boxes.tolist() == [[5, 5, 20, 45], [10, 20, 30, 60]]
    assert found[0].scores.tolist() == [0.75, 0.5]
    assert fake.seen[0].shape == (3, 90, 60)
    np.testing.assert_allclose(fake.seen[0][:, 0, 0], [1, 0, 0.2])
    assert detect_persons(fake, [picture], threshold=1.0)[0].boxes.shape == (0, 4)
    with pytest.raises(PoseDataError, match=r"threshold=30: a score between 0 and 1"):
        detect_persons(fake, [picture], threshold=30)
    with pytest.raises(PoseDataError, match="no/such.jpg: there is no such file"):
        detect_persons(fake, ["no/such.jpg"])
