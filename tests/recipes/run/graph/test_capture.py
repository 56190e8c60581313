"""What is asked of CUDA, against a stand-in that writes it down; and where a run can have no graphs."""

from __future__ import annotations

import contextlib
import gc
import weakref
from collections.abc import Iterator
from contextlib import contextmanager
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from torch.torch_version import TorchVersion

from cycledistill.recipes.errors import NotCapturableError
from cycledistill.recipes.run.graph.capture import CudaCapture, open_capture

CUDA = torch.device("cuda", 0)


class Stream:
    def __init__(self, name: str, said: list[str]) -> None:
        self.name, self.said = name, said

    def wait_stream(self, other: Stream) -> None:
        self.said.append(f"{self.name} waits for {other.name}")


@pytest.fixture
def said(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """What was asked, in order."""
    said: list[str] = []
    entered = ["main"]
    pools = iter(("pool", "another pool"))

    class Graph:
        def replay(self) -> None:
            said.append("replay")

    @contextmanager
    def stream(which: Stream) -> Iterator[None]:
        said.append(f"on {which.name}")
        before, entered[0] = entered[0], which.name
        try:
            yield
        finally:
            entered[0] = before
            said.append(f"off {which.name}")

    class Capturing:
        """A class, as PyTorch's is: in Python 3.12 a generator's context would keep what it raises in a cycle."""

        def __init__(self, into: Graph, pool: str, stream: Stream, capture_error_mode: str) -> None:
            self.stream, self.words = stream, f"in {pool}, errors of {capture_error_mode}"

        def __enter__(self) -> None:
            said.append(f"capture on {self.stream.name} {self.words}")
            self.before, entered[0] = entered[0], self.stream.name

        def __exit__(self, kind: object, error: BaseException | None, traceback: object) -> None:
            if error is not None:
                # raised while that one is handled; as PyTorch's, it leaves the stream entered
                raise RuntimeError("CUDA error: operation failed due to a previous error during capture") from error
            entered[0] = self.before
            said.append("captured")

    fakes = {
        "Stream": lambda device: Stream("side", said),
        "current_stream": lambda device: Stream(entered[0], said),
        "graph_pool_handle": lambda: next(pools),
        "CUDAGraph": Graph,
        "stream": stream,
        "graph": Capturing,
        "current_device": lambda: 0,
    }
    for name, fake in fakes.items():
        monkeypatch.setattr(torch.cuda, name, fake)
    return said


def test_warm_ups_and_captures_share_a_stream_beside_the_main_one(said: list[str]) -> None:
    capture = CudaCapture(torch.device("cuda"))
    assert capture.device == CUDA
    with capture.aside():
        said.append("work")
    assert said == ["side waits for main", "on side", "work", "off side", "main waits for side"]
    said.clear()
    replay, result = capture.record(lambda: 7)
    replay()
    captured = ["on side", "capture on side in pool, errors of thread_local", "captured", "off side"]
    assert (result, said) == (7, [*captured, "replay"])


def test_the_first_of_two_errors_is_the_reason(said: list[str], monkeypatch: pytest.MonkeyPatch) -> None:
    """A capture that was ended by an error ends in another one."""

    def work() -> None:
        try:
            dict[str, int]()["key"]
        except KeyError:
            raise RuntimeError("Cannot copy between CPU and CUDA tensors\nand how to go on") from None

    generators: list[Any] = []
    monkeypatch.setattr(torch, "rand", lambda *args, **kwargs: generators.append("asked"))
    with pytest.raises(NotCapturableError, match="^the capture failed: Cannot copy between CPU and CUDA tensors$"):
        CudaCapture(CUDA).record(work)
    assert generators == ["asked"]


def test_a_failed_capture_holds_nothing_of_its_step(said: list[str], monkeypatch: pytest.MonkeyPatch) -> None:
    """Memory is short then, and nobody looks for cycles."""
    monkeypatch.setattr(torch, "rand", lambda *args, **kwargs: None)
    made: list[weakref.ref[torch.Tensor]] = []

    def work() -> None:
        activation = torch.zeros(3)
        made.append(weakref.ref(activation))
        raise RuntimeError("no")

    gc.disable()
    try:
        with contextlib.suppress(NotCapturableError):
            CudaCapture(CUDA).record(work)
        assert made[0]() is None
    finally:
        gc.enable()


@pytest.mark.parametrize("version", ["2.11.3", "2.12.0"])
def test_after_a_failed_capture_the_run_is_on_its_stream_again(
    said: list[str], monkeypatch: pytest.MonkeyPatch, version: str
) -> None:
    """The next one has a pool of its own; and before torch 2.12 the reason says that memory may not be had any more."""
    monkeypatch.setattr(torch, "rand", lambda *args, **kwargs: None)
    monkeypatch.setattr(torch, "__version__", TorchVersion(version))
    capture, reason = CudaCapture(CUDA), "the capture failed: no"
    with pytest.raises(NotCapturableError) as caught:
        capture.record(fail)
    assert str(caught.value).startswith(reason) and (str(caught.value) == reason) == (version == "2.12.0")
    assert torch.cuda.current_stream(CUDA).name == "main"  # type: ignore[attr-defined]
    said.clear()
    capture.record(lambda: 7)
    assert said[1].startswith("capture on side in another pool")


def fail() -> None:
    raise RuntimeError("no")


def test_the_main_stream_waits_for_a_warm_up_that_fails(said: list[str]) -> None:
    """What was changed is put back on it."""
    with pytest.raises(NotCapturableError), CudaCapture(CUDA).aside():
        raise NotCapturableError("no")
    assert said[-1] == "main waits for side"


def test_ctrl_c_is_no_reason(said: list[str]) -> None:
    def work() -> None:
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        CudaCapture(CUDA).record(work)


def test_a_generator_that_still_counts_for_a_failed_capture_is_replaced(
    said: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    taken: list[Any] = []

    def rand(*args: Any, **kwargs: Any) -> None:
        raise RuntimeError("Offset increment outside graph capture encountered unexpectedly.")

    monkeypatch.setattr(torch, "rand", rand)
    monkeypatch.setattr(torch, "Generator", lambda device: f"new on {device}")
    default = SimpleNamespace(graphsafe_set_state=taken.append)
    monkeypatch.setattr(torch.cuda, "default_generators", (default,), raising=False)
    with pytest.raises(NotCapturableError):
        CudaCapture(CUDA).record(fail)
    assert taken == ["new on cuda:0"]


@pytest.mark.parametrize(
    ("device", "processes", "scaler", "reason"),
    [
        ("cpu", 1, None, "a graph needs a CUDA device, and the run is on 'cpu'"),
        ("mps", 1, None, "a graph needs a CUDA device, and the run is on 'mps'"),
        ("cuda", 2, None, "2 processes share the run, and graphs are for one alone"),
        ("cuda", 1, object(), "run.precision=fp16 reads back in each step whether to skip it; bf16 does not"),
    ],
)
def test_where_a_run_can_have_no_graphs(device: str, processes: int, scaler: Any, reason: str) -> None:
    accelerator = SimpleNamespace(device=torch.device(device), num_processes=processes, scaler=scaler)
    with pytest.raises(NotCapturableError, match=f"^{reason}$"):
        open_capture(accelerator)


def test_a_run_alone_on_a_gpu_has_them(said: list[str]) -> None:
    accelerator = SimpleNamespace(device=CUDA, num_processes=1, scaler=None)
    assert isinstance(open_capture(accelerator), CudaCapture)


@pytest.mark.gpu
@pytest.mark.skipif(torch.__version__ < "2.12", reason="the allocator may end the process after it")
def test_a_capture_that_was_invalidated_leaves_the_device_usable() -> None:
    """How many values a mask takes is read back, which ends the capture; its own end fails then."""
    if not torch.cuda.is_available():
        pytest.skip("torch sees no CUDA device here")
    capture, before = CudaCapture(torch.device("cuda")), torch.cuda.current_stream()
    x, some = torch.zeros(3, device="cuda"), torch.ones(2, device="cuda")
    mask = torch.tensor([True, False, True], device="cuda")
    with pytest.raises(NotCapturableError):
        capture.record(lambda: x.__setitem__(mask, some))
    assert torch.cuda.current_stream() == before
    torch.cuda.empty_cache()
    replay, result = capture.record(lambda: x + 1)
    x.fill_(2)
    replay()
    assert result.tolist() == [3, 3, 3] and torch.rand(1, device="cuda").item() < 1
