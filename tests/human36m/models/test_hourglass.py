"""Lifting models with frames dropped, by themselves and with cycles, against loops written by hand."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import nn

from cycledistill import Distill, StackError, unwrap_cyclic, unwrap_hourglass, wrap_cyclic, wrap_hourglass
from cycledistill.hourglass.selection import pool_frames, tpc
from cycledistill.integrations.human36m import Lifter, create_lifter, lifter_config, list_lifters
from cycledistill.integrations.human36m.models.layers import DropPath
from cycledistill.integrations.human36m.weights.key_map import from_official, to_official
from cycledistill.recipes.errors import CheckpointError

SMALL: dict[str, dict[str, Any]] = {
    "mixste": {"frames": 18, "dim": 16, "depth": 5},
    "mhformer": {"frames": 18, "dim": 16, "hidden": 32},
    "motionbert": {"frames": 18, "dim": 16, "depth": 4, "dim_rep": 24},
    "frame_lifter": {"frames": 18, "dim": 16, "depth": 4},
}
PUBLISHED = {  # frames, kept, parameters
    "hot_mixste": (243, 81, 35_000_323),
    "tpc_mixste": (243, 61, 33_783_811),
    "tpc_mhformer": (351, 117, 31_516_125),
    "hot_motionbert": (243, 81, 16_347_661),
}


def drawn(model: Lifter) -> Lifter:
    """Every weight drawn, so that no term is hidden behind a zero, and in training nothing but the gradient is on."""
    for parameter in model.parameters():
        nn.init.normal_(parameter, std=0.2)
    return model


def fixed_training(model: Lifter) -> Lifter:
    """In training mode, without anything that is drawn, and BatchNorm as in eval."""
    model.train()
    for each in model.modules():
        if isinstance(each, (nn.Dropout, DropPath, nn.BatchNorm1d)):
            each.eval()
    return model


def clips(model: Lifter, batch: int = 2) -> torch.Tensor:
    config = model.config
    return torch.randn(batch, config.frames, config.joints, config.in_channels)


def by_hand(model: Any, poses: torch.Tensor, layer: int, index: torch.Tensor, cycles: int) -> list[torch.Tensor]:
    """Each cycle's poses: frames dropped once before ``layer``, the levels from there on run again and again."""
    tokens = model.embed(poses)
    for level in model.levels[:layer]:
        tokens = level(tokens)
    tokens = torch.stack([each[kept] for each, kept in zip(tokens, index, strict=True)])
    recover = getattr(model, "recover", None)
    tokens = tokens if recover is None else tokens + model.prune[0].pos[:, :, None]
    outputs = []
    for _ in range(cycles):
        for level in model.levels[layer:]:
            tokens = level(tokens)
        normed = model.norm(tokens)
        outputs.append(model.head(normed if recover is None else attend_by_hand(recover, normed)))
    return outputs


def attend_by_hand(recover: Any, kept: torch.Tensor) -> torch.Tensor:
    """Each frame's query over the kept frames, one joint at a time."""
    batch, _, joints, width = kept.shape
    size = width // recover.heads
    q = recover.q(recover.query).expand(batch, -1, -1)
    frames = []
    for joint in range(joints):
        k, v = recover.k(kept[:, :, joint]), recover.v(kept[:, :, joint])
        mixed = []
        for head in range(recover.heads):
            part = slice(head * size, (head + 1) * size)
            weights = (q[..., part] @ k[..., part].transpose(1, 2) / size**0.5).softmax(-1)
            mixed.append(weights @ v[..., part])
        frames.append(recover.query + recover.proj(torch.cat(mixed, dim=-1)))
    return torch.stack(frames, dim=2)


@pytest.mark.parametrize("name", PUBLISHED)
def test_published_sizes(name: str) -> None:
    frames, kept, parameters = PUBLISHED[name]
    with torch.device("meta"):
        model = create_lifter(name)
    assert (model.config.frames, model.hourglass.keep) == (frames, (kept,))
    assert sum(each.numel() for each in model.parameters()) == parameters


def test_every_name_with_an_hourglass_is_tested() -> None:
    named = {name for name in list_lifters() if lifter_config(name).layer is not None}
    assert named == {*PUBLISHED, "hot_frame_lifter"}


def test_the_kept_share_follows_the_clip_length() -> None:
    assert lifter_config("hot_mixste", frames=81).keep == 27
    assert lifter_config("tpc_mixste", frames=81).keep == 20
    assert lifter_config("hot_mixste", frames=81, keep=40).keep == 40
    plain = lifter_config("hot_mixste", layer=None, keep=None)
    assert plain.network == lifter_config("mixste").network
    with pytest.raises(ValueError, match="layer=None, keep=81: an hourglass needs both"):
        lifter_config("hot_mixste", layer=None)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"keep": 19}, "keep=19.*18 frames"),
        ({"keep": 0}, "keep=0"),
        ({"layer": 9}, "outside the stack"),
        ({"recover": "cubic"}, "recover='cubic'"),
    ],
)
def test_an_hourglass_that_does_not_fit_is_refused(options: dict[str, Any], message: str) -> None:
    with pytest.raises(StackError, match=message):
        create_lifter("hot_mixste", **(SMALL["mixste"] | options))


