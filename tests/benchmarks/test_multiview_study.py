"""The study of fusion across views runs, measures what it says, and its scenes are what they are said to be."""

from __future__ import annotations

import dataclasses
import json
import math
from pathlib import Path

import pytest
import torch
from torch import Tensor

pytest.importorskip("timm")
pytest.importorskip("tqdm")

from cycledistill.integrations.human36m.errors import LiftingDataError
from cycledistill.integrations.human36m.multiview.config import MultiViewConfig
from cycledistill.integrations.human36m.multiview.detection import decode_joints
from tests.scripts import load_script

study = load_script("benchmarks/multiview_study.py")
scenery = load_script("benchmarks/multiview_scenes.py")
ARMS, main, mean_pose, measure, pick, score = (
    study.ARMS, study.main, study.mean_pose, study.measure, study.pick, study.score
)  # fmt: skip
generate_scenes, in_picture, in_view = scenery.generate_scenes, scenery.in_picture, scenery.in_view


def test_heatmaps_by_hand_and_back() -> None:
    joints = torch.tensor([[[5.0, 9.0], [-7.0, 3.0], [20.3, 2.0]]])
    maps, weights = scenery.joint_heatmaps(joints, (16, 24))
    assert weights.tolist() == [[1, 0, 1]]
    assert maps[0, 0, 9, 5] == 1
    assert maps[0, 0, 12, 7] == pytest.approx(math.exp(-(4 + 9) / 8))
    assert not maps[0, 1].any()
    found, scores = decode_joints(maps)
    assert found[0, 0].tolist() == [5, 9]
    assert found[0, 2].tolist() == [20.25, 2]
    assert scores[0, 0] == 1


def test_scenes_are_of_one_figure_seen_by_all_cameras() -> None:
    """A joint lies on the rays through its pixels, so the rays of two cameras meet where the figure is."""
    scenes = generate_scenes(9, cameras=3, size=64, grid=(16, 16), seed=5)
    assert scenes.views.shape == (3, 9, 17, 16, 16)
    assert len(scenes) == 9
    assert scenes.hidden.float().mean().item() == pytest.approx(0.3, abs=0.2)
    places = in_view(scenes.joints, scenes.crops)  # features have a pixel a patch here, so a ray each
    torch.testing.assert_close(in_picture(places, scenes.crops), scenes.joints, rtol=1e-4, atol=1e-2)
    assert places.min() > -1
    assert places.max() < 16
    for camera in range(3):
        pixel = places[camera, 4, 0].round().long()
        ray = scenes.rays[camera, 4, pixel[1] * 16 + pixel[0]] - scenes.centers[camera, 4]
        step = -scenes.centers[camera, 4, [0, 2]] @ ray[[0, 2]] / ray[[0, 2]].square().sum()
        nearest = scenes.centers[camera, 4] + step * ray
        assert nearest[[0, 2]].norm() < 0.9  # the pelvis is within half a metre of the middle along each axis


def test_features_show_the_joints_that_are_not_hidden() -> None:
    scenes = generate_scenes(16, cameras=2, cover=0.6)
    found, scores = decode_joints(scenes.views.flatten(0, 1))
    off = (found - in_view(scenes.joints, scenes.crops).flatten(0, 1)).norm(dim=-1)
    hidden = scenes.hidden.flatten(0, 1)
    assert hidden.any()
    assert off[~hidden].max() < 1
    assert scores[hidden].max() < 4 < scores[~hidden].min()


def test_scenes_repeat_and_differ() -> None:
    one, same, other = (generate_scenes(3, 2, seed=seed, first=first) for seed, first in ((1, 0), (1, 0), (1, 50)))
    assert torch.equal(one.views, same.views)
    assert not torch.equal(one.joints, other.joints)
    assert not generate_scenes(3, 2, cover=0).hidden.any()
    for wrong in ({"count": 0}, {"cameras": 0}, {"grid": (5, 4)}, {"cover": 1.0}, {"covered": 5}, {"covered": -1}):
        with pytest.raises(LiftingDataError, match="expected|needed"):
            generate_scenes(**{"count": 2, **wrong})


