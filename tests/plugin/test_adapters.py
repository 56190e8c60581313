"""Adapters of PEFT put around, merged into and taken off the children of a model that a plug-in acts in.

The oracle is the plain model with the same adapters merged into its weights.
"""

from __future__ import annotations

import copy
import logging
from typing import Any

import pytest
import torch
from torch import Tensor, nn

pytest.importorskip("timm")
pytest.importorskip("peft")

from peft import IA3Config, LNTuningConfig, LoraConfig, get_peft_model

from cycledistill import (
    unwrap_cyclic,
    unwrap_hourglass,
    unwrap_pruning,
    wrap_cyclic,
    wrap_hourglass,
    wrap_pruning,
)
from cycledistill.plugin.swap import Swapped
from tests.hourglass.models import FRAMES, FrameModel, build, poses
from tests.prune.oracle import drop_after_whole_layers, embed, finish, images, vit
from tests.toys import FEATURES, Counted, ToyViT

# Of timm's LayerNorm, a subclass of torch's.
pytestmark = pytest.mark.filterwarnings("ignore:Unsupported layer type")

LAYERS, KEEP = (1, 2), 0.5


def lora(*targets: str, save: tuple[str, ...] = (), **settings: Any) -> Any:
    return LoraConfig(
        r=4, init_lora_weights=False, target_modules=list(targets), modules_to_save=list(save) or None, **settings
    )


ADAPTERS = {
    "LoRA on qkv": lora("qkv"),
    "DoRA on qkv": lora("qkv", use_dora=True),
    "LoRA on proj and MLP": lora("proj", "fc1", "fc2"),
    "IA3 on qkv": IA3Config(target_modules=["qkv", "fc2"], feedforward_modules=["fc2"], init_ia3_weights=False),
    "LNTuning of norm2": LNTuningConfig(target_modules=["norm2", "norm1"]),
    "a copy of qkv": lora("proj", save=("qkv",)),
    "a copy of attn": lora("fc1", save=("attn",)),
    "a copy of norm2": lora("proj", save=("norm2",)),
    "a copy of mlp": lora("proj", save=("mlp",)),
    "copies of embedding and head": lora("qkv", save=("patch_embed", "head")),
}


def adapted(model: nn.Module, config: Any) -> Any:
    """The model with adapters that were trained a little: away from where they begin, the same in every call."""
    around = get_peft_model(model, copy.deepcopy(config)).double()
    generator = torch.Generator().manual_seed(3)
    with torch.no_grad():
        for parameter in around.parameters():
            if parameter.requires_grad:
                parameter += 0.3 * torch.randn(parameter.shape, generator=generator, dtype=parameter.dtype)
    return around.eval()


def seeded(model: nn.Module, config: Any) -> Any:
    torch.manual_seed(5)
    return adapted(model, config)


def merged(model: nn.Module, config: Any) -> Any:
    return seeded(copy.deepcopy(model), config).merge_and_unload().eval()


def assert_pruned_as(plain: Any, model: nn.Module, handle: Any, x: Tensor) -> None:
    with torch.no_grad():
        state, index = drop_after_whole_layers(plain.blocks, embed(plain, x), LAYERS, KEEP, slice(0, 1), 1)
        wanted, got = finish(plain, state), model(x)
    assert torch.equal(handle.index, index)
    torch.testing.assert_close(got, wanted, rtol=1e-10, atol=1e-10)


def plugged(model: nn.Module) -> list[str]:
    return [name for name, module in model.named_modules() if isinstance(module, Swapped)]


@pytest.mark.parametrize("name", ADAPTERS)
def test_pruning_scores_what_the_attention_computes_with_adapters(name: str) -> None:
    base, x, config = vit(depth=3), images(3), ADAPTERS[name]
    pruned = wrap_pruning(copy.deepcopy(base), LAYERS, KEEP)
    assert_pruned_as(base, pruned, pruned.pruning, x)
    around, plain = seeded(pruned, config), merged(base, config)
    assert_pruned_as(plain, around, pruned.pruning, x)
    with around.disable_adapter():
        assert_pruned_as(base, around, pruned.pruning, x)
    assert_pruned_as(plain, around, pruned.pruning, x)
    copied = copy.deepcopy(around)
    assert_pruned_as(plain, copied, copied.get_base_model().pruning, x)
    got = around.merge_and_unload()
    assert_pruned_as(plain, got, pruned.pruning, x)
    assert not plugged(unwrap_pruning(got))
    assert torch.equal(got(x), plain(x))


