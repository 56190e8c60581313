"""Inputs to calibrate a quantised file with: pictures as the model takes them, or an array of inputs."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from pathlib import Path

import torch
from torch import Tensor

from cycledistill.exporter.errors import in_words
from cycledistill.exporter.onnx_files import open_session
from cycledistill.metadata.read import read_words
from cycledistill.versions import require

PICTURES = (".jpg", ".jpeg", ".png", ".webp", ".bmp")
BATCH = 8
"""Inputs at once: calibration keeps the activations of a whole batch in memory."""

Prepare = Callable[[Path], Tensor]
"""A picture's file to the model's input, (1, 3, H, W)."""


def open_inputs(given: Path, model: Path, limit: int, checkpoint: Path | None = None) -> list[Tensor]:
    """Batches for `quantize`.

    Args:
        given: A folder of pictures, searched to its depth, or an .npy file of inputs, samples first.
        model: The ONNX file that takes them; it says how pictures are prepared.
        limit: The most samples; of a folder, evenly spread over its files by name.
        checkpoint: The run the file comes from, whose own preparation is used.

    Raises:
        ValueError: No pictures, an array that is none of numbers, or a file that does not say how it takes pictures.
    """
    fixed = open_session(model).get_inputs()[0].shape[0]
    size = fixed if isinstance(fixed, int) else BATCH
    if given.is_file():
        inputs = _array(given)[:limit]
    else:
        files = sorted(path for path in given.rglob("*") if path.suffix.lower() in PICTURES)
        if not files:
            raise ValueError(f"--calibration {given}: no picture is in it ({', '.join(PICTURES)})")
        prepare = _of_run(checkpoint) if checkpoint is not None else _of_file(model)
        chosen = [files[i * len(files) // limit] for i in range(limit)] if len(files) > limit else files
        inputs = torch.cat([prepare(path) for path in chosen])
    batches = list(inputs.split(size))
    if len(batches[-1]) < size and isinstance(fixed, int):
        batches.pop()
    if not batches:
        raise ValueError(f"{given}: {len(inputs)} inputs, and the file takes {fixed} at once")
    return batches


def _array(path: Path) -> Tensor:
    require("numpy")
    import numpy as np

    try:
        array = np.load(path, allow_pickle=False)
        if array.ndim < 2 or array.dtype.kind not in "fiu":
            raise ValueError(f"an array of {array.dtype}, {array.shape}, where numbers (samples, ...) are expected")
    except Exception as error:  # damaged files raise many types
        raise ValueError(f"{path} cannot be read as an npy file of inputs: {in_words(error)}") from error
    inputs = torch.from_numpy(array)
    return inputs.float() if inputs.is_floating_point() else inputs


def _of_run(checkpoint: Path) -> Prepare:
    from cycledistill.insight.subject import open_subject

    subject = open_subject(checkpoint)
    return lambda path: subject.prepare(path)[0]


def _numbers(words: Mapping[str, str], name: str, count: int, model: Path) -> list[float]:
    """What a file says of itself as a list of numbers, ``[224, 224]``."""
    try:
        found = [float(each) for each in words[name].strip("[] ").split(",")]
    except ValueError:
        found = []
    if len(found) != count or not all(map(math.isfinite, found)):
        raise ValueError(f"{model.name} says {name}={words[name]!r:.80}: {count} numbers are expected, [...]")
    return found


def _of_file(model: Path) -> Prepare:
    """Shorter side to size, centre cut out, normalised: by what the file says of itself."""
    words = read_words(model)
    missing = [name for name in ("input_size", "mean", "std") if name not in words]
    if missing:
        raise ValueError(
            f"{model.name} does not say its {', '.join(missing)}, so pictures cannot be prepared for it: give "
            "--calibration FILE.npy, inputs as the model takes them"
        )
    height, width = map(int, _numbers(words, "input_size", 2, model))
    mean, std = (torch.tensor(_numbers(words, name, 3, model)).view(3, 1, 1) for name in ("mean", "std"))

    def prepare(path: Path) -> Tensor:
        require("numpy", "pillow")
        import numpy as np
        from PIL import Image, ImageOps

        try:
            with Image.open(path) as image:
                picture = ImageOps.fit(image.convert("RGB"), (width, height))
        except Exception as error:  # damaged files raise many types
            raise ValueError(f"{path}: not a picture, or a broken one ({in_words(error)})") from error
        pixels = torch.from_numpy(np.array(picture)).permute(2, 0, 1).float() / 255
        return ((pixels - mean) / std)[None]

    return prepare
