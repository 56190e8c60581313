"""One model as a run, its file of weights, a saved folder and a name on the hub."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

pytest.importorskip("accelerate")

from safetensors.torch import save_file

from cycledistill.commands.frame import main
from cycledistill.integrations.human36m import create_lifter, save_lifter_weights
from cycledistill.integrations.human36m.lift import lift
from cycledistill.integrations.human36m.lifting.models import open_model
from cycledistill.integrations.human36m.models.convention import MOTIONBERT, Convention
from cycledistill.integrations.human36m.recipe import load_recipe
from cycledistill.integrations.human36m.train import train
from cycledistill.integrations.human36m.trained import load_trained
from cycledistill.integrations.human36m.weights.key_map import to_official
from cycledistill.recipes.errors import CheckpointError
from tests.human36m.people import coco_person, h36m_person

F = 9
SMALL: dict[str, Any] = {"frames": F, "dim": 16, "depth": 2, "heads": 2}


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run of one step, with an hourglass and cycles."""
    folder = tmp_path_factory.mktemp("models") / "run"
    recipe = load_recipe(
        "frame_token_small",
        {
            "model.name": "mixste",
            "model.options": {"dim": 16, "depth": 2, "heads": 2},
            "hourglass.layer": 1,
            "hourglass.keep": 3,
            "hourglass.select": "uniform",
            "cyclic.cycles": 2,
            "data.frames": F,
            "data.sequences": 4,
            "data.length": 18,
            "data.views": 1,
            "data.stride": 9,
            "ema.enabled": True,
            "ema.decay": 0.5,
            "run.max_steps": 3,
            "run.output": str(folder),
            "run.progress": False,
        },
    )
    train(recipe)
    return folder


def lifted(where: str | Path, **options: Any) -> np.ndarray:
    model, settings = open_model(where, **options)
    seen = h36m_person(20)[..., :2] / 320 - [1, 0.75]
    return lift(model, seen.astype(np.float32), settings)


@pytest.mark.slow
def test_a_run_its_weights_a_folder_and_a_hub_name_give_the_same_poses(
    run: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    poses = lifted(run)
    inside = run / "checkpoints" / "step-00000003" / "model.safetensors"
    assert np.array_equal(lifted(inside.parent), poses) and np.array_equal(lifted(inside), poses)
    model = load_trained(run)
    save_lifter_weights(model, tmp_path / "saved.safetensors")
    assert np.array_equal(lifted(tmp_path / "saved.safetensors"), poses)
    again = load_trained(tmp_path / "saved.safetensors")
    assert (again.cyclic.cycles, again.hourglass.settings.select, again.hourglass.keep) == (2, "uniform", (3,))
    model.save_pretrained(tmp_path / "folder")
    assert np.array_equal(lifted(tmp_path / "folder"), poses)
    monkeypatch.setattr(
        "cycledistill.recipes.hub.download.hf_hub_download",
        lambda repo_id, filename, **_: str(tmp_path / repo_id.split("/")[1] / filename),
    )
    assert np.array_equal(lifted("user/folder"), poses)
    average = inside.with_name("ema.safetensors")
    assert np.array_equal(lifted(average), lifted(run, ema=True)) and not np.array_equal(lifted(average), poses)
    for whole in (inside, tmp_path / "folder", "user/folder"):
        with pytest.raises(CheckpointError, match="holds one set of weights, and no average"):
            open_model(whole, ema=True)


@pytest.mark.parametrize(("name", "own"), [("mhformer", {"hidden": 16}), ("tpc_mixste", {"layer": 1, "keep": 3})])
def test_a_model_of_centre_frames_is_used_as_one(name: str, own: dict[str, Any], tmp_path: Path) -> None:
    model = create_lifter(name, **{**SMALL, **own}).eval()
    save_lifter_weights(model, tmp_path / "a.safetensors", name)
    found, settings = open_model(tmp_path / "a.safetensors")
    assert (settings.mode, settings.frames, found.mode) == ("centre", F, "seq2frame")
    assert lifted(tmp_path / "a.safetensors").shape == (20, 17, 3)


def test_a_converted_file_holds_its_model(tmp_path: Path) -> None:
    torch.manual_seed(1)
    model = create_lifter("motionbert", dim_rep=16, **SMALL).eval()
    torch.save({"model_pos": to_official(model.state_dict(), model)}, tmp_path / "theirs.bin")
    fields = [f"{name}={value}" for name, value in {**SMALL, "dim_rep": 16}.items()]
    arguments = [str(tmp_path / "theirs.bin"), str(tmp_path / "ours.safetensors"), "--model", "motionbert"]
    sets = [word for each in fields for word in ("--option", each)]
    assert main(["convert", "human36m", *arguments, *sets, "--convention", "frame_rate=25"]) == 0
    found, settings = open_model(tmp_path / "ours.safetensors")
    assert found.convention == Convention(**{**vars(MOTIONBERT), "frame_rate": 25}) and settings.frames == F
    assert found.name == "motionbert"
    seen = torch.rand(1, F, 17, 3)
    assert torch.equal(found(seen), model(seen))
    # and the command takes it as it is: its confidence, its mapping of COCO, its unit
    np.savez(tmp_path / "a.npz", keypoints=coco_person(), width=640, height=480, fps=25)
    given = [str(tmp_path / "ours.safetensors"), str(tmp_path / "a.npz"), "--output", str(tmp_path / "p.npz")]
    assert main(["predict", "human36m", *given, "--person-height", "1.7", "--device", "cpu"]) == 0
    with np.load(tmp_path / "p.npz") as poses:
        assert poses["poses"].shape == (20, 17, 3)


def test_what_is_no_model(run: Path, tmp_path: Path) -> None:
    model = create_lifter("mixste", **SMALL)
    save_file(model.state_dict(), tmp_path / "bare.safetensors")
    with pytest.raises(CheckpointError, match=r"bare\.safetensors holds weights only.*--config NAME"):
        open_model(tmp_path / "bare.safetensors")
    torch.save(model.state_dict(), tmp_path / "bare.pth")
    with pytest.raises(CheckpointError, match="holds weights only, and does not say of which model"):
        open_model(tmp_path / "bare.pth")
    (tmp_path / "empty.safetensors").write_bytes(b"")
    with pytest.raises(CheckpointError, match=r"empty\.safetensors"):
        open_model(tmp_path / "empty.safetensors")
    with pytest.raises(CheckpointError, match="does not exist"):
        open_model(tmp_path / "none")
    inside = run / "checkpoints" / "step-00000003" / "recipe.json"
    other = tmp_path / "pose"
    other.mkdir()
    (other / "recipe.json").write_text(json.dumps({**json.loads(inside.read_text()), "command": "coco"}))
    with pytest.raises(CheckpointError, match="trained by `cycledistill train coco`.*cycledistill predict takes it"):
        open_model(other)


@pytest.mark.parametrize(
    ("built", "message"),
    [
        ("{", "built from is expected to be a JSON object"),
        (json.dumps({"library": "cycledistill", "model_class": "Path"}), "the model is a Path, and"),
        (json.dumps({"library": "other"}), "cannot be built: the config of no model of this library"),
        (json.dumps({"library": "cycledistill", "model_class": "MixSTE"}), "'network' is missing"),
    ],
)
def test_what_describes_no_model(built: str, message: str, tmp_path: Path) -> None:
    state = create_lifter("mixste", **SMALL).state_dict()
    save_file(state, tmp_path / "a.safetensors", {"built_from": built})
    with pytest.raises(CheckpointError, match=message):
        load_trained(tmp_path / "a.safetensors")
