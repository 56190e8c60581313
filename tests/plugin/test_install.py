"""Classes are swapped all or none, whatever a model's parts allow; copies and parts of a wrapped model hold."""

from __future__ import annotations

import copy
import pickle
from collections.abc import Callable, Iterator
from typing import Any, ClassVar

import pytest
import torch
from torch import nn
from torch.nn.utils import parametrize

pytest.importorskip("timm")

from timm.models.vision_transformer import Block, VisionTransformer

from cycledistill import CycleOutput, StackError, at_exit, wrap_cyclic, wrap_hourglass
from cycledistill.plugin.install import handle_of
from tests.oracle import snapshot
from tests.plugin.test_impossible_models import Verb, each_verb, quietly
from tests.prune.oracle import images, vit


def script(part: nn.Module) -> Any:
    return quietly(lambda: torch.jit.script(part))


def trace(part: nn.Module) -> Any:
    return quietly(lambda: torch.jit.trace(part, torch.randn(1, 17, 24, dtype=torch.float64)))


@pytest.mark.parametrize("convert", [script, trace])
@pytest.mark.parametrize("path", ["norm", "patch_embed.norm", "norm_pre"])
def test_cycles_leave_a_scripted_part_outside_the_blocks_alone(convert: Callable[..., Any], path: str) -> None:
    model, x = vit(), images()
    want = wrap_cyclic(copy.deepcopy(model), 2, blocks="blocks").train()(x)
    model.set_submodule(path, convert(model.get_submodule(path)))
    got = wrap_cyclic(model, 2, blocks="blocks").train()(x)
    for ours, plain in zip(got.outputs, want.outputs, strict=True):
        torch.testing.assert_close(ours, plain)


def test_cycles_find_their_blocks_beside_a_scripted_run() -> None:
    model = vit()
    model.head = nn.Sequential(*(script(nn.Linear(24, 24).double()) for _ in range(2)), model.head)
    assert wrap_cyclic(model, 2).cyclic.stack.path == "blocks"


@pytest.mark.parametrize("convert", [script, trace])
@pytest.mark.parametrize("which", [slice(1, 2), slice(0, 4)], ids=["one", "all"])
def test_scripted_blocks_are_refused(convert: Callable[..., Any], which: slice) -> None:
    """TorchScript's modules take another class without an error, and keep their own, or lose it in copies."""
    model = vit()
    for number in range(4)[which]:
        model.blocks[number] = trace(model.blocks[number]) if convert is trace else script(model.blocks[number])
    before = [type(module) for module in model.modules()]
    with pytest.raises(StackError, match=r"cannot change the class.*scripted or traced.*plain Python module"):
        wrap_cyclic(model, 2, blocks="blocks")
    assert [type(module) for module in model.modules()] == before
    assert handle_of(model, "cyclic") is None
    model(images())


class Registered(Block):
    """Its family knows each name once."""

    names: ClassVar[set[str]] = set()

    def __init_subclass__(cls) -> None:
        if cls.__name__ in Registered.names:
            raise ValueError(f"{cls.__name__} is registered already")
        Registered.names.add(cls.__name__)


class Closed(VisionTransformer):
    """Takes no attribute that it does not have."""

    def __setattr__(self, name: str, value: Any) -> None:
        if name in ("cyclic", "pruning", "hourglass"):
            raise RuntimeError(f"no attribute {name}")
        super().__setattr__(name, value)


class Stateless(Block):
    """A block that takes a class, and no state."""

    def __setattr__(self, name: str, value: Any) -> None:
        if name.endswith("_state"):
            raise KeyError(name)
        super().__setattr__(name, value)


class Typed(VisionTransformer):
    """Takes attributes of some types alone, and says so as Python does."""

    def __setattr__(self, name: str, value: Any) -> None:
        if name in ("cyclic", "pruning", "hourglass"):
            raise TypeError(f"{name} is no number")
        super().__setattr__(name, value)


