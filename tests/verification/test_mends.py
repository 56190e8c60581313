"""The library's own mends taken out: verify finds what they mend; with them a model is proved, or refused."""

from __future__ import annotations

import functools
import logging
from collections.abc import Callable
from contextlib import nullcontext
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.nn.modules.module import register_module_forward_hook
from torch.utils.checkpoint import checkpoint

pytest.importorskip("timm")

from cycledistill import StackError, Verification, verify, wrap_cyclic, wrap_hourglass, wrap_pruning
from cycledistill.cycle.handle import Cyclic
from cycledistill.cycle.modules import Recorder
from cycledistill.hourglass.settings import TokenAxis
from cycledistill.stack.links import links_between
from cycledistill.verification.table import NotChecked
from tests import toys
from tests.hourglass.models import WIDTH, FrameModel, build, poses
from tests.prune.oracle import images, vit
from tests.verification.results import failed, row

Check = Callable[..., Verification]
Patch = pytest.MonkeyPatch
both = pytest.mark.parametrize("mended", [True, False], ids=["mended", "mend taken out"])


def tokens() -> Tensor:
    return torch.randn(3, 7, toys.FEATURES)


@pytest.fixture
def no_compiler(monkeypatch: Patch) -> None:
    """Without the row that takes most of the time."""

    def leave(*_: Any) -> Any:
        raise NotChecked("not in this test", optional=True)

    monkeypatch.setattr("cycledistill.verification.claims.check_compiled", leave)


# 1. Trials act on nothing outside: copies carry no hooks.


def let_copies_carry_hooks(monkeypatch: Patch) -> None:
    monkeypatch.setattr("cycledistill.stack.copies.hook_tables", lambda module: ())
    monkeypatch.setattr("cycledistill.stack.copies.clear_hooks", lambda module: None)


def let_copies_carry_backward_hooks(monkeypatch: Patch) -> None:
    def forward_alone(module: nn.Module) -> None:
        for name in ("_forward_hooks", "_forward_pre_hooks"):
            vars(module)[name] = type(vars(module)[name])()

    monkeypatch.setattr("cycledistill.stack.copies.hook_tables", lambda module: ())
    monkeypatch.setattr("cycledistill.stack.copies.clear_hooks", forward_alone)


def let_trials_run_hooks_on_all_modules(monkeypatch: Patch) -> None:
    monkeypatch.setattr("cycledistill.stack.copies.without_global_hooks", nullcontext)


WRAPPED: dict[str, tuple[Callable[[], Any], Callable[[], Tensor]]] = {
    "cyclic": (lambda: wrap_cyclic(vit(depth=2), distill=None), images),
    "pruning": (lambda: wrap_pruning(vit(depth=2), (1,), 0.6), images),
    "hourglass": (lambda: wrap_hourglass(build(FrameModel), layer=2, keep=5), poses),
}
"""The last declares no size: its trial runs what verify was given."""


@pytest.mark.slow
@pytest.mark.parametrize("kind", WRAPPED)
@pytest.mark.parametrize(
    ("take_out", "words"),
    [
        (None, ""),
        (let_copies_carry_hooks, "wrapping runs the model's hooks"),
        (let_copies_carry_backward_hooks, "hooks on its modules make wrap_cyclic refuse this model"),
        (let_trials_run_hooks_on_all_modules, "first on all modules"),
    ],
    ids=["mended", "hooks", "backward hooks", "hooks on all modules"],
)
@pytest.mark.usefixtures("no_compiler")
def test_trials_run_no_hook(monkeypatch: Patch, kind: str, take_out: Any, words: str) -> None:
    make, given = WRAPPED[kind]
    model = make()
    if take_out is not None:
        take_out(monkeypatch)
    found = row(verify(model, given()), "wrapping runs no hook")
    if take_out is let_copies_carry_backward_hooks and kind != "cyclic":
        return  # a trial of a verb that looks at shapes alone
    assert found.result == ("ok" if take_out is None else "FAILED") and words in found.detail, found


