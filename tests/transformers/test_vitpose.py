"""VitPose, a pose model that computes no loss of its own: cycled, and trained under ``Trainer`` with a loss of ours."""

from __future__ import annotations

import copy
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from cycledistill import CycleLoss, Distill, wrap_cyclic
from cycledistill.integrations.transformers import wrap_for_trainer

transformers = pytest.importorskip("transformers")
pytest.importorskip("accelerate")

EXPERTS = pytest.mark.parametrize("experts", [1, 2])  # VitPose, and VitPose+ with a mixture of experts


def vitpose(experts: int = 1) -> Any:
    torch.manual_seed(0)
    backbone = transformers.VitPoseBackboneConfig(
        image_size=[32, 16],
        patch_size=[8, 8],
        hidden_size=16,
        num_hidden_layers=3,
        num_attention_heads=2,
        out_features=["stage3"],
        num_experts=experts,
        part_features=8,
    )
    config = transformers.VitPoseConfig(backbone_config=backbone, num_labels=5, use_simple_decoder=True)
    model = transformers.VitPoseForPoseEstimation(config)
    for parameter in model.parameters():  # fresh ones are so small that cycles hardly differ
        nn.init.normal_(parameter, std=0.2)
    return model


def batch(experts: int, count: int = 2) -> dict[str, Tensor]:
    generator = torch.Generator().manual_seed(1)
    images = torch.randn(count, 3, 32, 16, generator=generator)
    return {"pixel_values": images} | ({"dataset_index": torch.arange(count) % experts} if experts > 1 else {})


def by_hand(model: Any, given: dict[str, Tensor], cycles: int) -> Tensor:
    """Heatmaps after so many passes through the layers, written out."""
    backbone, experts = model.backbone, given.get("dataset_index")
    tokens = backbone.embeddings(given["pixel_values"])
    for _ in range(cycles):
        for layer in backbone.encoder.layer:
            tokens = layer(tokens, experts)
    features = backbone.layernorm(tokens).transpose(1, 2).unflatten(2, (4, 2))
    heatmaps: Tensor = model.head(features)
    return heatmaps


@EXPERTS
def test_cycles_are_those_written_out(experts: int) -> None:
    plain, given = vitpose(experts).eval(), batch(experts)
    model = wrap_cyclic(copy.deepcopy(plain), 2, Distill(token_weight=0.0)).eval()
    assert model.cyclic.stack.path == "backbone.encoder.layer"
    with torch.no_grad():
        assert torch.equal(model(**given).heatmaps, plain(**given).heatmaps)
        model.cyclic.exit = 2
        torch.testing.assert_close(model(**given).heatmaps, by_hand(plain, given, 2))
    model.train()
    plain.train()
    loss = CycleLoss(lambda out: out.heatmaps.square().mean())(model(**given))
    truth = sum(by_hand(plain, given, cycles).square().mean() for cycles in (1, 2))
    torch.testing.assert_close(loss, truth)
    loss.backward()
    truth.backward()
    for (name, one), other in zip(model.named_parameters(), plain.parameters(), strict=True):
        assert (one.grad is None) == (other.grad is None), name
        if one.grad is not None:
            torch.testing.assert_close(one.grad, other.grad, rtol=1e-4, atol=1e-6, msg=name)


def test_it_says_that_there_is_no_loss() -> None:
    model = wrap_for_trainer(vitpose()).train()
    with pytest.raises(ValueError, match=r"VitPoseEstimatorOutput has no loss"):
        model(**batch(1))


class PoseTrainer(transformers.Trainer):
    """Brings the loss that the model has not."""

    def compute_loss(self, model: nn.Module, inputs: dict[str, Tensor], **_: Any) -> Tensor:
        target = inputs.pop("heatmaps")
        criterion = CycleLoss(lambda out, target: (out.heatmaps - target).square().mean())
        return criterion(model(**inputs), target)


@pytest.mark.slow
def test_training_under_trainer(tmp_path: Path) -> None:
    model = wrap_cyclic(vitpose(), 2)
    images = batch(1, count=8)["pixel_values"]
    data = [{"pixel_values": image, "heatmaps": torch.zeros(5, 16, 8)} for image in images]
    before = model.eval()(images).heatmaps.square().mean().item()
    arguments = transformers.TrainingArguments(
        str(tmp_path), max_steps=20, per_device_train_batch_size=4, learning_rate=1e-2, use_cpu=True, report_to=[],
        remove_unused_columns=False, save_strategy="no", disable_tqdm=True,
    )  # fmt: skip
    PoseTrainer(model, arguments, train_dataset=data).train()
    after = model.eval()(images).heatmaps
    assert after.square().mean().item() < before / 2
    model.save_pretrained(tmp_path)
    loaded = transformers.VitPoseForPoseEstimation.from_pretrained(tmp_path).eval()
    assert not hasattr(loaded, "cyclic")
    assert torch.equal(loaded(images).heatmaps, after)
