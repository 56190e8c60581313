"""Inputs to calibrate a quantised file with: real data as the model takes it, or an array of inputs."""

from __future__ import annotations

import logging
import math
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from cycledistill.exporter.errors import in_words
from cycledistill.exporter.exportable import PICTURES, Sample, files_in
from cycledistill.exporter.onnx_files import open_session
from cycledistill.plugin.torch_private import tree_leaves
from cycledistill.versions import require

_logger = logging.getLogger(__name__)

BATCH = 8
"""Inputs at once: calibration keeps the activations of a whole batch in memory."""


def find_samples(given: Path, limit: int, of_model: Callable[[Path], Sequence[Sample]]) -> list[Sample]:
    """What is to be read: an array of inputs at once, all else once it is needed.

    Args:
        given: What ``--calibration-data`` names: an ``.npy`` file of inputs, samples first, or what the model takes.
        limit: The most; they are spread evenly over what there is.
        of_model: What of a folder or file the model takes.

    Raises:
        ValueError: There is nothing that the model takes, or an array that is none of finite numbers.
    """
    if given.is_file() and given.suffix == ".npy":
        inputs = _spread(_array(given), limit)
        return [lambda: (inputs,)]
    return [*_spread(list(of_model(given)), limit)]


def read_batches(samples: Sequence[Sample], model: Path, limit: int, given: Path) -> list[dict[str, Tensor]]:
    """Batches for `quantize`, by the names of the inputs of the ONNX file ``model``.

    Raises:
        ValueError: What is read cannot be used, or does not make a batch that the file takes.
    """
    entries = open_session(model).get_inputs()
    read = [tree_leaves(sample()) for sample in samples]
    fitting = [leaves for leaves in read if len(leaves) == len(entries)]  # several views: of as many cameras
    if read and not fitting:
        raise ValueError(f"{given}: {len(read[0])} inputs a call, and the file takes {len(entries)}")
    if len(fitting) < len(read):
        _logger.warning("%d of %d calibration inputs do not fit the file and are left out", len(read) - len(fitting),
                        len(read))  # fmt: skip
    columns = [_spread(torch.cat(column), limit) for column in zip(*fitting, strict=True)]
    if not columns or not len(columns[0]):
        raise ValueError(f"{given} holds no inputs")
    fixed = entries[0].shape[0]
    size = fixed if isinstance(fixed, int) else BATCH
    batches = [
        {entry.name: part for entry, part in zip(entries, parts, strict=True)}
        for parts in zip(*(column.split(size) for column in columns), strict=True)
        if len(parts[0]) == size or not isinstance(fixed, int)
    ]
    if not batches:
        raise ValueError(f"{given}: {len(columns[0])} inputs, and the file takes {fixed} at once")
    return batches


def pictures_by(words: Mapping[str, str], name: str) -> Callable[[Path], list[Sample]]:
    """What a model that says how it takes pictures takes of a folder of them.

    As timm evaluates. By ``crop_mode``, ``"center"`` by default: the shorter side is scaled to size / ``crop_pct``
    and the centre cut out; ``"squash"``: both sides are; ``"border"``: the longer side is, and what is missing has the
    colour of the mean.

    Args:
        words: What it says of itself, see `cycledistill.metadata`: ``input_size``, ``mean`` and ``std``.
        name: What errors call it.

    Raises:
        ValueError: It does not say it, or says a crop or an interpolation that is not known here.
    """
    missing = [key for key in ("input_size", "mean", "std") if key not in words]
    if missing:
        raise ValueError(
            f"{name} does not say its {', '.join(missing)}, so pictures cannot be prepared for it: give "
            "--calibration-data FILE.npy, inputs as the model takes them"
        )
    height, width = map(int, _numbers(words, "input_size", 2, name))
    mean, std = (torch.tensor(_numbers(words, key, 3, name)).view(3, 1, 1) for key in ("mean", "std"))
    share = _numbers(words, "crop_pct", 1, name)[0] if "crop_pct" in words else 1.0
    if not (min(height, width) > 0 and 0 < share <= 1 and (std > 0).all()):
        raise ValueError(f"{name} says sizes, a std or a crop_pct that cannot be: give --calibration-data FILE.npy")
    filtering = _one_of(words, "interpolation", ("bicubic", "bilinear", "nearest", "box", "hamming", "lanczos"), name)
    mode = _one_of(words, "crop_mode", ("center", "squash", "border"), name)
    red, green, blue = (round(255 * value) for value in _numbers(words, "mean", 3, name))

    def read(path: Path) -> tuple[Tensor]:
        picture = _scaled(_opened(path), (width, height), share, mode, filtering)
        return (((_centre(picture, (width, height), (red, green, blue)) - mean) / std)[None],)

    return lambda given: [partial(read, path) for path in files_in(given, PICTURES, "picture")]


