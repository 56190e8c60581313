"""Models that no plug-in can act in, through all three verbs: each says why and what to do, and changes nothing."""

from __future__ import annotations

import copy
import functools
import warnings
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import pytest
import torch
from torch import Tensor, nn

pytest.importorskip("timm")

from timm.models.vision_transformer import Block

from cycledistill import (
    StackError,
    unwrap_cyclic,
    unwrap_hourglass,
    unwrap_pruning,
    wrap_cyclic,
    wrap_hourglass,
    wrap_pruning,
)
from cycledistill.plugin.handle import KINDS, handle_of
from tests import toys
from tests.oracle import snapshot
from tests.prune.oracle import images, vit


@dataclass(frozen=True)
class Verb:
    """A pair of verbs, and a call of the first that this file's vision transformer takes."""

    wrap: Callable[..., Any]
    unwrap: Callable[..., Any]
    settings: dict[str, Any]

    @property
    def kind(self) -> str:
        """Name of the handle."""
        return self.name.removeprefix("wrap_")

    @property
    def name(self) -> str:
        """Name of the function that wraps."""
        return self.wrap.__name__

    def __call__(self, model: Any, **changed: Any) -> Any:
        return self.wrap(model, **{**self.settings, **changed})


VERBS = [
    Verb(wrap_cyclic, unwrap_cyclic, {"blocks": "blocks"}),
    Verb(wrap_pruning, unwrap_pruning, {"blocks": "blocks", "layers": (1,), "keep": 0.5}),
    Verb(wrap_hourglass, unwrap_hourglass, {"blocks": "blocks", "layer": 1, "keep": 3, "recover": False, "frames": 16}),
]
each_verb = pytest.mark.parametrize("verb", VERBS, ids=lambda verb: verb.name)


class FrameworkParallel(nn.DataParallel):
    """As frameworks derive their own class from torch's."""


def quietly(make: Callable[[], Any]) -> Any:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # TorchScript says that it is deprecated
        return make()


def seen(thing: Any) -> Any:
    """All that wrapping may touch. TorchScript's modules have no attributes of Python's to look at, but classes."""
    if not isinstance(thing, nn.Module):
        return thing
    if any(isinstance(module, torch.jit.ScriptModule) for module in thing.modules()):
        return [(type(module), hasattr(module, "cyclic")) for module in thing.modules()]
    return snapshot(thing)


def scripted(verb: Verb) -> Any:
    return quietly(lambda: torch.jit.script(toys.ScriptableViT()))


def traced(verb: Verb) -> Any:
    return quietly(lambda: torch.jit.trace(toys.make().eval(), toys.batch()[0]))


class Final(Block):
    """A class that Python refuses to derive from, and so to swap."""

    def __init_subclass__(cls) -> None:
        raise TypeError("Final is not to be derived from")


def final_block(verb: Verb) -> Any:
    model = vit()
    model.blocks[1].__class__ = Final
    return model


def compiled_part(verb: Verb) -> Any:
    model = vit()
    model.blocks[2] = torch.compile(model.blocks[2], backend="eager")
    return model


def replaced_forward(verb: Verb) -> Any:
    model = vit()
    model.forward = functools.partial(model.forward)  # type: ignore[method-assign]
    return model


def own_attribute(verb: Verb) -> Any:
    model = vit()
    setattr(model, verb.kind, 3)
    return model


def own_module(verb: Verb) -> Any:
    model = vit()
    setattr(model, verb.kind, nn.Linear(2, 2))
    return model


IMPOSSIBLE: dict[str, tuple[Callable[[Verb], Any], str, str]] = {
    "text": (lambda verb: "vit", "was given a str", "torch.nn.Module"),
    "class": (lambda verb: toys.ToyViT, "was given a type", "torch.nn.Module"),
    "compiled": (
        lambda verb: torch.compile(vit(), backend="eager"),
        "OptimizedModule is compiled",
        "torch.compile({verb}(model))",
    ),
    "compiled part": (compiled_part, "VisionTransformer .*holds a compiled module", "torch.compile({verb}(model))"),
    "scripted": (scripted, "is scripted or traced", "wrap the Python model"),
    "traced": (traced, "is scripted or traced", "wrap the Python model"),
    "underivable block": (
        final_block,
        "Python cannot change the class of a Final in this VisionTransformer, as {verb} would: Final is not",
        "Put a plain Python module in its place",
    ),
    "data parallel": (lambda verb: nn.DataParallel(vit()), "is a DataParallel", "{verb}(model.module)"),
    "derived data parallel": (lambda verb: FrameworkParallel(vit()), "is a FrameworkParallel", "{verb}(model.module)"),
    "replaced forward": (replaced_forward, "forward of this VisionTransformer was replaced", "wrap the model first"),
    "wrapped": (lambda verb: verb(vit()), "VisionTransformer is already wrapped by {verb}", "unwrap_{kind}(model)"),
    "wrapped part": (
        lambda verb: nn.Sequential(verb(vit())),
        "something in this Sequential is already wrapped by {verb}",
        "unwrap_{kind} on it",
    ),
    "part of a wrapped one": (
        lambda verb: verb(vit()).blocks,
        "something in this .* is already wrapped by {verb}, or was taken from a wrapped model",
        "unwrap_{kind} on it",
    ),
    "the stack itself": (
        lambda verb: nn.Sequential(*vit().blocks),
        "the blocks stand in the Sequential itself, and no path names them",
        "put it into a module (nn.Sequential(model), say) and wrap that",
    ),
    "a list of blocks": (
        lambda verb: nn.ModuleList(vit().blocks),
        "the blocks stand in the ModuleList itself, and no path names them",
        "put it into a module (one whose forward calls them) and wrap that",
    ),
    "own attribute": (own_attribute, "attribute of its own called '{kind}'", "rename it"),
    "own module": (own_module, "attribute of its own called '{kind}'", "rename it"),
}


