"""Lifting and multi-view models as the Hugging Face hub holds them: every kind comes back as it was. Offline."""

from __future__ import annotations

import copy
import json
import pickle
import shutil
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file

pytest.importorskip("huggingface_hub")

from huggingface_hub import PyTorchModelHubMixin

from cycledistill import unwrap_cyclic, unwrap_hourglass, wrap_cyclic, wrap_hourglass
from cycledistill.cost.report import cost
from cycledistill.integrations.human36m import Lifter, create_lifter
from cycledistill.integrations.human36m.models.frame_lifter import FrameLifter
from cycledistill.integrations.human36m.models.mhformer import MHFormer
from cycledistill.integrations.human36m.models.mixste import MixSTE
from cycledistill.integrations.human36m.models.motionbert import MotionBERT
from cycledistill.integrations.human36m.multiview.model import MultiViewPPT, create_multiview
from cycledistill.integrations.human36m.trained import load_trained
from cycledistill.recipes.commands.held import command_of
from cycledistill.recipes.errors import CheckpointError, RecipeError

NARROW: dict[str, Any] = {"dim": 16, "heads": 2, "frames": 27}
VIEWS: dict[str, Any] = {"dim": 32, "heads": 4, "depth": 4, "image_size": (64, 64), "prune_layers": (1,)}


def small(name: str = "hot_mixste", **options: Any) -> Lifter:
    torch.manual_seed(0)
    return create_lifter(name, **{**NARROW, **options})


def without_card(folder: Path) -> Path:
    """A folder with a model card in it, which stays: making one means counting what the model costs."""
    folder.mkdir(exist_ok=True)
    (folder / "README.md").touch()
    return folder


def clip_for(model: Lifter) -> torch.Tensor:
    shape = (2, model.config.frames, model.config.joints, model.config.in_channels)
    return torch.randn(shape, generator=torch.Generator().manual_seed(1))


def awake(model: Lifter) -> Lifter:
    """The recovery's queries start at zero, and a mistake in them would not show."""
    with torch.no_grad():
        for name, each in model.named_parameters():
            if name.startswith(("prune.", "recover.")):
                each.normal_(std=0.1, generator=torch.Generator().manual_seed(len(name)))
    return model.eval()


def config_of(folder: Path) -> dict[str, Any]:
    found: dict[str, Any] = json.loads((folder / "config.json").read_text(encoding="utf-8"))
    return found


