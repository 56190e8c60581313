"""Every lifting and multi-view converter on a container as its authors' trainer writes it, on disk."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from cycledistill.commands.frame import main
from cycledistill.integrations.human36m import create_lifter, load_lifter_weights
from cycledistill.integrations.human36m.weights.key_map import to_official
from cycledistill.recipes.weights.files import read_metadata, read_weights
from tests.human36m.test_convert import SMALL, numbered
from tests.trainers import TRAINERS

LIFTERS = {
    "motionbert": ("motionbert", {}),
    "mixste": ("mixste", {}),
    "mhformer": ("mhformer", {}),
    "hot_mixste": ("hot", {"keep": 3, "layer": 1}),
    "tpc_mixste": ("hot", {"keep": 3, "layer": 1}),
    "tpc_mhformer": ("hot", {"keep": 3}),
}


@pytest.mark.parametrize("name", LIFTERS)
def test_lifters(name: str, tmp_path: Path) -> None:
    trainer, more = LIFTERS[name]
    options = SMALL[name.split("_")[-1]] | more
    model = create_lifter(name, **options)
    for number, each in enumerate(model.state_dict().values()):
        each.fill_(number)
    file, ours = tmp_path / "theirs.bin", tmp_path / "ours.safetensors"
    TRAINERS[trainer](to_official(model.state_dict(), model), file)
    words = ["convert", "human36m", str(file), str(ours), f"--model={name}"]
    assert main([*words, *(f"--option={key}={value}" for key, value in options.items())]) == 0
    found = read_weights(ours)
    assert found.keys() == model.state_dict().keys()
    assert all(torch.equal(found[key], each) for key, each in model.state_dict().items())
    assert f'"unit": "{model.official.unit}"' in read_metadata(ours)["convention"]
    fresh = create_lifter(name, **options)
    load_lifter_weights(fresh, file)
    assert all(torch.equal(each, found[key]) for key, each in fresh.state_dict().items())


def test_the_keys_of_another_container_are_named(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    torch.save({"epoch": 3, "model_traj": numbered("mixste")[1]}, tmp_path / "theirs.bin")
    words = ["convert", "human36m", str(tmp_path / "theirs.bin"), str(tmp_path / "ours.safetensors")]
    assert main([*words, "--model=mixste"]) == 2
    assert "model_traj (a dict of" in capsys.readouterr().err


@pytest.mark.slow
@pytest.mark.parametrize("start", [False, True], ids=["its own", "a start from COCO"])
def test_multiview(start: bool, tmp_path: Path) -> None:
    pytest.importorskip("timm")
    pytest.importorskip("torchvision")
    from cycledistill.integrations.coco.weights.key_map import to_official as pose_to_official
    from cycledistill.integrations.human36m.multiview.key_map import multiview_to_official
    from tests.human36m.multiview.test_weights import OPTIONS, coco, made

    file, ours = tmp_path / "theirs.pth.tar", tmp_path / "ours.safetensors"
    if start:  # PPT's single-view trainer is HRNet's
        source = coco()
        state = source.state_dict()
        TRAINERS["hrnet"](pose_to_official(state, source.config, "ppt-s"), file)
    else:
        model = made()
        state = model.state_dict()
        TRAINERS["multiview_ppt"](multiview_to_official(state, model.config), file)
    words = ["convert", "multiview", str(file), str(ours), *OPTIONS]
    assert main([*words, "--from-coco"] if start else words) == 0
    found = read_weights(ours)
    shared = [name for name in found if name in state and "blocks." in name]
    assert shared and all(torch.equal(found[name], state[name]) for name in shared)