@pytest.mark.parametrize("name", SMALL)
@pytest.mark.parametrize("mode", ["seq2seq", "seq2frame"])
def test_cycles_after_the_prune_point_against_an_unrolled_loop(name: str, mode: str) -> None:
    options: dict[str, Any] = {"layer": 1, "keep": 6, "mode": mode, "recover": mode == "seq2seq"}
    model = drawn(create_lifter(name, **SMALL[name], **options, cycles=3, distill=None)).eval()
    assert model.cyclic.stack.path == f"levels[1:{len(model.levels)}]"
    poses = clips(model)
    with torch.no_grad():
        evaluated = model(poses)
        index = model.hourglass.index
        assert index.shape == (2, 6)
        assert mode == "seq2seq" or (index == 8).any(1).all()  # the centre of 18 frames
        torch.testing.assert_close(evaluated, by_hand(model, poses, 1, index, 1)[0])
        model.cyclic.exit = 2
        torch.testing.assert_close(model(poses), by_hand(model, poses, 1, index, 2)[1])
    out = fixed_training(model)(poses)
    assert torch.equal(model.hourglass.index, index)
    want = by_hand(model, poses, 1, index, 3)
    for got, each in zip(out.outputs, want, strict=True):
        torch.testing.assert_close(got, each)
    assert [each.shape[1] for each in out.tokens] == [6, 6, 6]
    gradients(model, sum(each.square().mean() for each in out.outputs), sum(each.square().mean() for each in want))


def gradients(model: Lifter, loss: Any, oracle: Any) -> None:
    """Both losses have the same gradient with respect to every weight; that of a bias of keys is 0 but for rounding."""
    parameters = dict(model.named_parameters())
    got = torch.autograd.grad(loss, list(parameters.values()), allow_unused=True, retain_graph=True)
    want = torch.autograd.grad(oracle, list(parameters.values()), allow_unused=True)
    largest = max(float(each.abs().max()) for each in want if each is not None)
    for name, one, other in zip(parameters, got, want, strict=True):
        if one is None or other is None:
            assert one is other, name
        else:
            torch.testing.assert_close(one, other, rtol=1e-3, atol=1e-5 * largest, msg=name)


@pytest.mark.parametrize("name", SMALL)
def test_frames_are_chosen_by_what_the_network_declares(name: str) -> None:
    options: dict[str, Any] = {"layer": 1, "keep": 6, "recover": False, "mode": "seq2seq"}  # no centre is forced
    model = drawn(create_lifter(name, **SMALL[name], **options)).eval()
    seen = []
    handle = model.levels[0].register_forward_hook(lambda _, args, out: seen.append(out))
    poses = clips(model)
    with torch.no_grad():
        model(poses)
    handle.remove()
    tokens = seen[0]
    pooled = tokens.flatten(2) if name == "mhformer" else tokens.mean(2)
    assert torch.equal(model.hourglass.index, tpc(pooled, 6))
    other = pool_frames(tokens, "mean" if name == "mhformer" else "concat")
    assert name == "frame_lifter" or not torch.equal(model.hourglass.index, tpc(other, 6))


@pytest.mark.parametrize("name", SMALL)
def test_frames_that_receive_attention_are_kept(name: str) -> None:
    model = drawn(create_lifter(name, **SMALL[name])).eval()
    wrap_hourglass(model, layer=2, keep=6, select="attention", recover="linear")
    poses = clips(model)
    with torch.no_grad():
        assert model(poses).shape == (2, 18, 17, 3)
    # By hand: all attention over frames of the block before.
    received: Any = torch.zeros(2, 18)

    def note(module: Any, args: Any, qkv: torch.Tensor) -> None:
        nonlocal received
        queries, keys, _ = qkv.transpose(1, 2).unflatten(-1, (3, module.heads_by_hand, -1)).unbind(3)
        weights = torch.einsum("bnqhd,bnkhd->bnhqk", queries, keys) / queries.shape[-1] ** 0.5
        received = received + weights.softmax(-1).sum((1, 2, 3))

    for module in model.levels[1].modules():
        if getattr(module, "axis", None) == 1 and hasattr(module, "qkv"):
            module.qkv.heads_by_hand = module.num_heads
            module.qkv.register_forward_hook(note)
    with torch.no_grad():
        model(poses)
    assert torch.equal(model.hourglass.index, received.topk(6).indices.sort().values)


