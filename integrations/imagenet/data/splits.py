"""Find the images of a run and check that they can be trained on, before the first step.

The images come through timm's ``create_dataset`` (class folders, tar files, ``hfds/``, ``hfids/``, ``wds/``,
``tfds/``) or from Parquet files. How they become batches is in ``loader.py``.
"""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence
from contextlib import nullcontext
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, TypeAlias

from PIL import Image
from timm.data.dataset import ImageDataset, IterableImageDataset
from timm.data.dataset_factory import create_dataset
from torch import Tensor
from torch.utils.data import Dataset

from cycledistill.recipes.errors import DataError
from cycledistill.recipes.reading.guard import PICTURE, Kind, reading
from cycledistill.recipes.reading.pixels import to_rgb
from cycledistill.recipes.run.seeding import seeded

from .parquet import ParquetReader, find_parquet
from .tensors import check_torchcodec, decode

_logger = logging.getLogger(__name__)

TRAIN_NAMES = ("train", "training")
VAL_NAMES = ("validation", "val", "valid", "eval", "evaluation", "test")


@dataclass
class ImageSource:
    """Where the images are and how they are read.

    ``dataset`` empty: found out from what lies under ``dir`` (Parquet files, class folders or tar files named after
    the split). Otherwise one of timm's names: ``hfds/...``, ``hfids/...``, ``wds/...``, ``tfds/...``.
    ``broken_images``: ``stop`` names the file and ends the run, ``skip`` takes the next image instead (timm's way).
    ``decoder``: what decodes and crops training images; ``torchcodec`` gives the crops and changes of ``pillow`` in
    less time, and leaves normalising and erasing to the device (see ``tensors.py``).
    """

    dir: str | None = None
    dataset: str = ""
    train_split: str = "train"
    val_split: str = "validation"
    broken_images: Literal["stop", "skip"] = "stop"
    decoder: Literal["pillow", "torchcodec"] = "pillow"


@dataclass
class ImageSets:
    """The two splits of a run. ``classes`` are the names in label order; empty where the source has none."""

    train: Images
    validation: Images
    classes: list[str]

    @property
    def streams(self) -> bool:
        """Whether the images arrive as a stream (WebDataset, TFDS) and not by number."""
        return isinstance(self.train, IterableImageDataset)

    @property
    def tensors(self) -> bool:
        """Whether the training images are decoded to tensors and not to pictures."""
        return isinstance(self.train, StrictImages) and self.train.tensors


class StrictImages(Dataset[Any]):
    """A timm ``ImageDataset`` that names a broken image, and draws each image's augmentation from a seed of its own.

    timm's own reading skips what it cannot decode with a warning, so that a damaged set trains on other images than
    it lists. Here the default is to stop with the file's name; ``on_broken="skip"`` takes the next image instead.

    Args:
        dataset: timm's data set; its reader is used.
        on_broken: ``"stop"`` or ``"skip"``.
        tensors: The transform gets bytes (3, H, W), decoded by TorchCodec, and not a picture.

    An item is asked for by its number (evaluation) or by ``(seed, number)`` (training).
    """

    def __init__(self, dataset: ImageDataset, on_broken: str = "stop", tensors: bool = False):
        self.reader = dataset.reader
        self.transform: Any = None
        self.on_broken = on_broken
        self.tensors = tensors

    def __len__(self) -> int:
        return len(self.reader)

    def __getitem__(self, key: int | tuple[int, int]) -> tuple[Any, int]:
        seed, index = key if isinstance(key, tuple) else (None, key)
        image, target = self._read(index)
        with nullcontext() if seed is None else seeded(seed):
            return self.transform(image), target

    def _read(self, index: int) -> tuple[Image.Image | Tensor, int]:
        for attempt in range(len(self)):
            try:
                return self._decode((index + attempt) % len(self))
            except DataError as error:
                if self.on_broken == "stop":
                    raise DataError(f"{error}. Remove or replace it, or pass data.broken_images=skip.") from error
                _logger.warning("skipped: %s", error)
        raise DataError(f"none of the {len(self)} images could be read.")

    def _decode(self, position: int) -> tuple[Image.Image | Tensor, int]:
        def name() -> str:
            return f"broken image {self.reader.filename(position, absolute=True)}"

        with reading(name, PICTURE, DataError):
            source, target, *_ = self.reader[position]
            with source, Image.open(source) as image:
                return decode(source, image) if self.tensors else to_rgb(image), int(target)
        raise AssertionError  # `reading` swallows nothing


Images: TypeAlias = StrictImages | IterableImageDataset