class TypedBlock(Block):
    """A block that refuses a state by its type."""

    def __setattr__(self, name: str, value: Any) -> None:
        if name.endswith("_state"):
            raise TypeError(f"{name} is no number")
        super().__setattr__(name, value)


@each_verb
@pytest.mark.parametrize("obstacle", [Typed, TypedBlock])
def test_a_type_error_of_the_models_own_is_shown_as_it_is(verb: Verb, obstacle: type[nn.Module]) -> None:
    model = vit()
    part = model if obstacle is Typed else model.blocks[1]
    part.__class__ = obstacle
    before = snapshot(model)
    with pytest.raises(TypeError, match="is no number"):
        verb(model)
    assert snapshot(model) == before


@each_verb
@pytest.mark.parametrize("obstacle", [Registered, Stateless, Closed])
def test_whatever_fails_the_model_is_as_it_was(verb: Verb, obstacle: type[nn.Module]) -> None:
    model = vit()
    Registered.names = {"Registered"}
    part = model if obstacle is Closed else model.blocks[1]
    part.__class__ = obstacle
    before = snapshot(model)
    with pytest.raises((ValueError, RuntimeError, KeyError)):
        verb(model)
    assert snapshot(model) == before
    assert handle_of(model, verb.kind) is None


def test_cycles_stay_where_they_were_when_they_cannot_follow_an_hourglass() -> None:
    class ClosedOnce(VisionTransformer):
        def __setattr__(self, name: str, value: Any) -> None:
            if name == "cyclic" and refusals:
                raise refusals.pop()
            super().__setattr__(name, value)

    refusals: list[Exception] = []
    model, x = vit(), images()
    model.__class__ = ClosedOnce
    wrap_cyclic(model, 2)
    before, want = snapshot(model), model.train()(x).outputs
    refusals.append(RuntimeError("not now"))
    with pytest.raises(RuntimeError, match="not now"):
        wrap_hourglass(model, layer=1, keep=3, recover=False, blocks="blocks", frames=16)
    assert snapshot(model) == before
    assert all(torch.equal(*both) for both in zip(model.train()(x).outputs, want, strict=True))


def test_an_error_while_roles_are_found_is_shown_as_it_is() -> None:
    from cycledistill.cycle.wrap import PLUGIN
    from cycledistill.plugin.handle import Handle
    from cycledistill.plugin.install import Role, install

    def roles() -> Iterator[Role]:
        raise TypeError("ours")
        yield

    with pytest.raises(TypeError, match="ours"):
        install(vit(), PLUGIN, Handle(), roles())


SWAPPED = {"cyclic": ("", "blocks.1"), "pruning": ("blocks.1", "blocks.1.norm2"), "hourglass": ("", "blocks.1")}


@each_verb
@pytest.mark.parametrize("which", [0, 1])
def test_a_parametrized_module_is_not_swapped(verb: Verb, which: int) -> None:
    """Torch gave it a class of its own, which it takes off by looking below it: ours would be in the way."""
    model = vit()
    part = model.get_submodule(SWAPPED[verb.kind][which])
    part.register_parameter("gain", nn.Parameter(torch.ones(1)))
    parametrize.register_parametrization(part, "gain", nn.Identity())
    before = [type(module) for module in model.modules()]
    with pytest.raises(StackError, match="is parametrized.*remove_parametrizations.*after wrapping"):
        verb(model)
    assert [type(module) for module in model.modules()] == before
    parametrize.remove_parametrizations(part, "gain")
    verb(model)
    model(images())
    parametrize.register_parametrization(part, "gain", nn.Identity())
    model(images())
    parametrize.remove_parametrizations(part, "gain")
    verb.unwrap(model)


class Copier:
    """A hook that copies a whole model; in the copy it does nothing."""

    def __init__(self, model: nn.Module | None = None, how: Callable[[Any], Any] = copy.deepcopy) -> None:
        self.model, self.how = model, how
        self.copies: list[Any] = []

    def __call__(self, *_: Any) -> None:
        if self.model is not None:
            self.copies.append(self.how(self.model))

    def __reduce__(self) -> Any:
        return Copier, ()


