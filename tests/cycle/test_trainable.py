"""What a training forward trains: gradients that go nowhere are told of, and ensembles of torch.func are served."""

from __future__ import annotations

import copy
import logging
import re
from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.func import functional_call, grad_and_value, stack_module_state, vmap
from torch.utils.checkpoint import checkpoint

from cycledistill import (
    CycleLoss,
    StackError,
    at_exit,
    unwrap_cyclic,
    wrap_cyclic,
    wrap_hourglass,
    wrap_pruning,
)
from tests.hourglass.models import FRAMES, JOINTS, FrameModel, build, poses
from tests.prune.oracle import images, vit
from tests.toys import CLASSES, FEATURES, ArgumentBlock, Block, ToyViT

# torch's own, of attention under vmap on a CPU.
pytestmark = pytest.mark.filterwarnings("ignore:There is a performance drop:UserWarning")

WARNING = r"parameters of block 0 require gradients, and its output has none.*use_reentrant=False.*enable_input_requi"


class ReentrantBlock(Block):
    """Checkpoints what it computes, as Hugging Face's layers do."""

    reentrant = True

    def forward(self, x: Tensor) -> Tensor:
        return checkpoint(super().forward, x, use_reentrant=self.reentrant)


class NonReentrantBlock(ReentrantBlock):
    reentrant = False


def frozen_stem(block: type[Block]) -> ToyViT:
    model = ToyViT(block=block)
    model.embed.requires_grad_(False)
    model.cls_token.requires_grad_(False)
    return model


def moved(model: nn.Module, loss: Tensor) -> set[str]:
    model.zero_grad()
    loss.backward()
    return {name for name, p in model.named_parameters() if p.grad is not None and bool(p.grad.any())}


def told(caplog: pytest.LogCaptureFixture) -> list[str]:
    return [record.getMessage() for record in caplog.records if record.name.startswith("cycledistill.cycle")]


@pytest.mark.filterwarnings("ignore:None of the inputs have requires_grad:UserWarning")  # torch's, of the second pass
def test_blocks_that_train_nothing_are_told_of_once(caplog: pytest.LogCaptureFixture) -> None:
    model, x = wrap_cyclic(frozen_stem(ReentrantBlock), cycles=2, distill=None), torch.randn(2, 5, FEATURES)
    with caplog.at_level(logging.WARNING):
        names = moved(model, sum(each.square().sum() for each in model(x).outputs))
        model(x)
    assert not any(name.startswith("blocks") for name in names)
    (message,) = told(caplog)
    assert re.search(WARNING, message)


@pytest.mark.parametrize("advice", ["use_reentrant=False", "inputs that require gradients", "a stem that is trained"])
def test_the_ways_out_train_every_block(advice: str, caplog: pytest.LogCaptureFixture) -> None:
    model = frozen_stem(NonReentrantBlock if advice == "use_reentrant=False" else ReentrantBlock)
    if advice == "inputs that require gradients":  # what enable_input_require_grads() does
        model.embed.register_forward_hook(lambda module, args, output: output.requires_grad_(True))
    elif advice == "a stem that is trained":
        model.embed.requires_grad_(True)
    wrap_cyclic(model, cycles=2, distill=None)
    with caplog.at_level(logging.WARNING):
        out = model(torch.randn(2, 5, FEATURES))
    names = moved(model, sum(each.square().sum() for each in out.outputs))
    blocks = {name for name, _ in model.named_parameters() if name.startswith("blocks")}
    assert blocks - {"blocks.2.norm2.bias"} <= names | {name for name in blocks if "bias" in name}
    assert not told(caplog)


def test_no_word_where_no_gradients_are_asked_for(caplog: pytest.LogCaptureFixture) -> None:
    x = torch.randn(2, 5, FEATURES)
    part = wrap_cyclic(frozen_stem(Block), cycles=2, distill=None)
    part.blocks[0].requires_grad_(False)  # and what enters it needs no gradient either
    with caplog.at_level(logging.WARNING):
        part(x)
        with torch.no_grad():
            part(x)
    assert not told(caplog)


class Around(nn.Module):
    """What PEFT puts around a model, and takes off again."""

    def __init__(self, inside: nn.Module) -> None:
        super().__init__()
        self.inside = inside

    def forward(self, x: Tensor) -> Tensor:
        return self.inside(x)


def test_a_part_that_is_trained_on_its_own_is_told_of_once(caplog: pytest.LogCaptureFixture) -> None:
    whole, x = wrap_cyclic(Around(ToyViT()), cycles=2, distill=None), torch.randn(2, 5, FEATURES)
    part: Any = whole.inside
    with caplog.at_level(logging.WARNING):
        assert len(whole(x)) == 2
        part.eval()(x)
        with torch.no_grad():
            part.train()(x)
        part.forward_features(x)
        assert not told(caplog)
        assert isinstance(part(x), Tensor)
        part(x)
    (message,) = told(caplog)
    assert "this ToyViT is a part" in message and "unwrap_cyclic(part), then wrap_cyclic(part)" in message
    unwrap_cyclic(part)
    assert len(wrap_cyclic(part, cycles=3, distill=None)(x)) == 3


