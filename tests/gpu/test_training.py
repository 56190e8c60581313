"""What surrounds a training step on a GPU: checkpointing, determinism, copies and pickles, pinned batches."""

from __future__ import annotations

import copy
import pickle
from collections.abc import Iterator

import pytest
import torch
from torch import nn
from torch.utils.data import DataLoader, TensorDataset

from cycledistill import CycleLoss, wrap_cyclic
from tests.gpu.running import images, toy, toy_batch, vit
from tests.oracle import assert_differ, assert_same, assert_same_gradients, gradients

pytestmark = pytest.mark.gpu
criterion = CycleLoss(nn.CrossEntropyLoss())


def test_checkpointing_draws_dropout_again_as_it_was(device: torch.device) -> None:
    pytest.importorskip("timm")
    model, (x, target) = vit(device, proj_drop_rate=0.2, pos_drop_rate=0.2).train(), images(device)
    plain = copy.deepcopy(wrap_cyclic(model, 2, "sdpose"))
    model.set_grad_checkpointing(True)
    for each in (model, plain):
        torch.manual_seed(3)
        criterion(each(x), target).backward()
    assert_same_gradients(gradients(model), gradients(plain), rtol=1e-4)
    with torch.no_grad():
        assert_differ(plain(x)[0], plain(x)[0])  # there was something to draw


@pytest.fixture
def deterministic() -> Iterator[None]:
    before = torch.are_deterministic_algorithms_enabled()
    torch.use_deterministic_algorithms(True)
    yield
    torch.use_deterministic_algorithms(before)


@pytest.mark.usefixtures("deterministic")
def test_deterministic_algorithms_give_the_same_bits_twice(device: torch.device) -> None:
    pytest.importorskip("timm")
    runs = []
    for _ in range(2):
        model, (x, target) = wrap_cyclic(vit(device).train(), 3, "sdpose"), images(device)
        loss = criterion(model(x), target)
        loss.backward()
        runs.append({"loss": loss, **gradients(model)})
    assert_same(runs[0], runs[1])


def test_copies_and_pickles_of_a_model_on_the_gpu(device: torch.device) -> None:
    model, (x, _) = wrap_cyclic(toy(), 2, "exits").to(device), toy_batch(device)
    want = model(x)
    for again in (copy.deepcopy(model), pickle.loads(pickle.dumps(model))):
        assert next(again.parameters()).device.type == device.type
        assert_same(again(x).outputs, want.outputs)
    assert_differ(want[0], want[1])


def test_pinned_batches_of_worker_processes(device: torch.device) -> None:
    model = wrap_cyclic(toy(), 2, "exits").to(device)
    x, target = toy_batch(torch.device("cpu"), 32)
    loader = DataLoader(TensorDataset(x, target), 8, num_workers=2, pin_memory=device.type == "cuda")
    losses = []
    for some, labels in loader:
        assert some.is_pinned() is (device.type == "cuda")
        losses.append(criterion(model(some.to(device, non_blocking=True)), labels.to(device, non_blocking=True)))
    parts = zip(x.to(device).split(8), target.to(device).split(8), strict=True)
    assert_same(losses, [criterion(model(some), labels) for some, labels in parts], rtol=1e-6)