@each_verb
@pytest.mark.parametrize("exit", [None, 2])
@pytest.mark.parametrize(
    "how", [copy.deepcopy, lambda model: pickle.loads(pickle.dumps(model))], ids=["copy", "pickle"]
)
def test_a_copy_taken_in_the_middle_of_a_forward_is_whole(
    verb: Verb, exit: int | None, how: Callable[[Any], Any]
) -> None:
    """As an average of weights does that is kept by a hook."""
    model, x = verb(vit()), images()
    if verb.kind == "cyclic":
        model.train(exit is None).cyclic.exit = exit or 1
    hook = Copier(model, how)
    handles = [
        model.get_submodule(place).register_forward_pre_hook(hook) for place in ("blocks.0", "blocks.1.mlp", "norm")
    ]
    answer(model, x)
    for handle in handles:
        handle.remove()
    assert len(hook.copies) >= 3
    for each in (model, *hook.copies) if verb.kind == "pruning" else ():
        each.pruning.keep = 1.0  # what a call in progress would drop
    x = x.flip(0)
    want = answer(model, x)
    for copied in hook.copies:
        assert torch.equal(answer(copied, x), want)
        if verb.kind == "hourglass":
            assert torch.equal(copied.hourglass.index, model.hourglass.index)


def answer(model: nn.Module, x: torch.Tensor) -> torch.Tensor:
    with torch.no_grad():
        out = model(x)
    return torch.cat(out.outputs) if isinstance(out, CycleOutput) else out


@each_verb
@pytest.mark.parametrize("training", [True, False])
def test_a_part_that_was_unwrapped_by_itself_is_missed(verb: Verb, training: bool) -> None:
    """The handle still says what the model does, and the model does not do it: that must not pass unnoticed."""
    model, x = vit(), images()
    before, want = snapshot(model), model(x)
    verb(model).train(training)
    verb.unwrap(model.blocks)
    with pytest.raises(StackError, match=rf"edited.*unwrap_{verb.kind}"):
        model(x)
    verb.unwrap(model)
    assert snapshot(model) == before
    assert torch.equal(model.eval()(x), want)


@each_verb
def test_a_block_that_was_replaced_is_missed(verb: Verb) -> None:
    model = verb(vit())
    model.blocks[1] = vit().blocks[1]
    with pytest.raises(StackError, match=rf"edited.*unwrap_{verb.kind}"):
        model(images())
    verb.unwrap(model)


@each_verb
def test_unwrapping_something_else_than_a_module_says_so(verb: Verb) -> None:
    with pytest.raises(StackError, match=f"unwrap_{verb.kind} takes a torch.nn.Module, and was given a str"):
        verb.unwrap("vit")


def test_at_exit_of_something_else_than_a_module_says_so() -> None:
    with pytest.raises(StackError, match="at_exit takes a torch.nn.Module, and was given a str"), at_exit("vit", 1):  # type: ignore[arg-type]
        pass


class Raising(VisionTransformer):
    """Properties under the handles' names, which raise when they are read."""

    @property
    def cyclic(self) -> Any:
        raise RuntimeError("not built yet")

    @property
    def pruning(self) -> Any:
        raise AttributeError("not built yet")

    hourglass = pruning


@each_verb
def test_a_property_under_the_handles_name_is_refused_unread(verb: Verb) -> None:
    model = vit()
    model.__class__ = Raising
    before = snapshot(model)
    with pytest.raises(StackError, match=f"attribute of its own called '{verb.kind}'.*rename it"):
        verb(model)
    assert snapshot(model) == before


def test_a_class_named_as_the_compilers_is_no_compiled_module() -> None:
    class OptimizedModule(VisionTransformer):
        pass

    model, x = vit(), images()
    model.__class__ = OptimizedModule
    want = model(x)
    assert wrap_cyclic(model, 2, blocks="blocks").cyclic is handle_of(model, "cyclic")
    assert torch.equal(model.eval()(x), want)