class RolledViT(ToyViT):
    """Computes positions from a parameter: under vmap they stand for several models."""

    def __init__(self) -> None:
        super().__init__(block=ArgumentBlock)
        self.pos = nn.Parameter(torch.randn(1, 6, 8))

    def forward(self, x: Tensor) -> Tensor:
        x = torch.cat([self.cls_token.expand(x.shape[0], -1, -1), self.embed(x)], dim=1)
        for block in self.blocks:
            x = block(x, (2, 3), self.pos.roll(1, 1))
        return self.head(self.norm(x)[:, 0])


def classes(output: Tensor, target: Tensor) -> Tensor:
    return nn.functional.cross_entropy(output, target)


def distances(output: Tensor, target: Tensor) -> Tensor:
    return (output - target).square().mean()


def toy_data() -> tuple[Tensor, Tensor]:
    return torch.randn(4, 5, FEATURES, dtype=torch.float64), torch.randint(CLASSES, (4,))


def vit_data() -> tuple[Tensor, Tensor]:
    return images(3), torch.randint(7, (3,))


def frame_data() -> tuple[Tensor, Tensor]:
    return poses(3), torch.randn(3, FRAMES, 3 * JOINTS, dtype=torch.float64)


Case = tuple[Callable[[], nn.Module], Callable[[], tuple[Tensor, Tensor]], Callable[..., Tensor]]
ENSEMBLES: dict[str, Case] = {
    "cycles": (lambda: wrap_cyclic(ToyViT(), cycles=3), toy_data, classes),
    "a random student": (lambda: wrap_cyclic(ToyViT(), cycles=3, distill="elt"), toy_data, classes),
    "computed positions": (lambda: wrap_cyclic(RolledViT(), cycles=2), toy_data, classes),
    "pruning": (lambda: wrap_pruning(vit(), (1, 2), 0.5), vit_data, classes),
    "pruning and cycles": (lambda: wrap_cyclic(wrap_pruning(vit(), (1, 2), 0.5)), vit_data, classes),
    "hourglass": (lambda: wrap_hourglass(build(FrameModel), layer=2, keep=5), frame_data, distances),
    "hourglass and cycles": (
        lambda: wrap_cyclic(wrap_hourglass(build(FrameModel), layer=2, keep=5)),
        frame_data,
        distances,
    ),
}


@pytest.mark.parametrize("how", ["backward", "grad of vmap", "vmap of grad"])
@pytest.mark.parametrize(
    "name", [pytest.param(name, marks=pytest.mark.slow if "pruning" in name else ()) for name in ENSEMBLES]
)
def test_an_ensemble_is_its_models_trained_one_by_one(name: str, how: str) -> None:
    make, data, task = ENSEMBLES[name]
    (x, target), criterion = data(), CycleLoss(task)
    models = [make().double().train() for _ in range(3)]
    parameters, buffers = stack_module_state(models)
    skeleton = copy.deepcopy(models[0]).to("meta")

    def loss_of(one: dict[str, Tensor], its: dict[str, Tensor]) -> Tensor:
        return criterion(functional_call(skeleton, (one, its), (x,)), target)

    torch.manual_seed(0)
    if how == "vmap of grad":
        gradients, losses = vmap(grad_and_value(loss_of), randomness="same")(parameters, buffers)
    elif how == "grad of vmap":
        ensemble = vmap(loss_of, randomness="same")
        gradients, losses = grad_and_value(lambda p: ensemble(p, buffers).sum())(parameters)
    else:
        losses = vmap(loss_of, randomness="same")(parameters, buffers)
        made = torch.autograd.grad(losses.sum(), list(parameters.values()))
        gradients = dict(zip(parameters, made, strict=True))
    total = torch.zeros((), dtype=torch.float64)
    for number, model in enumerate(models):
        torch.manual_seed(0)
        loss = criterion(model(x), target)
        loss.backward()
        total = total + loss.detach()
        for key, parameter in model.named_parameters():
            wanted = torch.zeros_like(parameter) if parameter.grad is None else parameter.grad
            torch.testing.assert_close(gradients[key][number], wanted, rtol=1e-9, atol=1e-11, msg=key)
    torch.testing.assert_close(losses.sum(), total, rtol=1e-12, atol=1e-12)
    handles = [vars(skeleton).get(kind) for kind in ("pruning", "hourglass")]
    assert all(handle is None or handle.index is None for handle in handles)  # no number that vmap alone knows


def test_an_ensemble_answers_at_a_later_exit() -> None:
    x, _ = toy_data()
    models = [wrap_cyclic(ToyViT(), cycles=2).double().eval() for _ in range(3)]
    parameters, buffers = stack_module_state(models)
    skeleton = copy.deepcopy(models[0]).to("meta")
    skeleton.cyclic.exit = 2
    got = vmap(lambda p, b: functional_call(skeleton, (p, b), (x,)))(parameters, buffers)
    for number, model in enumerate(models):
        with at_exit(model, 2):
            torch.testing.assert_close(got[number], model(x), rtol=1e-11, atol=1e-11)


def test_a_frozen_stack_is_refused_as_before() -> None:
    model = wrap_cyclic(ToyViT(), cycles=2)
    model.blocks.requires_grad_(False)
    with pytest.raises(StackError, match="no parameter of the stack requires gradients"):
        model(torch.randn(2, 5, FEATURES))
