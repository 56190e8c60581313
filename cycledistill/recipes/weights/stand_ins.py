"""What trainers write beside the weights, read as nothing: an object of this file's own that drops all it is given.

MotionBERT's, HRNet's and mmcv's trainers write a NumPy number (the best score), MixSTE's a NumPy generator, others
their arguments. PyTorch's safe reader refuses these names. It could be told to call NumPy's own functions for them, but
they do more than is needed: a list of names stands for `StandIn`, nothing of NumPy runs, and the weights are read.
"""

from __future__ import annotations

from collections.abc import Iterable
from contextlib import AbstractContextManager

import torch

NAMES = (
    *(f"numpy.{core}.multiarray.{name}" for core in ("core", "_core") for name in ("scalar", "_reconstruct")),
    "numpy.dtype",
    "numpy.ndarray",
    # generators of random numbers: RandomState as NumPy before 1.17 wrote it, and since
    "numpy.random.__RandomState_ctor",
    *(f"numpy.random._pickle.__{name}_ctor" for name in ("randomstate", "bit_generator", "generator")),
    *(f"numpy.random.{place}" for place in ("_mt19937.MT19937", "_pcg64.PCG64", "bit_generator.SeedSequence")),
    "numpy.random.bit_generator.__pyx_unpickle_SeedSequence",
    "argparse.Namespace",
    *(f"pathlib.{name}" for name in ("PosixPath", "WindowsPath", "PurePosixPath", "PureWindowsPath")),
)
"""What stand-ins are read for. Another name is refused as code: a file that has it holds more than a trainer writes."""


class StandIn:
    """Something that was not read."""

    def __init__(self, *_given: object) -> None:
        pass

    def __setstate__(self, _state: object) -> None:
        pass

    def __repr__(self) -> str:
        return "an object that was not read"


def stand_ins(names: Iterable[str] = NAMES) -> AbstractContextManager[None]:
    """Within a ``with`` block, ``torch.load(weights_only=True)`` reads ``names`` as `StandIn`.

    Example:
        >>> with stand_ins():
        ...     torch.load("best_epoch.bin", weights_only=True)["min_loss"]
        an object that was not read
    """
    context: AbstractContextManager[None] = torch.serialization.safe_globals([(StandIn, name) for name in names])
    return context
