"""How many images a second does one core prepare for training, by decoder and stage, and how many cores feed a GPU?

    python benchmarks/image_rates.py                   # one core: Pillow, TorchCodec, and what else there is
    python benchmarks/image_rates.py --device cuda     # JPEGs decoded and cropped on a GPU instead

Made JPEGs of 500x375, the augmentation of the recipe deit_tiny at 224 pixels. "Whole" is what ``data.decoder`` chooses,
what a worker does from files to a batch, of normalised numbers or of bytes. Process CPU time on one thread, medians of
interleaved rounds; on a GPU the clock on the wall. Cores are what the training steps in the committed records of a GPU
would need. Needs ``pip install cycledistill[imagenet,torchcodec]``.
"""

from __future__ import annotations

import io
import json
import random
import statistics
import tempfile
import time
import warnings
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from common import RESULTS, Row, columns, conditions, progress, show, start, study_parser, versions, write
from PIL import Image
from timm.data.transforms import MaybeToTensor, RandomResizedCropAndInterpolation
from torch.utils.data import default_collate
from torchcodec.decoders import decode_jpeg
from torchvision.transforms import v2
from torchvision.transforms.v2 import functional

from cycledistill.files import atomic_write
from cycledistill.integrations.imagenet.data.augment import Augmentation, train_transform
from cycledistill.integrations.imagenet.data.loader import SeededOrder
from cycledistill.integrations.imagenet.data.splits import ImageSource, StrictImages, open_images
from cycledistill.integrations.imagenet.data.tensors import as_bytes, decode, leave_bytes

PICTURE, SIZE, BATCH = (500, 375), 224, 64
Work = dict[str, Callable[[], Any]]
DECODERS = "pillow", "torchcodec"
STEPS = {
    "overhead-nvidia-h100-80gb-hbm3.json": ({"cycles": 2, "what": "training"}, "best seconds, wrapped"),
    "pruning-nvidia-h100-80gb-hbm3.json": ({"cycles": 1, "what": "model training"}, "best seconds, plain"),
}
"""Record -> its row of DeiT-Tiny without pruning, and where the seconds of a step's forward and backward stand."""


def made(folder: Path, count: int) -> list[Path]:
    """JPEGs of smooth noise with grain in two classes and splits under ``folder``; the files for training."""
    rng = np.random.default_rng(0)
    files = []
    for number in range(count + 2):
        place = folder / ("train" if number < count else "val") / f"class{number % 2}"
        place.mkdir(parents=True, exist_ok=True)
        coarse = Image.fromarray(rng.integers(0, 255, (24, 32, 3), dtype=np.uint8))
        smooth = np.asarray(coarse.resize(PICTURE, Image.Resampling.BICUBIC), dtype=np.float64)
        grain = (smooth + rng.normal(0, 8, smooth.shape)).clip(0, 255).astype(np.uint8)
        atomic_write(place / f"{number}.jpg", partial(Image.fromarray(grain).save, quality=90))
        files.append(place / f"{number}.jpg")
    return files[:count]


def pillow(data: bytes) -> Image.Image:
    """As the loader reads an image."""
    with Image.open(io.BytesIO(data)) as image:
        return image.convert("RGB")


