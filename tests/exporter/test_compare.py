"""A written file is held against the model output by output, and what is not a number is no agreement."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from cycledistill import export
from cycledistill.exporter.compare import Sample, compare, default_tolerance
from cycledistill.exporter.export import ExportError

pytestmark = [
    pytest.mark.filterwarnings("ignore::DeprecationWarning"),
    pytest.mark.filterwarnings("ignore::FutureWarning"),
    pytest.mark.filterwarnings("ignore::UserWarning"),
]

INF, NAN = float("inf"), float("nan")


class Otherwise(nn.Module):
    """Computes one thing, and another where a graph is made of it: an exporter that is wrong."""

    def __init__(self, eager: Callable[[Tensor], Any], exported: Callable[[Tensor], Any]) -> None:
        super().__init__()
        self.eager, self.exported = eager, exported

    def forward(self, x: Tensor) -> Any:
        return self.exported(x) if torch.compiler.is_exporting() else self.eager(x)


def x() -> Tensor:
    return torch.randn(2, 3, generator=torch.Generator().manual_seed(0))


@pytest.mark.parametrize("ending", ["onnx", "pt2"])
@pytest.mark.parametrize("wrong", [NAN, INF])
def test_nan_and_infinity_in_the_file_are_differences(ending: str, wrong: float, tmp_path: Path) -> None:
    if ending == "onnx":
        pytest.importorskip("onnxruntime")
    model = Otherwise(lambda x: x + 1, lambda x: (x + 1) * wrong).eval()
    with pytest.raises(ExportError, match="nan or infinite where the model's is not"):
        export(model, tmp_path / f"model.{ending}", x())
    assert os.listdir(tmp_path) == []


def test_each_output_is_compared_by_its_own_size(tmp_path: Path) -> None:
    model = Otherwise(lambda x: (1e6 + 0 * x, x), lambda x: (1e6 + 0 * x, 0 * x)).eval()
    with pytest.raises(ExportError, match=r"output\[1\] differs from the model's by"):
        export(model, tmp_path / "model.pt2", x())
    assert os.listdir(tmp_path) == []


def test_nan_and_infinity_of_the_model_itself_are_kept(tmp_path: Path) -> None:
    class Masked(nn.Module):
        def forward(self, x: Tensor) -> Tensor:
            return torch.cat([x / 0, x * NAN, x], 1)

    done = export(Masked().eval(), tmp_path / "model.pt2", x())
    assert done.max_difference == 0
    got = torch.export.load(done.path).module()(x())
    torch.testing.assert_close(got, Masked()(x()), equal_nan=True)


def test_a_model_that_gives_nan_alone_is_no_measure(tmp_path: Path) -> None:
    model = Otherwise(lambda x: {"a": x, "b": x * NAN}, lambda x: {"a": x, "b": x * NAN}).eval()
    with pytest.raises(ExportError, match=r"output\['b'\] is nan throughout"):
        export(model, tmp_path / "model.pt2", x())


@pytest.mark.parametrize(
    ("ours", "theirs", "agrees"),
    [
        ([1.0, 1000.0], [1.0, 1000.9], True),
        ([1.0, 1000.0], [1.0, 1001.1], False),
        ([INF, 1.0], [INF, 1.0], True),
        ([INF, 1.0], [-INF, 1.0], False),
        ([INF, 1.0], [3.0, 1.0], False),
        ([NAN, 1.0], [NAN, 1.0], True),
        ([NAN, 1.0], [1.0, NAN], False),
        ([INF, 1.0], [INF, 1.01], False),  # an infinity is no measure of what is finite
        ([0.0, 1e-9], [0.0, -1e-9], True),  # rounding of larger values
        ([0.0, 1e-5], [0.0, 0.0], False),
        ([5, 30000], [5, 30000], True),
        ([5, 30000], [6, 30000], False),
        ([True, False], [True, True], False),
        ([1 + 2j], [1 + 2j], True),
        ([1 + 2j], [1 - 2j], False),
    ],
)
def test_what_agrees(ours: list[Any], theirs: list[Any], agrees: bool) -> None:
    samples = [Sample(((), {}), {"": torch.tensor(ours)})]
    if agrees:
        assert compare("Model", lambda _: [torch.tensor(theirs)], samples, 1e-3) < 1
    else:
        with pytest.raises(ExportError, match="the exported Model: output"):
            compare("Model", lambda _: [torch.tensor(theirs)], samples, 1e-3)


def test_a_file_that_does_not_run_or_returns_other_shapes() -> None:
    samples = [Sample(((torch.zeros(2, 3),), {}), {"": torch.zeros(2)})]
    with pytest.raises(ExportError, match=r"does not run on 2 x 3: .*by zero"):
        compare("Model", lambda _: [torch.zeros(1 // 0)], samples, 1e-3)
    with pytest.raises(ExportError, match=r"returns \[\(3,\)\], not \[\(2,\)\]"):
        compare("Model", lambda _: [torch.zeros(3)], samples, 1e-3)


@pytest.mark.parametrize(
    ("dtype", "tolerance"),
    [(torch.float32, 1e-3), (torch.float64, 1e-3), (torch.float16, 0.01), (torch.bfloat16, 0.08)],
)
def test_the_tolerance_follows_the_precision(dtype: torch.dtype, tolerance: float) -> None:
    assert default_tolerance(nn.Linear(2, 2).to(dtype), ((), {})) == pytest.approx(tolerance, rel=0.05)
    assert default_tolerance(nn.Identity(), ((torch.zeros(1, dtype=dtype),), {})) == pytest.approx(tolerance, rel=0.05)


def test_a_model_of_half_precision_is_allowed_its_rounding(tmp_path: Path) -> None:
    model = Otherwise(lambda x: x + 1, lambda x: (x + 1) * 1.005).eval()
    assert export(model, tmp_path / "half.pt2", x().half()).max_difference > 1e-3
    with pytest.raises(ExportError, match=r"tolerance=0\.001 allows"):
        export(model, tmp_path / "half.pt2", x().half(), tolerance=1e-3)
    with pytest.raises(ExportError, match=r"tolerance=0\.001 allows"):
        export(model, tmp_path / "single.pt2", x())


def test_a_model_that_returns_no_numbers_is_not_compared(tmp_path: Path) -> None:
    model = Otherwise(lambda x: x[:, :0], lambda x: x[:, :0]).eval()
    with pytest.raises(ExportError, match="returns no numbers with these inputs"):
        export(model, tmp_path / "model.pt2", x())
    assert os.listdir(tmp_path) == []
