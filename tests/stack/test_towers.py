"""What a trial did not run is unknown, and not wrong: models of several towers, and inputs that users give."""

from __future__ import annotations

import copy
import logging
import re
from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor, nn

pytest.importorskip("timm")

from cycledistill import CycleOutput, StackError, wrap_cyclic, wrap_hourglass, wrap_pruning
from cycledistill.cost import cost
from cycledistill.stack import choose_stack, find_stacks
from tests import toys
from tests.oracle import assert_same_gradients, gradients
from tests.prune.oracle import vit
from tests.verification.results import verified

transformers = pytest.importorskip("transformers")

VISION, TEXT = "model.vision_tower.encoder.layers", "model.language_model.layers"
SIZES = {"num_attention_heads": 2, "num_hidden_layers": 3}


def llava(vision: int = 3, text: int = 3) -> Any:
    torch.manual_seed(0)
    tower = transformers.CLIPVisionConfig(
        hidden_size=16,
        intermediate_size=32,
        image_size=16,
        patch_size=8,
        num_attention_heads=2,
        num_hidden_layers=vision,
    )
    language = transformers.LlamaConfig(
        hidden_size=24,
        intermediate_size=48,
        vocab_size=50,
        num_attention_heads=2,
        num_key_value_heads=2,
        num_hidden_layers=text,
        pad_token_id=0,
    )
    config = transformers.LlavaConfig(
        vision_config=tower,
        text_config=language,
        image_token_id=49,
        vision_feature_select_strategy="full",
        vision_feature_layer=-1,
    )
    return transformers.LlavaForConditionalGeneration(config).train()


def twice_as_deep(model: Any, path: str) -> Any:
    """The model with the layers of one tower listed twice, as its own configuration builds it."""
    deep = llava(**{"vision" if path == VISION else "text": 6})
    state = model.state_dict()
    names = {
        name: re.sub(rf"({re.escape(path)})\.([345])\.", lambda m: f"{m[1]}.{int(m[2]) - 3}.", name)
        for name in deep.state_dict()
    }
    deep.load_state_dict({name: state[known] for name, known in names.items()})
    return deep, names


def clip() -> Any:
    torch.manual_seed(0)
    small = {"hidden_size": 16, "intermediate_size": 32, **SIZES}
    text = {**small, "vocab_size": 50, "bos_token_id": 1, "eos_token_id": 2, "pad_token_id": 0}
    config = transformers.CLIPConfig(vision_config={**small, "image_size": 16, "patch_size": 8}, text_config=text)
    return transformers.CLIPModel(config)


def question() -> dict[str, Tensor]:
    """Two pictures, and texts in which each takes the place of five tokens."""
    ids = torch.cat((torch.full((2, 5), 49), torch.tensor([[3, 4, 5], [6, 7, 8]])), dim=1)
    return {"input_ids": ids, "pixel_values": torch.randn(2, 3, 16, 16), "labels": ids, "use_cache": False}


def test_towers_that_may_be_meant_are_named() -> None:
    expected = rf"LlavaFor\w+ has 2 towers.*guessed do not reach {re.escape(VISION)}\).*inputs=\.\.\.\)"
    with pytest.raises(StackError, match=expected) as refusal:
        wrap_cyclic(llava())
    assert f'wrap_cyclic(model, blocks="{TEXT}")' in str(refusal.value) and f'blocks="{VISION}"' in str(refusal.value)
    with pytest.raises(StackError, match="no single stack to take") as both:
        wrap_cyclic(clip())
    assert all(f'blocks="{tower}_model.encoder.layers": 3 x CLIP' in str(both.value) for tower in ("text", "vision"))


@pytest.mark.parametrize("path", [VISION, TEXT])
def test_a_tower_that_the_trial_did_not_run_is_verified_in_the_first_training_forward(path: str) -> None:
    model, given = llava(), question()
    deep, names = twice_as_deep(model, path)
    out = wrap_cyclic(model, distill=None, blocks=path)(**given)
    expected = deep(**given)
    torch.testing.assert_close(out[1].logits, expected.logits)
    out[1].loss.backward()
    expected.loss.backward()
    summed: dict[str, Tensor] = {}
    for name, gradient in gradients(deep).items():
        if gradient is not None:
            summed[names[name]] = summed.get(names[name], 0) + gradient
    got = {name: gradient for name, gradient in gradients(model).items() if gradient is not None}
    assert_same_gradients(got, summed, rtol=1e-4)


def test_the_first_training_forward_refuses_a_tower_that_it_does_not_run() -> None:
    model = wrap_cyclic(llava(), blocks=VISION)
    with pytest.raises(StackError, match="entered 0 of 3 blocks"):
        model(input_ids=torch.tensor([[3, 4, 5]]))


