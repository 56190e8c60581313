"""What trainers write beside the weights is read as nothing; what could be code is refused, and the keys are told."""

from __future__ import annotations

import argparse
import functools
import pickle
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from cycledistill.recipes.errors import CheckpointError, PickledCodeError
from cycledistill.recipes.weights.files import read_torch, read_weights
from cycledistill.recipes.weights.stand_ins import StandIn

WEIGHTS = {"a": torch.arange(3.0), "b": torch.ones(2, 2)}
BESIDE: dict[str, Any] = {
    "a number": np.float64(39.2),
    "a half number": np.float16(1),
    "an array": np.arange(6).reshape(2, 3),
    "an array of objects": np.array([None, "a", 1.5], dtype=object),
    "a RandomState": np.random.RandomState(1234),
    "a Generator": np.random.default_rng(0),
    "arguments": argparse.Namespace(lr=1e-3, root=Path("runs")),
    "nested": {"hook_msgs": {"best_score": np.float64(0.7), "best_ckpt": "best.pth"}},
}


@pytest.mark.parametrize("beside", BESIDE)
@pytest.mark.parametrize("zipped", [True, False])
def test_what_trainers_write_is_passed_over(beside: str, zipped: bool, tmp_path: Path) -> None:
    file = tmp_path / "theirs.pth"
    torch.save({"beside": BESIDE[beside], "model_pos": WEIGHTS}, file, _use_new_zipfile_serialization=zipped)
    found = read_weights(file)
    assert found.keys() == WEIGHTS.keys() and all(torch.equal(found[name], WEIGHTS[name]) for name in WEIGHTS)
    with pytest.raises(PickledCodeError):  # a run's own files hold no such thing
        read_torch(file)


def test_numpy_1_and_2_have_other_names_for_the_same(tmp_path: Path) -> None:
    """``numpy.core`` in files of NumPy 1, which the authors had."""
    torch.save(
        {"min_loss": np.float64(1), "model_pos": WEIGHTS}, tmp_path / "a.bin", _use_new_zipfile_serialization=False
    )
    new = (tmp_path / "a.bin").read_bytes()
    old = new.replace(b"numpy._core.multiarray", b"numpy.core.multiarray")
    assert (b"numpy._core" in new) != (b"numpy._core" in old) or np.__version__ < "2"
    (tmp_path / "a.bin").write_bytes(old)
    assert read_weights(tmp_path / "a.bin").keys() == WEIGHTS.keys()


def test_nothing_of_numpy_is_made(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    made: list[object] = []
    monkeypatch.setattr(StandIn, "__init__", lambda self, *given: made.append(given))
    torch.save({"score": np.float64(1), "state_dict": WEIGHTS}, tmp_path / "a.pth")
    read_weights(tmp_path / "a.pth")
    assert len(made) == 2, "the type and the number, both by stand-ins"


class Evil:
    def __init__(self, value: object) -> None:
        self.value = value

    def __reduce__(self) -> Any:
        return self.value


@pytest.mark.parametrize(
    ("value", "name"),
    [
        ((eval, ("1 / 0",)), "builtins.eval"),
        ((getattr, (np.float64(1), "item")), "builtins.getattr"),
        ((functools.partial, (print, "ran")), "functools.partial"),
        ((np.load, ("a.npy",)), "numpy.load"),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_another_name_is_refused_and_the_keys_are_told(value: Any, name: str, tmp_path: Path) -> None:
    torch.save({"min_loss": np.float64(1), "bad": Evil(value), "model_pos": WEIGHTS}, tmp_path / "evil.bin")
    with pytest.raises(
        PickledCodeError, match=r"evil\.bin holds a pickled .*torch\.save\(checkpoint\['model_pos'\], path\)"
    ):
        read_weights(tmp_path / "evil.bin")
    torch.save({"bad": Evil(value), "generator": WEIGHTS}, tmp_path / "evil.bin")
    with pytest.raises(PickledCodeError, match="the file has bad, generator") as refusal:
        read_weights(tmp_path / "evil.bin")
    assert name.split(".")[-1] in str(refusal.value)
    (tmp_path / "evil.bin").write_bytes(pickle.dumps(Evil(value), 2))
    with pytest.raises(PickledCodeError, match=r"torch\.save\(model\.state_dict\(\), path\)"):
        read_weights(tmp_path / "evil.bin")


@pytest.mark.parametrize(
    ("held", "message"),
    [
        (
            {"epoch": 3, "net": WEIGHTS},
            r"found: net \(a dict of 2 tensors, which is to be saved alone.*\), epoch \(int\)",
        ),
        ({"epoch": 3, "score": np.float64(1)}, r"found: epoch \(int\), score \(an object that was not read\)"),
        ({"model": "tokenpose", **WEIGHTS}, r"found: model \(str\), 2 tensors"),
        ({"state_dict": {**WEIGHTS, "_extra": None}}, r"a\.pth, 'state_dict': .*found: _extra \(NoneType\), 2 tensors"),
        ({"state_dict": {}}, r"'state_dict': .*found: nothing"),
        (np.float64(1), "found: an object that was not read"),
    ],
)
def test_the_keys_that_are_there_are_named(held: Any, message: str, tmp_path: Path) -> None:
    torch.save(held, tmp_path / "a.pth")
    with pytest.raises(CheckpointError, match=message):
        read_weights(tmp_path / "a.pth")
