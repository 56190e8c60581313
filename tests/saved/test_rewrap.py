"""A wrapped model is saved as the plain one, and wrapped again as it was."""

from __future__ import annotations

import copy
import json
import logging
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn

from cycledistill import (
    CycleLoss,
    Distill,
    StackError,
    rewrap,
    save_wrapping,
    wrap_cyclic,
    wrap_hourglass,
    wrap_pruning,
)
from cycledistill.plugin.plain import SAVED as FILE
from cycledistill.plugin.saved import read_wrapping
from tests import toys
from tests.hourglass.models import build


def saved(folder: Path, **changed: Any) -> Path:
    """What a wrapped toy saves, with entries of its cycles changed."""
    save_wrapping(wrap_cyclic(toys.make(), 3, "elt"), folder)
    found = json.loads((folder / FILE).read_text())
    found["cyclic"] |= changed
    (folder / FILE).write_text(json.dumps(found))
    return folder


def step(model: nn.Module, images: torch.Tensor) -> tuple[list[torch.Tensor], list[torch.Tensor]]:
    """Loss terms and gradients of one training step."""
    torch.manual_seed(3)
    model.train().zero_grad()
    out = model(images)
    parts = CycleLoss(nn.CrossEntropyLoss()).parts(out, torch.arange(len(images)))
    sum(parts.values()).backward()  # type: ignore[union-attr]
    return [each.detach() for each in parts.values()], [
        each.grad for each in model.parameters() if each.grad is not None
    ]


def test_the_users_own_model_trains_as_before(tmp_path: Path) -> None:
    plain = toys.make()
    scheme = Distill(token_weight={"front": 0.5}, task_weights=(0.5, 1.0, 1.0))
    groups = {"front": slice(0, 2), "rest": slice(2, None)}
    model = wrap_cyclic(copy.deepcopy(plain), 3, scheme, tokens=groups, batch_norm="update", blocks="blocks[0:2]")
    assert save_wrapping(model, tmp_path / "new") == tmp_path / "new" / FILE
    again = rewrap(copy.deepcopy(plain), tmp_path / "new")
    assert (again.cyclic.distill, again.cyclic.groups, repr(again.cyclic)) == (scheme, groups, repr(model.cyclic))
    images = torch.randn(3, 4, toys.FEATURES, dtype=torch.float64)
    torch.testing.assert_close(step(again, images), step(model, images), rtol=0, atol=0)
    assert torch.equal(again.eval()(images), plain.eval()(images))
    assert save_wrapping(again, tmp_path).read_text() == (tmp_path / "new" / FILE).read_text()


@pytest.mark.slow
def test_a_model_of_transformers_saves_it_by_itself_and_loads_plain(tmp_path: Path) -> None:
    transformers = pytest.importorskip("transformers")
    config = transformers.ViTConfig(
        image_size=16, patch_size=8, num_hidden_layers=2, num_attention_heads=2, hidden_size=16, intermediate_size=16,
        num_labels=3,
    )  # fmt: skip
    kind, folder, plain = transformers.ViTForImageClassification, tmp_path / "vit", tmp_path / "plain"
    model = kind(config)
    model.save_pretrained(plain)
    wrap_cyclic(model, 2, "sdpose").save_pretrained(folder)
    assert {each.name for each in folder.iterdir()} - {each.name for each in plain.iterdir()} == {FILE}
    for name in ("config.json", "model.safetensors"):
        assert (folder / name).read_bytes() == (plain / name).read_bytes()
    loaded, images = kind.from_pretrained(folder), torch.randn(3, 3, 16, 16, dtype=torch.float32)
    assert type(loaded) is kind and not hasattr(loaded, "cyclic")
    again = rewrap(loaded, folder)
    assert repr(again.cyclic) == repr(model.cyclic) and again.cyclic.distill == Distill.preset("sdpose")
    assert torch.equal(again.eval()(images).logits, kind.from_pretrained(plain).eval()(images).logits)
    again.cyclic.exit = model.cyclic.exit = 2
    assert torch.equal(again(images).logits, model.eval()(images).logits)
    model.vit.save_pretrained(tmp_path / "part")  # a part is not wrapped itself
    assert not (tmp_path / "part" / FILE).exists()


@pytest.mark.slow
def test_a_model_of_timm_with_pruning(tmp_path: Path) -> None:
    timm = pytest.importorskip("timm")
    pytest.importorskip("huggingface_hub")
    model = timm.create_model("test_vit", img_size=32, num_classes=5, depth=3).eval()
    plain, images = copy.deepcopy(model), torch.randn(3, 3, 32, 32, dtype=torch.float32)
    wrap_pruning(wrap_cyclic(model, 2, "exits"), layers=(1,), keep=0.5)
    timm.models.save_for_hf(model, tmp_path, model_args={"img_size": 32, "depth": 3})
    save_wrapping(model, tmp_path)
    loaded = timm.create_model(f"local-dir:{tmp_path}", pretrained=True).eval()
    assert type(loaded) is type(plain) and torch.equal(loaded(images), plain(images))
    again = rewrap(loaded, tmp_path)
    for name in ("cyclic", "pruning"):
        assert repr(getattr(again, name)) == repr(getattr(model, name))
    torch.testing.assert_close(step(again, images), step(model, images), rtol=0, atol=0)


