"""A prepared model answers like the original, is plain and without BatchNorm, and one that does not is refused."""

from __future__ import annotations

import copy
from collections.abc import Iterable
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn

pytest.importorskip("pycocotools")

from cycledistill import unwrap_cyclic, wrap_cyclic
from cycledistill.integrations.coco import deploy
from cycledistill.integrations.coco.decoded import DecodedPose
from cycledistill.integrations.coco.deploy import (
    InferenceError,
    fold_batch_norm,
    output_difference,
    prepare_for_inference,
)
from cycledistill.integrations.coco.evaluation.measure import EvalSettings
from cycledistill.integrations.coco.models.registry import create_pose_model, list_pose_models, pose_model_config
from cycledistill.integrations.coco.models.tokenpose import TokenPose
from cycledistill.integrations.coco.predict import predict
from cycledistill.recipes.run.sub_batches import SUB_BATCH

SMALL = {"image_size": (64, 48), "dim": 24, "heads": 2, "patch_size": (4, 3)}


def trained_looking(name: str, **options: Any) -> Any:
    """A model whose BatchNorms have statistics and whose heads say something."""
    torch.manual_seed(0)
    if name == "tokenpose_t":
        options = {**SMALL, "patch_size": (16, 12), **options}
    model: Any = create_pose_model(name, **{**SMALL, **options})
    for module in model.modules():
        if isinstance(module, nn.BatchNorm2d):
            nn.init.uniform_(module.weight, 0.5, 1.5)
            nn.init.normal_(module.bias, std=0.2)
            module.running_mean.normal_(std=0.2)
            module.running_var.uniform_(0.5, 2)
        elif isinstance(module, (nn.Conv2d, nn.Linear)):
            nn.init.kaiming_normal_(module.weight)
    return model


KINDS = (
    "tokenpose_t",
    "tokenpose_s_v1_original",
    "tokenpose_l_d24",
    "sdpose_t",
    "sdpose_s_v2",
    "sdpose_reg",
    "distilpose_s",
    "sdpose_s_v1_ppt",
    "ppt_b_narrow",
)
"""One of each backbone, head, number of cycles, attention scale, and with pruning."""


def test_the_kinds_hold_every_choice_that_a_listed_model_makes() -> None:
    def choices(names: Iterable[str]) -> set[Any]:
        found: set[Any] = set()
        for config in map(pose_model_config, names):
            found |= {("cycles", config.cycles), ("pruned", bool(config.prune_layers))}
            found |= {(field, str(getattr(config.network, field))) for field in fields}
        return found

    fields = ("backbone", "stage1_width", "head", "scale", "patch_size", "readouts")
    assert choices(KINDS) == choices(list_pose_models())


@pytest.mark.slow
@pytest.mark.parametrize("name", KINDS)
def test_every_kind_of_model_answers_the_same_without_its_batch_norms(name: str) -> None:
    model = trained_looking(name, **({"heads": 3} if "l_d24" in name else {}))
    norms = sum(isinstance(module, nn.BatchNorm2d) for module in model.modules())
    assert norms > 0 or name == "tokenpose_t"
    before = {key: value.clone() for key, value in model.state_dict().items()}
    images = torch.randn(2, 3, 64, 48)
    prepared = prepare_for_inference(model, images)
    assert not any(isinstance(module, nn.BatchNorm2d) for module in prepared.modules())
    assert not hasattr(prepared, "cyclic") and not prepared.training
    assert hasattr(prepared, "pruning") == hasattr(model, "pruning")
    assert model.training and all(torch.equal(value, before[key]) for key, value in model.state_dict().items())
    with torch.no_grad():
        torch.testing.assert_close(prepared(images), model.eval()(images), rtol=1e-3, atol=1e-4)
    weights = [m.weight for m in prepared.modules() if isinstance(m, nn.Conv2d) and m.weight.shape[2:] == (3, 3)]
    assert all(weight.is_contiguous(memory_format=torch.channels_last) for weight in weights)


def test_a_later_exit_is_kept() -> None:
    model = trained_looking("sdpose_s_v1", depth=2)
    images = torch.randn(2, 3, 64, 48)
    model.cyclic.exit = 2
    prepared = prepare_for_inference(model, images)
    with torch.no_grad():
        expected = model.eval()(images)
        torch.testing.assert_close(prepared(images), expected, rtol=1e-3, atol=1e-4)
        model.cyclic.exit = 1
        assert not torch.allclose(prepared(images), model(images), atol=1e-3)