class ClipBlock(toys.Block):
    """Of another class than the blocks of the image tower."""


class Towers(nn.Module):
    """Two towers of other classes, a large and a small one; ``images`` runs one of them, ``clips`` the other."""

    image_size = 32

    def __init__(self) -> None:
        super().__init__()
        self.image, self.clip = vit(depth=6), toys.ToyViT(4, block=ClipBlock).double()

    def forward(self, images: Tensor | None = None, clips: Tensor | None = None) -> Tensor:
        made = [] if images is None else [self.image(images).sum()]
        return sum(made + ([] if clips is None else [self.clip(clips).sum()]))


IMAGES, CLIPS = torch.randn(2, 3, 32, 32, dtype=torch.float64), torch.randn(2, 4, toys.FEATURES, dtype=torch.float64)
GIVEN = {
    "a tensor": (IMAGES, "image.blocks"),
    "a tuple": ((IMAGES,), "image.blocks"),
    "keywords": ({"clips": CLIPS}, "clip.blocks"),
    "positions": ((None, CLIPS), "clip.blocks"),
}
each_given = pytest.mark.parametrize(("given", "path"), GIVEN.values(), ids=GIVEN)


@each_given
def test_inputs_say_which_tower_is_meant(given: Any, path: str) -> None:
    with pytest.raises(StackError, match=r"Towers has 2 towers.*\(the inputs that were guessed do not reach clip\."):
        choose_stack(Towers())
    assert choose_stack(Towers(), inputs=given).path == path
    assert [stack.path for stack in find_stacks(Towers(), given)] == [path]
    assert wrap_cyclic(Towers(), inputs=given).cyclic.stack.path == path
    assert cost(Towers(), given, cycles=1).stack.path == path


def test_pruning_and_hourglass_take_inputs_too() -> None:
    assert wrap_pruning(Towers(), (1,), query=slice(0, 1), inputs=IMAGES).pruning.stack.path == "image.blocks"
    with pytest.raises(StackError, match=r"has no norm1|has no"):
        wrap_pruning(Towers(), (1,), inputs={"clips": CLIPS}, query=slice(0, 1))
    settings = {"layer": 1, "keep": 3, "recover": False, "blocks": "auto"}
    assert wrap_hourglass(Towers(), inputs={"clips": CLIPS}, **settings).hourglass.stack.path == "clip.blocks"


VERBS: dict[str, Callable[..., Any]] = {
    "wrap_cyclic": wrap_cyclic,
    "wrap_pruning": lambda model, **more: wrap_pruning(model, (1,), **more),
    "wrap_hourglass": lambda model, **more: wrap_hourglass(
        model, **{"layer": 1, "keep": 3, "recover": False, "blocks": "auto", **more}
    ),
}


@pytest.mark.parametrize("verb", VERBS.values(), ids=VERBS)
@pytest.mark.parametrize(
    ("given", "pattern"),
    [
        (
            {"image": IMAGES},
            r"forward of this Towers takes \(images, clips\), and cannot be called.*'image'.*mapping",
        ),
        ((IMAGES, CLIPS, IMAGES), r"too many positional.*Give a tensor, a tuple of arguments, or a mapping"),
        ("photo.jpg", "inputs=str without a tensor: what the model is called with is expected"),
        ((), "inputs=tuple without a tensor"),
        ([torch.zeros(1)], "a list is none of the kinds that are taken.*Give a tuple"),
    ],
    ids=["name", "number", "no tensor", "nothing", "a list"],
)
def test_inputs_that_the_model_does_not_take_are_refused(verb: Any, given: Any, pattern: str) -> None:
    with pytest.raises(StackError, match=pattern):
        verb(Towers(), inputs=given)


def test_blocks_that_the_given_inputs_do_not_run_are_refused() -> None:
    with pytest.raises(StackError, match=r'blocks="clip\.blocks": the inputs that were given run none of these blocks'):
        wrap_cyclic(Towers(), blocks="clip.blocks", inputs=IMAGES)
    assert wrap_cyclic(Towers(), blocks="clip.blocks").cyclic.stack.shape is None  # the advice: leave them out


@pytest.mark.parametrize("verb", VERBS.values(), ids=VERBS)
@pytest.mark.parametrize(
    ("given", "reason"),
    [
        (torch.zeros(2, 3, 40, 40, dtype=torch.float64), r"2 x 3 x 40 x 40 float64 \(AssertionError: Input height"),
        ({"clips": torch.zeros(2, 4, 5, dtype=torch.float64)}, r"clips 2 x 4 x 5 float64 \(RuntimeError: "),
    ],
    ids=["pictures", "clips"],
)
def test_inputs_of_wrong_sizes_are_refused_where_the_right_ones_are_known(verb: Any, given: Any, reason: str) -> None:
    said = rf"inputs: this Towers does not run with {reason}.*, and does with 1 x 3 x 32 x 32 float64\. Give what"
    with pytest.raises(StackError, match=f"(?s){said}"):
        verb(Towers(), inputs=given)