def half(data: bytes) -> Image.Image:
    """At half the size, which is less work for the decoder."""
    with Image.open(io.BytesIO(data)) as image:
        image.draft("RGB", (PICTURE[0] // 2, PICTURE[1] // 2))
        return image.convert("RGB")


def tensors(data: bytes) -> torch.Tensor:
    """As the loader reads an image with ``data.decoder=torchcodec``."""
    with io.BytesIO(data) as source, Image.open(source) as image:
        return decode(source, image)


def whole(images: StrictImages, seed: int) -> list[Any]:
    """An epoch in batches, in this process."""
    keys = list(SeededOrder(len(images), seed))
    return [default_collate([images[key] for key in keys[at : at + BATCH]]) for at in range(0, len(keys), BATCH)]


def stages(decoder: str, files: list[bytes]) -> Work:
    """The parts of what the loader does with a read file."""
    transform = train_transform(Augmentation(), SIZE)
    read: Callable[[bytes], Any] = pillow
    if decoder == "torchcodec":
        leave_bytes(transform)
        read = tensors
    crop, *others = transform.transforms
    first = next(at for at, step in enumerate(others) if step is as_bytes or isinstance(step, MaybeToTensor))
    last = "bytes" if decoder == "torchcodec" else "numbers, erasing"
    parts = {"crop": [crop], "flip, RandAugment": others[:first], last: others[first:]}
    work: Work = {"decode": lambda: [read(data) for data in files]}
    images = [read(data) for data in files]
    for name, steps in parts.items():
        chain = v2.Compose(steps)
        work[name] = lambda chain=chain, images=images: [chain(image) for image in images]
        images = [chain(image) for image in images]
    batch = images[:BATCH]
    work["batch"] = lambda: [default_collate(batch) for _ in range(len(files) // len(batch))]
    return {f"{decoder}, {name}": job for name, job in work.items()}


def others(files: list[bytes]) -> Work:
    """What else could be used: other decoders, and torchvision's own transforms of tensors."""
    randaugment, crops = v2.RandAugment(2, 9), [functional.resize(decode_jpeg(data), [SIZE, SIZE]) for data in files]
    work: Work = {
        "Pillow, draft at half the size": lambda: [half(data) for data in files],
        "torchvision, RandAugment of tensors": lambda: [randaugment(crop) for crop in crops],
    }
    try:
        from torchvision.io import ImageReadMode
        from torchvision.io import decode_jpeg as older
    except ImportError:  # deprecated since torchvision 0.29
        return work
    encoded = [torch.frombuffer(bytearray(data), dtype=torch.uint8) for data in files]
    work["torchvision, decode"] = lambda: [older(data, mode=ImageReadMode.RGB) for data in encoded]
    return work


def on_gpu(files: list[bytes], device: torch.device) -> Work:
    """Decoded in one call, cropped one by one, on the device."""
    crop = v2.RandomResizedCrop(SIZE, (0.08, 1.0), interpolation=v2.InterpolationMode.BICUBIC)
    randaugment = v2.RandAugment(2, 9)
    normalise = v2.Compose(
        [v2.ToDtype(torch.float32, scale=True), v2.Normalize(Augmentation().mean, Augmentation().std)]
    )

    def prepared(change: Callable[[Any], Any]) -> torch.Tensor:
        return normalise(torch.stack([change(crop(image)) for image in decode_jpeg(files, device=device)]))

    return {
        "GPU, decode": lambda: decode_jpeg(files, device=device),
        "GPU, decode, crop, numbers": lambda: prepared(lambda image: image),
        "GPU, decode, crop, RandAugment, numbers": lambda: prepared(randaugment),
    }


def measure(work: Work, count: int, repeats: int, device: torch.device) -> list[Row]:
    """Medians of interleaved rounds, the first not counted."""
    seconds: dict[str, list[float]] = {name: [] for name in work}
    clock = time.process_time if device.type == "cpu" else time.perf_counter
    for number in range(repeats + 1):
        progress(f"round {number} of {repeats}")
        for name, job in work.items():
            random.seed(number)
            torch.manual_seed(number)
            begin = clock()
            job()
            if device.type == "cuda":
                torch.cuda.synchronize(device)
            seconds[name].append(clock() - begin)
    found = {name: statistics.median(values[1:]) / count for name, values in seconds.items()}
    return [{"what": name, "ms an image": 1e3 * each, "images/s": 1 / each} for name, each in found.items()]


def room_for_draft(draws: int = 2000) -> float:
    """The share of crops that have twice the pixels wanted each way, so that half the size would do."""
    image, augment = Image.new("RGB", PICTURE), Augmentation()
    random.seed(0)
    crops = [RandomResizedCropAndInterpolation.get_params(image, augment.scale, augment.ratio) for _ in range(draws)]
    return sum(min(height, width) >= 2 * SIZE for *_, height, width in crops) / draws


def needs(rows: list[Row]) -> list[Row]:
    """Images a second that a step takes by the committed records, and the cores that make as many."""
    rates = {row["what"].removesuffix(", whole"): row["images/s"] for row in rows if row["what"].endswith(", whole")}
    found = []
    for name, (wanted, seconds) in STEPS.items():
        record = json.loads((RESULTS / name).read_text(encoding="utf-8"))
        wanted = {"model": "deit_tiny_patch16_224", "batch": 256} | wanted
        row = next(row for row in record["rows"] if wanted.items() <= row.items())
        rate = row["batch"] / row[seconds]
        cores = {f"cores, {decoder}": rate / each for decoder, each in rates.items()}
        found.append({"record": name, "cycles": row["cycles"], "images/s": rate, **cores})
    return found


def main() -> None:
    """Measure, print the tables, write the JSON."""
    parser = study_parser(__doc__)
    parser.add_argument("--device", choices=["cpu", "cuda"], default="cpu")
    parser.add_argument("--repeats", type=int, default=7, help="rounds")
    parser.add_argument("--pictures", type=int, default=128, help=f"how many, at least {BATCH}")
    parser.set_defaults(record_name="image_rates")
    options = parser.parse_args()
    device = start(parser, options)
    if options.pictures < BATCH:
        parser.error(f"--pictures {options.pictures}: at least {BATCH}, one batch")
    warnings.filterwarnings("ignore", message=".*TorchCodec")  # torchvision's decoder is deprecated, and measured here
    record: Row = {"conditions": conditions(device, options.repeats) | {"versions": versions(
        "timm", "torchvision", "torchcodec", "pillow")}}  # fmt: skip
    with tempfile.TemporaryDirectory() as folder:
        paths = made(Path(folder), options.pictures)
        files = [path.read_bytes() for path in paths]
        work: Work = {}
        if device.type == "cuda":
            work = on_gpu(files, device)
        else:
            work["read"] = lambda: [path.read_bytes() for path in paths]
            for decoder in DECODERS:
                images = open_images(ImageSource(dir=folder, val_split="val", decoder=decoder)).train
                images.transform = train_transform(Augmentation(), SIZE)
                if decoder == "torchcodec":
                    leave_bytes(images.transform)
                work |= {f"{decoder}, whole": lambda images=images: whole(images, 0), **stages(decoder, files)}
            work |= others(files)
        rows = measure(work, len(files), options.repeats, device)
    table = [["what", "ms an image", "images/s"]]
    table += [[row["what"], f"{row['ms an image']:.3f}", f"{row['images/s']:,.0f}"] for row in rows]
    text = columns(table)
    record |= {"picture": PICTURE, "mean bytes": sum(map(len, files)) / len(files), "rows": rows}
    if device.type == "cpu":
        record |= {"crops with room for a draft": room_for_draft(), "needs": needs(rows)}
        text += f"\ncrops with room for a draft: {record['crops with room for a draft']:.1%}"
        for need in record["needs"]:
            cores = ", ".join(f"{value:.1f} {name}" for name, value in need.items() if name.startswith("cores"))
            text += f"\n{need['cycles']} cycles, {need['images/s']:,.0f} images/s: {cores} ({need['record']})"
    show(record, text)
    write(options.out, record)


if __name__ == "__main__":
    main()
