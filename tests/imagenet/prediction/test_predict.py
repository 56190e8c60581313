"""Predicted classes against the evaluation's own batches, by timm's loader, bit for bit; every kind of model."""

from __future__ import annotations

import json
import shutil
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import timm
import torch
from PIL import Image
from timm.models import save_for_hf

from cycledistill import at_exit, save_wrapping
from cycledistill.integrations.imagenet.data.class_names import class_names, descriptions
from cycledistill.integrations.imagenet.data.splits import open_validation
from cycledistill.integrations.imagenet.predict import predict_classes
from cycledistill.integrations.imagenet.prediction import open_model, open_source, predict_stream
from cycledistill.integrations.imagenet.recipe import Recipe
from cycledistill.integrations.imagenet.trained import evaluate_trained, load_trained
from cycledistill.integrations.imagenet.training.build import validation_batches
from cycledistill.metadata.model import words_of
from cycledistill.recipes.errors import CheckpointError, DataError
from cycledistill.recipes.hub.described import built_from_words
from cycledistill.recipes.weights.files import write_weights
from tests.imagenet.prediction.conftest import NAMES

ORDER = ["dark/1.png", "dark/2.jpg", "dark/10.png", "pale/1.png", "pale/2.png", "pale/3.png", "pale/4.jpg"]


@torch.no_grad()
def evaluated(recipe: Recipe, model: Any, exit: int = 1) -> np.ndarray[Any, Any]:
    """The logits that the evaluation measures, by timm's loader."""
    images, _ = open_validation(recipe.data)
    device = SimpleNamespace(device=torch.device("cpu"), num_processes=1)
    with at_exit(model, exit):
        found = [model.eval()(batch) for batch, _ in validation_batches(recipe, images, model, device)]
    return torch.cat(found).numpy()


def logits(found: Any) -> np.ndarray[Any, Any]:
    return np.stack([each.logits for each in found])


@pytest.mark.parametrize("exit", [1, 2])
def test_logits_are_those_of_the_evaluation_bit_for_bit(exit: int, run: Path, recipe: Recipe, photos: Path) -> None:
    model, settings = open_model(run)
    assert (settings.batch_size, settings.precision, settings.broken) == (3, "fp32", "stop")
    expected = evaluated(recipe, load_trained(run), exit)
    found = list(predict_stream(model, open_source(str(photos / "val")), exit=exit, settings=settings))
    assert [each.picture for each in found] == ORDER
    np.testing.assert_array_equal(logits(found), expected)
    assert np.abs(expected - evaluated(recipe, model, 3 - exit)).max() > 1e-3  # the exits do differ
    for each, row in zip(found, expected.astype(np.float64), strict=True):
        shares = np.exp(row) / np.exp(row).sum()
        best = np.argsort(-shares)
        assert each.classes == tuple(best) and each.names == tuple(NAMES[place] for place in best)
        np.testing.assert_allclose(each.probabilities, shares[best], rtol=1e-5)
    assert model.cyclic.exit == 1 and not model.training


def test_pictures_are_taken_as_files_arrays_and_pil_images(run: Path, recipe: Recipe, photos: Path) -> None:
    model, settings = open_model(run)
    files = [photos / "val" / name for name in ORDER]
    opened = [Image.open(file) for file in files]
    arrays = [np.array(Image.open(file).convert("RGB")) for file in files[:2]]
    expected = evaluated(recipe, model)
    for given in (files, opened, [*arrays, *files[2:]]):
        found = predict_classes(model, given, top=1, settings=settings)
        np.testing.assert_array_equal(logits(found), expected)
        assert all(each is not None and len(each.names) == len(each.probabilities) == 1 for each in found)
    assert predict_classes(model, []) == []


@pytest.mark.slow
def test_a_checkpoint_its_files_and_the_average(run: Path, recipe: Recipe, photos: Path) -> None:
    folder = next((run / "checkpoints").iterdir())
    expected = {ema: evaluated(recipe, load_trained(run, ema)) for ema in (False, True)}
    assert np.abs(expected[True] - expected[False]).max() > 1e-3
    source = [photos / "val" / name for name in ORDER]
    for where, ema, same in (
        (folder, False, False),
        (run, True, True),
        (folder / "model.safetensors", False, False),
        (folder / "ema.safetensors", False, True),
    ):
        model, settings = open_model(where, ema=ema)
        found = predict_classes(model, source, settings=settings)
        np.testing.assert_allclose(logits(found), expected[same], rtol=1e-5, atol=1e-6)  # batches of other sizes
        assert found[0] is not None and set(found[0].names) == set(NAMES)


