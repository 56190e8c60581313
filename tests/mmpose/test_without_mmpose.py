"""What the mmpose adapter does where mmpose is missing or of another version, and what needs no mmpose."""

from __future__ import annotations

import re
import subprocess
import sys
from collections.abc import Iterator
from fractions import Fraction
from importlib.metadata import PackageNotFoundError
from pathlib import Path
from types import ModuleType
from urllib.error import URLError

import pytest
import torch

pytest.importorskip("safetensors")

from cycledistill.integrations.coco import create_pose_model
from cycledistill.integrations.mmpose import check as check_command
from cycledistill.integrations.mmpose import (
    checkpoint,
    config_path,
    convert,
    from_mmpose,
    installed,
    list_configs,
    load_mmpose,
    shims,
    to_mmpose,
    train,
)
from cycledistill.recipes.errors import CheckpointError

ROOT = Path(__file__).parents[2]

NAMES = [re.match(r"[\w-]+", each)[0] for each in installed._requirements()]
BOUND = {"mmpose": "1.3.2", "mmengine": "0.10.7", "mmcv-lite": "2.1.0", "mmdet": "3.3.0", "setuptools": "80.9.0"}
GOOD = dict.fromkeys(NAMES, "99.0+local") | BOUND


def pretend(monkeypatch: pytest.MonkeyPatch, versions: dict[str, str]) -> None:
    """Let the check see these versions of packages, and no others."""

    def version(name: str) -> str:
        if name not in versions:
            raise PackageNotFoundError(name)
        return versions[name]

    monkeypatch.setattr(installed, "version", version)
    monkeypatch.setattr(installed.sys, "version_info", (3, 12, 0, "final", 0))


def test_what_works_together_has_no_problems(monkeypatch: pytest.MonkeyPatch) -> None:
    pretend(monkeypatch, GOOD)
    assert installed.find_problems() == []
    installed.require_mmpose()
    other = {"mmcv": "2.1.0", "opencv-python-headless": "5.0.0.93"}
    pretend(monkeypatch, {name: GOOD[name] for name in GOOD if name not in ("mmcv-lite", "opencv-python")} | other)
    assert installed.find_problems() == []


