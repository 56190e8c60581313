"""Image sets: every source, the fixed order, and messages that name what is wrong."""

from __future__ import annotations

import errno
import io
import os
import shutil
import tarfile
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from PIL import Image

from cycledistill.integrations.imagenet.data.augment import create_mixup
from cycledistill.integrations.imagenet.data.loader import SeededOrder, TrainLoader, eval_loader
from cycledistill.integrations.imagenet.data.splits import ImageSource, open_images
from cycledistill.integrations.imagenet.recipe import Recipe
from cycledistill.recipes.errors import DataError, OutageError
from tests.imagenet.pictures import SIZE, picture, write_parquet

CPU = torch.device("cpu")


def train_loader(recipe: Recipe) -> TrainLoader:
    data = recipe.data
    images = open_images(data, batch_size=data.batch_size, eval_batch_size=recipe.eval_batch_size)
    return TrainLoader(
        images, recipe.augment, SIZE, batch_size=data.batch_size, workers=data.workers, repeats=data.repeats
    )


def batches(recipe: Recipe, epoch: int = 0, start: int = 0) -> list[tuple[torch.Tensor, torch.Tensor]]:
    loader = train_loader(recipe)
    loader.epoch, loader.start = epoch, start
    return list(loader)


def test_parquet_and_folder_hold_the_same(parquet_dir, folder_dir):
    for folder in (parquet_dir, folder_dir):
        images = open_images(ImageSource(dir=str(folder)))
        assert images.classes == ["dark", "pale"]
        assert (len(images.train), len(images.validation)) == (18, 10)
        assert images.train.reader.filename(0).startswith(("picture0.jpg (row 0 of train.parquet", "dark/0.jpg"))


def test_parquet_in_parts_and_without_names(tmp_path):
    (tmp_path / "data").mkdir()
    for part in range(2):
        data = [picture(label, part) for label in range(3)]
        write_parquet(tmp_path / "data" / f"train-0000{part}-of-00002.parquet", data, [0, 1, 2], None)
    write_parquet(tmp_path / "data" / "test.parquet", [picture(0, 1)], [0], None)
    images = open_images(ImageSource(dir=str(tmp_path)))
    assert (len(images.train), images.classes) == (6, ["0", "1", "2"])


def test_tar(tmp_path, folder_dir):
    for split in ("train", "val"):
        with tarfile.open(tmp_path / f"{split}.tar", "w") as tar:
            for name in ("dark", "pale"):
                tar.add(folder_dir / split / name, name)
    images = open_images(ImageSource(dir=str(tmp_path)))
    assert (len(images.train), images.classes) == (18, ["dark", "pale"])
    images.train.transform = lambda image: image.size
    assert images.train[0] == ((SIZE, SIZE), 0)
    images.train.reader.tar_state.tf.close()  # timm leaves it open


def test_huggingface_datasets(parquet_dir, tmp_path, monkeypatch):
    pytest.importorskip("datasets")
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    images = open_images(ImageSource(dir=str(tmp_path / "cache"), dataset=f"hfds/{parquet_dir}"))
    assert (len(images.train), images.classes) == (18, ["dark", "pale"])


@pytest.mark.parametrize("workers", [0, 2])
def test_a_batch_depends_on_its_place_alone(tiny, workers):
    recipe = replace(tiny, data=replace(tiny.data, workers=workers))
    whole = batches(tiny, epoch=1)
    assert len(whole) == 4
    assert whole[0][0].shape == (4, 3, SIZE, SIZE)
    torch.manual_seed(workers)  # nothing global matters, and nothing global is touched
    before = torch.get_rng_state()
    later = batches(recipe, epoch=1, start=2)
    assert torch.equal(before, torch.get_rng_state())
    for (images, labels), (images_, labels_) in zip(whole[2:], later, strict=True):
        assert torch.equal(images, images_)
        assert torch.equal(labels, labels_)
    assert not torch.equal(whole[0][0], batches(tiny, epoch=0)[0][0])


def test_ranks_share_one_order_and_repeats_follow_each_other():
    alone = SeededOrder(20, seed=3, repeats=2)
    keys = list(alone)
    numbers = [number for _, number in keys]
    assert len(keys) == 20
    assert numbers[::2] == numbers[1::2]  # each image twice in a row, ...
    assert len({seed for seed, _ in keys}) == 20  # ... never augmented the same way
    ranks = [list(SeededOrder(20, seed=3, repeats=2, rank=rank, world=2)) for rank in range(2)]
    assert [key for pair in zip(*ranks, strict=True) for key in pair] == keys
    assert list(SeededOrder(20, seed=4, repeats=2)) != keys


