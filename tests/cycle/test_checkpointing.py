"""Activation checkpointing: exact where it recomputes without reentry, refused with advice where it reenters."""

from __future__ import annotations

import copy
import re

import pytest
import torch
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

from cycledistill import CycleLoss, Distill, StackError, wrap_cyclic
from tests import toys
from tests.cycle.test_equality import task
from tests.oracle import assert_same, assert_same_gradients, gradients

SCHEME = Distill(token_weight=0.1, output_weight=0.1)


class CheckpointedViT(toys.ToyViT):
    """Checkpoints each block, as most training code does."""

    reentrant = False

    def forward_features(self, x: Tensor) -> Tensor:
        x = self.embed(x)
        for block in self.blocks:
            x = checkpoint(block, x, use_reentrant=self.reentrant)
        return self.norm(x)


class ReentrantViT(CheckpointedViT):
    reentrant = True


class NotCheckpointedViT(toys.ToyViT):
    def forward_features(self, x: Tensor) -> Tensor:
        x = self.embed(x)
        for block in self.blocks:
            x = block(x)
        return self.norm(x)


def compare_step(model: nn.Module, plain: nn.Module, x: Tensor, target: Tensor, rtol: float = 1e-12) -> None:
    losses = []
    for each in (model, plain):
        torch.manual_seed(5)
        loss = CycleLoss(task)(each(x), target)
        loss.backward()
        losses.append(loss.detach())
    assert_same(losses[0], losses[1], rtol=rtol)
    assert_same_gradients(gradients(model), gradients(plain), rtol=rtol)


@pytest.mark.parametrize("cycles", [2, 3])
@pytest.mark.parametrize("drop", [0.0, 0.3])
def test_each_block_checkpointed_is_exact(cycles: int, drop: float) -> None:
    model, plain = toys.make(CheckpointedViT, drop=drop), toys.make(NotCheckpointedViT, drop=drop)
    for each in (model, plain):
        wrap_cyclic(each, cycles, distill=SCHEME)
    compare_step(model, plain, *toys.batch())


def test_whole_model_checkpointed_from_outside_is_exact() -> None:
    model = wrap_cyclic(toys.make(), 2, distill=SCHEME)
    plain = copy.deepcopy(model)
    x, target = toys.batch()
    out = checkpoint(model, x, use_reentrant=False)
    CycleLoss(task)(out, target).backward()
    CycleLoss(task)(plain(x), target).backward()
    assert_same_gradients(gradients(model), gradients(plain), rtol=1e-12)


def test_batchnorm_statistics_are_those_of_the_plain_step() -> None:
    class Checkpointed(toys.NormedViT):
        def forward(self, x: Tensor) -> Tensor:
            half = x.shape[1] // 2
            x = torch.cat([self.embed(x[:, :half]), self.embed(x[:, half:])], dim=1)
            x = self.share(self.stem_bn(x.transpose(1, 2)).transpose(1, 2))
            for block in self.blocks:
                x = checkpoint(block, x, use_reentrant=False)
            return self.head(self.tail_bn(self.share(x).mean(1)))

    x, target = toys.batch()
    model, plain = toys.make(Checkpointed), toys.make(Checkpointed)
    wrap_cyclic(model, 2, distill=SCHEME, blocks="blocks")
    CycleLoss(task)(model(x), target).backward()
    task(plain(x), target).backward()
    assert_same(dict(model.named_buffers()), dict(plain.named_buffers()), rtol=1e-12)


@pytest.mark.parametrize("every", [1, 2])
def test_timm_checkpoint_seq_is_exact(every: int) -> None:
    timm = pytest.importorskip("timm")
    model = timm.create_model("test_vit", img_size=32, num_classes=5, drop_path_rate=0.2).double()
    plain = copy.deepcopy(model)
    model.set_grad_checkpointing()
    if every != 1:
        from timm.models import checkpoint_seq

        class Segmented(type(model)):
            def forward_features(self, x: Tensor, **_: object) -> Tensor:
                x = self.norm_pre(self.patch_drop(self._pos_embed(self.patch_embed(x))))
                return self.norm(checkpoint_seq(self.blocks, x, every=every))

        model.__class__ = Segmented
    x, target = torch.randn(2, 3, 32, 32, dtype=torch.float64), torch.tensor([0, 3])
    for each in (model, plain):
        wrap_cyclic(each, 2, distill=SCHEME)
    compare_step(model, plain, x, target)


