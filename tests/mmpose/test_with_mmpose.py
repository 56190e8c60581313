"""The adapter on mmpose itself: trains, evaluates, resumes, predicts, and has the weights of the plain models.

Runs in an environment of its own (docs/mmpose.md); elsewhere it is skipped with what is missing.
"""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

pytest.importorskip("safetensors")
pytest.importorskip("cv2")

from cycledistill.integrations.coco import create_pose_model, load_pose_weights
from cycledistill.integrations.coco.data.synthetic import write_synthetic
from cycledistill.integrations.mmpose import (
    config_path,
    convert,
    find_problems,
    from_mmpose,
    load_mmpose,
    options,
    to_mmpose,
    train,
)

PROBLEMS = find_problems()
pytestmark = [
    pytest.mark.skipif(bool(PROBLEMS), reason="; ".join(PROBLEMS[:1])),
    pytest.mark.filterwarnings("ignore"),  # mmpose and mmengine use what has been deprecated since their last release
]

NAMES = {
    "sdpose_t": "sdpose_t",
    "sdpose_s_v1": "sdpose_s_v1",
    "sdpose_s_v2": "sdpose_s_v2",
    "sdpose_b": "sdpose_b_narrow",
}
SWAPPED = {"type": "MSRAHeatmap", "input_size": (64, 48), "heatmap_size": (16, 12), "sigma": 2}
SMALL = {"stage1_width": 8, "dim": 48, "depth": 2, "heads": 4}

CONFIG = """
_base_ = [{base!r}]
codec = dict(type="MSRAHeatmap", input_size=(48, 64), heatmap_size=(12, 16), sigma=1, unbiased=True)
model = dict(
    backbone=dict(stage1_width=8),
    head=dict(image_size=(64, 48), options={small!r}, decoder=codec, distill=dict(token_weight=0.01)),
)
load = [dict(type="LoadImage"), dict(type="GetBBoxCenterScale"), dict(type="TopdownAffine", input_size=(48, 64))]
train_dataloader = dict(
    batch_size=2, num_workers=0, persistent_workers=False, sampler=dict(_delete_=True, type="InfiniteSampler"),
    dataset=dict(pipeline=[*load, dict(type="GenerateTarget", encoder=codec), dict(type="PackPoseInputs")]),
)
val_dataloader = dict(
    batch_size=8, num_workers=0, persistent_workers=False,
    dataset=dict(pipeline=[*load, dict(type="PackPoseInputs")]),
)
test_dataloader = val_dataloader
train_cfg = dict(_delete_=True, type="IterBasedTrainLoop", max_iters=4, val_interval=4)
param_scheduler = []
default_hooks = dict(
    logger=dict(interval=1), checkpoint=dict(_delete_=True, type="CheckpointHook", by_epoch=False, interval=2)
)
log_processor = dict(by_epoch=False, window_size=1)
custom_hooks = [
    dict(type="DistillWeightHook", begin=0, end=4, start=0.0, stop=2.0, by_epoch=False), dict(type="PlainWeightsHook")
]
"""


@pytest.fixture(scope="module", autouse=True)
def _mmpose() -> None:
    load_mmpose()
    assert "mmcv._ext" not in sys.modules


