"""One reader: the same files load, or are refused in the same words, wherever weights are loaded."""

from __future__ import annotations

import io
import pickle
import tarfile
import traceback
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import save_file
from torch import Tensor, nn

from cycledistill.recipes.errors import CheckpointError, PickledCodeError
from cycledistill.recipes.weights import read_weights, write_weights
from cycledistill.recipes.weights.files import read_metadata, stored_network
from tests.faults.damage import damaged

State = dict[str, Tensor]


class Evil:
    def __reduce__(self) -> Any:
        return print, ("this must never run",)


def prefixed(state: State, prefix: str) -> State:
    return {prefix + name: tensor for name, tensor in state.items()}


WRITERS: dict[str, Callable[[State, Path], object]] = {
    "plain.safetensors": save_file,
    "plain.pth": torch.save,
    "ddp.pth": lambda state, path: torch.save(prefixed(state, "module."), path),
    "ddp.safetensors": lambda state, path: save_file(prefixed(state, "module."), path),
    "compiled.pth": lambda state, path: torch.save(prefixed(state, "_orig_mod."), path),
    "ddp_of_compiled.pth": lambda state, path: torch.save({"model": prefixed(state, "module._orig_mod.")}, path),
    "state_dict.pth": lambda state, path: torch.save({"epoch": 3, "state_dict": state}, path),
    "model.pth": lambda state, path: torch.save({"model": state, "optimizer": {"lr": 0.1}}, path),
    "ddp_in_state_dict.pth.tar": lambda state, path: torch.save({"state_dict": prefixed(state, "module.")}, path),
}

BROKEN: dict[str, tuple[Callable[[State, Path], object], str]] = {
    "cut.safetensors": (lambda state, path: cut(save_file, state, path), "broken or truncated, or no safetensors file"),
    "cut.pth": (lambda state, path: cut(torch.save, state, path), "truncated, or no PyTorch checkpoint"),
    "text.pth": (lambda _, path: path.write_text("a page of text\n" * 50), "no PyTorch checkpoint"),
    "text.safetensors": (lambda _, path: path.write_text("a page of text\n" * 50), "no safetensors file"),
    "list.pth": (lambda _, path: torch.save([1], path), "a dict of tensors.*is expected; found: list"),
    "empty.pth": (lambda _, path: torch.save({}, path), "a dict of tensors.*is expected; found: nothing"),
    "numbers.pth": (lambda _, path: torch.save({"epoch": 3}, path), "a dict of tensors.*is expected; found: epoch"),
    "code.pth": (lambda state, path: torch.save({"model": state, "x": Evil()}, path), r"holds a pickled \S+.*run code"),
    "model_object.pth": (lambda _, path: torch.save(nn.Linear(2, 2), path), r"holds a pickled \S+.*run code"),
    "raw_pickle.pth": (lambda _, path: path.write_bytes(pickle.dumps(Evil(), 2)), r"holds a pickled \S+.*run code"),
    "protocol_4.pth": (lambda _, path: path.write_bytes(pickle.dumps([1], 4)), "no PyTorch checkpoint"),
    "folder.pth": (lambda _, path: path.mkdir(), "a folder; a file is expected"),
}


def cut(write: Callable[[State, Path], object], state: State, path: Path) -> None:
    write(state, path)
    path.write_bytes(path.read_bytes()[:-40])


Door = tuple[State, Callable[[Path], State]]
"""Weights of a small model, and what an integration's way of loading a file has at the end."""


def core() -> Door:
    return {"a.weight": torch.randn(2, 3), "b": torch.randn(4)}, read_weights


def imagenet() -> Door:
    pytest.importorskip("timm")
    trained = pytest.importorskip("cycledistill.integrations.imagenet.trained")
    from cycledistill.integrations.imagenet.recipe import load_recipe

    recipe = load_recipe({"model": {"name": "test_vit", "num_classes": 3, "img_size": 32, "kwargs": {"depth": 2}}})
    from cycledistill.integrations.imagenet.training.build import create_model

    state = drawn(create_model(recipe, 3))
    return state, lambda path: dict(trained.load_trained(path, False, recipe).state_dict())


def coco() -> Door:
    pytest.importorskip("timm")
    from cycledistill.integrations.coco.models.registry import create_pose_model
    from cycledistill.integrations.coco.weights.loading import load_pose_weights

    options: dict[str, Any] = {"image_size": (64, 48), "dim": 24, "depth": 2, "heads": 2}
    model = create_pose_model("sdpose_t", **options)
    return drawn(create_pose_model("sdpose_t", **options)), loader(model, load_pose_weights)