def test_evaluation_resizes_and_crops_as_deit(tiny):
    images = open_images(tiny.data)
    loader = eval_loader(images.validation, tiny.augment, 224, batch_size=4, device=CPU)
    resize, crop = images.validation.transform.transforms[:2]
    assert (resize.size, tuple(crop.size), str(resize.interpolation.value)) == (256, (224, 224), "bicubic")
    (first, labels), *_ = loader
    assert first.shape == (4, 3, 224, 224)
    assert labels.tolist() == [0, 1, 0, 1]


def test_mixup_makes_soft_targets_or_nothing(tiny):
    mixup = create_mixup(tiny.augment, classes=2)
    _, target = mixup(torch.zeros(4, 3, 8, 8), torch.tensor([0, 1, 1, 0]))
    assert target.shape == (4, 2)
    torch.testing.assert_close(target.sum(1), torch.ones(4))
    assert create_mixup(replace(tiny.augment, mixup=0.0, cutmix=0.0), 2) is None


@pytest.mark.parametrize("auto", ["rand-m10-inc1", "rand-m9-mstd0.5-inc1", "v0", "original"])
def test_every_augmentation_runs_on_the_installed_pillow(tiny, auto):
    """timm 1.0.31 posterizes to 0 bits, which Pillow 13 refuses."""
    recipe = replace(tiny, augment=replace(tiny.augment, auto=auto))
    loader = train_loader(recipe)
    augment = next(t for t in loader.dataset.transform.transforms if hasattr(t, "ops") or hasattr(t, "policy"))
    ops = getattr(augment, "ops", None) or [op for policy in augment.policy for op in policy]
    image = Image.new("RGB", (SIZE, SIZE), (200, 100, 50))
    for op in ops:
        for magnitude in range(11):
            op.prob, op.magnitude = 1.0, magnitude
            assert op(image).size == image.size
    strongest = [op for op in ops if op.name == "PosterizeIncreasing"]
    assert [op(image).getextrema() for op in strongest] == [((0, 0),) * 3] * len(strongest)


def refused(match: str, **data) -> None:
    with pytest.raises(DataError, match=match):
        open_images(ImageSource(**data))


def test_missing_and_empty_folders(tmp_path, folder_dir):
    refused("pass --data ")
    refused("does not exist: give the folder .* by --data", dir=str(tmp_path / "nowhere"))
    (tmp_path / "file").write_text("")
    refused("is a file", dir=str(tmp_path / "file"))
    (tmp_path / "empty").mkdir()
    refused("no split 'train'.*found nothing", dir=str(tmp_path / "empty"))
    # timm would validate on the training images here
    shutil.rmtree(folder_dir / "val")
    refused("no split 'validation'.*val_split", dir=str(folder_dir))
    (folder_dir / "val").mkdir()
    refused("val: holds no images that can be read", dir=str(folder_dir))
    refused("'train' of data.dataset='wds/x': cannot be opened", dir=str(folder_dir), dataset="wds/x")


def test_one_class_and_other_classes(folder_dir, tmp_path):
    (folder_dir / "val" / "pale").rename(folder_dir / "val" / "white")
    refused("classes of the splits .* differ.*'pale'", dir=str(folder_dir))
    for split in ("train", "val"):
        shutil.rmtree(folder_dir / split / ("pale" if split == "train" else "white"))
    refused(r"all of one class \(dark\)", dir=str(folder_dir))
    for split in ("train", "validation"):
        write_parquet(tmp_path / f"{split}.parquet", [picture(1, 0)] * 2, [1, 1], ["dark", "pale"])
    refused(r"all of one class \(pale\)", dir=str(tmp_path))


