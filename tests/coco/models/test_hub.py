"""Pose models as the Hugging Face hub holds them: folders, configs, model cards, and what is refused. Offline."""

from __future__ import annotations

import copy
import dataclasses
import json
import logging
import pickle
import shutil
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file

pytest.importorskip("huggingface_hub")

from huggingface_hub import ModelCard, PyTorchModelHubMixin

from cycledistill import CycleOutput, Distill, unwrap_cyclic, wrap_cyclic
from cycledistill.cost.report import cost
from cycledistill.integrations.coco import CheckpointError, TokenPose, TokenPoseConfig, create_pose_model
from cycledistill.integrations.coco.deploy import prepare_for_inference
from cycledistill.integrations.coco.trained import load_trained
from cycledistill.prune.wrap import unwrap_pruning, wrap_pruning
from cycledistill.recipes.commands.held import command_of
from cycledistill.recipes.errors import RecipeError
from tests.coco.figures import SIZE, write_dots

SMALL: dict[str, Any] = {"image_size": (64, 48), "depth": 4, "dim": 32, "heads": 4}


def small(name: str = "sdpose_s_v1", **options: Any) -> TokenPose:
    torch.manual_seed(0)
    return create_pose_model(name, **{**SMALL, **options})


def without_card(folder: Path) -> Path:
    """A folder with a model card in it, which stays: making one means counting what the model costs."""
    folder.mkdir(exist_ok=True)
    (folder / "README.md").touch()
    return folder


@pytest.fixture
def picture() -> torch.Tensor:
    return torch.randn(2, 3, 64, 48, generator=torch.Generator().manual_seed(1))