@each_verb
@pytest.mark.parametrize("name", IMPOSSIBLE)
def test_it_says_what_it_was_given_and_what_to_do_and_changes_nothing(name: str, verb: Verb) -> None:
    make, given, advice = IMPOSSIBLE[name]
    model = make(verb)
    before = seen(model)
    with pytest.raises(StackError, match=given.format(verb=verb.name, kind=verb.kind)) as caught:
        verb(model, **({"blocks": "auto"} if "itself" in given else {}))
    assert advice.format(verb=verb.name, kind=verb.kind) in str(caught.value)
    others = {other.name for other in VERBS} - {verb.name}
    assert not any(other in str(caught.value) for other in others), "advice on another verb"
    assert seen(model) == before


@each_verb
def test_the_model_of_this_file_is_possible(verb: Verb) -> None:
    model, x = vit(), images()
    before, want = snapshot(model), vit().load_state_dict(model.state_dict()) and model(x)
    wrapped = verb(model)
    assert wrapped is model and handle_of(model, verb.kind) is getattr(model, verb.kind)
    model(x)
    assert verb.unwrap(model) is model
    assert snapshot(model) == before
    assert torch.equal(model(x), want)


@each_verb
@pytest.mark.parametrize("kind", list(KINDS))
@pytest.mark.parametrize("value", [2.5, "module", "inside"])
def test_attributes_of_the_models_own_are_no_handles_of_other_verbs(verb: Verb, kind: str, value: Any) -> None:
    if kind == verb.kind and value != "inside":
        return  # refused above: the handle needs the name
    model, x = vit(), images()
    owner = model.patch_embed if value == "inside" else model
    own = nn.Linear(2, 2).double() if value == "module" else 2.5
    setattr(owner, kind, own)
    plain, before = copy.deepcopy(model), snapshot(model)
    verb(model)
    assert handle_of(model, verb.kind) is getattr(model, verb.kind)
    assert handle_of(owner, kind) is None
    assert getattr(owner, kind) is own
    model(x)
    verb.unwrap(model)
    assert snapshot(model) == before
    assert torch.equal(model(x), plain(x))


def test_an_own_submodule_named_hourglass_is_cycled_over_as_any_other() -> None:
    """As in stacked-hourglass pose networks: the submodule is called before the stack, and cycles are right."""

    class Named(toys.ToyViT):
        def __init__(self) -> None:
            super().__init__()
            self.hourglass = nn.Linear(toys.FEATURES, toys.FEATURES)
            self.pruning = nn.Dropout(0.0)

        def forward(self, x: Tensor) -> Tensor:
            return super().forward(self.pruning(self.hourglass(x)))

    from tests.oracle import Truth, assert_same

    model, (x, _) = toys.make(Named), toys.batch()
    want = Truth(model).cycles(3, x)
    assert_same(wrap_cyclic(model, 3)(x).outputs, want)


@each_verb
def test_unwrapping_says_what_to_do(verb: Verb) -> None:
    model = vit()
    with pytest.raises(StackError, match=f"VisionTransformer is not wrapped by {verb.name}.*nothing to undo$"):
        verb.unwrap(model)
    verb(model)
    outers = (
        (nn.DataParallel(model), r"unwrap its \.module"),
        (FrameworkParallel(model), r"unwrap its \.module"),
        (torch.compile(model, backend="eager"), "unwrap the model that was compiled"),
        (nn.Sequential(model), "nothing to undo$"),
    )
    before = snapshot(model)
    for outer, inner in outers:
        with pytest.raises(StackError, match=inner):
            verb.unwrap(outer)
        assert snapshot(model) == before
    for other in [other for other in VERBS if other is not verb]:
        with pytest.raises(StackError, match=f"not wrapped by {other.name}"):
            other.unwrap(model)
    verb.unwrap(model)