def test_inputs_that_do_not_run_where_nothing_tells_of_which_size_are_told_of(caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.WARNING):
        model = wrap_cyclic(toys.ToyViT(), distill=None, inputs=torch.zeros(2, 7, 5))
    said = r"given for ToyViT \(2 x 7 x 5\) do not run on a copy of it without data \(RuntimeError: .*structure alone"
    assert re.search(said, caplog.text)
    assert model.cyclic.stack.path == "blocks" and len(model.train()(torch.randn(2, 7, toys.FEATURES))) == 2


class TakesAnything(toys.ToyViT):
    """As models of transformers do: what has no name is handed on, and may be lost on the way."""

    def forward(self, x: Tensor, *more: Any, **others: Any) -> Tensor:
        scale = others.get("scale")
        return super().forward(x if scale is None else x * scale)


@pytest.mark.parametrize("verb", [wrap_cyclic, VERBS["wrap_hourglass"]], ids=["wrap_cyclic", "wrap_hourglass"])
def test_inputs_that_nothing_used_in_the_trial_are_told_of_once(verb: Any, caplog: pytest.LogCaptureFixture) -> None:
    x, one = torch.zeros(2, 7, toys.FEATURES), torch.ones(())
    for given, named in (
        ({"x": x, "scale": one, "nonsense": one.clone()}, "'nonsense'"),
        ((x, one), "'more[0]'"),
        ({"x": x, "scale": one}, None),
        ({"x": x, "note": "that is no tensor"}, None),
        (x, None),
    ):
        caplog.clear()
        assert verb(TakesAnything(), inputs=given)
        told = [each for each in caplog.messages if each.startswith("inputs: nothing used")]
        assert len(told) == (named is not None), told
        assert all(f"{named} in a trial of this TakesAnything" in each for each in told)


class Labelled(toys.ToyViT):
    """Its labels are for training, and its mask is for who reads the output."""

    def forward(self, x: Tensor, **others: Any) -> Any:
        y = super().forward(x)
        if self.training:
            return nn.functional.cross_entropy(y, others["labels"])
        return {"logits": y, "mask": others.get("mask")}


def test_what_is_for_training_or_handed_through_is_taken(caplog: pytest.LogCaptureFixture) -> None:
    x, labels = torch.randn(2, 7, toys.FEATURES), torch.zeros(2, dtype=torch.long)
    assert wrap_cyclic(Labelled(), distill=None, inputs={"x": x, "mask": torch.ones(2)})
    assert caplog.messages == []
    given = {"x": x, "labels": labels}
    model = wrap_cyclic(Labelled(), distill=None, inputs=given)
    assert "nothing used 'labels'" in caplog.text and len(model.train()(**given)) == 2