def test_joints_that_are_hidden_in_covered_views_are_seen_in_all_others() -> None:
    scenes = generate_scenes(24, 4, cover=0.95, covered=2)
    views = scenes.hidden.any(dim=-1)
    assert (views.sum(dim=0) == 2).all()
    assert all(0 < each.sum() < 24 for each in views)  # no camera is spared
    assert scenes.hidden.sum(dim=0).max() <= 2
    assert scenes.hidden.float().mean() > 0.3
    assert not generate_scenes(3, 2, covered=0).hidden.any()


@torch.no_grad()
def test_measured_rates_of_a_model_that_copies_its_input() -> None:
    """What the features show is found exactly, so every joint that is seen is detected."""

    class Copy(torch.nn.Module):
        config = MultiViewConfig(**study.SMALL, fused_layers=0, ray_encoding=False)

        def forward(self, views: list[Tensor]) -> list[Tensor]:
            return views

    figures = measure(Copy(), generate_scenes(16, 2, size=128))  # a pixel of the features is about 16 of the picture
    assert figures["jdr_seen"] > 98 > figures["jdr_hidden"]
    assert figures["error_seen"] < 12.8 < figures["error_hidden"]


@pytest.mark.slow
def test_training_beats_the_mean_pose() -> None:
    scenes = generate_scenes(160)
    model = study.build(0, **ARMS["fused, rays"])
    study.train(model, scenes, steps=60, batch=8, seed=0)
    standing = score(in_picture(mean_pose(scenes, 160), scenes.crops), scenes)["error_all"]
    assert measure(model, scenes)["error_all"] < 0.9 * standing


def test_the_command_compares_three_models(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    out = tmp_path / "runs.json"
    few = ["--steps", "2", "--scenes", "10", "--views", "2", "--batch-size", "2"]
    assert main([*few, "--seeds", "2", "--out", str(out)]) == 0
    record = json.loads(out.read_text())
    printed = capsys.readouterr().out
    assert [run["model"] for run in record["runs"]] == 2 * list(ARMS)
    assert [run["seed"] for run in record["runs"]] == [0, 0, 0, 1, 1, 1]
    assert (record["cameras"], record["covered"]) == (2, 1)
    assert printed.splitlines()[0].split()[:3] == ["model", "M", "MACs"]
    assert printed == study.report(record) + "\n"
    assert printed.count("mean pose") == 1
    macs = {run["model"]: run["macs"] for run in record["runs"]}
    assert macs["views apart"] < macs["fused"] < macs["fused, rays"]
    assert list(tmp_path.iterdir()) == [out]


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--steps", "0"], "must be at least 1"),
        (["--seeds", "0"], "must be at least 1"),
        (["--views", "1"], "--views at least 2"),
        (["--out", "nowhere/runs.json"], "there is no folder nowhere"),
    ],
)
def test_the_command_refuses_before_it_trains(
    arguments: list[str], message: str, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit, match="2"):
        main(arguments)
    assert message in capsys.readouterr().err


def test_a_constant_answer_is_scored_as_any_other() -> None:
    scenes = generate_scenes(6, 2)
    middle = scenes.joints.mean(dim=1, keepdim=True)
    same_crops = dataclasses.replace(scenes, crops=scenes.crops[:, :1].expand_as(scenes.crops))
    constant = in_picture(mean_pose(same_crops, 6), same_crops.crops)
    torch.testing.assert_close(constant, middle.expand_as(constant), rtol=1e-4, atol=1e-2)
    assert score(scenes.joints, scenes)["error_all"] == 0


def test_picked_scenes_have_rays_for_models_that_use_them() -> None:
    scenes = generate_scenes(4, 2)
    index = torch.tensor([2, 0])
    assert set(pick(scenes, index, rays=False)) == {"views"}
    chosen = pick(scenes, index, rays=True)
    assert torch.equal(chosen["rays"][1], scenes.rays[1, index])