@pytest.mark.parametrize("name", ["LoRA on qkv", "a copy of mlp"])
def test_adapters_that_were_there_before_pruning_are_merged_after_it(name: str) -> None:
    base, x, config = vit(depth=3), images(3), ADAPTERS[name]
    plain, around = merged(base, config), seeded(copy.deepcopy(base), config)
    wrap_pruning(around.get_base_model(), LAYERS, KEEP)
    assert_pruned_as(plain, around, around.get_base_model().pruning, x)
    got = around.merge_and_unload()
    assert_pruned_as(plain, got, got.pruning, x)


def test_gradients_of_adapters_on_a_pruned_model_are_those_of_the_loop_by_hand() -> None:
    base, x, config = vit(), images(3), ADAPTERS["LoRA on qkv"]
    pruned = wrap_pruning(copy.deepcopy(base), LAYERS, KEEP)
    around, truth = seeded(pruned, config).train(), seeded(copy.deepcopy(base), config).train()
    around(x).square().sum().backward()
    plain = truth.get_base_model()
    state, _ = drop_after_whole_layers(plain.blocks, embed(plain, x), LAYERS, KEEP, slice(0, 1), 1)
    finish(plain, state).square().sum().backward()
    want = dict(truth.named_parameters())
    trained = {name: p.grad for name, p in around.named_parameters() if p.requires_grad}
    assert len(trained) == 8 and all(grad is not None for grad in trained.values())
    for name, grad in trained.items():
        torch.testing.assert_close(grad, want[name].grad, rtol=1e-9, atol=1e-10)


@pytest.mark.parametrize("name", ADAPTERS)
def test_pruning_comes_off_before_any_forward_with_adapters(name: str) -> None:
    base, x, config = vit(depth=3), images(2), ADAPTERS[name]
    pruned = wrap_pruning(copy.deepcopy(base), LAYERS, KEEP)
    around, plain = seeded(pruned, config), seeded(copy.deepcopy(base), config)
    assert not plugged(unwrap_pruning(pruned))
    assert torch.equal(around(x), plain(x))


def test_merged_adapters_are_told_of_as_merged(caplog: pytest.LogCaptureFixture) -> None:
    x = torch.randn(2, 7, FEATURES, dtype=torch.float64)
    around = seeded(ToyViT().double(), LoraConfig(r=2, target_modules=["qkv"], init_lora_weights=False)).train()
    wrap_cyclic(around, distill=None, blocks="base_model.model.blocks")
    around.merge_adapter()
    with caplog.at_level(logging.WARNING, "cycledistill"):
        around(x)
    assert "adapters are merged" in caplog.text and "reentrant" not in caplog.text.lower()
    around.unmerge_adapter()  # the advice
    sum(each.sum() for each in around(x).outputs).backward()
    assert all(p.grad is not None for p in around.parameters() if p.requires_grad)


@pytest.mark.slow
def test_a_compiled_forward_says_to_run_once_after_adapters_came() -> None:
    base, x, config = vit(depth=3), images(3), ADAPTERS["LoRA on qkv"]
    pruned = wrap_pruning(copy.deepcopy(base), LAYERS, KEEP)
    around, plain = seeded(pruned, config), merged(base, config)
    compiled = torch.compile(pruned, backend="eager", fullgraph=True)
    with pytest.raises(Exception, match="run the model once as it is"):
        compiled(x)
    torch.compiler.reset()
    around(x)
    assert_pruned_as(plain, torch.compile(pruned, backend="eager", fullgraph=True), pruned.pruning, x)


def lifter() -> Any:
    """Declares its frames as an attribute: PEFT takes a `config` for one of Hugging Face's."""
    model = build(FrameModel)
    model.frames, model.config = FRAMES, {}
    return model


def frame_merged(base: nn.Module, config: Any) -> Any:
    return seeded(copy.deepcopy(base), config).merge_and_unload().eval()


