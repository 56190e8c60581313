"""Pruning against a hand-written loop that runs every layer whole and then drops tokens."""

from __future__ import annotations

import copy
import math
import pickle
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

pytest.importorskip("timm")

import timm
from timm.layers import apply_rot_embed_cat

from cycledistill import unwrap_pruning, wrap_pruning
from tests.prune.oracle import TOKENS, drop_after_whole_layers, embed, finish, images, vit

VARIANTS: dict[str, dict[str, Any]] = {
    "plain": {},
    "layer scale": {"init_values": 0.3},
    "registers": {"reg_tokens": 3},
    "norms on queries and keys": {"qk_norm": True},
    "average pooling": {"global_pool": "avg"},
    "norms inside attention and MLP": {"scale_attn_norm": True, "scale_mlp_norm": True},
}


def gradients(model: nn.Module, output: Tensor) -> dict[str, Tensor]:
    model.zero_grad()
    output.square().sum().backward()
    return {name: p.grad.clone() for name, p in model.named_parameters() if p.grad is not None}


@pytest.mark.parametrize("layers", [(1, 2), (0,), (3,), (0, 1, 2, 3)])
@pytest.mark.parametrize("name", VARIANTS)
def test_equals_dropping_after_whole_layers(name: str, layers: tuple[int, ...]) -> None:
    plain, x = vit(**VARIANTS[name]), images()
    first = plain.num_prefix_tokens
    pruned = wrap_pruning(copy.deepcopy(plain), layers, 0.6)
    state, index = drop_after_whole_layers(plain.blocks, embed(plain, x), layers, 0.6, slice(0, first), first)
    output, wanted = pruned(x), finish(plain, state)
    assert torch.equal(pruned.pruning.index, index)
    torch.testing.assert_close(output, wanted, rtol=1e-12, atol=1e-12)
    got, want = gradients(pruned, output), gradients(plain, wanted)
    assert got.keys() == want.keys()
    for parameter in got:
        torch.testing.assert_close(got[parameter], want[parameter], rtol=1e-10, atol=1e-11, msg=parameter)


@pytest.mark.slow
@pytest.mark.parametrize(
    "name", ["deit_tiny_patch16_224", "deit3_small_patch16_224", "deit_tiny_distilled_patch16_224"]
)
def test_published_models(name: str) -> None:
    plain = timm.create_model(name, img_size=64, num_classes=5).double().eval()
    for module in plain.modules():  # LayerScale starts at 1e-6, behind which an error would hide
        if hasattr(module, "gamma"):
            nn.init.uniform_(module.gamma)
    pruned, x, first = wrap_pruning(copy.deepcopy(plain)), images(2, 64), plain.num_prefix_tokens
    assert pruned.pruning.layers == (3, 6, 9)
    assert pruned.pruning.keep == 0.7
    with torch.no_grad():
        state, index = drop_after_whole_layers(plain.blocks, embed(plain, x), (3, 6, 9), 0.7, slice(0, first), first)
        torch.testing.assert_close(pruned(x), finish(plain, state), rtol=1e-12, atol=1e-12)
    assert torch.equal(pruned.pruning.index, index)
    assert index.shape == (2, 7)  # 16 -> 12 -> 9 -> 7


def test_query_of_some_prefix_tokens_keeps_the_whole_prefix() -> None:
    plain, x = vit(reg_tokens=2), images()
    pruned = wrap_pruning(copy.deepcopy(plain), (1,), 0.5, query=slice(0, 1))
    state, index = drop_after_whole_layers(plain.blocks, embed(plain, x), (1,), 0.5, slice(0, 1), 3)
    torch.testing.assert_close(pruned(x), finish(plain, state), rtol=1e-12, atol=1e-12)
    assert torch.equal(pruned.pruning.index, index)