@pytest.mark.slow
def test_a_file_of_weights_needs_a_recipe_and_says_its_classes_or_counts_them(
    run: Path, recipe: Recipe, photos: Path, tmp_path: Path
) -> None:
    told, silent, config = tmp_path / "told.safetensors", tmp_path / "silent.pth", tmp_path / "mine.yaml"
    shutil.copy(next((run / "checkpoints").iterdir()) / "model.safetensors", told)
    torch.save(load_trained(run).state_dict(), silent)
    config.write_text(json.dumps({"model": recipe.to_dict()["model"], "augment": recipe.to_dict()["augment"]}))
    with pytest.raises(CheckpointError, match="holds weights only: name the recipe of its model"):
        open_model(told)
    for file, names in ((told, {"dark", "pale"}), (silent, {"0", "1"})):
        model, settings = open_model(file, str(config))
        found = predict_classes(model, [photos / "val" / name for name in ORDER], settings=settings)
        np.testing.assert_allclose(logits(found), evaluated(recipe, load_trained(run)), rtol=1e-5, atol=1e-6)
        assert found[0] is not None and set(found[0].names) == names


def test_what_timm_publishes_is_taken_wrapped_or_plain(
    run: Path, recipe: Recipe, photos: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    trained = load_trained(run)
    expected = {exit: evaluated(recipe, trained, exit) for exit in (1, 2)}
    save_for_hf(trained, tmp_path / "model", safe_serialization=True)
    files = [photos / "val" / name for name in ORDER]
    model, settings = open_model(tmp_path / "model")
    found = predict_classes(model, files, settings=settings)
    np.testing.assert_allclose(logits(found), expected[1], rtol=1e-5, atol=1e-6)
    assert found[0] is not None and set(found[0].names) == set(NAMES)
    assert "assumed" not in words_of(model)  # its config.json says it of these weights
    with pytest.raises(ValueError, match="a model that is not wrapped has exit 1 only"):
        predict_classes(model, files, exit=2)
    with pytest.raises(CheckpointError, match="holds one set of weights, and no average"):
        open_model(tmp_path / "model", ema=True)

    save_wrapping(trained, tmp_path / "model")
    monkeypatch.setattr("cycledistill.recipes.hub.files.download", lambda name, file, **more: tmp_path / "model" / file)
    for where in (tmp_path / "model", "user/model"):
        model, _ = open_model(where)
        found = predict_classes(model, files, exit=2)
        np.testing.assert_allclose(logits(found), expected[2], rtol=1e-5, atol=1e-6)


def test_the_file_of_what_timm_publishes_is_measured_on_its_own_classes(
    run: Path, recipe: Recipe, photos: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """The file says nothing, and the config.json beside it does."""
    save_for_hf(load_trained(run), tmp_path / "model", safe_serialization=True)
    file = tmp_path / "model" / "model.safetensors"
    shutil.copytree(photos, tmp_path / "renamed")
    for split in ("train", "val"):
        (tmp_path / "renamed" / split / "dark").rename(tmp_path / "renamed" / split / "quite dark")
    other = replace(recipe, data=replace(recipe.data, dir=str(tmp_path / "renamed")))
    with pytest.raises(DataError, match="class 0: 'dark' in the training, and here 'pale'"):
        evaluate_trained(other, file)
    assert not caplog.records
    with pytest.raises(DataError):
        evaluate_trained(replace(other, augment=replace(recipe.augment, crop_pct=0.9)), file)
    assert "model.safetensors says crop_pct 0.75, and is measured by augment.crop_pct=0.9" in caplog.text
    model = load_trained(file, recipe=recipe)
    assert class_names(model) == class_names(load_trained(file)) == NAMES  # of its folder, where no recipe is named
    (file.parent / "config.json").write_text("{}")
    assert class_names(load_trained(file, recipe=replace(recipe, model=replace(recipe.model, num_classes=2)))) == []


@pytest.mark.parametrize(
    "model",
    [{"pretrained": True}, {"kwargs": {"checkpoint_path": "x.pth"}}, {"kwargs": {"pretrained_cfg": {"file": "x"}}}],
)
def test_a_file_does_not_name_other_weights(model: dict[str, Any], tmp_path: Path) -> None:
    words = built_from_words({"model_class": "timm", "recipe": {"model": {"name": "test_vit", **model}}})
    file = tmp_path / "a.safetensors"
    write_weights({"a": torch.ones(1)}, file, words)
    with pytest.raises(CheckpointError, match=r"cannot be built: model.pretrained and model.kwargs name other weights"):
        load_trained(file)


@pytest.mark.parametrize(
    ("changed", "message"),
    [
        ({"architecture": "test_vti"}, r"config.json: model.name: timm has no model 'test_vti'.*test_vit"),
        ({"architecture": ["x"]}, "no classifier of timm, whose config has architecture and pretrained_cfg"),
        ({"model_class": "TokenPose"}, "config.json: a TokenPose, and no classifier of timm"),
        ({"num_classes": 0}, "num_classes is 0; a classifier has 2 or more"),
        ({"num_classes": 3}, "the weights are not those of this VisionTransformer"),
        (
            {"model_args": {"checkpoint_path": "x.pth"}},
            "model_args name other weights .checkpoint_path., which",
        ),
        ({"model_args": {"no_such": 1}}, "do not fit test_vit"),
    ],
)
def test_a_damaged_config_is_refused(changed: dict[str, Any], message: str, run: Path, tmp_path: Path) -> None:
    save_for_hf(load_trained(run), tmp_path, safe_serialization=True)
    config = json.loads((tmp_path / "config.json").read_text())
    (tmp_path / "config.json").write_text(json.dumps(config | changed))
    with pytest.raises(CheckpointError, match=message):
        open_model(tmp_path)


def test_imagenets_classes_have_names_and_words(tmp_path: Path) -> None:
    """By timm's own table, and the first class of ImageNet as everybody knows it."""
    save_for_hf(timm.create_model("test_vit", img_size=16), tmp_path, safe_serialization=True)
    model, _ = open_model(tmp_path)
    found = predict_classes(model, [np.zeros((20, 20, 3), np.uint8)], top=1000)[0]
    assert found is not None and len(found.classes) == 1000 and sorted(found.classes) == list(range(1000))
    place = found.classes.index(0)
    assert (found.names[place], found.descriptions[place]) == ("n01440764", "tench, Tinca tinca")
    assert descriptions(["n01440764", "cat"]) == [] == descriptions([])
    assert descriptions(["n99999999"]) == [""]


@pytest.mark.parametrize(
    ("image", "message"),
    [
        ("none.png", "none.png: there is no such file"),
        ("torn.png", "torn.png: not a picture, or a broken one"),
        (np.zeros((2, 2), np.uint8), r"images\[1\] is an array \(2, 2\) of uint8: RGB bytes"),
        (Image.new("F", (3, 3)), r"images\[1\]: not a picture, or a broken one .*no known range"),
    ],
)
def test_a_picture_that_cannot_be_read_stops_or_is_skipped(
    image: Any, message: str, run: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: Any
) -> None:
    monkeypatch.chdir(tmp_path)
    Path("torn.png").write_bytes(b"\x89PNG cut off")
    model, settings = open_model(run)
    good = np.zeros((20, 20, 3), np.uint8)
    with pytest.raises(DataError, match=message):
        predict_classes(model, [good, image, good], settings=settings)
    skipping = SimpleNamespace(**(vars(settings) | {"broken": "skip"}))
    found = predict_classes(model, [good, image, good], settings=skipping)  # type: ignore[arg-type]
    assert [each is None for each in found] == [False, True, False]
    assert "1 of 3 pictures could not be read and were skipped" in caplog.text


def test_wrong_arguments_are_said(run: Path) -> None:
    model, _ = open_model(run)
    with pytest.raises(DataError, match=r"images='a.png': a list of pictures is expected, \['a.png'\] for one"):
        predict_classes(model, "a.png")  # type: ignore[arg-type]
    with pytest.raises(ValueError, match="top=0: a number of classes"):
        predict_classes(model, [], top=0)


def test_pictures_are_turned_by_exif_only_when_asked(run: Path, tmp_path: Path) -> None:
    pixels = np.random.default_rng(0).integers(0, 255, (30, 40, 3), dtype=np.uint8)
    image, exif = Image.fromarray(pixels), Image.Exif()
    exif[0x0112] = 6  # the camera was held on its side
    image.save(tmp_path / "phone.png", exif=exif)
    model, _ = open_model(run)
    turned, stored = np.rot90(pixels, -1), pixels
    for choice, same in (("apply", turned), ("ignore", stored)):
        found = predict_classes(model, [tmp_path / "phone.png"], exif=choice)  # type: ignore[arg-type]
        expected = predict_classes(model, [np.ascontiguousarray(same)])
        np.testing.assert_array_equal(logits(found), logits(expected))
        assert found[0] is not None and found[0].size == same.shape[1::-1]