def test_it_saves_activations_in_every_cycle() -> None:
    """Bytes kept for backward beyond the parameters: checkpointing must hold in the extra cycles too."""

    def kept(model: nn.Module) -> int:
        total: dict[int, int] = {}
        parameters = {p.untyped_storage().data_ptr() for p in model.parameters()}

        def pack(t: Tensor) -> Tensor:
            storage = t.untyped_storage()
            if storage.data_ptr() not in parameters:
                total[storage.data_ptr()] = storage.nbytes()
            return t

        with torch.autograd.graph.saved_tensors_hooks(pack, lambda t: t):
            out = model(toys.batch(size=8, tokens=16)[0])
        del out
        return sum(total.values())

    thrifty = kept(wrap_cyclic(toys.make(CheckpointedViT, depth=6), 3, distill=None))
    plain = kept(wrap_cyclic(toys.make(NotCheckpointedViT, depth=6), 3, distill=None))
    assert thrifty < plain / 3, f"{thrifty} bytes with checkpointing, {plain} without"


def test_reentrant_is_refused_with_advice_that_works() -> None:
    model = wrap_cyclic(toys.make(ReentrantViT), 2, distill=SCHEME)
    x, target = toys.batch()
    with pytest.raises(StackError, match=r"(?i)reentrant") as caught:
        CycleLoss(task)(model(x), target)
    assert "use_reentrant=False" in str(caught.value)
    model.reentrant = False
    plain = wrap_cyclic(toys.make(NotCheckpointedViT), 2, distill=SCHEME)
    compare_step(model, plain, x, target)


@pytest.mark.filterwarnings("ignore:None of the inputs have requires_grad")
def test_reentrant_in_eval_and_without_gradients_is_harmless() -> None:
    model = toys.make(ReentrantViT)
    plain = toys.make(NotCheckpointedViT)
    x, _ = toys.batch()
    wrap_cyclic(model, 2)
    wrap_cyclic(plain, 2)
    with torch.no_grad():
        assert_same(model(x).outputs, plain(x).outputs)
        model.eval().cyclic.exit = 2
        plain.eval().cyclic.exit = 2
        assert_same(model(x), plain(x))


def test_timm_reentrant_setting_is_refused_with_its_own_advice() -> None:
    timm = pytest.importorskip("timm")
    from timm.layers import set_reentrant_ckpt, use_reentrant_ckpt

    before = use_reentrant_ckpt()
    model = timm.create_model("test_vit", img_size=32, num_classes=5)
    model.set_grad_checkpointing()
    wrap_cyclic(model, 2)
    x = torch.randn(2, 3, 32, 32)
    try:
        set_reentrant_ckpt(True)
        with pytest.raises(StackError, match="(?i)reentrant") as caught:
            model(x)
        assert re.search(r"timm\.layers\.set_reentrant_ckpt\(False\)", str(caught.value))
        set_reentrant_ckpt(False)
        assert len(model(x)) == 2
    finally:
        set_reentrant_ckpt(before)


@pytest.mark.filterwarnings("ignore:`gradient_checkpointing_enable` is deprecated")
def test_hugging_face_gradient_checkpointing() -> None:
    transformers = pytest.importorskip("transformers")
    config = transformers.ViTConfig(
        hidden_size=16, num_hidden_layers=2, num_attention_heads=2, intermediate_size=32, image_size=16, patch_size=8,
        hidden_dropout_prob=0.0, attention_probs_dropout_prob=0.0, num_labels=5,
    )  # fmt: skip
    model = transformers.ViTForImageClassification(config).double()
    plain = copy.deepcopy(model)
    for each in (model, plain):
        wrap_cyclic(each, 2, distill=SCHEME)
    x, labels = torch.randn(2, 3, 16, 16, dtype=torch.float64), torch.tensor([0, 3])
    model.gradient_checkpointing_enable(gradient_checkpointing_kwargs={"use_reentrant": False})
    for each in (model, plain):
        CycleLoss()(each(x, labels=labels)).backward()
    assert_same_gradients(gradients(model), gradients(plain), rtol=1e-12)
    model.zero_grad()
    model.gradient_checkpointing_enable(gradient_checkpointing_kwargs={"use_reentrant": True})
    try:  # here each block checkpoints its own inside, below what is recorded: right numbers or a refusal
        CycleLoss()(model(x, labels=labels)).backward()
    except StackError as error:
        assert "use_reentrant=False" in str(error)
    else:
        assert_same_gradients(gradients(model), gradients(plain), rtol=1e-12)


@pytest.mark.slow
@pytest.mark.usefixtures("cuda_in_use")
def test_checkpointing_compiles() -> None:
    model, plain = toys.make(CheckpointedViT, depth=2), toys.make(NotCheckpointedViT, depth=2)
    for each in (model, plain):
        wrap_cyclic(each, 2, distill=SCHEME)
    x, target = toys.batch()
    fast = torch.compile(model, backend="aot_eager")
    CycleLoss(task)(fast(x), target).backward()
    CycleLoss(task)(plain(x), target).backward()
    assert_same_gradients(gradients(model), gradients(plain), rtol=1e-12)