@pytest.mark.parametrize("name", NAMES)
def test_each_missing_package_is_named(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    pretend(monkeypatch, {each: GOOD[each] for each in GOOD if each != name})
    (problem,) = installed.find_problems()
    assert problem.startswith(f"{name} is not installed")
    assert {"torch", "torchvision", "mmpose", "mmdet", "mmengine"} < set(NAMES)


@pytest.mark.parametrize(
    ("name", "found"),
    [
        ("mmpose", "0.29.0"),
        ("mmpose", "2.0.0"),
        ("mmpose", "1.2.0"),
        ("mmengine", "0.10.6"),
        ("mmcv-lite", "2.2.0"),
        ("setuptools", "81.0"),
    ],
)
def test_another_version_is_named_with_what_is_expected(name: str, found: str, monkeypatch: pytest.MonkeyPatch) -> None:
    pretend(monkeypatch, GOOD | {name: found})
    (problem,) = installed.find_problems()
    assert problem.startswith(f"{name} {found} is installed: ") and "is expected" in problem


def test_missing_packages_come_with_both_commands(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    pretend(monkeypatch, {})
    assert check_command.main([]) == 1
    printed = capsys.readouterr().out
    for part in (
        "mmpose is not installed",
        "torchvision",
        "setuptools<81",
        "requirements.txt",
        installed.SECOND_COMMAND,
    ):
        assert part in printed
    with pytest.raises(ImportError, match="--no-deps"):
        load_mmpose()
    with pytest.raises(SystemExit) as ended:
        train.main(["sdpose_t"])
    assert ended.value.code == 2 and "mmpose is not installed" in capsys.readouterr().err


def test_the_check_runs_where_not_even_pytorch_is() -> None:
    path = Path(check_command.__file__).resolve()
    done = subprocess.run([sys.executable, "-S", str(path)], capture_output=True, text=True, env={})  # no site-packages
    assert done.returncode == 1 and not done.stderr
    assert {"  - torch is not installed", "  - torchvision is not installed"} <= set(done.stdout.splitlines())


@pytest.mark.parametrize("file", ["docs/mmpose.md", ".ci/run"])
def test_the_commands_are_those_of_the_guide_and_of_ci(file: str) -> None:
    text = (ROOT / file).read_text(encoding="utf-8")
    assert installed.SECOND_COMMAND.removeprefix("pip ") in text
    assert "install -r integrations/mmpose/requirements.txt" in text
    assert (ROOT / "integrations/mmpose/requirements.txt").samefile(installed._REQUIREMENTS)


def test_a_python_without_what_mmengine_calls_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    pretend(monkeypatch, GOOD)
    monkeypatch.setattr(installed.sys, "version_info", (3, 14, 0, "final", 0))
    assert "up to 3.13" in installed.find_problems()[0]


@pytest.mark.parametrize("line", (installed._REQUIREMENTS.read_text() + installed.SECOND_COMMAND).split("\n"))
def test_bounds_are_of_the_kinds_that_the_check_reads(line: str) -> None:
    assert not re.search(r"==|~=|!=|<=|>(?!=)", line.partition("#")[0])


def test_resuming_asks_for_trust_first(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as ended:
        train.main(["sdpose_t", "--resume"])
    assert ended.value.code == 2 and "--trust-checkpoint" in capsys.readouterr().err


def test_an_unknown_config_names_the_nearest() -> None:
    assert list_configs() == ["sdpose_b", "sdpose_s_v1", "sdpose_s_v2", "sdpose_t"]
    assert all(config_path(name).is_file() for name in list_configs())
    with pytest.raises(FileNotFoundError, match="'sdpose_s_v1'"):
        config_path("sdpose_s1")
    with pytest.raises(FileNotFoundError, match="those are sdpose_b, sdpose_s_v1, sdpose_s_v2, sdpose_t"):
        config_path("xyzzy")


@pytest.fixture
def without_xtcocotools(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    pytest.importorskip("pycocotools")
    monkeypatch.setattr(shims, "_imports", lambda name: False)
    names = ("mmcv._ext", "xtcocotools", "xtcocotools.coco", "xtcocotools.cocoeval", "xtcocotools.mask")
    for name in names:
        monkeypatch.delitem(sys.modules, name, raising=False)
    yield
    assert not [name for name in names if name in sys.modules]


@pytest.mark.usefixtures("without_xtcocotools")
def test_stand_ins_are_there_within_the_block_alone() -> None:
    from pycocotools.coco import COCO

    with shims.import_shims():
        from xtcocotools.coco import COCO as alias  # type: ignore[import-not-found]
        from xtcocotools.cocoeval import COCOeval  # type: ignore[import-not-found]

        assert alias is COCO
        operator = sys.modules["mmcv._ext"].roi_align_forward
        assert not hasattr(sys.modules["mmcv._ext"], "__path__")
    with pytest.raises(RuntimeError, match="'roi_align_forward'.*mmcv itself"):
        operator(1)
    with pytest.raises(NotImplementedError, match="COCO's persons alone"):
        COCOeval(None, None, "keypoints_crowd")


@pytest.mark.usefixtures("without_xtcocotools")
def test_stand_ins_go_when_the_import_fails() -> None:
    with pytest.raises(KeyError), shims.import_shims():
        assert "mmcv._ext" in sys.modules
        raise KeyError


def test_real_packages_are_left_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(shims, "_imports", lambda name: True)
    real = ModuleType("mmcv._ext")
    monkeypatch.setitem(sys.modules, "mmcv._ext", real)
    with shims.import_shims():
        assert sys.modules["mmcv._ext"] is real
    assert sys.modules["mmcv._ext"] is real


def test_a_trusted_checkpoint_is_read_whole_and_named_in_the_log(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    path = tmp_path / "mine.pth"
    torch.save({"state_dict": {"module.a": torch.ones(2)}, "meta": {"share": Fraction(1, 2)}}, path)
    with pytest.raises(CheckpointError, match="--trust-checkpoint"):
        checkpoint.read_checkpoint(path)
    assert not caplog.text
    found = checkpoint.read_checkpoint(path, trusted=True)
    assert found["meta"]["share"] == Fraction(1, 2) and list(found["state_dict"]) == ["a"]
    assert "mine.pth" in caplog.text


@pytest.mark.parametrize("trusted", [False, True])
def test_files_that_hold_no_weights_are_refused(trusted: bool, tmp_path: Path) -> None:
    (tmp_path / "broken.pth").write_bytes(b"not a checkpoint")
    torch.save({"state_dict": {}}, tmp_path / "empty.pth")
    for name in ("broken.pth", "empty.pth", "none.pth"):
        with pytest.raises(CheckpointError, match=name) as raised:
            checkpoint.read_checkpoint(tmp_path / name, trusted)
        assert "--trust-checkpoint" not in str(raised.value)


def test_an_address_is_downloaded_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[str] = []

    def download(address: str, target: str, progress: bool) -> None:
        if asked:
            raise URLError("no network")
        asked.append(address)
        torch.save({"a": torch.ones(2)}, target)

    monkeypatch.setattr(torch.hub, "get_dir", lambda: str(tmp_path))
    monkeypatch.setattr(torch.hub, "download_url_to_file", download)
    for _ in range(2):
        assert list(checkpoint.read_checkpoint("https://example.org/a.pth?x=1")["state_dict"]) == ["a"]
    assert asked == ["https://example.org/a.pth?x=1"]
    with pytest.raises(CheckpointError, match="b.pth: cannot be downloaded .*no network"):
        checkpoint.read_checkpoint("https://example.org/b.pth")
    with pytest.raises(CheckpointError, match="http or https"):
        checkpoint.read_checkpoint("s3://bucket/a.pth")


def test_names_map_both_ways_and_every_tensor_once() -> None:
    state = create_pose_model("sdpose_t").state_dict()
    theirs = to_mmpose(state)
    assert len(theirs) == len(state)
    assert {name.split(".")[0] for name in theirs} == {"backbone", "head"}
    back = from_mmpose(theirs | {"head.criterion.seen": torch.zeros(())})  # the loss remembers, and is no weight
    assert list(back) == list(state) and all(back[name] is state[name] for name in state)
    with pytest.raises(CheckpointError, match="already"):
        to_mmpose(theirs)
    with pytest.raises(CheckpointError, match="head.final_layer.weight"):
        from_mmpose(theirs | {"head.final_layer.weight": torch.zeros(1)})


def test_convert_command_writes_the_other_names(tmp_path, capsys: pytest.CaptureFixture[str]) -> None:
    from cycledistill.recipes.weights.files import read_weights, write_weights

    state = create_pose_model("sdpose_t", depth=1).state_dict()
    write_weights(state, tmp_path / "ours.safetensors")
    convert.main([str(tmp_path / "ours.safetensors"), str(tmp_path / "theirs.pth")])
    convert.main([str(tmp_path / "theirs.pth"), str(tmp_path / "back.safetensors")])
    back = read_weights(tmp_path / "back.safetensors")
    assert back.keys() == state.keys() and all(torch.equal(back[name], state[name]) for name in state)
    with pytest.raises(SystemExit) as ended:
        convert.main([str(tmp_path / "none.pth"), str(tmp_path / "x.pth")])
    assert ended.value.code == 2 and "no such file" in capsys.readouterr().err


@pytest.mark.parametrize("name", ["tokenpose_s_v1", "tokenpose_b_narrow"])
def test_a_model_in_two_parts_is_the_model(name: str) -> None:
    images = torch.randn(2, 3, 64, 48)
    model = create_pose_model(name, image_size=(64, 48), depth=2).eval()
    with torch.no_grad():
        expected, state = model(images), model.state_dict()
        backbone = model.take_backbone().eval()
        assert torch.equal(model(backbone(images)), expected)
    parts = {f"backbone.{key}": value for key, value in backbone.state_dict().items()} | model.state_dict()
    assert parts.keys() == state.keys()
    with pytest.raises(ValueError, match="no backbone"):
        model.take_backbone()
    with pytest.raises(ValueError, match=r"shape \(2, 3, 64, 48\)"):
        model(images)


def test_a_wrapped_model_keeps_its_backbone() -> None:
    with pytest.raises(ValueError, match="unwrap it"):
        create_pose_model("sdpose_t").take_backbone()