def test_keep_one_is_the_plain_model_bit_for_bit() -> None:
    plain, x = vit(), images()
    pruned = wrap_pruning(copy.deepcopy(plain), (1, 2), 0.5)
    pruned(x)
    pruned.pruning.keep = 1.0
    output, wanted = pruned(x), plain(x)
    assert torch.equal(output, wanted)
    assert pruned.pruning.index is None
    got, want = gradients(pruned, output), gradients(plain, wanted)
    assert all(torch.equal(got[name], want[name]) for name in want)


@pytest.mark.parametrize(
    ("number", "keep", "count"), [(256, 0.7, 180), (180, 0.7, 126), (126, 0.7, 89), (100, 0.07, 7)]
)
def test_count_is_rounded_up_but_not_by_floating_point(number: int, keep: float, count: int) -> None:
    assert wrap_pruning(vit(), (1,), keep).pruning.count(number) == count


def test_train_and_eval_prune_alike_and_random_depth_stays_inside() -> None:
    model, x = wrap_pruning(vit(drop_path_rate=0.5, proj_drop_rate=0.2), (1, 2), 0.5), images()
    model.train()
    torch.manual_seed(3)
    first = model(x)
    kept = model.pruning.index
    torch.manual_seed(3)
    assert torch.equal(first, model(x))
    assert kept.shape == model.eval()(x).new_empty(3, 4).shape == model.pruning.index.shape


def test_keys_pickle_copy_and_unwrap() -> None:
    plain, x = vit(), images()
    classes = [type(module) for module in plain.modules()]
    keys = list(plain.state_dict())
    pruned = wrap_pruning(copy.deepcopy(plain), (1, 2), 0.5)
    output = pruned(x)
    assert list(pruned.state_dict()) == keys
    assert isinstance(pruned.blocks[1].mlp, type(plain.blocks[1].mlp))
    for copied in (copy.deepcopy(pruned), pickle.loads(pickle.dumps(pruned))):
        copied.pruning.keep = 0.3
        assert pruned.pruning.keep == 0.5
        assert not torch.equal(copied(x), output)
        copied.pruning.keep = 0.5
        assert torch.equal(copied(x), output)
    assert torch.equal(pruned(x), output)
    assert unwrap_pruning(pruned) is pruned
    assert [type(module) for module in pruned.modules()] == classes
    assert not hasattr(pruned, "pruning")
    assert torch.equal(pruned(x), plain(x))
    assert torch.equal(wrap_pruning(pruned, (1, 2), 0.5)(x), output)


@pytest.mark.parametrize("reentrant", [False, True])
def test_checkpointing_gives_the_same_gradients_after_two_forwards(reentrant: bool) -> None:
    model, first, second = wrap_pruning(vit(), (1, 2), 0.5), images(), images()

    def run(x: Tensor, saves: bool) -> Tensor:
        x = embed(model, x)
        for block in model.blocks:
            x = checkpoint(block, x, use_reentrant=reentrant) if saves else block(x)
        return finish(model, x)

    results = []
    for saves in (False, True):
        outputs = torch.cat([run(first, saves), run(second, saves)])
        index = model.pruning.index
        results.append((outputs, index, gradients(model, outputs)))
        assert torch.equal(model.pruning.index, index)  # the backward shows nothing of the first forward
    (plain, index, want), (saved, saved_index, got) = results
    assert torch.equal(plain, saved)
    assert torch.equal(index, saved_index)
    assert all(torch.equal(got[name], want[name]) for name in want)


@pytest.mark.slow
@pytest.mark.usefixtures("cuda_in_use")
def test_compiles_whole_and_annealing_costs_three_graphs() -> None:
    model = wrap_pruning(vit(), (1, 2), 0.5)
    eager, x, graphs = copy.deepcopy(model), images(), []

    def backend(module: torch.fx.GraphModule, inputs: Any) -> Any:
        graphs.append(module)
        return module.forward

    fast = torch.compile(model, backend=backend, fullgraph=True)
    for step in range(12):  # PPT's cosine from 1 to the ratio
        model.pruning.keep = eager.pruning.keep = 0.5 + 0.25 * (1 + math.cos(math.pi * step / 11))
        assert torch.equal(fast(x), eager(x))
        if step > 2:
            assert torch.equal(model.pruning.index, eager.pruning.index)
    assert len(graphs) <= 3


