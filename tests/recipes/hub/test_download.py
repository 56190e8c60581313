"""Names on the hub that are none: told of after one try, by the hub's own library against a server that stands in."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest

pytest.importorskip("huggingface_hub")

from cycledistill.commands.frame import main
from cycledistill.recipes.errors import CheckpointError
from cycledistill.recipes.hub.files import find_files

COMMIT = "a" * 40
asked: list[str] = []


class Hub(BaseHTTPRequestHandler):
    """As the hub answers: repositories user/model and user/gone, and a server in trouble."""

    def do_HEAD(self) -> None:
        self.do_GET()

    def do_GET(self) -> None:
        asked.append(f"{self.command} {self.path}")
        user, model, *_, file = self.path.strip("/").split("/")
        body = b"{}" if file == "config.json" else b"weights"
        if user == "trouble":
            self.send_response(503)
            body = b""
        elif model != "model":
            self.send_response(404)
            self.send_header("X-Error-Code", "RepoNotFound")
            body = b""
        else:
            self.send_response(200)
            self.send_header("X-Repo-Commit", COMMIT)
            self.send_header("ETag", f'"{file}"')
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        if self.command == "GET":
            self.wfile.write(body)

    def log_message(self, *_: Any) -> None:
        pass


@pytest.fixture
def hub(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Iterator[ThreadingHTTPServer]:
    """The server; nobody may wait for it to come to other thoughts."""
    server = ThreadingHTTPServer(("127.0.0.1", 0), Hub)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    at_address(monkeypatch, f"http://127.0.0.1:{server.server_port}")
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path / "cache"))
    monkeypatch.chdir(tmp_path)
    asked.clear()
    yield server
    server.shutdown()
    server.server_close()


def at_address(monkeypatch: pytest.MonkeyPatch, address: str) -> None:
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", False)
    monkeypatch.setattr("huggingface_hub.constants.ENDPOINT", address)
    monkeypatch.setattr(
        "huggingface_hub.constants.HUGGINGFACE_CO_URL_TEMPLATE", address + "/{repo_id}/resolve/{revision}/{filename}"
    )

    def waited(seconds: float) -> None:
        raise AssertionError(f"{seconds} seconds between tries")

    monkeypatch.setattr("time.sleep", waited)


def test_what_there_is_comes(hub: Any, tmp_path: Path) -> None:
    found = find_files("user/model", cache_dir=tmp_path / "cache")
    assert found.config == {} and found.weights.read_bytes() == b"weights"


def test_a_name_of_nothing_is_asked_for_once(hub: Any, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(CheckpointError, match="'user/modle' is no folder here, and the Hugging Face hub has no model"):
        find_files("user/modle", cache_dir=tmp_path / "cache")
    assert asked == ["HEAD /user/modle/resolve/main/config.json"]
    with pytest.raises(SystemExit, match="2"):
        main(["predict", "user/modle", "photos", "--output", "found"])
    assert "the Hugging Face hub has no model of this name" in capsys.readouterr().err and len(asked) == 2


@pytest.mark.parametrize("name", ["user/-model", "user/mo--del", "user/" + "m" * 100, "user/modèle", "user/model.git"])
def test_what_can_be_no_name_is_not_asked_for(name: str, hub: Any, tmp_path: Path) -> None:
    with pytest.raises(CheckpointError, match="can be no name on the Hugging Face hub"):
        find_files(name, cache_dir=tmp_path / "cache")
    assert asked == []


def test_a_hub_in_trouble_is_asked_once_and_then_the_cache(hub: Any, tmp_path: Path) -> None:
    with pytest.raises(CheckpointError, match=r"cannot be reached to look for config\.json.*nor .* in the cache.*503"):
        find_files("trouble/model", cache_dir=tmp_path / "cache")
    assert asked == ["HEAD /trouble/model/resolve/main/config.json"]


def test_without_a_network_the_cache_answers(hub: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    find_files("user/model", cache_dir=tmp_path / "cache")
    at_address(monkeypatch, "http://127.0.0.1:1")  # where nobody listens
    assert find_files("user/model", cache_dir=tmp_path / "cache").weights.read_bytes() == b"weights"
    with pytest.raises(CheckpointError, match=r"cannot be reached .*offline\?.*Check the name"):
        find_files("user/modle", cache_dir=tmp_path / "cache")
    with pytest.raises(CheckpointError, match="cannot be reached"):
        find_files("user/model", cache_dir=tmp_path / "cache", force_download=True)