@both
@pytest.mark.slow
@pytest.mark.parametrize("where", ["a block", "all modules"])
def test_a_running_maximum_sees_no_trial(check: Check, monkeypatch: Patch, mended: bool, where: str) -> None:
    if not mended:
        let_copies_carry_hooks(monkeypatch)
        let_trials_run_hooks_on_all_modules(monkeypatch)
    model, seen = vit(depth=2), {"maximum": torch.zeros((), dtype=torch.float64)}

    def keep(module: nn.Module, args: Any, output: Any) -> None:
        if isinstance(output, Tensor):
            seen["maximum"] = torch.maximum(seen["maximum"], output.detach().max())

    register = model.blocks[1].register_forward_hook if where == "a block" else register_module_forward_hook
    handle = register(keep)
    try:
        result = check(wrap_cyclic(model, distill=None), images())
    finally:
        handle.remove()
    claim = "hooks hold no tensor of a trial"
    assert (claim in failed(result)) is not mended, result
    assert result.ok is mended, result
    assert seen["maximum"].is_meta is not mended
    assert mended or "a hook on " + where.replace("a block", "blocks.1") in row(result, claim).detail


# 2. What a trial did not run is unknown.


class WordBlock(toys.Block):
    """A kind of its own: two runs of one kind are always told apart by name."""


class TwoTowers(nn.Module):
    """Pictures run one tower, and are what a trial guesses; words run the other."""

    img_size = 32

    def __init__(self) -> None:
        super().__init__()
        self.vision, self.text = vit(), toys.ToyViT(block=WordBlock).double()

    def forward(self, x: Tensor | None = None, words: Tensor | None = None) -> Tensor:
        return self.text(words) if x is None else self.vision(x)


def test_a_tower_is_not_taken_silently(check: Check, monkeypatch: Patch) -> None:
    given = {"words": tokens().double()}
    with pytest.raises(StackError, match="has 2 towers"):
        wrap_cyclic(TwoTowers())
    meant = check(wrap_cyclic(TwoTowers(), distill=None, inputs=given), given)
    assert meant.ok and "text.blocks x3" in meant.model
    of_a_plain_model = check(TwoTowers(), given)
    assert of_a_plain_model.ok and "text.blocks x3" in of_a_plain_model.model
    monkeypatch.setattr("cycledistill.stack.choose._is_another_tower", lambda *_: False)
    other = check(wrap_cyclic(TwoTowers(), distill=None), given)
    assert "vision.blocks x4" in other.model
    assert not other.ok and "what matters gets gradients" in failed(other), other
    assert "no block of the stack runs with these inputs" in row(other, "exit 2").detail


@pytest.mark.slow
def test_a_tower_that_no_guess_reaches_is_proved_with_inputs(check: Check) -> None:
    pytest.importorskip("transformers")
    from tests.stack.test_towers import VISION, llava, question

    result = check(wrap_cyclic(llava(), distill=None, blocks=VISION), question())
    assert result.ok and row(result, "exit 2").oracle == "its blocks called by hand", result
    with pytest.raises(StackError, match="has 2 towers"):
        check(llava(), question())


class Apart(toys.ToyViT):
    """Adds something between its blocks, and declares no size: no trial sees it."""

    def forward_features(self, x: Tensor) -> Tensor:
        x = self.embed(x)
        for block in self.blocks:
            x = block(x) + 0.5
        return self.norm(x)


@both
def test_what_no_trial_saw_is_looked_at_in_the_first_forward(check: Check, monkeypatch: Patch, mended: bool) -> None:
    if not mended:

        def by_position(path: str, index: int, outputs: list[Any], inputs: list[Any]) -> Any:
            return links_between(outputs, inputs) or [(0, 0)]

        monkeypatch.setattr("cycledistill.cycle.recording.links_into", by_position)
        monkeypatch.setattr("cycledistill.cycle.recording.check_arguments", lambda *_: None)
    model = wrap_cyclic(Apart(), distill=None, blocks="blocks").train()
    if mended:
        with pytest.raises(StackError, match="block 1 does not receive the output of block 0"):
            model(tokens())
        return
    assert len(model(tokens())) == 2
    result = check(model, tokens())
    assert {"eval at exit 2", "training, outputs", "training, gradients"} <= failed(result), result
    assert "between two blocks the model makes a new tensor" in row(result, "exit 2").detail


