"""Published pose models come back as they were; what no config describes is not written."""

from __future__ import annotations

import copy
import dataclasses
import json
import pickle
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file

pytest.importorskip("huggingface_hub")

from huggingface_hub import PyTorchModelHubMixin

from cycledistill import CycleOutput, Distill, unwrap_cyclic, wrap_cyclic
from cycledistill.integrations.coco import CheckpointError, TokenPose
from cycledistill.integrations.coco.deploy import prepare_for_inference
from cycledistill.integrations.coco.trained import load_trained
from cycledistill.prune.wrap import unwrap_pruning, wrap_pruning
from cycledistill.recipes.commands.held import command_of
from cycledistill.recipes.errors import RecipeError
from tests.coco.models.hub.published import config_of, small, without_card


def test_the_file_of_a_published_model_is_that_model(written: Path, picture: torch.Tensor) -> None:
    file, model = written / "model.safetensors", TokenPose.from_pretrained(written)
    assert command_of(str(file)) == "coco"
    assert torch.equal(load_trained(file)(picture), model(picture))


@pytest.mark.parametrize(
    ("name", "options"),
    [
        ("tokenpose_s_v1", {"scale": 0.2}),
        ("tokenpose_s_v1_original", {"num_keypoints": 14}),
        ("tokenpose_l_d6", {"depth": 6, "backbone": "none", "patch_size": (8, 8)}),
        ("sdpose_s_v1", {}),
        ("sdpose_reg", {"cycles": 3, "distill": "elt"}),
        ("ppt_s", {"prune_layers": (1, 2), "keep": 0.5}),
        ("sdpose_s_v1_ppt", {"prune_layers": (1,)}),
    ],
)
def test_a_saved_model_is_loaded_as_it_was(
    name: str, options: dict[str, Any], picture: torch.Tensor, tmp_path: Path
) -> None:
    model = small(name, **options).eval()
    state = torch.get_rng_state()
    model.save_pretrained(without_card(tmp_path / "one"))
    assert torch.equal(torch.get_rng_state(), state)

    weights = load_file(tmp_path / "one" / "model.safetensors")
    TokenPose(model.config).load_state_dict(weights, strict=True)  # the plain architecture's own names

    loaded = TokenPose.from_pretrained(tmp_path / "one")
    assert (loaded.config, loaded.name, loaded.training) == (model.config, name, False)
    assert repr(getattr(loaded, "pruning", None)) == repr(getattr(model, "pruning", None))
    handles = [getattr(each, "cyclic", None) for each in (model, loaded)]
    assert (handles[0] is None) == (handles[1] is None)
    if handles[0] is not None and handles[1] is not None:
        assert (handles[0].cycles, handles[0].distill) == (handles[1].cycles, handles[1].distill)
        for each in handles:
            each.exit = 2
    with torch.no_grad():
        assert torch.equal(model(picture), loaded(picture))


@pytest.mark.slow
def test_the_config_is_plain_data_with_the_registered_name(written: Path) -> None:
    network = dataclasses.asdict(small().config)
    expected = {
        "library": "cycledistill", "model_class": "TokenPose", "name": "sdpose_s_v1", "note": "SDPose, CVPR 2024",
        "network": json.loads(json.dumps(network)), "cycles": 2, "distill": "sdpose",
    }  # fmt: skip
    found = config_of(written)
    assert found.pop("version")
    assert found == expected


def test_options_replace_what_the_config_says(written: Path, picture: torch.Tensor) -> None:
    plain = TokenPose.from_pretrained(written, cycles=None)
    assert type(plain) is TokenPose
    other = TokenPose.from_pretrained(written, cycles=3, distill=Distill(output_weight=1.0), prune_layers=(1, 2))
    assert (other.cyclic.cycles, other.cyclic.distill.output_weight) == (3, 1.0)
    assert other.pruning.layers == (1, 2)
    with torch.no_grad():
        assert torch.equal(plain(picture), TokenPose.from_pretrained(written)(picture))
    with pytest.raises(RecipeError, match=r"unknown field 'cycle'. Did you mean 'cycles'\? Known: cycles, distill"):
        TokenPose.from_pretrained(written, cycle=3)
    with pytest.raises(CheckpointError, match=r"config.json, with cycles=0: cycles=0: a whole number"):
        TokenPose.from_pretrained(written, cycles=0)


def test_a_scheme_of_ones_own_comes_back(tmp_path: Path) -> None:
    scheme = Distill(task_weights=(1.0, 0.5), token_weight={"keypoint": 1e-3}, normalize=True, detach=True)
    small(distill=scheme).save_pretrained(without_card(tmp_path))
    assert TokenPose.from_pretrained(tmp_path).cyclic.distill == scheme