def test_bfloat16_is_near_and_predicts() -> None:
    model = trained_looking("sdpose_s_v1", depth=2)
    images = torch.randn(2, 3, 64, 48)
    prepared = prepare_for_inference(model, images, dtype=torch.bfloat16)
    assert {parameter.dtype for parameter in prepared.parameters()} == {torch.bfloat16}
    assert 0 < output_difference(prepared, model, images) < 0.1
    picture = np.random.default_rng(0).integers(0, 256, (90, 70, 3), dtype=np.uint8)
    settings = EvalSettings(flip=False, decode="none")
    fast, slow = predict(prepared, [picture], settings=settings)[0], predict(model, [picture], settings=settings)[0]
    assert fast is not None and slow is not None
    assert np.median(np.abs(fast[..., :2] - slow[..., :2])) < 6  # most maxima are where they were: a map's pixel is 6


def test_channels_stay_first_on_request() -> None:
    prepared = prepare_for_inference(trained_looking("tokenpose_s_v1", depth=1), channels_last=False)
    assert prepared.backbone.conv2.weight.is_contiguous()


def test_a_copy_that_answers_otherwise_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    def spoil(module: nn.Module) -> int:
        module.conv1.weight.data.mul_(1.5)  # type: ignore[union-attr, operator]
        return fold_batch_norm(module)

    model = trained_looking("tokenpose_s_v1", depth=1)
    monkeypatch.setattr(deploy, "fold_batch_norm", spoil)
    with pytest.raises(InferenceError, match=r"differ by .* more than 0.001: pass tolerance="):
        prepare_for_inference(model)
    assert prepare_for_inference(model, tolerance=1e6)
    model.backbone.conv1.weight.data.fill_(float("nan"))
    with pytest.raises(InferenceError, match="differ by nan"):
        prepare_for_inference(model, tolerance=1e6)