def human36m() -> Door:
    from cycledistill.integrations.human36m.models.registry import create_lifter
    from cycledistill.integrations.human36m.weights.loading import load_lifter_weights

    options: dict[str, Any] = {"frames": 9, "dim": 16, "depth": 2}
    model = create_lifter("frame_lifter", **options)
    return drawn(create_lifter("frame_lifter", **options)), loader(model, load_lifter_weights)


def multiview() -> Door:
    pytest.importorskip("torchvision")
    from cycledistill.integrations.human36m.multiview.model import create_multiview
    from cycledistill.integrations.human36m.multiview.weights import load_multiview_weights

    options: dict[str, Any] = {"image_size": (64, 64), "stage1_width": 4, "dim": 16, "depth": 4, "heads": 2}
    options |= {"prune_layers": (1, 2), "fused_layers": 1}
    return drawn(create_multiview(**options)), loader(create_multiview(**options), load_multiview_weights)


def mmpose() -> Door:
    from cycledistill.integrations.mmpose.checkpoint import read_checkpoint

    return core()[0], lambda path: read_checkpoint(path)["state_dict"]


def mmpose_trusted() -> Door:
    from cycledistill.integrations.mmpose.checkpoint import read_checkpoint

    return core()[0], lambda path: read_checkpoint(path, trusted=True)["state_dict"]


def drawn(model: nn.Module) -> State:
    return {
        name: torch.rand_like(tensor) if tensor.is_floating_point() and "pos" not in name else tensor.clone()
        for name, tensor in model.state_dict().items()
    }


def loader(model: nn.Module, load: Callable[[Any, Path], object]) -> Callable[[Path], State]:
    def loaded(path: Path) -> State:
        load(model, path)
        return dict(model.state_dict())

    return loaded


DOORS = [core, imagenet, coco, human36m, multiview, mmpose, mmpose_trusted]


@pytest.fixture(scope="module", params=DOORS, ids=lambda door: door.__name__)
def door(request: pytest.FixtureRequest) -> Door:
    torch.manual_seed(0)
    made: Door = request.param()
    return made


@pytest.mark.parametrize("name", WRITERS)
def test_every_kind_of_file_loads_everywhere(door: Door, name: str, tmp_path: Path) -> None:
    state, load = door
    WRITERS[name](state, tmp_path / name)
    found = load(tmp_path / name)
    assert found.keys() == state.keys()
    assert all(torch.equal(found[key], state[key]) for key in state)


@pytest.mark.parametrize("name", BROKEN)
def test_every_other_file_is_refused_everywhere_in_the_same_words(
    door: Door, name: str, tmp_path: Path, request: pytest.FixtureRequest, capsys: pytest.CaptureFixture[str]
) -> None:
    state, load = door
    write, words = BROKEN[name]
    if "mmpose" in request.node.callspec.id and "run code" in words:
        if "trusted" in request.node.callspec.id:
            pytest.skip("whoever says trusted asks for the code to run")
        words = "reading them can run code. Add --trust-checkpoint"
    write(state, tmp_path / name)
    if name == "folder.pth" and "imagenet" in request.node.callspec.id:
        words = "holds no complete checkpoint"  # a folder may be a run's
    with pytest.raises(CheckpointError, match=words) as error:
        load(tmp_path / name)
    assert name in str(error.value) and "weights_only=False" not in str(error.value)
    assert "this must never run" not in capsys.readouterr().out
    with pytest.raises(CheckpointError, match=r"absent\.pth.*(there is no such file|does not exist)"):
        load(tmp_path / "absent.pth")


def test_code_is_an_error_of_its_own(tmp_path: Path) -> None:
    torch.save(Evil(), tmp_path / "evil.pth")
    with pytest.raises(PickledCodeError):
        read_weights(tmp_path / "evil.pth")


def test_a_models_own_module_keeps_its_name(tmp_path: Path) -> None:
    """``module.`` is a data-parallel model's mark only where all names have it."""
    state = {"module.weight": torch.ones(1), "head.weight": torch.ones(2)}
    write_weights(state, tmp_path / "own.safetensors")
    assert read_weights(tmp_path / "own.safetensors").keys() == state.keys()