# 3. What another tool puts around a child of a block.


class Adapter(nn.Module):
    """A low-rank term beside a linear layer, as PEFT puts it there."""

    def __init__(self, layer: nn.Linear) -> None:
        super().__init__()
        self.base_layer = layer
        self.down, self.up = nn.Linear(layer.in_features, 2), nn.Linear(2, layer.out_features)
        nn.init.zeros_(self.up.weight)  # which hides the fault until it is trained
        nn.init.zeros_(self.up.bias)

    def forward(self, x: Tensor) -> Tensor:
        return self.base_layer(x) + 20 * self.up(self.down(x))


def adapt_by_hand(model: Any) -> Any:
    for block in model.blocks:
        block.attn.qkv = Adapter(block.attn.qkv).double()
    return model


def adapt_by_peft(model: Any, **settings: Any) -> Any:
    peft = pytest.importorskip("peft")
    return peft.get_peft_model(model, peft.LoraConfig(**settings)).double()


ADAPTED: dict[str, tuple[Callable[[Any], Any], str]] = {
    "by hand": (adapt_by_hand, "pruning keeps the most attended"),
    "lora": (
        functools.partial(adapt_by_peft, target_modules=["qkv"], r=2, lora_alpha=64),
        "pruning keeps the most attended",
    ),
    "a copy of the MLP": (
        functools.partial(adapt_by_peft, target_modules=["proj"], modules_to_save=["mlp"]),
        "pruned, eval at one cycle",
    ),
}


@both
@pytest.mark.slow
@pytest.mark.parametrize("kind", ADAPTED)
def test_scores_are_of_the_attention_that_is_computed(
    check: Check, monkeypatch: Patch, kind: str, mended: bool
) -> None:
    if not mended:
        monkeypatch.setattr("cycledistill.prune.modules.are_known", lambda *_: True)
    adapt, claim = ADAPTED[kind]
    result = check(adapt(wrap_pruning(vit(depth=3), (1, 2), 0.6)), images())
    found = row(result, claim)
    assert found.result == ("ok" if mended else "FAILED") and result.ok is mended, result
    if not mended and claim == "pruning keeps the most attended":
        assert "keep other tokens than their attention says" in found.detail


# 4. Blocks are told by what they hold themselves.


class Speaker(nn.Module):
    """Stands in front of a block, and answers for it when it is asked for an attribute."""

    def __init__(self, inner: nn.Module) -> None:
        super().__init__()
        self.inner = inner

    def __getattr__(self, name: str) -> Any:
        try:
            return super().__getattr__(name)
        except AttributeError:
            return getattr(self._modules["inner"], name)

    def forward(self, *args: Any) -> Tensor:
        return self.inner(*args) * 1.1


@both
@pytest.mark.parametrize("number", [0, 2, 3])
def test_a_wrapper_that_speaks_for_a_block(check: Check, monkeypatch: Patch, number: int, mended: bool) -> None:
    model = wrap_cyclic(toys.ToyViT(4), 2, None, blocks="blocks")
    model.blocks[number] = Speaker(model.blocks[number])
    if mended:
        with pytest.raises(StackError, match="the blocks are not those that were wrapped"):
            model(tokens())
        return
    monkeypatch.setattr(Cyclic, "check_unedited", lambda *_: None)
    result = check(model, tokens())
    assert {"blocks are those that were wrapped", "eval at exit 2", "training, outputs"} <= failed(result)
    if number == 3:  # no other block takes what it returns, so nothing refuses
        difference = row(result, "exit 2").difference
        assert difference is not None and difference > 1e-3


@both
@pytest.mark.slow
@pytest.mark.parametrize("number", [0, 1, 2])
def test_a_wrapper_that_speaks_for_a_pruned_block(check: Check, monkeypatch: Patch, number: int, mended: bool) -> None:
    model: Any = wrap_pruning(vit(depth=3), (1,), 0.6)
    model.blocks[number] = Speaker(model.blocks[number])
    if mended:
        with pytest.raises(StackError, match="the blocks are not those that were pruned"):
            model(images())
        return
    monkeypatch.setattr("cycledistill.prune.modules._check_unedited", lambda *_: None)
    assert "blocks are those that were wrapped" in failed(check(model, images()))


