"""Randomness as a function of where a run is, never of how it got there.

Every training step and every training image draws from a seed of its own, made from the run's seed and its place
(epoch and position, or step and rank). So a run that was stopped anywhere goes on with the very numbers it would have
drawn, whatever the number of loader workers, without storing any generator's state; and two arms of a study with
one seed see the same images, crops and mixes although they draw different amounts of dropout.
"""

from __future__ import annotations

import random
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import numpy as np
import torch

INIT, STEP, IMAGE, STREAM = range(4)  # what a seed is for: the first number of its path after the run's seed


def derive_seed(*path: int) -> int:
    """A 32-bit seed from a path of non-negative numbers (numpy's ``SeedSequence``).

    Example: ``derive_seed(run_seed, IMAGE, epoch, position)``.
    """
    return int(np.random.SeedSequence(path).generate_state(1)[0])


def seed_all(seed: int) -> None:
    """Seed Python's, numpy's and torch's generators, every device's included."""
    random.seed(seed)
    np.random.seed(seed)
    torch.manual_seed(seed)


@contextmanager
def seeded(seed: int) -> Iterator[None]:
    """Run a block from ``seed`` and put the CPU generators back as they were afterwards."""
    before = random.getstate(), np.random.get_state(), torch.get_rng_state()
    random.seed(seed)
    np.random.seed(seed)
    torch.default_generator.manual_seed(seed)  # torch.manual_seed would reseed the GPU too
    try:
        yield
    finally:
        random.setstate(before[0])
        np.random.set_state(before[1])
        torch.set_rng_state(before[2])


def generator_states() -> dict[str, Any]:
    """The states of the generators on the CPU, to be compared: whose generator -> its state."""
    kind, keys, *position = np.random.get_state()
    return {
        "Python": random.getstate(),
        "numpy": (kind, np.asarray(keys).tobytes(), *position),
        "torch": torch.get_rng_state().numpy().tobytes(),
    }
