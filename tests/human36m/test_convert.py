"""The authors' files in our names and back: nothing lost, nothing guessed, tables of another clip length by flag."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors import safe_open

from cycledistill.commands.frame import main
from cycledistill.integrations.human36m import Lifter, create_lifter, load_lifter_weights, save_lifter_weights
from cycledistill.integrations.human36m.models.lifter import positions_of
from cycledistill.integrations.human36m.weights.key_map import from_official, to_official
from cycledistill.recipes.errors import CheckpointError
from cycledistill.recipes.weights.files import write_weights

SMALL: dict[str, dict[str, Any]] = {
    "mixste": {"frames": 9, "dim": 16, "depth": 3},
    "mhformer": {"frames": 9, "dim": 16, "hidden": 32},
    "motionbert": {"frames": 9, "dim": 16, "depth": 2, "dim_rep": 24},
}


def small(name: str, **options: Any) -> Lifter:
    return create_lifter(name, **(SMALL[name] | options))


def numbered(name: str, **options: Any) -> tuple[Lifter, dict[str, torch.Tensor]]:
    """A model, and the authors' file of it in which no two numbers are the same."""
    model, start = small(name, **options), 0
    state = {}
    for key, tensor in model.state_dict().items():
        state[key] = torch.arange(start, start + tensor.numel(), dtype=tensor.dtype).view(tensor.shape)
        start += tensor.numel()
    model.load_state_dict(state)
    return model, to_official(state, model)


@pytest.mark.parametrize("name", SMALL)
def test_there_and_back_loses_nothing(name: str) -> None:
    model, theirs = numbered(name)
    back = from_official(theirs, model)
    assert list(back) == list(model.state_dict())
    assert all(torch.equal(back[key], each) for key, each in model.state_dict().items())
    assert sum(each.numel() for each in theirs.values()) == sum(each.numel() for each in back.values())


def test_mhformers_positions_are_one_table_and_its_norm_is_over_both_axes() -> None:
    model, theirs = numbered("mhformer")
    assert theirs["Transformer_hypothesis.pos_embed_2"].shape == (1, 9, 16)
    assert torch.equal(theirs["Transformer_hypothesis.pos_embed_2"], model.stem.temporal_pos[:, :, 1])
    assert theirs["Transformer_hypothesis.norm.weight"].shape == (48,)


def test_every_wrong_tensor_is_named() -> None:
    model, theirs = numbered("mixste")
    before = {key: each.clone() for key, each in model.state_dict().items()}
    theirs["extra.weight"] = torch.zeros(1)
    del theirs["TTEblocks.2.mlp.fc1.bias"]
    theirs["head.1.weight"] = torch.zeros(4, 16)
    with pytest.raises(CheckpointError) as refusal:
        from_official(theirs, model)
    for part in ("1 missing: TTEblocks.2.mlp.fc1.bias", "1 unknown: extra.weight", "head.1.weight (4, 16), expected"):
        assert part in str(refusal.value)
    assert all(torch.equal(before[key], each) for key, each in model.state_dict().items())


def test_another_hosts_file_is_refused() -> None:
    with pytest.raises(CheckpointError, match=r"not those of this MotionBERT.*missing.*unknown"):
        from_official(numbered("mixste")[1], small("motionbert"))


def test_our_own_lifter_has_no_official_names() -> None:
    model = create_lifter("frame_lifter", frames=9, dim=16)
    with pytest.raises(ValueError, match="no official code has a FrameLifter"):
        to_official(model.state_dict(), model)


@pytest.mark.parametrize("name", ["mixste", "motionbert"])
def test_tables_of_another_clip_length_are_refused_or_resized(name: str) -> None:
    source, theirs = numbered(name, frames=27)
    model = small(name)
    with pytest.raises(CheckpointError, match=r"of 27 entries, expected 9; pass resize=True"):
        from_official(theirs, model)
    ours = from_official(theirs, model, resize=True)
    torch.testing.assert_close(ours["temporal_pos"], positions_of(source.state_dict()["temporal_pos"], 9, "any"))
    assert torch.equal(ours["temporal_pos"][:, 0], source.state_dict()["temporal_pos"][:, 0])
    model.load_state_dict(ours)
    assert all(torch.equal(each, source.state_dict()[key]) for key, each in ours.items() if key != "temporal_pos")