@pytest.fixture(scope="module")
def config(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("mmpose")
    write_synthetic(folder / "data", train=4, val=2, size=(128, 128))
    path = folder / "small.py"
    base = str(config_path("sdpose_t"))
    path.write_text(CONFIG.format(base=base, small=SMALL))
    return path


def on_figures(config: Path) -> list[str]:
    return [str(config), "--data-root", str(config.parent / "data"), "--boxes", "annotated"]


def small_model() -> torch.nn.Module:
    return create_pose_model("sdpose_t", image_size=(64, 48), **SMALL)


def log_of(folder: Path) -> list[dict[str, Any]]:
    (path,) = folder.glob("*/vis_data/scalars.json")
    return [json.loads(line) for line in path.read_text().splitlines()]


def weights_of(path: Path) -> dict[str, torch.Tensor]:
    from safetensors.torch import load_file

    return load_file(path)


@pytest.fixture(scope="module")
def trained(config: Path) -> Path:
    """The work folder of four iterations and an evaluation."""
    folder = config.parent / "straight"
    train.main([*on_figures(config), "--work-dir", str(folder)])
    return folder


def test_training_sums_every_cycle_and_evaluates(trained: Path) -> None:
    log = log_of(trained)
    steps = [line for line in log if "loss" in line]
    assert len(steps) == 4
    for number, line in enumerate(steps):
        terms = {name for name in line if name.startswith("loss_")}
        assert terms == {
            "loss_task_1",
            "loss_task_2",
            "loss_task_3",
            "loss_token_keypoint",
            "loss_token_visual",
        }
        assert line["loss"] == pytest.approx(sum(line[name] for name in terms), rel=1e-5)
        assert line["distill_factor"] == 0.5 * number
        assert (line["loss_token_visual"] > 0) == (number > 0)
    (evaluated,) = [line for line in log if "coco/AP" in line]
    assert 0 <= evaluated["coco/AP"] <= 1


def test_trained_weights_load_into_the_plain_model(trained: Path) -> None:
    model = small_model()
    before = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    assert load_pose_weights(model, trained / "weights.safetensors") == {}
    assert any(not torch.equal(before[name], tensor) for name, tensor in model.state_dict().items())
    assert torch.isfinite(model.eval()(torch.zeros(1, 3, 64, 48))).all()


def test_a_resumed_run_ends_where_an_uninterrupted_one_does(config: Path, trained: Path) -> None:
    folder = config.parent / "resumed"
    short = ["--cfg-options", "train_cfg.max_iters=2", "train_cfg.val_interval=2"]
    train.main([*on_figures(config), "--work-dir", str(folder), *short])
    first = weights_of(folder / "weights.safetensors")
    train.main([*on_figures(config), "--work-dir", str(folder), "--resume", "--trust-checkpoint"])
    resumed, straight = (
        weights_of(folder / "weights.safetensors"),
        weights_of(trained / "weights.safetensors"),
    )
    assert resumed.keys() == straight.keys()
    assert all(torch.equal(resumed[name], straight[name]) for name in straight)
    assert any(not torch.equal(first[name], straight[name]) for name in straight)


@pytest.fixture(autouse=True)
def own_loggers() -> Iterator[None]:
    """A logger is named by the second its run began: one that starts in the same second would write where it did."""
    yield
    loggers = sys.modules["mmengine.logging"].MMLogger._instance_dict if "mmengine.logging" in sys.modules else {}
    for logger in loggers.values():
        for handler in list(logger.handlers):
            logger.removeHandler(handler)
            handler.close()
    loggers.clear()


def metrics(lines: dict[str, Any]) -> dict[str, Any]:
    return {name: value for name, value in lines.items() if name.startswith("coco/")}


def refused(capfd: pytest.CaptureFixture[str], *arguments: str) -> str:
    """The one message with which the launcher ends."""
    with pytest.raises(SystemExit) as ended:
        train.main(arguments)
    assert ended.value.code == 2
    written = capfd.readouterr().err
    assert "Traceback" not in written
    (message,) = [line for line in written.splitlines() if line.startswith("error: ")]
    return message


@pytest.mark.parametrize("kind", ["checkpoint", "converted", "written", "plain"])
def test_evaluate_gives_the_metric_of_the_run(
    kind: str, config: Path, trained: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from cycledistill.integrations.mmpose.runner import StrictRunner

    evaluated: list[dict[str, torch.Tensor]] = []
    test = StrictRunner.test

    def watched(self: Any) -> Any:
        result = test(self)
        evaluated.append(from_mmpose(self.model.state_dict()))
        return result

    monkeypatch.setattr(StrictRunner, "test", watched)
    source = trained / "weights.safetensors"  # no code in weights, so no trust is asked for
    trust: list[str] = []
    if kind == "checkpoint":
        source, trust = trained / "iter_4.pth", ["--trust-checkpoint"]
    elif kind in ("converted", "plain"):
        source = tmp_path / "weights.pth"
        if kind == "converted":
            convert.main([str(trained / "weights.safetensors"), str(source)])
        else:
            torch.save(weights_of(trained / "weights.safetensors"), source)
    train.main([*on_figures(config), "--work-dir", str(tmp_path / "run"), "--evaluate", str(source), *trust])
    (written,) = (tmp_path / "run").glob("*/*.json")
    during = metrics(next(line for line in log_of(trained) if "coco/AP" in line))
    assert during and metrics(json.loads(written.read_text())) == during
    # So few steps give an AP of 0, as random weights do: what was evaluated are the trained ones.
    (found,), expected = evaluated, weights_of(trained / "weights.safetensors")
    assert found.keys() == expected.keys() and all(torch.equal(found[name], expected[name]) for name in expected)


@pytest.mark.parametrize("how", ["evaluate", "load_from"])
def test_weights_that_do_not_fit_are_refused_by_name(
    how: str, config: Path, trained: Path, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    from cycledistill.recipes.weights.files import write_weights

    state = weights_of(trained / "weights.safetensors")
    lost, *_, bent = (name for name in state if name.startswith("blocks."))
    del state[lost]
    write_weights(state | {"strange": torch.ones(1), bent: torch.ones(1, 2, 3)}, tmp_path / "other.safetensors")
    source = str(tmp_path / "other.safetensors")
    given = ["--evaluate", source] if how == "evaluate" else ["--cfg-options", f"load_from={source}"]
    message = refused(capfd, *on_figures(config), "--work-dir", str(tmp_path / "run"), *given)
    assert f"1 missing: head.pose.{lost}; 1 unexpected: head.pose.strange; 1 of another shape: head" in message
    assert f"head.pose.{bent} (1, 2, 3) instead of" in message
    assert not list((tmp_path / "run").glob("*/*.json"))  # no metrics


@pytest.mark.parametrize("part", ["all", "some", "none"])
def test_training_starts_from_what_fits_if_the_config_says_so(
    part: str, config: Path, trained: Path, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    from cycledistill.recipes.weights.files import write_weights

    state = {name: tensor + 0.5 for name, tensor in weights_of(trained / "weights.safetensors").items()}
    lost = next(name for name in state if name.startswith("blocks."))
    given = {
        "all": state,
        "some": {name: state[name] for name in state if name != lost},
        "none": {lost + "x": state[lost]},
    }
    write_weights(given[part], tmp_path / "start.safetensors")
    still = ["optim_wrapper.optimizer.lr=0", "train_cfg.max_iters=1", "train_cfg.val_interval=1"]
    options = ["--cfg-options", f"load_from={tmp_path / 'start.safetensors'}", *still]
    options += [] if part == "all" else ["load_strict=False"]
    arguments = [*on_figures(config), "--work-dir", str(tmp_path / "run"), *options]
    if part == "none":
        assert "nothing in it fits" in refused(capfd, *arguments)
        return
    train.main(arguments)
    found = weights_of(tmp_path / "run" / "weights.safetensors")
    learned = [name for name, _ in small_model().named_parameters()]
    assert [name for name in learned if not torch.equal(found[name], state[name])] == ([lost] if part == "some" else [])
    (log,) = (tmp_path / "run").glob("*/*.log")
    assert (f"1 missing: head.pose.{lost}" in log.read_text()) == (part == "some")


@pytest.mark.parametrize("how", ["load_from", "evaluate"])
def test_an_untrusted_checkpoint_is_not_read(
    how: str, config: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("TORCH_FORCE_NO_WEIGHTS_ONLY_LOAD", "1")  # as other programs have it set
    source, trace = tmp_path / "epoch_1.pth", tmp_path / "ran"
    torch.save({"state_dict": {}, "message_hub": Running(trace)}, source)
    options = ["--evaluate", str(source)] if how == "evaluate" else ["--cfg-options", f"load_from={source}"]
    message = refused(capfd, *on_figures(config), "--work-dir", str(tmp_path / "run"), *options)
    assert "--trust-checkpoint" in message and str(source) in message
    assert not trace.exists()


class Running:
    """What a checkpoint could hold: an object that runs something when it is read."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self) -> tuple[Any, ...]:
        return os.mkdir, (str(self.path),)


def test_weights_alone_are_nothing_to_resume_from(
    config: Path, trained: Path, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    source = str(trained / "weights.safetensors")
    options = ["--work-dir", str(tmp_path), "--resume", source, "--trust-checkpoint"]
    assert "resuming needs a checkpoint of mmengine's" in refused(capfd, *on_figures(config), *options)


@pytest.mark.parametrize(
    ("given", "expected"),
    [
        (["--data-root", "nofolder"], "no such file or folder: nofolder. --data-root names"),
        (["--evaluate", "nofile.pth"], "no such file or folder: nofile.pth. "),
        (["--resume", "nofile.pth", "--trust-checkpoint"], "no such file or folder: nofile.pth. "),
        (["--boxes", "nofile.json"], "no such file or folder: nofile.json. "),
        (["--cfg-options", "foo"], "--cfg-options foo: KEY=VALUE is expected"),
        (["--cfg-options", "load_from.a=1", "work_dir.a.b=1"], "does not go into this config"),
        (["--cfg-options", "model.head.cycles=0"], "cycles=0"),
    ],
)
def test_errors_of_use_are_one_message(
    given: list[str], expected: str, config: Path, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    # Of an option given twice the last one counts.
    assert expected in refused(capfd, *on_figures(config), "--work-dir", str(tmp_path), *given)


def test_a_file_that_is_no_config_is_one_message(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "broken.py").write_text("model = dict(")
    assert "broken.py: cannot be read as a config" in refused(capfd, str(tmp_path / "broken.py"))


def test_inference_through_mmpose(config: Path, trained: Path) -> None:
    from mmpose.apis import inference_topdown, init_model

    model = init_model(str(config), device="cpu")
    model.load_state_dict(to_mmpose(weights_of(trained / "weights.safetensors")), strict=True)
    image = np.random.default_rng(0).integers(0, 255, (100, 80, 3), dtype=np.uint8)
    (sample,) = inference_topdown(model, image, np.array([[10, 10, 60, 80]], dtype=np.float32))
    assert sample.pred_instances.keypoints.shape == (1, 17, 2)
    assert np.isfinite(sample.pred_instances.keypoints).all()


def test_the_guide_predicts(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    import cv2

    from cycledistill.recipes.weights.files import write_weights

    page = (Path(__file__).parents[2] / "docs" / "mmpose.md").read_text(encoding="utf-8")
    (code,) = [code for code in re.findall(r"^```py\n(.*?)^```$", page, re.M | re.S) if "inference_topdown" in code]
    monkeypatch.chdir(tmp_path)
    write_weights(create_pose_model("sdpose_t").state_dict(), "weights.safetensors")
    cv2.imwrite("person.jpg", np.zeros((256, 192, 3), np.uint8))
    exec(code, {})
    assert "(1, 17, 2)" in capsys.readouterr().out


def test_the_config_of_the_guide_is_read(tmp_path: Path) -> None:
    from mmengine.config import Config

    page = (Path(__file__).parents[2] / "docs" / "mmpose.md").read_text(encoding="utf-8")
    (code,) = [code for code in re.findall(r"^```py\n(.*?)^```$", page, re.M | re.S) if "_base_" in code]
    (tmp_path / "mine.py").write_text(code.replace("PATH/integrations/mmpose", str(config_path("sdpose_t").parents[1])))
    head = Config.fromfile(str(tmp_path / "mine.py")).model.head
    assert (head.cycles, head.model, head.distill) == (
        2,
        "sdpose_t",
        {"preset": "sdpose", "token_weight": 1e-5},
    )


def test_data_moves_in_every_part() -> None:
    from mmengine.config import Config

    config = Config.fromfile(str(config_path("sdpose_b")))
    options.set_data(config, "/data/coco", None)
    detected = "person_detection_results/COCO_val2017_detections_AP_H_56_person.json"
    assert config.train_dataloader.dataset.data_root == "/data/coco"
    for part in ("val", "test"):
        assert config[f"{part}_dataloader"].dataset.bbox_file == f"/data/coco/{detected}"
        assert config[f"{part}_evaluator"].ann_file == "/data/coco/annotations/person_keypoints_val2017.json"
    options.set_data(config, None, "annotated")
    assert config.val_dataloader.dataset.bbox_file is None and "bbox_file" not in config.train_dataloader.dataset


@pytest.mark.parametrize("name", NAMES)
def test_same_weights_same_heatmaps_both_ways(name: str) -> None:
    from mmpose.apis import init_model

    theirs, ours = init_model(str(config_path(name)), device="cpu"), create_pose_model(NAMES[name]).eval()
    assert theirs.head.pose.cyclic.cycles == ours.cyclic.cycles
    images = torch.randn(1, 3, 256, 192)
    with torch.no_grad():
        theirs.load_state_dict(to_mmpose(ours.state_dict()), strict=True)
        assert torch.equal(theirs(images, None, mode="tensor"), ours(images))
        other = create_pose_model(NAMES[name]).eval()
        other.load_state_dict(from_mmpose(theirs.state_dict()), strict=True)
        assert torch.equal(other(images), ours(images))


def head_of(**settings: Any) -> Any:
    from mmpose.registry import MODELS

    small = {"image_size": (64, 48), "options": SMALL}
    return MODELS.build({"type": "SDPoseHead", "model": "sdpose_t", **small, **settings})


def samples(count: int) -> list[Any]:
    from mmengine.structures import InstanceData, PixelData
    from mmpose.structures import PoseDataSample

    result = []
    for _ in range(count):
        sample = PoseDataSample(metainfo={"flip_indices": [0, *(i + 1 if i % 2 else i - 1 for i in range(1, 17))]})
        sample.gt_fields = PixelData(heatmaps=torch.rand(17, 16, 12))
        sample.gt_instance_labels = InstanceData(keypoint_weights=torch.randint(0, 2, (1, 17)).float())
        result.append(sample)
    return result


def test_losses_and_gradients_are_those_of_the_plain_model() -> None:
    from cycledistill import CycleLoss
    from cycledistill.integrations.coco import HeatmapLoss

    ours, head = small_model().train(), head_of(cycles=3).train()
    backbone = ours.backbone
    head.load_state_dict({f"pose.{k}": v for k, v in ours.state_dict().items() if not k.startswith("backbone.")})
    images, batch = torch.randn(2, 3, 64, 48), samples(2)
    target = torch.stack([each.gt_fields.heatmaps for each in batch])
    weight = torch.cat([each.gt_instance_labels.keypoint_weights for each in batch])
    expected = CycleLoss(HeatmapLoss()).parts(ours(images), target, weight)
    sum(expected.values()).backward()
    with torch.no_grad():
        features = backbone(images)
    found = head.loss((features,), batch)
    terms = {name: value for name, value in found.items() if "loss" in name}
    assert terms.keys() == {f"loss_{name}" for name in expected}
    for name, value in expected.items():
        torch.testing.assert_close(terms[f"loss_{name}"], value)
    sum(terms.values()).backward()
    for name, parameter in head.pose.named_parameters():
        if parameter.requires_grad:
            torch.testing.assert_close(parameter.grad, ours.get_parameter(name).grad)


def test_half_precision_losses_are_computed_in_float32() -> None:
    head, batch = head_of(cycles=2).train(), samples(2)
    with torch.autocast("cpu", torch.bfloat16):
        found = head.loss((torch.randn(2, 32, 16, 12),), batch)
    assert all(value.dtype == torch.float32 for name, value in found.items() if "loss" in name)


def test_a_plain_head_has_one_loss() -> None:
    found = head_of(model="tokenpose_s_v1", cycles=None).train().loss((torch.randn(2, 32, 16, 12),), samples(2))
    assert {name for name in found if "loss" in name} == {"loss_task"}


def test_exit_predicts_with_a_later_cycle() -> None:
    first, second = head_of(cycles=2).eval(), head_of(cycles=2, exit=2).eval()
    second.load_state_dict(first.state_dict())
    feats = (torch.randn(1, 32, 16, 12),)
    with torch.no_grad():
        one, two = first(feats), second(feats)
        first.pose.cyclic.exit = 2
        assert not torch.equal(one, two) and torch.equal(first(feats), two)


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"model": "sdpose_z"}, "no pose model"),
        ({"model": "sdpose_reg"}, "heatmaps is expected"),
        ({"model": "tokenpose_t", "options": {}, "image_size": (256, 192)}, "no backbone"),
        ({"cycles": 0}, "cycles=0"),
        ({"distill": "other"}, "unknown preset"),
        (
            {
                "decoder": {
                    "type": "MSRAHeatmap",
                    "input_size": (64, 48),
                    "heatmap_size": (16, 12),
                    "sigma": 2,
                }
            },
            "input_size",
        ),
    ],
)
def test_settings_that_do_not_go_together_are_refused(settings: dict[str, Any], message: str) -> None:
    with pytest.raises(Exception, match=message):
        head_of(**settings)


def test_the_factor_moves_along_a_line() -> None:
    from cycledistill.integrations.mmpose.hooks import DistillWeightHook

    hook = DistillWeightHook(begin=1, end=3, start=0.0, stop=1.0)
    assert [hook.factor(step, 2) for step in range(8)] == [0, 0, 0, 0.25, 0.5, 0.75, 1, 1]
    assert DistillWeightHook(start=1.0).factor(0, 5) == 1.0
    with pytest.raises(ValueError, match="begin <= end"):
        DistillWeightHook(begin=2, end=1)


def test_a_pretrained_backbone_is_loaded_whole_or_not(tmp_path: Path) -> None:
    from mmpose.registry import MODELS

    from cycledistill.recipes.errors import CheckpointError
    from cycledistill.recipes.weights.files import write_weights

    source = MODELS.build({"type": "TokenPoseHRNet"}).net.state_dict()
    write_weights(source | {"stage4.0.weight": torch.ones(2)}, tmp_path / "hrnet.pth")
    settings = {
        "type": "TokenPoseHRNet",
        "init_cfg": {"type": "Pretrained", "checkpoint": str(tmp_path / "hrnet.pth")},
    }
    backbone = MODELS.build(settings)
    backbone.init_weights()
    assert all(torch.equal(tensor, source[name]) for name, tensor in backbone.net.state_dict().items())
    with pytest.raises(CheckpointError, match="does not fit this backbone"):
        MODELS.build(settings | {"stage1_width": 32}).init_weights()


@pytest.mark.slow
def test_two_processes_train_and_evaluate(config: Path) -> None:
    folder = config.parent / "two"
    command = [
        sys.executable,
        "-m",
        "torch.distributed.run",
        "--nproc_per_node",
        "2",
        "--master_port",
        "29617",
    ]
    command += ["-m", "cycledistill.integrations.mmpose.train", *on_figures(config), "--launcher", "pytorch"]
    command += ["--work-dir", str(folder)]
    environment = os.environ | {"CUDA_VISIBLE_DEVICES": ""}
    done = subprocess.run(command, capture_output=True, text=True, timeout=300, env=environment)
    assert done.returncode == 0, done.stderr[-3000:]
    log = log_of(folder)
    assert len([line for line in log if "loss" in line]) == 4
    assert any("coco/AP" in line for line in log)
    load_pose_weights(small_model(), folder / "weights.safetensors")