@pytest.mark.parametrize("name", SMALL)
@pytest.mark.parametrize("order", ["cycles first", "hourglass first"])
def test_both_orders_of_wrapping_and_unwrapping(name: str, order: str) -> None:
    plain = drawn(create_lifter(name, **SMALL[name])).eval()
    keys, poses = list(plain.state_dict()), clips(plain)
    with torch.no_grad():
        want = plain(poses)
    blocks = f"levels[1:{len(plain.levels)}]"
    if order == "cycles first":
        wrap_cyclic(plain, 2, blocks=blocks)
        wrap_hourglass(plain, layer=1, keep=6)
    else:
        wrap_hourglass(plain, layer=1, keep=6)
        wrap_cyclic(plain, 2)
    assert plain.cyclic.stack.path == blocks
    assert plain.train()(poses).tokens[0].shape[1] == 6
    for unwrap in (unwrap_hourglass, unwrap_cyclic) if order == "cycles first" else (unwrap_cyclic, unwrap_hourglass):
        unwrap(plain)
    assert list(plain.state_dict()) == keys
    restored = create_lifter(name, **SMALL[name]).eval()
    restored.load_state_dict(plain.state_dict())
    with torch.no_grad():
        if name != "mhformer":  # its BatchNorm has seen a batch in training
            assert torch.equal(plain.eval()(poses), want)
        assert torch.equal(plain.eval()(poses), restored(poses))


def test_cycles_across_the_prune_point_are_refused_with_calls_that_work() -> None:
    model = create_lifter("hot_mixste", **SMALL["mixste"])
    with pytest.raises(StackError, match=r"levels\[0:3\].*levels\[3:5\]"):
        wrap_cyclic(model, 2, blocks="levels")
    wrap_cyclic(model, 2, blocks="levels[3:5]")


def test_cycles_before_the_prune_point_share_the_first_cycles_choice() -> None:
    model = drawn(create_lifter("hot_mixste", **SMALL["mixste"], recover="linear")).eval()
    wrap_cyclic(model, 2, "exits", blocks="levels[0:3]")
    poses = clips(model)
    with torch.no_grad():
        one = model(poses)
        index = model.hourglass.index
    out = fixed_training(model)(poses)
    torch.testing.assert_close(out[0], one)
    assert torch.equal(model.hourglass.index, index)
    assert out.tokens[1].shape[1] == 18


@pytest.mark.parametrize("name", SMALL)
def test_keeping_every_frame_is_the_network(name: str) -> None:
    model = drawn(create_lifter(name, **SMALL[name])).eval()
    poses = clips(model)
    with torch.no_grad():
        want = model(poses)
        wrap_hourglass(model, layer=1, keep=18, recover=False)
        assert torch.equal(model(poses), want)


def test_two_prune_points() -> None:
    model = drawn(create_lifter("hot_mixste", **SMALL["mixste"], layer=(1, 3), keep=(9, 4))).eval()
    with torch.no_grad():
        assert model(clips(model)).shape == (2, 18, 17, 3)
    first, second = model.hourglass.index
    assert (first.shape, second.shape) == ((2, 9), (2, 4))
    with pytest.raises(ValueError, match=r"prune\.1\.pos: the official files have no such weight"):
        to_official(model.state_dict(), model)


def test_normalised_tokens_can_be_distilled_through_the_hourglass() -> None:
    scheme = Distill(token_weight=1.0, normalize=True, detach=True)
    model = create_lifter("hot_motionbert", **(SMALL["motionbert"] | {"cycles": 2, "distill": scheme})).train()
    out = model(clips(model))
    (out.outputs[1].square().mean() + sum(out.losses.values())).backward()
    assert model.recover.query.grad.abs().sum() > 0


def test_files_of_another_clip_length_are_refused_or_resized() -> None:
    source = drawn(create_lifter("hot_mixste", **(SMALL["mixste"] | {"frames": 36})))
    model = create_lifter("hot_mixste", **SMALL["mixste"])
    theirs = to_official(source.state_dict(), source)
    with pytest.raises(CheckpointError) as refusal:
        from_official(theirs, model)
    for told in ("Temporal_pos_embed of 36", "pos_embed_token of 12 entries, expected 6", "x_token of 36"):
        assert told in str(refusal.value)
    ours = from_official(theirs, model, resize=True)
    assert (ours["prune.0.pos"].shape[1], ours["recover.query"].shape[1]) == (6, 18)
    model.load_state_dict(ours)


def test_a_file_with_an_hourglass_needs_a_model_with_one() -> None:
    source = create_lifter("hot_mixste", **SMALL["mixste"])
    theirs = to_official(source.state_dict(), source)
    with pytest.raises(CheckpointError, match="10 unknown: pos_embed_token, x_token, cross_attention"):
        from_official(theirs, create_lifter("mixste", **SMALL["mixste"]))
    with pytest.raises(CheckpointError, match=r"10 missing: pos_embed_token"):
        plain = create_lifter("mixste", **SMALL["mixste"])
        from_official(to_official(plain.state_dict(), plain), source)


@pytest.mark.parametrize("lengths", ["shorter", "any"])
def test_clips_of_another_length_go_through_the_hourglass(lengths: str) -> None:
    model = drawn(create_lifter("hot_mixste", **SMALL["mixste"], lengths=lengths)).eval()
    with torch.no_grad():
        assert model(torch.randn(2, 12, 17, 2)).shape == (2, 12, 17, 3)
    assert model.hourglass.index.shape == (2, 4)