def test_a_learned_hourglass_brings_its_weights(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    from safetensors.torch import save_file

    plain = build()
    model = wrap_hourglass(copy.deepcopy(plain), layer=1, keep=3)
    for each in (*model.prune.parameters(), *model.recover.parameters()):
        nn.init.normal_(each)
    wrap_cyclic(model, 2)
    save_wrapping(model, tmp_path)
    save_file(model.state_dict(), tmp_path / "model.safetensors")
    again = rewrap(copy.deepcopy(plain), tmp_path)
    assert all(torch.equal(each, again.state_dict()[name]) for name, each in model.state_dict().items())
    assert again.hourglass.described(again) == model.hourglass.described(model)
    assert repr(again.cyclic) == repr(model.cyclic)
    (tmp_path / "model.safetensors").unlink()
    with caplog.at_level(logging.WARNING):
        rewrap(copy.deepcopy(plain), tmp_path)
    assert "holds prune.0.pos, recover.k.bias" in caplog.text
    save_file({"prune.0.pos": torch.zeros(1, 1, 1)}, tmp_path / "model.safetensors")
    fresh = copy.deepcopy(plain)
    with pytest.raises(StackError, match=r"prune\.0\.pos is \(1, 1, 1\), expected"):
        rewrap(fresh, tmp_path)
    assert not hasattr(fresh, "hourglass") and fresh.state_dict().keys() == plain.state_dict().keys()


def test_a_function_is_asked_for_and_never_called(tmp_path: Path) -> None:
    def mine(out: object) -> torch.Tensor:
        raise AssertionError

    save_wrapping(wrap_cyclic(toys.make(), 2, mine), tmp_path)
    assert json.loads((tmp_path / FILE).read_text())["cyclic"]["distill"] == {"code": "mine"}
    with pytest.raises(StackError, match=r"distill was 'mine', a function .* folder, distill=your_function\)$"):
        rewrap(toys.make(), tmp_path)
    assert rewrap(toys.make(), tmp_path, distill=mine).cyclic.distill is mine
    assert rewrap(toys.make(), tmp_path, distill=None).cyclic.distill is None
    save_wrapping(wrap_hourglass(build(), layer=1, keep=3, recover="linear", select=lambda x, k: x), tmp_path)
    with pytest.raises(StackError, match=r"select was '<lambda>', a function .* wrap_hourglass\(model, \.\.\.\)"):
        rewrap(build(), tmp_path)


@pytest.mark.parametrize(("break_it", "says"), [
    (lambda folder: (folder / FILE).unlink(), f"holds no {FILE}, .*Missing are blocks, cycles and distill"),
    (lambda folder: (folder / FILE).write_text((folder / FILE).read_text()[:-20]), "is torn, or no JSON"),
    (lambda folder: (folder / FILE).write_bytes(b"\xff\xfe"), "is torn, or no JSON"),
    (lambda folder: (folder / FILE).write_text("[" * 100_000), "is torn, or no JSON"),
    (lambda folder: (folder / FILE).write_text("[]"), "is not of this library"),
    (lambda folder: (folder / FILE).write_text('{"model": "a"}'), "is not of this library"),
    (lambda folder: (folder / FILE).write_text('{"cyclic": 3}'), "is not of this library"),
    (lambda folder: (folder / FILE).write_text('{"cyclic": {}, "merging": {}}'), "merging, which this version"),
    (lambda folder: (folder / FILE).write_text('{"cyclic": {"model": 1}}'), "'model' are not known to wrap_cycl"),
    (lambda folder: (folder / FILE).write_text('{"cyclic": {}}'), "blocks, cycles, depth, distill, tokens are mis"),
    (lambda folder: saved(folder, blocks=3), "cyclic: blocks=3: the path"),
    (lambda folder: saved(folder, blocks="no.such"), "no.such"),
    (lambda folder: saved(folder, depth=12), "blocks has 3 blocks, and the model that was saved had 12"),
    (lambda folder: saved(folder, cycles="two"), "cycles='two'"),
    (lambda folder: saved(folder, cycles=None), "cycles=None"),
    (lambda folder: saved(folder, distill="os.system"), "unknown preset"),
    (lambda folder: saved(folder, distill=[1]), r"distill=\[1\]"),
    (lambda folder: saved(folder, distill={"token_weight": -1}), "token_weight"),
    (lambda folder: (folder / FILE).write_text((folder / FILE).read_text().replace('"elt"', "[" * 900 + "]" * 900)),
     "distill"),
    (lambda folder: saved(folder, tokens=[1]), r"tokens=\[1\]: names, each with the two ends"),
    (lambda folder: saved(folder, tokens={"a": ["x", 1]}), r"tokens\['a'\]=\['x', 1\]: the two ends"),
    (lambda folder: saved(folder, tokens={"a": [0, 1, 1, 1]}), r"tokens\['a'\]=\[0, 1, 1, 1\]: the two ends"),
    (lambda folder: saved(folder, tokens={"a": ["x"]}), r"tokens\['a'\]=\['x'\]: the two ends"),
    (lambda folder: saved(folder, distill={"\x1b": 1}), r"'\\x1b' no field of Distill, which has task_weights"),
    (lambda folder: saved(folder, distill={"token_loss": {"code": "f"}, "teacher": "me"}), "teacher='me'"),
    (lambda folder: saved(folder, distill={"token_weight": {"code": 0.5}}), "token group 'code'"),
    (lambda folder: saved(folder, cycles=10**9), "cycles=1000000000: a whole number of at least 1, and at most 10000"),
    (lambda folder: saved(folder, distill=[{"code": "f"}]), r"distill=\[\{'code': 'f'\}\]: a preset"),
    (lambda folder: saved(folder, distill={"token_weight": {"a": {"code": "f"}}}), r"\['a'\]=\{'code': 'f'\}: a fin"),
    (lambda folder: saved(folder, distill={"select": {"code": "f"}, "bad": 1}), r"distill=\{'select': \{'code'.*'bad'"),
    (lambda folder: saved(folder, depth=None), "depth=None: a whole number"),
    (lambda folder: saved(folder, batch_norm="eat"), "batch_norm="),
], ids=range(32))  # fmt: skip
def test_bad_files_are_refused_and_the_model_is_as_it_was(
    tmp_path: Path, break_it: Callable[[Path], object], says: str
) -> None:
    saved(tmp_path)
    break_it(tmp_path)
    model = toys.make()
    with pytest.raises(ValueError, match=says) as refused:
        rewrap(model, tmp_path)
    assert str(tmp_path) in str(refused.value)
    assert type(model) is type(toys.make()) and not hasattr(model, "cyclic")


def test_no_folder_a_plain_model_and_a_wrapped_one(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="there is no such folder.*snapshot_download"):
        read_wrapping("user/name")
    with pytest.raises(ValueError, match=f"{FILE}: a file; give its folder, {tmp_path / 'a'}$"):
        rewrap(toys.make(), saved(tmp_path / "a") / FILE)
    with pytest.raises(StackError, match="is not wrapped, so there is nothing to save"):
        save_wrapping(toys.make(), tmp_path / "b")
    assert not (tmp_path / "b").exists()
    with pytest.raises(StackError, match="rewrap takes a torch.nn.Module"):
        rewrap("model", tmp_path)  # type: ignore[type-var]
    model = wrap_cyclic(toys.make(), 2)
    with pytest.raises(StackError, match="already wrapped by wrap_cyclic"):
        rewrap(model, saved(tmp_path))
    assert model.cyclic.cycles == 2


def test_a_function_in_a_field_is_asked_for_with_the_rest_of_the_scheme(tmp_path: Path) -> None:
    def evil(a: torch.Tensor, b: torch.Tensor) -> torch.Tensor:
        raise AssertionError

    evil.__name__ = "\x1b[2J__import__('os')" + "x" * 200
    scheme = Distill(token_weight=0.3, token_loss=evil, task_weights=(0.5, 1.0), teacher="last", output_loss=evil)
    save_wrapping(wrap_cyclic(toys.make(), 2, scheme), tmp_path)
    with pytest.raises(StackError, match=r"cyclic: distill\.token_loss, distill\.output_loss was ") as refused:
        rewrap(toys.make(), tmp_path)
    says, (named, way) = str(refused.value), str(refused.value).split("Give it yourself: ")
    assert says.isprintable() and "x" * 80 not in says and "import" in named and "import" not in way
    assert way == (
        "rewrap(model, folder, distill=Distill(task_weights=(0.5, 1.0), token_weight=0.3, token_loss=your_function, "
        "output_loss=your_function, teacher='last'))"
    )


@pytest.mark.parametrize("kind", ["cyclic", "pruning", "hourglass"])
def test_whatever_is_saved_is_needed(tmp_path: Path, kind: str) -> None:
    model = wrap_hourglass(wrap_cyclic(build(), 2), layer=1, keep=3, recover="linear")
    whole = json.loads(save_wrapping(model, tmp_path).read_text())
    whole["pruning"] = {"blocks": "levels", "depth": 5, "layers": [1], "keep": 0.5, "query": [0, 1]}
    whole = {kind: whole[kind]}
    for name in whole[kind]:
        less = {key: value for key, value in whole[kind].items() if key != name}
        (tmp_path / FILE).write_text(json.dumps({kind: less}))
        with pytest.raises(StackError, match=f"{kind}: {name} are missing"):
            rewrap(build(), tmp_path)


def test_another_class_is_told(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    model = toys.make()
    rewrap(model, saved(tmp_path))
    assert not caplog.records
    fresh = toys.make()
    fresh.__class__ = type("Renamed", (type(fresh),), {})
    assert rewrap(fresh, tmp_path).cyclic.cycles == 3
    assert f"the model saved was of class {type(toys.make()).__name__!r}, this is a Renamed" in caplog.text
