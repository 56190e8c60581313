"""Decoding and cropping as tensors: the images of the Pillow way, and refusals."""

from __future__ import annotations

import io
import random
import sys
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

from cycledistill.integrations.imagenet.data.augment import Augmentation, train_transform
from cycledistill.integrations.imagenet.data.loader import TrainLoader
from cycledistill.integrations.imagenet.data.splits import open_images
from cycledistill.integrations.imagenet.data.tensors import decode, leave_bytes
from cycledistill.integrations.imagenet.recipe import Recipe, RecipeError, load_recipe
from cycledistill.recipes.errors import DataError
from cycledistill.recipes.run.seeding import seeded
from tests.imagenet.pictures import SIZE

PLAIN = Augmentation(auto=None, color_jitter=0.0, erase=0.0)


def photograph(height: int = 75, width: int = 100) -> Image.Image:
    coarse = np.random.default_rng(3).integers(0, 255, (height // 5, width // 5, 3), dtype=np.uint8)
    return Image.fromarray(coarse).resize((width, height), Image.Resampling.BICUBIC)


def encoded(image: Image.Image, form: str = "JPEG", **options: Any) -> io.BytesIO:
    file = io.BytesIO()
    image.save(file, form, **options)
    return file


def as_tensor(image: Image.Image) -> torch.Tensor:
    return torch.from_numpy(np.array(image)).permute(2, 0, 1)


def turned() -> Image.Exif:
    exif = Image.Exif()
    exif[0x0112] = 6
    return exif


@pytest.mark.parametrize(
    "make",
    [
        lambda: encoded(photograph()),
        lambda: encoded(photograph(), progressive=True, subsampling=0),
        lambda: encoded(photograph().convert("L")),
        lambda: encoded(photograph().convert("CMYK")),
        lambda: encoded(photograph(), exif=turned()),
        lambda: encoded(photograph(), "PNG"),
        lambda: encoded(photograph().convert("P"), "GIF"),
    ],
    ids=["jpeg", "progressive", "grey", "cmyk", "turned", "png", "gif"],
)
def test_the_pixels_are_those_of_pillow(make: Callable[[], io.BytesIO]):
    pytest.importorskip("torchcodec")
    source = make()
    expected = as_tensor(Image.open(io.BytesIO(source.getvalue())).convert("RGB"))
    with Image.open(source) as image:
        found = decode(source, image)
    assert found.dtype == torch.uint8
    assert torch.equal(found, expected)


@pytest.mark.parametrize(
    "make",
    [
        lambda: encoded(photograph().convert("CMYK")),
        lambda: encoded(photograph(), exif=turned()),
        lambda: encoded(photograph(), "PNG"),
    ],
    ids=["cmyk", "turned", "png"],
)
def test_what_is_no_plain_jpeg_is_left_to_pillow(make: Callable[[], io.BytesIO], monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setitem(sys.modules, "torchcodec.decoders", None)
    with Image.open(make()) as image:
        assert decode(io.BytesIO(), image).shape == (3, 75, 100)


def test_a_torn_jpeg_is_an_error_as_with_pillow():
    pytest.importorskip("torchcodec")
    source = io.BytesIO(encoded(photograph()).getvalue()[:1500])
    with Image.open(source) as image, pytest.raises(OSError, match=r"TorchCodec: .*truncated"):
        decode(source, image)


def both_ways(augment: Augmentation, picture: Image.Image, seed: int) -> list[tuple[torch.Tensor, object]]:
    """The transformed picture, by Pillow and by tensors, and where the generators were left."""
    pillow, tensors = train_transform(augment, 48), train_transform(augment, 48)
    finish = leave_bytes(tensors)
    found = []
    for transform, image in ((pillow, picture), (lambda image: finish(tensors(image)[None])[0], as_tensor(picture))):
        with seeded(seed):
            values = transform(image)
            left = random.getstate(), np.random.get_state()[1].tobytes(), torch.get_rng_state().numpy().tobytes()
        found.append((values, left))
    return found


@pytest.mark.parametrize("interpolation", ["bicubic", "bilinear", "random"])
@pytest.mark.parametrize("size", [(75, 100), (400, 300), (20, 90)], ids=["about", "larger", "long"])
def test_crops_and_flips_are_those_of_pillow(size, interpolation):
    """Both resize in two passes of fixed-point sums and round each: up to one level a pass, so two levels in all.

    A crop that is off by one pixel would be off by ten levels on average.
    """
    augment, picture = replace(PLAIN, interpolation=interpolation), photograph(*size)
    level = 1 / 255 / min(augment.std)
    for seed in range(12):
        (expected, left), (found, left_) = both_ways(augment, picture, seed)
        assert left == left_
        assert found.shape == expected.shape == (3, 48, 48)
        assert found.is_contiguous()
        off = (found - expected).abs()
        assert off.max() <= 2 * level + 1e-5, seed
        assert off.mean() <= 0.5 * level, seed


@pytest.mark.parametrize("auto", ["rand-m9-mstd0.5-inc1", "v0", "3a", None])
def test_what_follows_the_crop_draws_the_same_numbers(auto):
    """On one colour the crop is exact, and so is all that follows, noise of erased places included."""
    augment = Augmentation(auto=auto, erase=0.5)
    for seed in range(25):
        (expected, left), (found, left_) = both_ways(augment, Image.new("RGB", (60, 70), (200, 100, 50)), seed)
        assert left == left_
        torch.testing.assert_close(found, expected, rtol=0, atol=1e-6)


def batches(recipe: Recipe, epoch: int = 0, start: int = 0) -> list[tuple[torch.Tensor, torch.Tensor]]:
    data = recipe.data
    loader = TrainLoader(
        open_images(data), recipe.augment, SIZE, batch_size=data.batch_size, workers=data.workers, repeats=data.repeats
    )
    loader.epoch, loader.start = epoch, start
    return [(loader.finish(images), labels) for images, labels in loader]


@pytest.mark.parametrize("workers", [0, 2])
def test_batches_have_the_order_of_pillow_and_can_be_entered_anywhere(tiny, workers):
    pytest.importorskip("torchcodec")
    recipe = replace(tiny, data=replace(tiny.data, decoder="torchcodec"), augment=PLAIN)
    whole = batches(recipe, epoch=1)
    for (images, labels), (images_, labels_) in zip(whole, batches(replace(tiny, augment=PLAIN), 1), strict=True):
        assert torch.equal(labels, labels_)
        torch.testing.assert_close(images, images_, rtol=0, atol=2 / 255 / min(PLAIN.std) + 1e-5)
        assert not torch.equal(images, images_)  # the key has an effect
    recipe = replace(recipe, augment=Augmentation(erase=0.0))
    whole, recipe.data.workers = batches(recipe, epoch=1), workers
    for (images, labels), (images_, labels_) in zip(whole[2:], batches(recipe, 1, start=2), strict=True):
        assert torch.equal(labels, labels_)
        assert torch.equal(images, images_)


def test_a_broken_image_is_named(tiny, folder_dir):
    pytest.importorskip("torchcodec")
    broken = folder_dir / "train" / "pale" / "3.jpg"
    broken.write_bytes(broken.read_bytes()[:-200])
    recipe = replace(tiny, data=replace(tiny.data, dir=str(folder_dir), repeats=1, decoder="torchcodec"))
    with pytest.raises(
        DataError, match=r"broken image .*train/pale/3\.jpg: not a picture.*TorchCodec.*broken_images=skip"
    ):
        batches(recipe)
    recipe.data.broken_images = "skip"
    assert len(batches(recipe)) == 4


def test_evaluation_stays_with_pillow(tiny):
    pytest.importorskip("torchcodec")
    images = open_images(replace(tiny.data, decoder="torchcodec"))
    assert images.tensors
    assert images.train.tensors
    assert not images.validation.tensors


def test_without_torchcodec_the_run_does_not_begin(tiny, monkeypatch):
    monkeypatch.setitem(sys.modules, "torchcodec.decoders", None)
    with pytest.raises(DataError, match=r"pip install cycledistill\[torchcodec\], or pass data.decoder=pillow"):
        open_images(replace(tiny.data, decoder="torchcodec"))
    open_images(tiny.data)


@pytest.mark.filterwarnings("ignore:")  # webdataset's own
def test_a_stream_stays_with_pillow(tiny, tmp_path):
    pytest.importorskip("torchcodec")
    pytest.importorskip("webdataset")
    for split in ("train", "val"):
        (tmp_path / f"{split}-0.tar").write_bytes(b"")
    splits = {"train_split": "train-{0..0}.tar|16", "val_split": "val-{0..0}.tar|8"}
    source = replace(tiny.data, dir=str(tmp_path), dataset="wds/x", decoder="torchcodec", **splits)
    with pytest.raises(DataError, match=r"data\.dataset='wds/x' come as a stream.*data\.decoder=pillow"):
        open_images(source)


def test_another_decoder_is_refused():
    with pytest.raises(RecipeError, match=r"data\.decoder.*gpu"):
        load_recipe({"data": {"decoder": "gpu"}})


def test_workers_send_bytes(tiny):
    pytest.importorskip("torchcodec")
    loader = TrainLoader(open_images(replace(tiny.data, decoder="torchcodec")), tiny.augment, SIZE, batch_size=4)
    images, _ = next(iter(loader))
    assert (images.dtype, images.shape) == (torch.uint8, (4, SIZE, SIZE, 3))


def test_erasing_in_a_batch_has_the_share_and_the_noise_of_one_image():
    transform = train_transform(Augmentation(erase=0.25), 48)
    finish = leave_bytes(transform)
    with seeded(5):
        images = finish(torch.full((400, 48, 48, 3), 128, dtype=torch.uint8))
    clear = images[:, :, :1, :1].mode(0).values
    erased = (images != clear).any(1)
    share = erased.flatten(1).any(1).float().mean()
    assert 0.19 < share < 0.31  # 0.25 and three standard deviations
    noise = images.permute(0, 2, 3, 1)[erased]
    assert abs(noise.mean()) < 0.02
    assert abs(noise.std() - 1) < 0.02