HOURGLASS = {
    "LoRA on qkv": lora("qkv"),
    "a copy of qkv": lora("proj", save=("qkv",)),
    "a copy of attn": lora("stem", save=("attn",)),
    "a copy of the norm behind the blocks": lora("qkv", save=("norm",)),
    "copies of blocks": lora("stem", save=("levels.1", "levels.2", "levels.4")),
}


@pytest.mark.parametrize("name", HOURGLASS)
@pytest.mark.parametrize("select", ["attention", "tpc"])
def test_an_hourglass_reads_and_drops_behind_adapters(select: str, name: str) -> None:
    base, x, config = lifter(), poses(3), HOURGLASS[name]
    settings: dict[str, Any] = {"layer": 2, "keep": 5, "select": select, "recover": "linear", "recover_after": "norm"}
    model, truth = copy.deepcopy(base), frame_merged(base, config)
    wrap_hourglass(model, **settings)
    model(x)
    around = seeded(model, config)
    wrap_hourglass(truth, **settings)
    with torch.no_grad():
        got, want = around(x), truth(x)
        assert torch.equal(model.hourglass.index, truth.hourglass.index)
        torch.testing.assert_close(got, want, rtol=1e-10, atol=1e-10)
        got = around.merge_and_unload()
        torch.testing.assert_close(got(x), want, rtol=1e-10, atol=1e-10)
    assert not plugged(unwrap_hourglass(got))
    torch.testing.assert_close(got(x), frame_merged(base, config)(x), rtol=1e-10, atol=1e-10)


@pytest.mark.parametrize("name", ["a copy of the norm behind the blocks", "copies of blocks"])
def test_learned_recovery_goes_on_with_the_weights_it_has(name: str) -> None:
    base, x, config = lifter(), poses(2), HOURGLASS[name]
    model = wrap_hourglass(copy.deepcopy(base), layer=2, keep=5)
    with torch.no_grad():
        model.recover.query.normal_()
    around = seeded(model, config)
    truth = wrap_hourglass(frame_merged(base, config), layer=2, keep=5)
    truth.prune.load_state_dict(model.prune.state_dict())
    truth.recover.load_state_dict(model.recover.state_dict())
    torch.testing.assert_close(around(x), truth(x), rtol=1e-10, atol=1e-10)


class NoisyStem(Counted):
    """A stem that draws random numbers, which all cycles must share."""

    def forward(self, x: Tensor) -> Tensor:
        x = super().forward(x)
        return x + torch.randn_like(x) if self.training and x.shape[-1] == 8 else x


def test_a_copied_stem_runs_once_a_forward_under_cycles() -> None:
    class SkipViT(ToyViT):
        """Its head sees the stem's output too."""

        def forward(self, x: Tensor) -> Tensor:
            stem = self.embed(x)
            tokens = torch.cat([self.cls_token.expand(x.shape[0], -1, -1), stem], dim=1)
            for block in self.blocks:
                tokens = block(tokens)
            return self.head(self.norm(tokens)[:, 0] + stem.mean(1))

    model = wrap_cyclic(SkipViT(linear=NoisyStem), cycles=3, distill=None)
    model.cyclic.cycles = 3
    around = get_peft_model(model, lora("qkv", save=("embed",)))
    stem = model.embed.modules_to_save["default"]
    stem.calls = 0
    torch.manual_seed(0)
    out = around.train()(torch.randn(2, 5, FEATURES))
    assert stem.calls == 1
    assert len(out) == 3
    out[-1].sum().backward()
    assert stem.weight.grad is not None
    merged_model = around.merge_and_unload()
    stem = merged_model.embed
    stem.calls = 0
    merged_model.requires_grad_(True).train()(torch.randn(2, 5, FEATURES))
    assert stem.calls == 1
    assert not plugged(unwrap_cyclic(merged_model))


def test_a_wrapped_model_that_was_put_into_another_keeps_its_own_cycles() -> None:
    student = wrap_cyclic(ToyViT(), cycles=2, distill=None)
    student.teacher = wrap_cyclic(ToyViT(linear=Counted), cycles=3, distill=None)
    x = torch.randn(2, 5, FEATURES)
    assert len(student.train()(x)) == 2
    student.teacher.embed.calls = 0
    assert len(student.teacher(x)) == 3
    assert student.teacher.embed.calls == 1
