"""Accelerate as a recipe wants it: its device, and its precision on every device."""

from __future__ import annotations

import copy
import logging
from types import SimpleNamespace

import pytest
import torch
from torch import Tensor, nn

pytest.importorskip("accelerate")

from cycledistill import unwrap_cyclic, wrap_cyclic
from cycledistill.recipes.errors import RecipeError
from cycledistill.recipes.run import accelerator as accelerator_module
from cycledistill.recipes.run.accelerator import open_accelerator, synced_batch_norm


@pytest.mark.parametrize(("here", "there"), [(None, "cpu"), ("mps", "cpu, mps"), ("xpu", "cpu, xpu")])
@pytest.mark.parametrize("built", [True, False])
def test_a_device_that_is_not_here_is_refused_with_those_that_are(
    monkeypatch: pytest.MonkeyPatch, here: str | None, there: str, built: bool
) -> None:
    monkeypatch.setattr(torch.backends.cuda, "is_built", lambda: built)
    found = None if here is None else torch.device(here)
    monkeypatch.setattr(torch.accelerator, "current_accelerator", lambda check_available=False: found)
    why = "" if built else r" \(PyTorch .* is built without CUDA\)"
    with pytest.raises(RecipeError, match=rf"run\.device='cuda' is not here{why}; there is: {there}\.$"):
        with open_accelerator("cuda", "fp32"):
            pass
    with (
        pytest.raises(RecipeError, match="^--device='gpu' is not here; there is: "),
        open_accelerator("gpu", "fp32", "--device"),
    ):
        pass


def test_the_cpu_is_taken_where_it_is_asked_for_or_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    with open_accelerator("cpu", "fp32") as accelerator:
        assert accelerator.device.type == "cpu"
    monkeypatch.setattr(torch.accelerator, "current_accelerator", lambda check_available=False: None)
    with open_accelerator("auto", "fp32") as accelerator:
        assert accelerator.device.type == "cpu"


class Noting(nn.Module):
    """A layer that notes in which type it computes."""

    def __init__(self) -> None:
        super().__init__()
        self.layer = nn.Linear(3, 2)
        self.seen: list[torch.dtype] = []

    def forward(self, inputs: Tensor) -> Tensor:
        out: Tensor = self.layer(inputs)
        self.seen.append(out.dtype)
        return out


@pytest.mark.parametrize(
    ("precision", "dtype"), [("fp32", torch.float32), ("bf16", torch.bfloat16), ("fp16", torch.float16)]
)
def test_the_cpu_computes_in_the_precision_asked_for(precision: str, dtype: torch.dtype) -> None:
    with open_accelerator("cpu", precision) as accelerator:
        model = accelerator.prepare_model(Noting())
        inputs = torch.ones(4, 3)
        assert model(inputs).dtype == torch.float32
        assert model.seen == [dtype]


def test_a_processor_that_emulates_the_precision_is_warned_of(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    for features, warned in (({"avx512_bf16": True}, False), ({"avx512_bf16": False}, True)):
        monkeypatch.setattr(torch.cpu, "get_capabilities", lambda found=features: found)
        with caplog.at_level(logging.WARNING), open_accelerator("cpu", "bf16"):
            assert ("run.precision=bf16: this processor has no units for it" in caplog.text) is warned
    caplog.clear()
    with open_accelerator("cpu", "fp32"):
        assert not caplog.records


def test_a_gpu_without_the_precision_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(accelerator_module, "has_units", lambda device, dtype: dtype is not torch.bfloat16)
    accelerator_module._check_precision(torch.device("cuda"), "fp16")
    with pytest.raises(RecipeError, match=r"run\.precision='bf16': cuda has no units for it; set fp16 or fp32"):
        accelerator_module._check_precision(torch.device("cuda"), "bf16")


def test_fp16_scales_the_loss_and_the_gradients_back() -> None:
    with open_accelerator("cpu", "fp16") as accelerator:
        model = nn.Linear(3, 2)
        optimizer = accelerator.prepare_optimizer(torch.optim.SGD(model.parameters(), lr=1.0))
        prepared, before = accelerator.prepare_model(model), model.bias.detach().clone()
        accelerator.backward(prepared(torch.ones(1, 3)).mean())
        assert model.bias.grad is not None
        assert model.bias.grad.tolist() == [accelerator.scaler.get_scale() / 2] * 2
        accelerator.unscale_gradients()
        assert model.bias.grad.tolist() == [0.5, 0.5]
        optimizer.step()
        torch.testing.assert_close(model.bias, before - 0.5)


class Normed(nn.Module):
    """Blocks and a head with BatchNorm."""

    def __init__(self) -> None:
        super().__init__()
        self.blocks = nn.ModuleList(nn.Sequential(nn.Linear(8, 8), nn.BatchNorm1d(8), nn.GELU()) for _ in range(3))
        self.head = nn.Sequential(nn.BatchNorm1d(8), nn.Linear(8, 2))

    def forward(self, inputs: Tensor) -> Tensor:
        for block in self.blocks:
            inputs = block(inputs)
        return self.head(inputs)


def test_batch_norm_of_a_wrapped_model_is_synchronised_in_place() -> None:
    """Without a process group PyTorch's SyncBatchNorm is a BatchNorm, on a CPU too."""
    plain = wrap_cyclic(Normed(), 2, distill="exits")
    synced = synced_batch_norm(copy.deepcopy(plain), SimpleNamespace(num_processes=2, device=torch.device("cuda")))
    assert sum(isinstance(module, nn.SyncBatchNorm) for module in synced.modules()) == 4
    assert list(synced.state_dict()) == list(plain.state_dict())
    inputs = torch.randn(6, 8)
    for _ in range(2):
        found = [torch.stack(list(model(inputs).outputs)) for model in (plain, synced)]
        assert torch.equal(*found)
    for name, value in plain.state_dict().items():  # the first cycle's statistics, in both
        assert torch.equal(synced.state_dict()[name], value), name
    assert torch.equal(unwrap_cyclic(synced).eval()(inputs), unwrap_cyclic(plain).eval()(inputs))


def test_batch_norm_is_synchronised_on_gpus_alone() -> None:
    task, cpu = nn.Sequential(nn.BatchNorm1d(2)), torch.device("cpu")
    assert synced_batch_norm(task, SimpleNamespace(num_processes=1, device=cpu)) is task
    with pytest.raises(RecipeError, match=r"run\.sync_batch_norm=true with 2 processes on cpu: .*GPUs alone; set it"):
        synced_batch_norm(task, SimpleNamespace(num_processes=2, device=cpu))