def test_bad_parquet(tmp_path, parquet_dir):
    shutil.copytree(parquet_dir, tmp_path, dirs_exist_ok=True)
    data = (tmp_path / "train.parquet").read_bytes()
    (tmp_path / "train.parquet").write_bytes(data[: len(data) // 2])
    refused("train.parquet: cannot be read", dir=str(tmp_path))
    write_parquet(tmp_path / "train.parquet", [picture(0, 0)] * 2, [0, 2], ["dark", "pale"])
    refused("labels run from 0 to 2, expected 0 to 1", dir=str(tmp_path))
    pa, pq = pytest.importorskip("pyarrow"), pytest.importorskip("pyarrow.parquet")
    pq.write_table(pa.table({"picture": [b""], "label": [0]}), tmp_path / "train.parquet")
    refused("lacks the column.*image", dir=str(tmp_path))
    pq.write_table(pa.table({"image": [b""], "label": [0]}), tmp_path / "train.parquet")
    refused("'image' is binary", dir=str(tmp_path))


@pytest.mark.parametrize("workers", [0, 1])
def test_a_broken_image_is_named(tiny, folder_dir, workers):
    broken = folder_dir / "train" / "pale" / "3.jpg"
    broken.write_bytes(broken.read_bytes()[:200])
    recipe = replace(tiny, data=replace(tiny.data, dir=str(folder_dir), workers=workers, repeats=1))
    with pytest.raises(DataError, match=r"broken image .*train/pale/3\.jpg.*broken_images=skip"):
        batches(recipe)
    recipe.data.broken_images = "skip"
    assert len(batches(recipe)) == 4


def test_a_storage_that_fails_is_not_skipped_picture_by_picture(tiny, folder_dir, monkeypatch):
    data = replace(tiny.data, dir=str(folder_dir), repeats=1, broken_images="skip")
    opened = []

    def no_more(source):
        opened.append(source)
        raise OSError(errno.EMFILE, os.strerror(errno.EMFILE))

    monkeypatch.setattr("cycledistill.integrations.imagenet.data.splits.Image.open", no_more)
    with pytest.raises(OutageError, match=r"\.jpg cannot be read now .*Too many open files.*ulimit -n"):
        batches(replace(tiny, data=data))
    assert len(opened) == 1


def test_an_empty_parquet_row_is_named(tiny, tmp_path):
    for split in ("train", "validation"):
        write_parquet(
            tmp_path / f"{split}.parquet", [picture(0, 0), b"", picture(1, 0), b"GIF"], [0, 1, 1, 0], ["a", "b"]
        )
    recipe = replace(tiny, data=replace(tiny.data, dir=str(tmp_path), repeats=1))
    with pytest.raises(DataError, match=r"broken image picture\d.jpg \(row \d of train.parquet\)"):
        batches(recipe)


def test_fewer_images_than_a_batch(tiny):
    recipe = replace(tiny, data=replace(tiny.data, batch_size=32))
    with pytest.raises(DataError, match="18 training images a process make no batch of 32"):
        batches(recipe)


@pytest.fixture
def shards(tmp_path: Path) -> Path:
    pytest.importorskip("webdataset")
    for split, count in (("train", 16), ("val", 8)):
        for shard in range(2):
            with tarfile.open(tmp_path / f"{split}-{shard}.tar", "w") as tar:
                for number in range(count // 2):
                    for ending, data in (("jpg", picture(number % 2, number)), ("cls", str(number % 2).encode())):
                        info = tarfile.TarInfo(f"{shard}{number}.{ending}")
                        info.size = len(data)
                        tar.addfile(info, io.BytesIO(data))
    return tmp_path


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore:")  # webdataset's own
def test_a_stream_can_be_entered_anywhere(tiny, shards):
    data = replace(
        tiny.data,
        dir=str(shards),
        dataset="wds/x",
        train_split="train-{0..1}.tar|16",
        val_split="val-{0..1}.tar|8",
        workers=1,
    )
    recipe = replace(tiny, data=data)
    whole = batches(recipe, epoch=1)
    assert len(whole) == 4
    for start in (2, 3):
        for (images, labels), (images_, labels_) in zip(whole[start:], batches(recipe, 1, start), strict=True):
            assert torch.equal(images, images_)
            assert torch.equal(labels, labels_)
    loader = train_loader(recipe)
    again = [list(loader.batches(epoch)) for epoch in (0, 1)][1]  # the same loader, its second epoch
    assert all(torch.equal(a[0], b[0]) for a, b in zip(whole, again, strict=True))


def test_sixteen_bits_of_grey_are_not_white(tmp_path: Path) -> None:
    for split in ("train", "val"):
        for label in ("a", "b"):
            (tmp_path / split / label).mkdir(parents=True)
            Image.new("I;16", (8, 8), 0x4000).save(tmp_path / split / label / "0.png")
    images = open_images(ImageSource(dir=str(tmp_path)))
    assert images.train._read(0)[0].getpixel((3, 3)) == (0x40, 0x40, 0x40)