@pytest.fixture(scope="module")
def written(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with a published model; copy it to change it."""
    folder = tmp_path_factory.mktemp("published") / "sdpose"
    small().save_pretrained(folder)
    return folder


@pytest.fixture
def folder(written: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(written, tmp_path / "sdpose"))


def test_the_file_of_a_published_model_is_that_model(written: Path, picture: torch.Tensor) -> None:
    file, model = written / "model.safetensors", TokenPose.from_pretrained(written)
    assert command_of(str(file)) == "coco"
    assert torch.equal(load_trained(file)(picture), model(picture))


def config_of(folder: Path) -> dict[str, Any]:
    found: dict[str, Any] = json.loads((folder / "config.json").read_text(encoding="utf-8"))
    return found


def change(folder: Path, **fields: Any) -> None:
    (folder / "config.json").write_text(json.dumps(config_of(folder) | fields), encoding="utf-8")


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


@pytest.mark.slow
def test_the_card_states_counted_costs_and_given_results(tmp_path: Path) -> None:
    model = create_pose_model("sdpose_s_v1")
    report = cost(model, torch.zeros(1, 3, 256, 192))
    fields = {
        "results": {"1 cycle": {"AP": 0.6231, "persons": 12}, "2 cycles": {"AP": 0.61}},
        "evaluation": "On pictures of ours.", "training": "For a day.", "license": "apache-2.0", "tags": ["dots"],
        "datasets": ["user/dots"],
    }  # fmt: skip
    card = model.generate_model_card(**fields)
    text = card.text
    assert f"{report.parameters:,} parameters" in text and report.parameters == 6_669_888
    one, two = report.exits
    assert f"| 1 cycle | {one.total / 1e9:.4g} | {one.weights / 1e9:.4g} |" in text
    assert f"| 2 cycles | {two.total / 1e9:.4g} | {two.weights / 1e9:.4g} |" in text
    assert f"costs {report.training_step_ratio:.2f} times" in text
    assert "one picture of 256 x 192" in text
    assert "|  | 1 cycle | 2 cycles |\n|---|---|---|\n| AP | 0.6231 | 0.61 |\n| persons | 12 |  |" in text
    for part in ("On pictures of ours.", "For a day.", "distillation `sdpose`", "SDPose, CVPR 2024"):
        assert part in text
    found = card.data.to_dict()
    assert {"dots", "human-pose-estimation", "pytorch_model_hub_mixin"} <= set(found["tags"])
    assert (found["license"], found["datasets"]) == ("apache-2.0", ["user/dots"])
    assert (found["library_name"], found["pipeline_tag"]) == ("cycledistill", "keypoint-detection")


def test_the_card_says_what_is_not_known(written: Path) -> None:
    card = ModelCard.load(written / "README.md")
    assert "No results were given with these weights." in card.text
    assert "How the weights were trained was not stated." in card.text
    assert "license" not in card.data.to_dict()
    assert "More Information Needed" not in card.text


def test_a_card_that_is_there_stays(folder: Path, caplog: pytest.LogCaptureFixture) -> None:
    (folder / "README.md").write_text("mine", encoding="utf-8")
    small().save_pretrained(folder)
    assert (folder / "README.md").read_text(encoding="utf-8") == "mine"
    assert "is kept as it is: delete it" in caplog.text


@pytest.mark.parametrize(
    ("fields", "reason"),
    [
        ({"result": {}}, "unknown field 'model_card_kwargs.result'. Did you mean 'results'"),
        ({"results": 0.7}, "results=0.7: figures by name"),
        ({"results": {"AP": float("nan")}}, r"results\['value'\]\['AP'\]=nan: a finite number"),
        ({"results": {"1 cycle": {"AP": "high"}}}, r"results\['1 cycle'\]\['AP'\]='high'"),
        ({"tags": "pose"}, "tags='pose': a list of words"),
    ],
)
def test_a_wrong_field_of_the_card_stops_before_anything_is_written(
    fields: dict[str, Any], reason: str, tmp_path: Path
) -> None:
    with pytest.raises(RecipeError, match=reason):
        small().save_pretrained(tmp_path / "never", model_card_kwargs=fields)
    assert not (tmp_path / "never").exists()


class Hub:
    """The hub's interface as the mixin uses it, with nothing behind it."""

    def __init__(self, token: Any = None) -> None:
        self.uploads: list[tuple[dict[str, Any], dict[str, bytes]]] = []
        self.made: list[dict[str, Any]] = []

    def create_repo(self, **given: Any) -> Any:
        self.made.append(given)
        return type("Repo", (), {"repo_id": given["repo_id"]})

    def upload_folder(self, **given: Any) -> str:
        files = {path.name: path.read_bytes() for path in Path(given["folder_path"]).iterdir()}
        self.uploads.append((given, files))
        return f"https://hub/{given['repo_id']}/commit/1"


@pytest.fixture
def hub(monkeypatch: pytest.MonkeyPatch) -> Hub:
    found = Hub()
    monkeypatch.setattr("huggingface_hub.hub_mixin.HfApi", lambda token=None: found)
    return found


@pytest.mark.slow
def test_push_uploads_weights_config_and_card(hub: Hub, tmp_path: Path) -> None:
    model = small()
    fields = {"results": {"AP": 0.5}, "license": "mit"}
    url = model.push_to_hub("user/sdpose", private=True, commit_message="first", model_card_kwargs=fields)
    assert url == "https://hub/user/sdpose/commit/1"
    assert (hub.made[0]["repo_id"], hub.made[0]["private"]) == ("user/sdpose", True)
    given, files = hub.uploads[0]
    assert given["commit_message"] == "first"
    assert files.keys() == {"model.safetensors", "config.json", "README.md"}
    card = files["README.md"].decode()
    assert 'TokenPose.from_pretrained("user/sdpose")' in card and "| AP | 0.5 |" in card and "license: mit" in card
    for name, content in files.items():
        (tmp_path / name).write_bytes(content)
    loaded = TokenPose.from_pretrained(tmp_path)
    assert all(
        torch.equal(a, b) for a, b in zip(model.state_dict().values(), loaded.state_dict().values(), strict=True)
    )


@pytest.mark.slow
def test_save_and_push_in_one_call(hub: Hub, tmp_path: Path) -> None:
    assert small().save_pretrained(tmp_path / "sdpose", push_to_hub=True, private=False)
    assert (tmp_path / "sdpose" / "model.safetensors").is_file()
    given, files = hub.uploads[0]
    assert given["repo_id"] == "sdpose"
    assert b'from_pretrained("USER/sdpose")' in files["README.md"]


def test_nothing_is_made_on_the_hub_for_a_model_that_cannot_be_published(hub: Hub) -> None:
    model = wrap_cyclic(small("tokenpose_s_v1"), 2, blocks="blocks[1:3]")
    with pytest.raises(RecipeError):
        model.push_to_hub("user/sdpose")
    with pytest.raises(RecipeError):
        small().push_to_hub("user/sdpose", model_card_kwargs={"licence": "mit"})
    assert hub.made == []


def test_a_name_on_the_hub_is_downloaded(written: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    asked = []

    def download(repo_id: str, filename: str, **given: Any) -> str:
        asked.append((repo_id, filename, given["revision"], given["token"]))
        return str(written / filename)

    monkeypatch.setattr("cycledistill.recipes.hub.download.hf_hub_download", download)
    model = TokenPose.from_pretrained("user/sdpose", revision="v2", token="secret")
    assert model.cyclic.cycles == 2
    assert asked == [("user/sdpose", each, "v2", "secret") for each in ("config.json", "model.safetensors")]


def test_a_name_that_is_nowhere_offline(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    with pytest.raises(CheckpointError) as caught:
        TokenPose.from_pretrained("user/nowhere", cache_dir=tmp_path)
    for part in ("'user/nowhere' is no folder here", "cannot be reached", "nor is it in the cache", "Check the name"):
        assert part in str(caught.value)
    with pytest.raises(CheckpointError, match="cannot be reached"):
        TokenPose.from_pretrained("user/nowhere", cache_dir=tmp_path, local_files_only=True)
    with pytest.raises(CheckpointError, match=r"'runs/a/b' is no folder here, and can be no name on the Hugging Face"):
        TokenPose.from_pretrained("runs/a/b")


def test_what_the_hub_answers(monkeypatch: pytest.MonkeyPatch) -> None:
    from huggingface_hub import errors

    def answer(error: type[Exception]) -> None:
        def download(**given: Any) -> str:
            raised = error.__new__(error)
            raised.args = ("the hub says no",)
            raise raised

        monkeypatch.setattr("cycledistill.recipes.hub.download.hf_hub_download", download)

    for error, reason in (
        (errors.RepositoryNotFoundError, r"no model of this name that you may read.*hf auth login.*the hub says no"),
        (errors.GatedRepoError, "no model of this name that you may read"),
        (errors.RevisionNotFoundError, "no such revision at revision 'v9'"),
        (errors.RemoteEntryNotFoundError, "has no config.json at revision 'v9', so it is none of this library"),
        (errors.HfHubHTTPError, "config.json cannot be had from the Hugging Face hub: the hub says no"),
        (TimeoutError, "cannot be had from the Hugging Face hub: the hub says no"),
    ):
        answer(error)
        with pytest.raises(CheckpointError, match=f"'user/there' is no folder here, and .*{reason}"):
            TokenPose.from_pretrained("user/there", revision="v9")


@pytest.mark.parametrize("missing", ["config.json", "model.safetensors"])
def test_a_folder_without_its_files(folder: Path, missing: str) -> None:
    (folder / missing).unlink()
    with pytest.raises(CheckpointError, match=rf"holds no {missing} \(it holds: .*save_pretrained"):
        TokenPose.from_pretrained(folder)
    with pytest.raises(CheckpointError, match="is a file: a folder with config.json and model.safetensors"):
        TokenPose.from_pretrained(folder / "README.md")


@pytest.mark.parametrize(
    ("fields", "reason"),
    [
        ({"library": "transformers"}, r"of no model of this library .*it holds: library"),
        ({"model_class": "MixSTE"}, "the model is a MixSTE, and TokenPose.from_pretrained reads: TokenPose"),
        ({"model_class": "os.system"}, "the model is a os.system"),
        ({"network": None}, "network=None: fields by name"),
        ({"network": {"dim": 32, "hidden": 3}}, r"unknown field 'network.hidden'.* Known: num_keypoints"),
        ({"network": {"dim": "wide"}}, "dim='wide': a whole number"),
        ({"network": {"image_size": [64]}}, "height and width"),
        ({"cycles": -1}, "cycles=-1"),
        ({"distill": "none"}, "distill='none': unknown preset"),
        ({"distill": {"token_wait": 1}}, "Did you mean 'token_weight'"),
        ({"prune_layers": [9]}, r"prune_layers=\(9,\): 9 is outside the 4 layers"),
        ({"prune_layers": 3}, "config.json: "),
        ({"network": {"scale": float("inf")}}, r"config\.json: network\.scale=inf: a finite number is expected"),
        ({"keep": 10**400}, r"config\.json: keep=a number of 1329 bits: a finite number is expected"),
        ({"keep": "half"}, "keep='half': a fraction"),
        ({"network": {"dim": 10**15, "heads": 1}}, r"config\.json: .*(memory|size)"),
        ({"network": {"num_keypoints": 10**15}}, r"config\.json: .*(memory|size)"),
        ({"layers": 3}, "unknown field 'layers'"),
        ({"name": 3}, "name=3, note='SDPose, CVPR 2024': words"),
    ],
)
def test_a_config_that_is_wrong(folder: Path, fields: dict[str, Any], reason: str) -> None:
    change(folder, **fields)
    with pytest.raises(CheckpointError, match=reason) as caught:
        TokenPose.from_pretrained(folder)
    assert str(folder) in str(caught.value)


@pytest.mark.parametrize(("text", "reason"), [("{", "cannot be read as JSON"), ("[1]", "holds a list, an object")])
def test_a_config_that_is_none(folder: Path, text: str, reason: str) -> None:
    (folder / "config.json").write_text(text)
    with pytest.raises(CheckpointError, match=reason):
        TokenPose.from_pretrained(folder)


def test_a_config_without_its_network(folder: Path) -> None:
    config = config_of(folder)
    del config["network"]
    (folder / "config.json").write_text(json.dumps(config))
    with pytest.raises(CheckpointError, match="the field 'network' is missing; there are: cycles, distill"):
        TokenPose.from_pretrained(folder)


def test_weights_of_another_model_are_named(folder: Path) -> None:
    weights = load_file(folder / "model.safetensors")
    weights["odd.weight"] = weights.pop("blocks.0.norm1.weight")
    save_file(weights, folder / "model.safetensors")
    with pytest.raises(CheckpointError) as caught:
        TokenPose.from_pretrained(folder)
    for part in ("1 missing: blocks.0.norm1.weight", "1 unknown: odd.weight", "do not belong together"):
        assert part in str(caught.value)
    change(folder, network=dataclasses.asdict(TokenPoseConfig(**{**SMALL, "dim": 64})))
    with pytest.raises(
        CheckpointError, match=r"of another shape: keypoint_token \(1, 17, 32\), expected \(1, 17, 64\)"
    ):
        TokenPose.from_pretrained(folder)
    (folder / "model.safetensors").write_bytes(b"no weights")
    with pytest.raises(CheckpointError, match="broken or truncated"):
        TokenPose.from_pretrained(folder)


@pytest.mark.slow
def test_a_run_fills_the_card(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    pytest.importorskip("accelerate")
    pytest.importorskip("pycocotools")
    from cycledistill.integrations.coco.recipe import load_recipe
    from cycledistill.integrations.coco.train import train
    from cycledistill.integrations.coco.trained import load_trained, recorded_card

    dots = write_dots(tmp_path / "secret" / "set")
    network = {"image_size": list(SIZE), "backbone": "none", "patch_size": [8, 8], "dim": 16, "depth": 2, "heads": 2}
    recipe = load_recipe(
        {
            "model": {"name": "sdpose_s_v1", "options": network},
            "data": {
                "root": str(dots), "train_annotations": str(dots / "annotations/train.json"), "detections": None,
                "train_images": "pictures", "val_annotations": str(dots / "annotations/val.json"), "batch_size": 3,
                "val_images": "pictures", "workers": 0,
            },
            "schedule": {"epochs": 1, "milestones": [1]}, "ema": {"enabled": True},
            "evaluate": {"every": 1, "exits": [1, 2], "batch_size": 8},
            "run": {"output": str(tmp_path / "run"), "device": "cpu", "progress": False},
        }
    )  # fmt: skip
    measured = train(recipe)
    for ema, key in ((False, "exits"), (True, "ema_exits")):
        given = recorded_card(tmp_path / "run", ema)
        figures = {name: measured[key][exit] for exit, name in ((1, "1 cycle"), (2, "2 cycles"))}
        assert figures["1 cycle"].pop("AP_interval") is figures["2 cycles"].pop("AP_interval") is None  # three pictures
        assert given["results"] == figures
        assert "val.json, persons in annotated boxes" in given["evaluation"]
        assert f"{measured['step']} steps, 1 whole epochs on train.json" in given["training"]
        assert ("average" in given["training"]) is ema
        assert "secret" not in str(given)  # a card is public: of files the names alone
    model = load_trained(tmp_path / "run")
    caplog.set_level(logging.ERROR)
    model.save_pretrained(tmp_path / "out", model_card_kwargs=recorded_card(tmp_path / "run"))
    card = (tmp_path / "out" / "README.md").read_text(encoding="utf-8")
    assert f"| AP | {measured['exits'][1]['AP']:.4g} | {measured['exits'][2]['AP']:.4g} |" in card
    assert TokenPose.from_pretrained(tmp_path / "out").name == "sdpose_s_v1"

    train(
        load_recipe(recipe.to_dict(), {"run.output": str(tmp_path / "short"), "run.max_steps": 1, "evaluate.every": 9})
    )
    stored = next((tmp_path / "short" / "checkpoints").glob("*/recipe.json"))
    stored.write_text(json.dumps(json.loads(stored.read_text()) | {"metrics": {}}))  # as one saved between evaluations
    assert recorded_card(tmp_path / "short")["results"] == {}