@pytest.mark.parametrize("half", [torch.bfloat16, torch.float16])
def test_a_gpu_gets_its_half_precision(half: torch.dtype, monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[torch.device] = []

    def of_a_gpu(device: torch.device) -> torch.dtype:
        asked.append(device)
        return half

    monkeypatch.setattr(deploy, "fast_half", of_a_gpu)
    model = trained_looking("tokenpose_s_v1", depth=1)
    assert next(prepare_for_inference(model).parameters()).dtype is half
    assert asked == [torch.device("cpu")]
    assert next(prepare_for_inference(model, dtype=torch.float32).parameters()).dtype is torch.float32
    other = torch.float16 if half is torch.bfloat16 else torch.bfloat16
    in_half = model.to(other)  # was given this type by someone who knew why
    assert next(prepare_for_inference(in_half, tolerance=0.2).parameters()).dtype is other


def test_a_processor_keeps_the_type_unless_asked(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cpu, "get_capabilities", lambda: {"avx512_bf16": True, "avx512_fp16": True})
    assert next(prepare_for_inference(trained_looking("tokenpose_s_v1", depth=1)).parameters()).dtype is torch.float32


@pytest.mark.parametrize(("features", "warned"), [({"avx512_bf16": True}, False), ({"avx2": True}, True)])
def test_a_processor_that_emulates_bfloat16_is_warned_of(
    features: dict[str, bool], warned: bool, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(torch.cpu, "get_capabilities", lambda: features)
    model = trained_looking("tokenpose_s_v1", depth=1)
    prepared = prepare_for_inference(model, dtype=torch.bfloat16)
    assert next(prepared.parameters()).dtype is torch.bfloat16
    warnings = [record.getMessage() for record in caplog.records if record.levelname == "WARNING"]
    assert ["dtype=torch.bfloat16: this processor has no units for it" in each for each in warnings] == [True] * warned


def test_a_gpu_without_bfloat16_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(deploy, "has_units", lambda device, dtype: dtype is not torch.bfloat16)
    on_a_gpu: Any = SimpleNamespace(device=torch.device("cuda"), dtype=torch.float32)
    with pytest.raises(ValueError, match=r"dtype=torch.bfloat16: cuda has no units for it; use torch.float16"):
        deploy._type_for(on_a_gpu, torch.bfloat16)
    assert deploy._type_for(on_a_gpu, torch.float16) is torch.float16


def test_other_types_are_refused() -> None:
    with pytest.raises(ValueError, match=r"torch.float64: torch.bfloat16, torch.float16, torch.float32 or None"):
        prepare_for_inference(trained_looking("tokenpose_s_v1", depth=1), dtype=torch.float64)


def batches_of(model: Any) -> list[int]:
    """How many images enter the network at a time, from now on."""
    ran: list[int] = []
    embed = model.embed

    def noting(images: torch.Tensor) -> Any:
        ran.append(images.shape[0])
        return embed(images)

    model.embed = noting
    return ran


class Shared(nn.Module):
    """A convolution that two layers read: folding one BatchNorm into it would change the other's input."""

    def __init__(self) -> None:
        super().__init__()
        self.conv, self.norm, self.alone = nn.Conv2d(3, 4, 1), nn.BatchNorm2d(4), nn.BatchNorm2d(3)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        y = self.conv(self.alone(x))
        return self.norm(y) + y


def test_only_a_norm_directly_behind_its_convolution_is_folded() -> None:
    module = Shared().eval()
    module.norm.running_mean.normal_()
    kept = copy.deepcopy(module)
    assert fold_batch_norm(module) == 0
    x = torch.randn(2, 3, 5, 5)
    assert torch.equal(module(x), kept(x))


def test_a_large_batch_runs_in_parts_and_answers_the_same() -> None:
    model, images = trained_looking("sdpose_s_v1", depth=2), torch.randn(5, 3, 64, 48)
    prepared: Any = prepare_for_inference(model, images[:2], sub_batch=2)
    whole: Any = prepare_for_inference(model, images[:2], sub_batch=None)
    assert isinstance(prepared, TokenPose) and prepare_for_inference(model, images[:2]).sub_batch == SUB_BATCH
    expected = whole(images)
    ran = batches_of(prepared)
    # Not equal to the bit on every processor: a convolution's kernel is chosen by the batch too.
    torch.testing.assert_close(prepared(images), expected, rtol=1e-5, atol=1e-5)
    assert ran == [2, 2, 1]
    joints = DecodedPose(prepared)(images)
    torch.testing.assert_close(joints["keypoints"], DecodedPose(whole)(images)["keypoints"], rtol=1e-3, atol=1e-3)
    ran.clear()
    assert prepared(images[:0]).shape == (0, *expected.shape[1:]) and ran == [0]
    prepared.sub_batch = None
    ran.clear()
    prepared(images)
    assert ran == [5]
    assert copy.deepcopy(whole).sub_batch is None


def test_the_error_of_other_images_shows_those_given() -> None:
    prepared = prepare_for_inference(trained_looking("sdpose_s_v1", depth=1))
    with pytest.raises(ValueError, match=r"images of shape \(9, 3, 48, 64\): \(B, 3, 64, 48\) is expected"):
        prepared(torch.zeros(9, 3, 48, 64))
    with pytest.raises(ValueError, match="sub_batch=0: a whole number of at least 1, or None for whole batches"):
        prepare_for_inference(prepared, sub_batch=0)


def test_what_follows_one_forward_sees_one() -> None:
    images = torch.randn(6, 3, 64, 48)
    pruned: Any = prepare_for_inference(trained_looking("sdpose_s_v1_ppt"))
    with torch.no_grad():
        pruned(images)
    assert len(pruned.pruning.index) == 6
    model = trained_looking("sdpose_s_v1", depth=2)
    model.cyclic.exit = 2
    later: Any = prepare_for_inference(model)
    assert torch.equal(later(images), later(images)) and not hasattr(later, "pruning")
    plain: Any = prepare_for_inference(trained_looking("tokenpose_s_v1", depth=2), sub_batch=2)
    wrapped: Any = wrap_cyclic(plain.requires_grad_(), 2, None, blocks="blocks")  # since
    wrapped.cyclic.exit = 2
    assert wrapped(images).shape == (6, 17, 16, 12)
    assert unwrap_cyclic(wrapped)(images).shape == (6, 17, 16, 12)


@pytest.mark.slow
def test_a_prepared_model_is_exported_for_any_batch() -> None:
    prepared = prepare_for_inference(trained_looking("tokenpose_s_v1", depth=1), sub_batch=2)
    images = torch.randn(7, 3, 64, 48)
    dynamic = {"images": {0: torch.export.Dim("batch", min=1)}}
    exported = torch.export.export(prepared, (images[:3],), dynamic_shapes=dynamic)
    torch.testing.assert_close(exported.module()(images), prepared(images), rtol=1e-4, atol=1e-4)
    meta = copy.deepcopy(prepared).to("meta")
    ran = batches_of(meta)
    assert meta(images.to("meta")).shape == (7, 17, 16, 12) and ran == [7]