def test_what_a_model_takes_in_training_alone_fails_no_claim(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    given = {"x": torch.randn(2, 7, toys.FEATURES), "labels": torch.zeros(2, dtype=torch.long)}
    wrapped = wrap_cyclic(Labelled(), distill=None)
    for model, told in ((wrapped, 0), (Labelled(), 1)):  # which is wrapped there
        caplog.clear()
        result = verified(monkeypatch, model, given)
        assert result.ok, str(result)
        assert caplog.text.count("nothing used 'labels'") == told
        assert model.training


@pytest.mark.parametrize(("weights", "images"), [("bfloat16", "float32"), ("float32", "bfloat16")])
def test_types_that_autocast_brings_together_are_not_refused(
    weights: str, images: str, caplog: pytest.LogCaptureFixture
) -> None:
    """On the meta device, where the trial runs, autocast does not act."""
    given = IMAGES.to(getattr(torch, images))
    with torch.autocast("cpu", torch.bfloat16):
        model = wrap_cyclic(vit().to(getattr(torch, weights)), distill=None, inputs=given)
        assert len(model.train()(given)) == 2
    assert "do not run on a copy of it without data" in caplog.text
    with pytest.raises(StackError, match=r"with 2 x 3 x 32 x 32 uint8 \(.*and does with 1 x 3 x 32 x 32( \w+)?\."):
        wrap_cyclic(vit().to(getattr(torch, weights)), inputs=torch.zeros(2, 3, 32, 32, dtype=torch.uint8))
    with pytest.raises(StackError, match=r"with 2 x 3 x 40 x 40( \w+)? \("):
        wrap_cyclic(vit().to(getattr(torch, weights)), inputs=torch.zeros(2, 3, 40, 40, dtype=given.dtype))


def test_an_error_about_metadata_is_none_of_the_copy() -> None:
    class Strict(Towers):
        def forward(self, images: Tensor) -> Any:  # type: ignore[override]
            if images.shape[0] != 1:
                raise ValueError("the metadata is of one picture")
            return super().forward(images)

    with pytest.raises(StackError, match=r"does not run with 2 x .*the metadata is of one picture.*and does with 1 x"):
        wrap_cyclic(Strict(), blocks="image.blocks", inputs=IMAGES)


def test_inputs_are_left_alone_and_no_data_is_needed() -> None:
    """A model that declares no size is verified when it is wrapped; the trial is on the meta device."""

    class Between(toys.ToyViT):
        def forward_features(self, x: Tensor) -> Tensor:
            x = self.embed(x)
            for block in self.blocks:
                x = block(x) + 1
            return self.norm(x)

    readings = torch.randn(2, 7, toys.FEATURES, requires_grad=True)
    before = readings.detach().clone()
    assert wrap_cyclic(toys.ToyViT(), inputs=readings).cyclic.stack.shape == (2, 8, toys.DIM)
    with pytest.raises(StackError, match="block 1 does not receive the output of block 0"):
        wrap_cyclic(Between(), inputs=readings)
    assert readings.grad is None and torch.equal(readings, before) and readings.device.type == "cpu"


def test_a_pruned_block_that_no_trial_ran_is_checked_in_the_first_forward() -> None:
    class Sizeless(nn.Module):
        def __init__(self, scale: float) -> None:
            super().__init__()
            self.net = vit()
            self.net.patch_embed.img_size = None
            self.net.patch_embed.strict_img_size = False
            for block in self.net.blocks:
                block.attn.fused_attn = False
                block.attn.scale = block.attn.scale
                block.attn.proj.register_forward_pre_hook(lambda _, args: (args[0],))
            if scale != 1:
                self.net.blocks[1].attn.forward = WrongAttention(self.net.blocks[1].attn).forward

        def forward(self, x: Tensor) -> Tensor:
            return self.net(x)

    class WrongAttention:
        """Not the softmax that its ``qkv`` says."""

        def __init__(self, attention: Any) -> None:
            self.qkv, self.proj, self.heads = attention.qkv, attention.proj, attention.num_heads

        def forward(self, x: Tensor, **_: Any) -> Tensor:
            q, k, v = self.qkv(x).unflatten(2, (3, self.heads, -1)).permute(2, 0, 3, 1, 4)
            return self.proj((torch.relu(q @ k.transpose(-1, -2)) @ v).transpose(1, 2).flatten(2))

    x = torch.randn(4, 3, 32, 32, dtype=torch.float64)
    right = wrap_pruning(Sizeless(1), (1,), query=slice(0, 1))
    assert not right.pruning.is_verified
    assert right(x).shape == (4, 7) and right.pruning.is_verified
    wrong = wrap_pruning(Sizeless(2), (1,), query=slice(0, 1))
    for _ in range(2):
        with pytest.raises(StackError, match="not plain softmax attention"):
            wrong(x)
    assert not copy.deepcopy(wrong).pruning.is_verified


def test_what_a_trial_of_one_tower_shows_still_counts() -> None:
    """CaiT's habit: a few blocks of another class behind the stack are no tower."""

    class Behind(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.net, self.last = vit(depth=6), nn.ModuleList([toys.Block(24).double()])

        def forward(self, x: Tensor) -> Tensor:
            return self.net(x)

    assert choose_stack(Behind()).path == "net.blocks"
    assert isinstance(wrap_cyclic(vit()).train()(IMAGES), CycleOutput)


def test_a_trial_that_does_not_run_with_what_is_given_is_told_of(caplog: pytest.LogCaptureFixture) -> None:
    """Whatever stands beside the tensors, such as the switches of transformers."""

    class Switched(toys.ToyViT):
        def forward(self, x: Tensor, fast: bool = False, names: tuple[str, ...] = ()) -> Tensor:
            return super().forward(x * float(x.sum() > 0))  # no copy without data can tell

    given = {"x": torch.randn(2, 7, toys.FEATURES), "fast": True, "names": ("a", "b")}
    with caplog.at_level(logging.WARNING):
        model = wrap_cyclic(Switched(), distill=None, inputs=given)
    assert "do not run on a copy of it without data" in caplog.text
    assert len(model.train()(**given)) == 2