@each_verb
def test_a_class_that_another_tool_swapped_since_is_not_taken_off(verb: Verb) -> None:
    model = verb(vit())
    block = model.blocks[1]
    ours = type(block)
    block.__class__ = type("FSDPBlock", (ours,), {})
    before = snapshot(model)
    with pytest.raises(StackError, match=rf"blocks\.1 became a FSDPBlock.*Undo that first.*unwrap_{verb.kind}"):
        verb.unwrap(model)
    assert snapshot(model) == before
    block.__class__ = ours
    verb.unwrap(model)


@each_verb
def test_a_part_taken_from_a_wrapped_model_gets_its_classes_back(verb: Verb) -> None:
    model = vit()
    plain = copy.deepcopy(model.blocks)
    part = copy.deepcopy(verb(model).blocks)
    assert [type(module) for module in part.modules()] != [type(module) for module in plain.modules()]
    assert verb.unwrap(part) is part
    assert snapshot(part) == snapshot(plain)
    x = torch.randn(2, 17, 24, dtype=torch.float64)
    assert torch.equal(part(x), plain(x))
    model(images())  # the model it was taken from is still wrapped
    verb.unwrap(model)


class Widening(nn.Module):
    """Blocks that change the shape of what they are given, seen by a probe: the size of an image is declared."""

    image_size = 8

    def __init__(self) -> None:
        super().__init__()
        self.stem = nn.Conv2d(3, 8, 4, 4)
        self.blocks = nn.ModuleList([nn.Sequential(nn.Linear(8, 8)), nn.Sequential(nn.Linear(8, 16))])

    def forward(self, x: Tensor) -> Tensor:
        x = self.stem(x).flatten(2).transpose(1, 2)
        for block in self.blocks:
            x = block(x)
        return x


@each_verb
@pytest.mark.parametrize(
    ("make", "blocks", "match"),
    [
        (lambda: toys.make(depth=0), "auto", r'has no stack.*blocks="path\.to\.module"\)\.$'),
        (lambda: toys.make(depth=1), "auto", r'has no stack.*blocks="blocks"\)\. Here "blocks" holds one block'),
        (lambda: toys.make(toys.ConvNet), "auto", "no attention stack"),
        (lambda: toys.make(toys.TwoStageViT), "auto", "no single stack"),
        (Widening, "blocks", r"\(1, 4, 8\) to \(1, 4, 16\)"),
    ],
    ids=["none", "one", "convolutions", "several", "widening"],
)
def test_advice_is_on_the_verb_that_was_called(
    verb: Verb, make: Callable[[], nn.Module], blocks: str, match: str
) -> None:
    model = make()
    before = snapshot(model)
    with pytest.raises(StackError, match=match) as caught:
        verb(model, blocks=blocks)
    said = str(caught.value)
    assert not any(other.name in said for other in VERBS if other is not verb)
    assert (f"{verb.name}(model, blocks=" in said) is (blocks == "auto")
    assert verb.kind == "cyclic" or "cycl" not in said
    assert snapshot(model) == before


@each_verb
def test_unwrapping_leaves_what_accelerate_put_on_the_object(verb: Verb) -> None:
    """The page of limits says how to wrap such a model again."""
    accelerate = pytest.importorskip("accelerate")
    accelerator = accelerate.Accelerator(mixed_precision="bf16", cpu=True)
    model = accelerator.unwrap_model(verb.unwrap(accelerator.prepare(verb(vit().float()))))
    with pytest.raises(StackError, match="replaced on the object"):
        verb(model)
    del model.forward
    assert handle_of(verb(model), verb.kind) is not None


@each_verb
def test_a_model_that_accelerate_prepared_is_refused_and_one_wrapped_before_is_not(verb: Verb) -> None:
    """In bf16, ``prepare`` replaces ``forward`` on the object; a hourglass of it would silently drop nothing."""
    accelerate = pytest.importorskip("accelerate")
    accelerator = accelerate.Accelerator(mixed_precision="bf16", cpu=True)
    prepared = accelerator.prepare(vit().float())
    assert "forward" in vars(prepared)
    with pytest.raises(StackError, match="accelerator.prepare.*wrap the model first"):
        verb(prepared)
    assert handle_of(prepared, verb.kind) is None
    model = accelerator.prepare(verb(vit().float()).eval())
    with torch.no_grad():
        model(images().float())
    if verb.kind != "cyclic":
        kept = {"pruning": 8, "hourglass": 3}[verb.kind]
        assert getattr(model, verb.kind).index.shape == (3, kept)
