"""Names on the hub: pushed to, and downloaded from; offline."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch

pytest.importorskip("huggingface_hub")

from cycledistill import wrap_cyclic
from cycledistill.integrations.coco import CheckpointError, TokenPose
from cycledistill.recipes.errors import RecipeError
from tests.coco.models.hub.published import small


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