# 6. What trains nothing.


def checkpoint_parts(model: Any, reentrant: bool) -> Any:
    """Checkpoint what each block runs, as timm and transformers do from inside."""
    for block in model.blocks:
        block.forward = functools.partial(checkpoint, block.forward, use_reentrant=reentrant)
    return model


def frozen_in_front(reentrant: bool) -> Any:
    model = toys.ToyViT()
    model.embed.requires_grad_(False)
    model.cls_token.requires_grad_(False)
    return wrap_cyclic(checkpoint_parts(model, reentrant), 2, None, blocks="blocks").train()


@both
@pytest.mark.slow
@pytest.mark.filterwarnings("ignore:None of the inputs have requires_grad:UserWarning")
def test_blocks_that_get_no_gradients(
    check: Check, monkeypatch: Patch, caplog: pytest.LogCaptureFixture, mended: bool
) -> None:
    if not mended:
        monkeypatch.setattr(Recorder, "tell_of_untrained", lambda *_: None)
    model = frozen_in_front(True)
    with caplog.at_level(logging.WARNING):
        model(tokens())
    assert ("are not trained, with cycles or without" in caplog.text) is mended
    result = check(model, tokens())
    assert "what matters gets gradients" in failed(result)
    assert "36 of 40 tensors that ask for gradients get none, as blocks.0" in str(result)
    as_advised = check(frozen_in_front(False), tokens())
    assert as_advised.ok, as_advised


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore:None of the inputs have requires_grad:UserWarning")
@pytest.mark.parametrize("reentrant", [True, False])
def test_lora_with_checkpointing_and_frozen_embeddings(check: Check, reentrant: bool) -> None:
    adapted = adapt_by_peft(vit(depth=2), target_modules=["qkv"], r=2, modules_to_save=["head"])
    checkpoint_parts(adapted.base_model.model, reentrant)
    result = check(wrap_cyclic(adapted, distill=None, blocks="base_model.model.blocks"), images())
    assert ("what matters gets gradients" in failed(result)) is reentrant, result
    assert result.ok is not reentrant, result


@both
@pytest.mark.slow
def test_a_part_that_was_unloaded(
    check: Check, monkeypatch: Patch, caplog: pytest.LogCaptureFixture, mended: bool
) -> None:
    if not mended:
        monkeypatch.setattr(Recorder, "tell_of_part", lambda *_: None)
    adapted = adapt_by_peft(vit(depth=2), target_modules=["qkv"], r=2)
    part = wrap_cyclic(adapted, distill=None, blocks="base_model.model.blocks").unload().train()
    with caplog.at_level(logging.WARNING):
        assert isinstance(part(images()), Tensor)
    assert ("is a part of the model that wrap_cyclic was given" in caplog.text) is mended
    result = check(part, images())
    assert not result.ok and "it trains one cycle alone" in row(result, "handle").detail


# 9. Tokens that are no frames.


class ClassToken(FrameModel):
    """One learned token in front of the frames, which it declares by its name."""

    def __init__(self) -> None:
        super().__init__()
        self.cls_token = nn.Parameter(torch.randn(1, 1, WIDTH))

    def embed(self, poses: Tensor) -> Tensor:
        x = super().embed(poses)
        return torch.cat((self.cls_token.expand(len(x), -1, -1), x), 1)


class FirstAlone(ClassToken):
    """Answers with the class token, as a classifier does."""

    def finish(self, x: Tensor) -> Tensor:
        return self.head(self.norm(x)[:, 0])


class SpaceTime(FrameModel):
    """A token for each joint of each frame, on one axis."""

    def __init__(self) -> None:
        super().__init__()
        self.joint = nn.Linear(2, WIDTH)

    def embed(self, poses: Tensor) -> Tensor:
        return self.joint(poses).flatten(1, 2)


def let_all_tokens_be_frames(monkeypatch: Patch) -> None:
    monkeypatch.setattr("cycledistill.hourglass.checks.declared_prefix", lambda model: 0)
    monkeypatch.setattr(TokenAxis, "check", lambda *_, **__: None)