def test_what_is_written_is_read_back(tmp_path: Path) -> None:
    state = {"a": torch.randn(3, 2).t(), "b": torch.arange(3)}
    for name in ("a.safetensors", "a.pth", "a.pt"):
        write_weights(state, tmp_path / name, {"model": "mine"})
        back = read_weights(tmp_path / name)
        assert back.keys() == state.keys() and all(torch.equal(back[key], state[key]) for key in state)
        assert read_metadata(tmp_path / name) == ({"model": "mine"} if name.endswith(".safetensors") else {})
    (tmp_path / "cut.safetensors").write_bytes((tmp_path / "a.safetensors").read_bytes()[:9])
    with pytest.raises(CheckpointError, match="broken or truncated, or no safetensors file"):
        read_metadata(tmp_path / "cut.safetensors")


@pytest.mark.parametrize("config", ["vit_small", "[1,2]", "5", "null"])
def test_only_our_own_files_say_which_network_they_are_of(config: str, tmp_path: Path) -> None:
    state, path = {"a": torch.ones(1)}, tmp_path / "a.safetensors"
    for words in ({"config": config}, {"config": '{"layers": 3}', "format": "pt"}):
        write_weights(state, path, words)
        assert stored_network(path) == {}
    write_weights(state, path, {"config": '{"layers": 3}', "format": "cycledistill"})
    assert stored_network(path) == {"layers": 3}
    write_weights(state, path, {"config": config, "format": "cycledistill"})
    with pytest.raises(CheckpointError, match=r"a\.safetensors: its config is expected to be a JSON object") as error:
        stored_network(path)
    assert config in str(error.value)


def legacy_tar(_: State, path: Path) -> None:
    """PyTorch's first format: a tar of pickles."""
    with tarfile.open(path, "w") as archive:
        for name, value in (("sys_info", {}), ("pickle", {}), ("storages", 0), ("tensors", 0)):
            data = pickle.dumps(value, 2)
            entry = tarfile.TarInfo(name)
            entry.size = len(data)
            archive.addfile(entry, io.BytesIO(data))


def torchscript(_: State, path: Path) -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # PyTorch's own: there is a newer way
        torch.jit.script(nn.Linear(2, 2)).save(str(path))


@pytest.mark.parametrize(
    ("write", "form"),
    [(legacy_tar, "of PyTorch's first format, a tar archive"), (torchscript, "a TorchScript program")],
    ids=["tar", "script"],
)
def test_what_pytorch_runs_is_refused_in_our_words(door: Door, write: Any, form: str, tmp_path: Path) -> None:
    path = tmp_path / "a.pth"
    write({}, path)
    if "mmpose_trusted" in str(door[1]):
        pytest.skip("whoever says trusted asks for the code to run")
    with pytest.raises(CheckpointError) as raised:
        door[1](path)
    said = "".join(traceback.format_exception(raised.value))
    assert "weights_only" not in said and "a.pth" in str(raised.value)
    assert form in str(raised.value) or "Add --trust-checkpoint" in str(raised.value)


@pytest.mark.parametrize("name", [name for name in BROKEN if name.endswith(".pth")])
def test_pytorchs_advice_is_never_repeated(name: str, tmp_path: Path) -> None:
    BROKEN[name][0]({"a": torch.ones(2)}, tmp_path / name)
    with pytest.raises(CheckpointError) as raised:
        read_weights(tmp_path / name)
    assert "weights_only" not in "".join(traceback.format_exception(raised.value))


FORMS: dict[str, Callable[[State, Path], object]] = {
    "zip.pth": torch.save,
    "legacy.pth": lambda state, path: torch.save(state, path, _use_new_zipfile_serialization=False),
    "a.safetensors": lambda state, path: save_file(state, path, {"format": "cycledistill", "config": '{"a": 1}'}),
}


@pytest.mark.slow
@pytest.mark.parametrize("name", FORMS)
def test_a_damaged_file_is_read_or_refused(name: str, tmp_path: Path) -> None:
    path = tmp_path / name
    FORMS[name]({"a": torch.randn(4, 5), "b.c": torch.arange(3)}, path)
    for what, data in damaged(path.read_bytes()):
        path.write_bytes(data)
        for read in (read_weights, stored_network):
            try:
                read(path)
            except CheckpointError as error:
                assert str(path) in str(error), what


@pytest.mark.parametrize(
    "tensors", [{1: torch.ones(2)}, {"a": torch.ones(2).to_sparse()}, {"a": torch.ones(2, device="meta")}], ids=str
)
def test_what_is_no_plain_tensor_by_name_is_refused(tensors: Any, tmp_path: Path) -> None:
    torch.save(tensors, tmp_path / "a.pth")
    with pytest.raises(CheckpointError, match=r"a\.pth: .* is a tensor of .*: names that are text, and plain dense"):
        read_weights(tmp_path / "a.pth")