@pytest.mark.slow
@pytest.mark.usefixtures("cuda_in_use")
def test_compiled_training_step() -> None:
    model = wrap_pruning(vit(), (1, 2), 0.5).train()
    eager, x = copy.deepcopy(model), images()
    fast = torch.compile(model, backend="aot_eager", fullgraph=True)
    got, want = gradients(model, fast(x)), gradients(eager, eager(x))
    for name in want:
        torch.testing.assert_close(got[name], want[name], rtol=1e-10, atol=1e-12, msg=name)


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore:While compiling, we found certain side effects")  # the handle's index
@pytest.mark.parametrize("strict", [False, True])
@pytest.mark.usefixtures("cuda_in_use")
def test_exports(strict: bool) -> None:
    model, x = wrap_pruning(vit(), (1, 2), 0.5), images()
    program = torch.export.export(model, (x,), strict=strict)
    assert model.pruning.index is None or type(model.pruning.index) is Tensor  # no stand-in of the exporter stays
    assert torch.equal(program.module()(x), model(x))


def test_bf16_autocast() -> None:
    model, x = wrap_pruning(vit().float(), (1, 2), 0.5).train(), images().float()
    with torch.autocast("cpu", torch.bfloat16):
        output = model(x)
    assert output.dtype == torch.bfloat16
    output.float().sum().backward()
    assert all(torch.isfinite(p.grad).all() for p in model.parameters() if p.grad is not None)


@pytest.mark.parametrize(
    "name", ["vit_small_patch16_rope_224", "vit_small_patch16_rope_mixed_224", "vit_small_patch16_dinov3"]
)
def test_rotary_tables_follow_the_tokens(name: str) -> None:
    model = timm.create_model(name, img_size=64, depth=4, embed_dim=48, num_heads=3).double().eval()
    for module in model.modules():
        for table in ("gamma_1", "gamma_2"):
            if isinstance(getattr(module, table, None), nn.Parameter):
                nn.init.uniform_(getattr(module, table))
    pruned, x, first = wrap_pruning(copy.deepcopy(model), (1, 2), 0.5), images(2, 64), model.num_prefix_tokens
    mixed = getattr(model, "rope_mixed", False)
    with torch.no_grad():
        output = pruned(x)
        state, table = model._pos_embed(model.patch_embed(x))
        state = model.norm_pre(state) if hasattr(model, "norm_pre") else state
        for image in range(2):  # one image: its tables need no batch axis
            tokens, index = state[image : image + 1], torch.arange(TOKENS)
            for number, block in enumerate(model.blocks):
                rope = (table[number] if mixed else table)[..., index, :]
                before, tokens = tokens, block(tokens, rope=rope)
                if number in (1, 2):
                    best = rotary_scores(block, before, rope, first).topk(len(index) // 2).indices
                    index, tokens = index[best], torch.cat([tokens[:, :first], tokens[:, first:][:, best]], 1)
            torch.testing.assert_close(output[image], model.forward_head(model.norm(tokens))[0], rtol=1e-10, atol=1e-10)
            assert torch.equal(pruned.pruning.index[image], index)


def rotary_scores(block: Any, x: Tensor, rope: Tensor, first: int) -> Tensor:
    """Scores of one image by timm's own rotation."""
    attention = block.attn
    q, k, _ = attention.qkv(block.norm1(x)).reshape(x.shape[1], 3, attention.num_heads, -1).permute(1, 2, 0, 3)
    q, k = attention.q_norm(q), attention.k_norm(k)
    k = torch.cat([k[:, :first], apply_rot_embed_cat(k[:, first:], rope, half=attention.rotate_half)], 1)
    return (q[:, :first] @ k.transpose(-1, -2) * attention.scale).softmax(-1).mean(0).sum(0)[first:]