def open_images(source: ImageSource, *, batch_size: int = 1, eval_batch_size: int = 1, seed: int = 0) -> ImageSets:
    """Open the training and validation images.

    Raises:
        DataError: The folder is missing or empty, has no such split, the splits' classes differ, there is only one
            class, the decoder is missing or cannot serve a stream, or (later, when read) an image is broken.

    Example:
        >>> images = open_images(ImageSource(dir="imagenette"))
        >>> len(images.train), images.classes[:2]
    """
    train = _open_split(source, source.train_split, TRAIN_NAMES, is_training=True, batch_size=batch_size, seed=seed)
    validation = _open_split(
        source, source.val_split, VAL_NAMES, is_training=False, batch_size=eval_batch_size, seed=seed
    )
    classes = _check_classes(train, validation, source.dir or source.dataset)
    tensors = source.decoder == "torchcodec"
    if tensors:
        check_torchcodec()
        if isinstance(train, IterableImageDataset):
            raise DataError(
                f"data.decoder=torchcodec: the images of data.dataset={source.dataset!r} come as a stream, which timm "
                "decodes with Pillow. Pass data.decoder=pillow."
            )
    return ImageSets(_images(train, source, tensors), _images(validation, source), classes)


def open_validation(source: ImageSource, batch_size: int = 1) -> tuple[Images, list[str]]:
    """The validation images alone, and their class names (empty where the source has none)."""
    dataset = _open_split(source, source.val_split, VAL_NAMES, is_training=False, batch_size=batch_size, seed=0)
    return _images(dataset, source), _class_names(dataset)


def _images(dataset: Any, source: ImageSource, tensors: bool = False) -> Images:
    streams = isinstance(dataset, IterableImageDataset)
    return dataset if streams else StrictImages(dataset, source.broken_images, tensors)


def _open_split(source: ImageSource, split: str, synonyms: Sequence[str], **kwargs: Any) -> Any:
    if not source.dataset:
        return _open_folder(source, split, synonyms)
    if source.dataset.startswith("torch/"):
        raise DataError(
            f"data.dataset={source.dataset!r}: torchvision's sets are not read by timm's readers; save the images as "
            "class folders or Parquet, or use hfds/."
        )
    with reading(f"split {split!r} of data.dataset={source.dataset!r}", Kind("cannot be opened"), DataError):
        return create_dataset(source.dataset, root=source.dir, split=split, **kwargs)


def _open_folder(source: ImageSource, split: str, synonyms: Sequence[str]) -> ImageDataset:
    if not source.dir:
        raise DataError("no images: pass --data (class folders, tar or Parquet files) or set data.dataset.")
    folder = Path(source.dir)
    if not folder.is_dir():
        wrong = "is a file" if folder.exists() else "does not exist"
        raise DataError(f"data folder {folder} {wrong}: give the folder that holds the splits by --data.")
    names = [split, *(name for name in synonyms if split in synonyms and name != split)]
    for name in names:
        files = find_parquet(folder, name)
        if files:
            return ImageDataset(str(folder), reader=ParquetReader(files))
        for root in (folder / name, folder / f"{name}.tar"):
            if root.is_dir() or (root.suffix == ".tar" and root.is_file()):
                with reading(root, Kind("holds no images that can be read"), DataError):
                    return create_dataset("", root=str(root), search_split=False)
    present = ", ".join(sorted(item.name for item in folder.iterdir())[:8]) or "nothing"
    key = "train_split" if "train" in names else "val_split"
    raise DataError(
        f"{folder} has no split {split!r}: looked for a folder, a .tar or Parquet files named "
        f"{' or '.join(names)}, found {present}. Name the split with data.{key}."
    )


def _check_classes(train: Any, validation: Any, where: object) -> list[str]:
    indices = [_class_index(dataset) for dataset in (train, validation)]
    if indices[0] and indices[1] and indices[0] != indices[1]:
        odd = sorted(indices[0].items() ^ indices[1].items())
        raise DataError(
            f"the classes of the splits of {where} differ ({len(indices[0])} in training, {len(indices[1])} in "
            f"validation; first: {odd[0][0]!r}): labels would not mean the same. Both need the same class folders."
        )
    for name, dataset in (("training", train), ("validation", validation)):
        if isinstance(dataset, ImageDataset) and len(dataset) == 0:
            raise DataError(f"the {name} split of {where} is empty.")
    labels = _labels(train)
    classes = _class_names(train)
    if not classes and labels:
        classes = [str(label) for label in range(1 + max(labels | _labels(validation)))]
    if classes and (len(classes) == 1 or len(labels) == 1):
        only = classes[min(labels, default=0)] or "no class folder"
        raise DataError(f"the training images of {where} are all of one class ({only}): nothing can be learned.")
    return classes


def _labels(dataset: Any) -> set[int]:
    """The labels that occur, where the reader (Parquet) knows them without reading images."""
    return set(getattr(getattr(dataset, "reader", None), "labels", ()))


def _class_names(dataset: Any) -> list[str]:
    index = _class_index(dataset)
    return sorted(index, key=lambda name: index[name])


def _class_index(dataset: Any) -> Mapping[str, int]:
    reader = getattr(dataset, "reader", None)
    # timm's tar reader has the older name
    return getattr(reader, "class_to_idx", None) or getattr(reader, "class_name_to_idx", None) or {}