def test_resizing_hides_nothing_else() -> None:
    theirs = numbered("mixste", frames=27)[1]
    del theirs["head.1.bias"]
    with pytest.raises(CheckpointError, match=r"1 missing: head\.1\.bias"):
        from_official(theirs, small("mixste"), resize=True)


@pytest.mark.parametrize("resize", [False, True])
def test_mhformer_cannot_be_resized(resize: bool) -> None:
    with pytest.raises(CheckpointError, match="build the model with frames=") as refusal:
        from_official(numbered("mhformer", frames=18)[1], small("mhformer"), resize)
    assert "resize=True" not in str(refusal.value)


@pytest.mark.parametrize("wrapper", [None, "model_pos", "state_dict"])
def test_files_load_in_every_form(tmp_path: Path, wrapper: str | None) -> None:
    source, theirs = numbered("mixste")
    stored = {f"module.{key}": each for key, each in theirs.items()}
    torch.save(stored if wrapper is None else {wrapper: stored, "epoch": 3}, tmp_path / "theirs.bin")
    model = small("mixste")
    load_lifter_weights(model, tmp_path / "theirs.bin")
    assert all(torch.equal(each, source.state_dict()[key]) for key, each in model.state_dict().items())
    save_lifter_weights(model, tmp_path / "ours.safetensors", "mixste")
    fresh = small("mixste")
    load_lifter_weights(fresh, tmp_path / "ours.safetensors")
    assert all(torch.equal(each, source.state_dict()[key]) for key, each in fresh.state_dict().items())
    with safe_open(tmp_path / "ours.safetensors", "pt") as file:
        assert file.metadata()["model"] == "mixste"


def test_a_refused_file_is_named_and_changes_nothing(tmp_path: Path) -> None:
    write_weights(numbered("mixste", depth=4)[1], tmp_path / "deep.pth")
    model = small("mixste")
    before = {key: each.clone() for key, each in model.state_dict().items()}
    with pytest.raises(CheckpointError, match=r"deep\.pth: .*unknown: STEblocks\.3"):
        load_lifter_weights(model, tmp_path / "deep.pth")
    write_weights(small("mixste", frames=27).state_dict(), tmp_path / "ours.safetensors")
    with pytest.raises(CheckpointError, match="temporal_pos of 27 entries"):
        load_lifter_weights(model, tmp_path / "ours.safetensors")
    assert all(torch.equal(before[key], each) for key, each in model.state_dict().items())
    load_lifter_weights(model, tmp_path / "ours.safetensors", resize=True)


def test_command_line_converts_both_ways(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    _, theirs = numbered("motionbert")
    torch.save({"model_pos": theirs}, tmp_path / "best_epoch.bin")
    fields = [f"--option={key}={value}" for key, value in SMALL["motionbert"].items()]
    ours, back = tmp_path / "ours.safetensors", tmp_path / "back.pth"
    assert (
        main(["convert", "human36m", str(tmp_path / "best_epoch.bin"), str(ours), "--model=motionbert", *fields]) == 0
    )
    assert main(["convert", "human36m", str(ours), str(back), "--model=motionbert", "--to=motionbert", *fields]) == 0
    written = torch.load(back, weights_only=True)
    assert set(written) == set(theirs)
    assert all(torch.equal(written[key], theirs[key]) for key in theirs)
    capsys.readouterr()
    longer = [*fields, "--option=frames=18"]
    assert (
        main(["convert", "human36m", str(tmp_path / "best_epoch.bin"), str(ours), "--model=motionbert", *longer]) == 2
    )
    assert "--resize" in capsys.readouterr().err
    assert (
        main(
            [
                "convert",
                "human36m",
                str(tmp_path / "best_epoch.bin"),
                str(ours),
                "--model=motionbert",
                *longer,
                "--resize",
            ]
        )
        == 0
    )
    assert main(["convert", "human36m", str(tmp_path / "best_epoch.bin"), str(ours), "--model=motionbrt"]) == 2
    assert "nearest: motionbert" in capsys.readouterr().err
    assert main(["convert", "human36m", str(ours), str(back), "--model=motionbert", "--to=mixste", *fields]) == 2
    assert "--to mixste: a MotionBERT goes to motionbert" in capsys.readouterr().err
    assert main(["convert", "human36m", str(ours), str(back), "--model=motionbert", "--option", "frames"]) == 2
    assert sorted(path.name for path in tmp_path.iterdir()) == ["back.pth", "best_epoch.bin", "ours.safetensors"]