@both
@pytest.mark.parametrize(
    ("kind", "recover"), [(ClassToken, True), (ClassToken, "linear"), (ClassToken, "nearest"), (FirstAlone, False)]
)
def test_a_class_token_is_no_frame(check: Check, monkeypatch: Patch, kind: Any, recover: Any, mended: bool) -> None:
    if not mended:
        let_all_tokens_be_frames(monkeypatch)
    frames = {} if mended or recover is not True else {"frames": 13}
    result = check(wrap_hourglass(build(kind), layer=(1, 2), keep=(8, 5), recover=recover, **frames), poses())
    found = row(result, "counts frames")
    if mended:
        assert result.ok and found.detail == "8 of 12 frames kept, 1 in front", result
    else:
        assert found.result == "FAILED" and "begin with 1 that do not depend on the input, and 0 are" in found.detail


@pytest.mark.slow
def test_a_class_token_beside_cycles(check: Check) -> None:
    model = wrap_cyclic(wrap_hourglass(build(ClassToken), layer=2, keep=5, recover="linear"), 2, None)
    result = check(model, poses())
    assert result.ok, result


def test_a_token_in_front_that_is_dropped_all_the_same(check: Check, monkeypatch: Patch) -> None:
    from cycledistill.hourglass import frames

    monkeypatch.setattr(frames, "with_front", lambda front, kept: torch.cat((kept[:, :1], kept), 1))
    result = check(wrap_hourglass(build(FirstAlone), layer=2, keep=5, recover=False), poses())
    assert {"the hourglass counts frames", "hourglass, eval at one cycle"} <= failed(result), result
    assert "the tokens in front" in row(result, "counts frames").detail


def test_a_frame_that_is_set_aside(check: Check) -> None:
    result = check(wrap_hourglass(build(FrameModel), layer=2, keep=5, recover=False, prefix=1), poses())
    assert "holds 11 tokens, and 1 in front, and the clip has 12 frames" in row(result, "counts frames").detail


def videomae() -> tuple[nn.Module, dict[str, Any]]:
    transformers = pytest.importorskip("transformers")
    sizes = {"hidden_size": 16, "intermediate_size": 32, "num_attention_heads": 2, "num_hidden_layers": 3}
    config = transformers.VideoMAEConfig(num_frames=8, tubelet_size=2, patch_size=16, image_size=32, **sizes)
    torch.manual_seed(0)
    return transformers.VideoMAEModel(config).eval(), {"blocks": "encoder.layer"}


NO_FRAMES: dict[str, tuple[Callable[[], tuple[nn.Module, dict[str, Any]]], Callable[[], Tensor]]] = {
    "joints": (lambda: (build(SpaceTime), {}), poses),
    "patches": (lambda: (vit(depth=3), {"blocks": "blocks"}), images),
    "patches of a video": (videomae, lambda: torch.randn(2, 8, 3, 32, 32)),
}


@both
@pytest.mark.slow
@pytest.mark.parametrize("kind", NO_FRAMES)
def test_tokens_that_are_no_frames(check: Check, monkeypatch: Patch, kind: str, mended: bool) -> None:
    make, given = NO_FRAMES[kind]
    model, where = make()
    if mended:
        with pytest.raises(StackError, match=r"receives \d+ tokens"):
            wrap_hourglass(model, layer=1, keep=3, recover=False, **where)(given())
        return
    monkeypatch.setattr(TokenAxis, "check", lambda *_, **__: None)
    result = check(wrap_hourglass(model, layer=1, keep=3, recover=False, **where), given())
    found = row(result, "counts frames")
    assert found.result == "FAILED" and "frames: they are no frames" in found.detail, result


@pytest.mark.slow
def test_a_video_in_the_advised_layout(check: Check) -> None:
    model, where = videomae()
    layout = (lambda x: x.unflatten(1, (-1, 4)), lambda x: x.flatten(1, 2))
    clip = torch.randn(2, 8, 3, 32, 32)
    wrapped = wrap_hourglass(model, layer=1, keep=2, recover=False, layout=layout, **where)
    assert row(check(wrapped, clip), "counts frames").detail == "2 of 4 frames kept"