def _spread(items: Any, limit: int) -> Any:
    """So many of a list or of a tensor's rows at most, evenly."""
    count = len(items)
    if count <= limit:
        return items
    chosen = [place * count // limit for place in range(limit)]
    return items[chosen] if isinstance(items, Tensor) else [items[place] for place in chosen]


def _array(path: Path) -> Tensor:
    require("numpy")
    import numpy as np

    try:
        array = np.load(path, allow_pickle=False)
        if array.ndim < 2 or array.dtype.kind not in "fiu":
            raise ValueError(f"an array of {array.dtype}, {array.shape}, where numbers (samples, ...) are expected")
    except Exception as error:  # damaged files raise many types
        raise ValueError(f"{path} cannot be read as an npy file of inputs: {in_words(error)}") from error
    if not array.size:
        raise ValueError(f"{path} holds no inputs: an array of shape {array.shape}")
    inputs = torch.from_numpy(array)
    inputs = inputs.float() if inputs.is_floating_point() else inputs
    broken = (~inputs.isfinite()).flatten(1).any(1)
    if bool(broken.any()):
        first = int(broken.int().argmax())
        raise ValueError(
            f"{path} is not finite: {int(broken.sum())} of {len(inputs)} inputs hold nan, or numbers beyond float32, "
            f"the first is number {first}, counted from 0"
        )
    return inputs


def _numbers(words: Mapping[str, str], key: str, count: int, name: str) -> list[float]:
    """What a file says of itself as a list of numbers, ``[224, 224]``."""
    try:
        found = [float(each) for each in words[key].strip("[] ").split(",")]
    except ValueError:
        found = []
    if len(found) != count or not all(map(math.isfinite, found)):
        raise ValueError(f"{name} says {key}={words[key]!r:.80}: {count} numbers are expected, [...]")
    return found


def _one_of(words: Mapping[str, str], key: str, known: Sequence[str], name: str) -> str:
    """A word that a file says of itself, in quotes or not; by default the first of those that are ``known``."""
    said = words.get(key, "").strip('"') or known[0]
    if said not in known:
        raise ValueError(
            f"{name} says {key}={said!r:.80}, and {', '.join(known)} are known here: give --calibration-data FILE.npy, "
            "inputs as the model takes them"
        )
    return said


def _opened(path: Path) -> Any:
    """A picture of Pillow's, in RGB."""
    require("numpy", "pillow")
    from PIL import Image

    try:
        with Image.open(path) as image:
            return image.convert("RGB")
    except Exception as error:  # damaged files raise many types
        raise ValueError(f"{path}: not a picture, or a broken one ({in_words(error)})") from error


def _scaled(picture: Any, size: tuple[int, int], share: float, mode: str, filtering: str) -> Any:
    """A picture before it is cut to ``size`` (width, height), which is ``share`` of it; rounded as timm does."""
    from PIL import Image

    asked = [math.floor(side / share) for side in size]
    own = picture.size
    if mode == "squash":
        scaled = asked
    elif mode == "center" and asked[0] == asked[1]:
        scaled = [int(asked[0] * side / min(own)) for side in own]
    else:
        ratios = [side / wanted for side, wanted in zip(own, asked, strict=True)]
        ratio = max(ratios) if mode == "border" else min(ratios)
        scaled = [max(round(side / ratio), 1) for side in own]
    return picture.resize((scaled[0], scaled[1]), Image.Resampling[filtering.upper()])


def _centre(picture: Any, size: tuple[int, int], fill: tuple[int, int, int]) -> Tensor:
    """The centre of ``size`` (width, height) as (3, H, W) from 0 to 1; what a smaller picture lacks is filled."""
    import numpy as np
    from PIL import Image

    canvas = Image.new("RGB", size, fill)
    gaps = [side - own for side, own in zip(size, picture.size, strict=True)]
    canvas.paste(picture, tuple(gap // 2 if gap > 0 else -round(-gap / 2) for gap in gaps))
    return torch.from_numpy(np.array(canvas)).permute(2, 0, 1).float() / 255