@pytest.mark.slow
@pytest.mark.parametrize(
    "scheme", [lambda out: out.tokens[0].mean(), Distill(token_weight=1.0, token_loss=torch.nn.functional.l1_loss)]
)
def test_a_scheme_that_is_code_is_not_written(scheme: Any, tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    model = wrap_cyclic(unwrap_cyclic(small()), 2, scheme, blocks="blocks")
    model.save_pretrained(tmp_path)
    assert "which no config can hold; the config has distill=null" in caplog.text
    assert config_of(tmp_path)["distill"] is None
    assert "no distillation that a config can hold" in (tmp_path / "README.md").read_text()
    assert TokenPose.from_pretrained(tmp_path).cyclic.distill is None
    assert TokenPose.from_pretrained(tmp_path, distill="exits").cyclic.distill == Distill.preset("exits")


def test_models_stay_what_they_were_with_the_mixin(picture: torch.Tensor) -> None:
    model = small()
    assert isinstance(model, PyTorchModelHubMixin) and isinstance(model, torch.nn.Module)
    assert list(model.state_dict()) == list(TokenPose(model.config).state_dict())
    copies = [copy.deepcopy(model), pickle.loads(pickle.dumps(model)), copy.deepcopy(TokenPose(model.config))]
    for each in copies[:2]:
        assert type(each) is type(model)
        assert each.name == "sdpose_s_v1"
        torch.manual_seed(1)
        out = each(picture)
        assert isinstance(out, CycleOutput) and len(out) == 2
    assert type(copies[2]) is TokenPose
    assert type(unwrap_cyclic(model)) is TokenPose
    assert type(unwrap_pruning(wrap_pruning(model, (1,), blocks="blocks", query="keypoint"))) is TokenPose


@pytest.mark.slow
def test_a_compiled_model_saves_the_plain_names(picture: torch.Tensor, tmp_path: Path) -> None:
    model = small(backbone="none", patch_size=(8, 8), depth=2)
    torch._dynamo.reset()
    compiled = torch.compile(model, backend="eager", fullgraph=True)
    assert len(compiled(picture)) == 2  # training, both cycles in one graph
    compiled.save_pretrained(without_card(tmp_path))
    assert load_file(tmp_path / "model.safetensors").keys() == TokenPose(model.config).state_dict().keys()


@pytest.mark.slow
def test_what_no_config_describes_is_refused_before_anything_is_written(tmp_path: Path) -> None:
    on_a_part = wrap_cyclic(small("tokenpose_s_v1"), 2, blocks="blocks[1:3]")
    by_others = wrap_pruning(small("tokenpose_s_v1"), (1,), blocks="blocks", query=slice(0, 3))
    ready = prepare_for_inference(small().eval(), torch.randn(1, 3, 64, 48))
    moving = wrap_cyclic(small("tokenpose_s_v1"), 2, blocks="blocks", batch_norm="update")
    grouped = wrap_cyclic(small("tokenpose_s_v1"), 2, blocks="blocks", tokens={"a": slice(0, 3)})
    headless = small("tokenpose_s_v1")
    headless.take_backbone()
    wider = small("tokenpose_s_v1")
    wider.mlp_head = torch.nn.Linear(32, 5)
    for model, reason in (
        (on_a_part, r"model.cyclic acts on blocks\[1:3\] with BatchNorm frozen, and the config can say only: blocks "),
        (by_others, r"model.pruning acts on blocks at \(1,\) by the tokens slice\(0, 3"),
        (
            grouped,
            r"model.cyclic distils the tokens \{'a': .*, and the config can say only: \{'keypoint'",
        ),
        (moving, r"model.cyclic acts on blocks, and the config can say only: blocks with BatchNorm frozen"),
        (ready, r"backbone\.conv1\.bias is \(64,\), and the config can say only: none; .* and \d+ more"),
        (headless, r"backbone\.\S+ is missing, and the config can say only: \(.* and \d+ more"),
        (wider, r"mlp_head\.weight is \(5, 32\), and the config can say only: none"),
    ):
        with pytest.raises(RecipeError, match=f"no longer what its config describes: .*{reason}"):
            model.save_pretrained(tmp_path / "never")
    with pytest.raises(RecipeError, match=r"license=3: text is expected"):
        small().save_pretrained(tmp_path / "never", model_card_kwargs={"license": 3})
    with pytest.raises(RecipeError, match="the config is made from the model itself"):
        small().save_pretrained(tmp_path / "never", config={"dim": 3})
    assert not (tmp_path / "never").exists()
    unwrap_cyclic(on_a_part).save_pretrained(without_card(tmp_path / "advice"))  # as the message says
    assert TokenPose.from_pretrained(tmp_path / "advice").name == "tokenpose_s_v1"