@pytest.fixture(scope="module")
def written(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("published") / "hot"
    small(cycles=2).save_pretrained(folder)
    return folder


def test_the_file_of_a_published_model_is_that_model(written: Path) -> None:
    """The file says its class, and not how it is built: its config.json does."""
    model, opened = Lifter.from_pretrained(written), load_trained(written / "model.safetensors")
    assert command_of(str(written / "model.safetensors")) == "human36m"
    assert torch.equal(opened(clip_for(model)), model(clip_for(model)))


@pytest.mark.parametrize(
    ("name", "kind", "options"),
    [
        ("mixste", MixSTE, {"cycles": 2, "depth": 3}),
        ("hot_mixste", MixSTE, {"cycles": 3, "distill": "elt"}),
        ("hot_mixste", MixSTE, {"layer": (2, 4), "keep": (9, 1 / 9), "lengths": "any"}),
        ("hot_mixste", MixSTE, {"hourglass": {"select": "motion", "neighbours": 3, "tie": "index", "heads": 4}}),
        ("tpc_mixste", MixSTE, {"hourglass": {"centre": 3}}),
        ("hot_motionbert", MotionBERT, {"depth": 3, "dim_rep": 16, "recover": "linear"}),
        ("motionbert_lite", MotionBERT, {"depth": 2, "dim_rep": 16, "joints": 14}),
        ("tpc_mhformer", MHFormer, {"hidden": 16}),
        ("hot_frame_lifter", FrameLifter, {"depth": 3, "mode": "seq2frame"}),
    ],
)
def test_a_saved_model_is_loaded_as_it_was(
    name: str, kind: type[Lifter], options: dict[str, Any], tmp_path: Path
) -> None:
    model = awake(small(name, **options))
    model.save_pretrained(without_card(tmp_path))
    loaded = Lifter.from_pretrained(tmp_path)
    assert isinstance(loaded, kind) and type(loaded).__name__ == kind.__name__
    assert (loaded.config, loaded.name, loaded.mode, loaded.training) == (model.config, name, model.mode, False)
    glasses = [getattr(each, "hourglass", None) for each in (model, loaded)]
    assert repr(glasses[0]) == repr(glasses[1])
    if glasses[0] is not None and glasses[1] is not None:
        assert glasses[0].settings == glasses[1].settings
        assert getattr(model, "recover", None).__class__ is getattr(loaded, "recover", None).__class__
    cycles = [getattr(each, "cyclic", None) for each in (model, loaded)]
    assert repr(cycles[0]) == repr(cycles[1])
    with torch.no_grad():
        assert torch.equal(model(clip_for(model)), loaded(clip_for(model)))
    weights = load_file(tmp_path / "model.safetensors")
    added = {key for key in weights if key.startswith(("prune.", "recover."))}
    assert bool(added) == (glasses[0] is not None and glasses[0].recover is True)
    plain = kind(model.config)  # type: ignore[call-arg]
    plain.load_state_dict({key: each for key, each in weights.items() if key not in added}, strict=True)
    assert torch.equal(kind.from_pretrained(tmp_path)(clip_for(model)), loaded(clip_for(model)))


def test_a_model_that_a_recipe_wrapped_is_described_too(tmp_path: Path) -> None:
    """Recipes call ``wrap_hourglass`` themselves, with their own ``centre`` and ``select``."""
    model = wrap_hourglass(small("mixste", depth=4), layer=2, keep=5, select="uniform", recover=False)
    wrap_cyclic(model, 2)
    model.eval().save_pretrained(without_card(tmp_path))
    assert config_of(tmp_path)["hourglass"] == {"select": "uniform", "centre": True}
    loaded = Lifter.from_pretrained(tmp_path)
    assert loaded.hourglass.settings == model.hourglass.settings
    assert loaded.cyclic.stack.path == model.cyclic.stack.path == "levels[2:4]"
    with torch.no_grad():
        assert torch.equal(model(clip_for(model)), loaded(clip_for(model)))


def test_a_local_recovery_comes_back_as_one(tmp_path: Path) -> None:
    """Its weights have the names and shapes of the published one, and would load into that in silence."""
    model = wrap_hourglass(small("mixste", depth=4), layer=2, keep=5, recover="local").eval()
    torch.nn.init.normal_(model.recover.query)
    model.save_pretrained(without_card(tmp_path))
    loaded = Lifter.from_pretrained(tmp_path)
    assert loaded.hourglass.recover == "local"
    with torch.no_grad():
        assert torch.equal(model(clip_for(model)), loaded(clip_for(model)))


def test_an_hourglass_made_with_code_is_refused(tmp_path: Path) -> None:
    def first(tokens: torch.Tensor, keep: int) -> torch.Tensor:
        return torch.arange(keep).expand(len(tokens), -1)

    by_function = small(hourglass={"select": first})
    by_draws = small(hourglass={"noise": torch.Generator()})
    for model, reason in ((by_function, "a function for select"), (by_draws, "a Generator for noise")):
        with pytest.raises(RecipeError, match=rf"this model's hourglass has {reason}, and a config holds words"):
            model.save_pretrained(tmp_path / "never")
    with pytest.raises(RecipeError, match=r"model.cyclic acts on levels\[0:3\], and the config can say only: levels"):
        wrap_cyclic(small(), 2, blocks="levels[0:3]").save_pretrained(tmp_path / "never")
    assert not (tmp_path / "never").exists()


@pytest.mark.slow
def test_options_replace_what_the_config_says(written: Path) -> None:
    assert not hasattr(Lifter.from_pretrained(written, cycles=None), "cyclic")
    other = MixSTE.from_pretrained(written, cycles=3, distill="exits", hourglass={"select": "uniform"})
    assert (other.cyclic.cycles, other.hourglass.settings.select) == (3, "uniform")
    with pytest.raises(RecipeError, match="unknown field 'select'. Known: mode, layer, keep, recover, hourglass"):
        Lifter.from_pretrained(written, select="uniform")
    with pytest.raises(CheckpointError, match=r"layer=None: .*an hourglass needs both"):
        Lifter.from_pretrained(written, layer=None)
    with pytest.raises(CheckpointError, match=r"weights are not those of this MixSTE, \d+ unknown: prune.0.pos"):
        Lifter.from_pretrained(written, recover="linear")


def test_each_class_reads_its_own(written: Path) -> None:
    with pytest.raises(CheckpointError, match=r"the model is a MixSTE, and MotionBERT.from_pretrained reads: MotionB"):
        MotionBERT.from_pretrained(written)
    with pytest.raises(CheckpointError, match="the model is a MixSTE, and MultiViewPPT.from_pretrained reads: Multi"):
        MultiViewPPT.from_pretrained(written)


@pytest.mark.parametrize(
    ("fields", "reason"),
    [
        ({"model_class": "TokenPose"}, "is a TokenPose, and Lifter.from_pretrained reads: FrameLifter, Lifter, MHF"),
        ({"model_class": "Lifter"}, "config.json: "),
        ({"model_class": "MotionBERT"}, "unknown field 'network.drop_path'"),
        ({"network": {"dim": 15}}, "dim=15 is not divisible"),
        ({"mode": "both"}, "mode='both'"),
        ({"layer": [99]}, "99"),
        ({"keep": None}, "an hourglass needs both"),
        ({"hourglass": {"selekt": "tpc"}}, "selekt"),
        ({"hourglass": {"select": "os.system"}}, "os.system"),
    ],
)
def test_a_config_that_is_wrong(written: Path, fields: dict[str, Any], reason: str, tmp_path: Path) -> None:
    folder = Path(shutil.copytree(written, tmp_path / "hot"))
    (folder / "config.json").write_text(json.dumps(config_of(folder) | fields), encoding="utf-8")
    with pytest.raises(CheckpointError, match=reason) as caught:
        Lifter.from_pretrained(folder)
    assert str(folder) in str(caught.value)


def test_a_name_that_is_nowhere_offline(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    with pytest.raises(CheckpointError, match="'user/nowhere' is no folder here, and .* cannot be reached"):
        Lifter.from_pretrained("user/nowhere", cache_dir=tmp_path)


@pytest.mark.slow
def test_models_stay_what_they_were_with_the_mixin() -> None:
    model = small(cycles=2)
    assert isinstance(model, PyTorchModelHubMixin)
    for each in (copy.deepcopy(model), pickle.loads(pickle.dumps(model))):
        assert type(each) is type(model)
        assert list(each.state_dict()) == list(model.state_dict())
        assert len(each(clip_for(model))) == 2
        assert type(unwrap_hourglass(unwrap_cyclic(each))) is MixSTE


@pytest.mark.slow
@pytest.mark.parametrize("name", ["hot_mixste", "motionbert"])
def test_the_card_states_the_costs_of_the_published_size(name: str) -> None:
    with torch.device("meta"):
        model = create_lifter(name)
    config = model.config
    clip = torch.zeros(1, config.frames, config.joints, config.in_channels)
    report = cost(model, clip, cycles=1, blocks="auto" if hasattr(model, "hourglass") else "levels")
    card = model.generate_model_card(results={"mpjpe_frame_mean": 55.5})
    (macs,) = report.exits
    assert f"{report.parameters:,} parameters" in card.text
    assert f"| 1 cycle | {macs.total / 1e9:.4g} | {macs.weights / 1e9:.4g} |" in card.text
    assert "one clip of 243 frames" in card.text
    assert "Lifter.from_pretrained(" in card.text
    assert ("those of the hourglass" in card.text) is (name == "hot_mixste")
    assert "| mpjpe_frame_mean | 55.5 |" in card.text
    assert "3d-human-pose-estimation" in card.data.tags
    assert card.data.pipeline_tag is None  # the hub has no task of that kind


@pytest.mark.slow
@pytest.mark.parametrize(
    "options",
    [
        {"fused_layers": 1},
        {"fused_layers": 0, "ray_encoding": False, "keep": 0.5},
        {"fused_layers": 2, "prune_layers": ()},
    ],
)
def test_multi_view_models_come_back(options: dict[str, Any], tmp_path: Path) -> None:
    torch.manual_seed(0)
    model = create_multiview(**{**VIEWS, **options}).eval()
    if hasattr(model, "pruning"):
        model.pruning.keep = 0.6  # what is published is how the model is now
    model.save_pretrained(tmp_path)
    loaded = MultiViewPPT.from_pretrained(tmp_path)
    assert type(loaded).__name__ == "MultiViewPPT"
    assert repr(getattr(loaded, "pruning", None)) == repr(getattr(model, "pruning", None))
    views = [torch.randn(1, 3, 64, 64) for _ in range(2)]
    patches = model.config.grid[0] * model.config.grid[1]
    rays = {"rays": [torch.randn(1, patches, 3)] * 2, "centers": [torch.zeros(1, 3)] * 2}
    given = rays if model.config.ray_encoding else {}
    with torch.no_grad():
        both = [each(views, **given) for each in (model, loaded)]
    assert all(torch.equal(a, b) for a, b in zip(*both, strict=True))
    card = (tmp_path / "README.md").read_text(encoding="utf-8")
    assert "4 views of 64 x 64" in card and "from_pretrained" in card


@pytest.mark.slow
def test_a_run_fills_the_card(tmp_path: Path) -> None:
    pytest.importorskip("accelerate")
    from cycledistill.integrations.human36m.recipe import load_recipe
    from cycledistill.integrations.human36m.train import train
    from cycledistill.integrations.human36m.trained import load_trained, recorded_card

    recipe = load_recipe(
        {
            "model": {"name": "frame_lifter", "options": {"dim": 16, "depth": 3, "heads": 2}},
            "hourglass": {"layer": 1, "keep": 3, "select": "uniform"}, "cyclic": {"cycles": 2},
            "data": {"source": "generated", "sequences": 4, "length": 18, "views": 3, "frames": 9, "batch_size": 5},
            "schedule": {"epochs": 1}, "evaluate": {"every": 1, "exits": [1, 2]},
            "run": {"output": str(tmp_path / "run"), "device": "cpu", "progress": False},
        }
    )  # fmt: skip
    measured = train(recipe)["exits"][1]
    given = recorded_card(tmp_path / "run")
    assert given["results"]["1 cycle"]["mpjpe_frame_mean"] == measured["mpjpe_frame_mean"]
    assert "actions" not in given["results"]["1 cycle"]  # figures alone
    assert "made by formulas" in given["evaluation"]
    load_trained(tmp_path / "run").save_pretrained(tmp_path / "out", model_card_kwargs=given)
    card = (tmp_path / "out" / "README.md").read_text(encoding="utf-8")
    assert f"| mpjpe_frame_mean | {measured['mpjpe_frame_mean']:.4g} |" in card
    loaded = Lifter.from_pretrained(tmp_path / "out")
    assert (loaded.name, loaded.hourglass.settings.select, loaded.cyclic.cycles) == ("frame_lifter", "uniform", 2)


@pytest.mark.parametrize("kind", [torch.float16, torch.bfloat16, torch.float64])
def test_other_types_of_weights_are_saved(kind: torch.dtype, tmp_path: Path) -> None:
    model = small(depth=4).to(kind)
    model.save_pretrained(tmp_path)
    again = Lifter.from_pretrained(tmp_path)
    for (name, one), other in zip(model.state_dict().items(), again.state_dict().values(), strict=True):
        assert other.dtype == torch.float32
        assert torch.equal(one.float(), other), name


@pytest.mark.parametrize("centre", [0, 1, True, False])
def test_the_frame_that_is_always_kept_comes_back(centre: int | bool, tmp_path: Path) -> None:
    small(hourglass={"centre": centre}).save_pretrained(without_card(tmp_path))
    again = Lifter.from_pretrained(tmp_path).hourglass.settings.centre
    assert (type(again), again) == (type(centre), centre)


@pytest.mark.slow
def test_options_that_other_weights_would_need(tmp_path: Path) -> None:
    small().save_pretrained(tmp_path)
    with pytest.raises(CheckpointError, match="or the options recover ask for another model"):
        Lifter.from_pretrained(tmp_path, recover="linear")
