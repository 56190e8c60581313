"""What everything around a model relies on: keys, class, signature, copies, pickles, groups of parameters."""

from __future__ import annotations

import copy
import gc
import inspect
import io
import pickle
import re
import weakref
from pathlib import Path

import pytest
import torch
from torch import Tensor, nn

from cycledistill import CycleLoss, CycleOutput, StackError, unwrap_cyclic, wrap_cyclic
from tests import toys
from tests.cycle.test_equality import task
from tests.oracle import Truth, assert_same, assert_same_gradients, gradients, snapshot

timm = pytest.importorskip("timm")
TIMM = ["test_vit", "deit_tiny_distilled_patch16_224", "xcit_nano_12_p16_224", "cait_xxs24_224"]


def small_vit(**options: object) -> nn.Module:
    return timm.create_model("test_vit", img_size=32, num_classes=5, **options)


@pytest.mark.parametrize("name", TIMM)
def test_identity_of_a_timm_model(name: str) -> None:
    model = timm.create_model(name, img_size=64)
    before = copy.deepcopy(model)
    cls, modules = type(model), dict(model.named_modules())
    assert wrap_cyclic(model, 2) is model
    assert list(model.state_dict()) == list(before.state_dict())
    assert [n for n, _ in model.named_parameters()] == [n for n, _ in before.named_parameters()]
    assert [n for n, _ in model.named_buffers()] == [n for n, _ in before.named_buffers()]
    assert list(dict(model.named_modules())) == list(modules)
    assert all(modules[n] is m for n, m in model.named_modules())
    assert isinstance(model, cls)
    for other, module in zip(before.modules(), model.modules(), strict=True):
        assert isinstance(module, type(other))
        for attribute in ("__name__", "__qualname__", "__module__", "__doc__"):
            assert getattr(type(module), attribute) == getattr(type(other), attribute)
        assert inspect.signature(module.forward) == inspect.signature(other.forward)
        assert inspect.signature(type(module).forward) == inspect.signature(type(other).forward)
        assert module._get_name() == other._get_name()
    assert model.num_classes == before.num_classes
    assert repr(model) == repr(before)
    model.load_state_dict(before.state_dict(), strict=True)
    before.load_state_dict(model.state_dict(), strict=True)


@pytest.mark.parametrize("name", ["test_vit", "cait_xxs24_224"])
def test_unwrap_leaves_no_trace(name: str) -> None:
    model = timm.create_model(name, img_size=64)
    state, before = copy.deepcopy(model.state_dict()), snapshot(model)
    wrap_cyclic(model, 2)
    assert snapshot(model) != before
    model(torch.randn(1, 3, 64, 64))
    assert unwrap_cyclic(model) is model
    assert snapshot(model) == before
    assert not hasattr(model, "cyclic")
    assert list(model.state_dict()) == list(state)
    assert_same(dict(model.state_dict()), dict(state))
    assert isinstance(model(torch.randn(1, 3, 64, 64)), Tensor)


def test_wrap_after_unwrap_works_again() -> None:
    model = toys.make()
    x, _ = toys.batch()
    want = Truth(model).cycles(3, x)
    for cycles in (2, 3):
        wrap_cyclic(model, cycles)
        assert_same(model(x).outputs, want[:cycles])
        unwrap_cyclic(model)


def test_modules_of_other_models_are_untouched() -> None:
    """Classes are swapped on instances: a second model of the same class stays plain."""
    one, other = toys.make(), toys.make()
    wrap_cyclic(one, 2)
    assert type(other) is toys.ToyViT and type(other.blocks[0]) is toys.Block
    assert isinstance(other(toys.batch()[0]), Tensor)


def test_two_wrapped_models_do_not_meet() -> None:
    one, two = toys.make(), toys.make(seed=4)
    x, _ = toys.batch()
    want = Truth(one).cycles(2, x), Truth(two).cycles(3, x)
    wrap_cyclic(one, 2)
    wrap_cyclic(two, 3)
    first, second = one(x), two(x)
    assert_same(first.outputs, want[0])
    assert_same(second.outputs, want[1])


def test_one_wrapped_model_as_teacher_inside_the_others_loop() -> None:
    model = wrap_cyclic(toys.make(), 2)
    teacher = copy.deepcopy(model)
    assert teacher.cyclic is not model.cyclic
    teacher.cyclic.cycles = 3
    x, _ = toys.batch()
    assert (len(model(x)), len(teacher(x))) == (2, 3)


COPIES = {
    "deepcopy": copy.deepcopy,
    "pickle": lambda model: pickle.loads(pickle.dumps(model)),
    "torch.save": lambda model: _saved(model),
}


def _saved(model: nn.Module) -> nn.Module:
    file = io.BytesIO()
    torch.save(model, file)
    file.seek(0)
    return torch.load(file, weights_only=False)


@pytest.mark.parametrize("how", COPIES)
@pytest.mark.parametrize("after_forward", [False, True])
def test_copies_are_wrapped_models_of_their_own(how: str, after_forward: bool) -> None:
    model = toys.make()
    x, target = toys.batch()
    truth = Truth(model)
    wrap_cyclic(model, 2, distill="exits")
    model.cyclic.exit = 2
    if after_forward:
        CycleLoss(task)(model(x), target).backward()
        model.zero_grad()
    twin = COPIES[how](model)
    assert type(twin) is type(model)
    assert twin.cyclic is not model.cyclic
    assert (twin.cyclic.cycles, twin.cyclic.exit, twin.cyclic.distill) == (2, 2, model.cyclic.distill)
    assert not {id(m) for m in twin.modules()} & {id(m) for m in model.modules()}
    twin.cyclic.cycles = 3
    assert model.cyclic.cycles == 2
    want = truth.cycles(3, x)
    assert_same(model(x).outputs, want[:2])
    out = twin(x)
    assert_same(out.outputs, want)
    CycleLoss(task)(out, target).backward()
    sum(task(output, target) for output in want).backward()
    assert_same_gradients(gradients(twin), truth.gradients(), rtol=1e-12)
    assert all(p.grad is None for p in model.parameters())
    assert_same(twin.eval()(x), want[1])
    unwrap_cyclic(twin)
    assert type(twin) is toys.ToyViT and {type(block) for block in twin.blocks} == {toys.Block}
    assert len(model(x)) == 2


def test_copies_of_a_timm_model() -> None:
    model = small_vit()
    x = torch.randn(2, 3, 32, 32)
    want = Truth(model).cycles(2, x)
    wrap_cyclic(model, 2)
    for twin in (copy.deepcopy(model), _saved(model)):
        assert_same(twin(x).outputs, want)


def test_timm_ema_follows_a_wrapped_model() -> None:
    from timm.utils import ModelEmaV3

    model = small_vit()
    wrap_cyclic(model, 2)
    ema = ModelEmaV3(model, decay=0.5)
    start = copy.deepcopy(model.state_dict())
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    x, target = torch.randn(2, 3, 32, 32), torch.tensor([1, 2])
    CycleLoss(nn.CrossEntropyLoss())(model(x), target).backward()
    optimizer.step()
    ema.update(model)
    assert list(ema.module.state_dict()) == list(start)
    for name, value in ema.module.state_dict().items():
        torch.testing.assert_close(value, (start[name] + model.state_dict()[name]) / 2)
    assert isinstance(ema.module.eval()(x), Tensor)
    assert isinstance(torch.optim.swa_utils.AveragedModel(model).module.train()(x), CycleOutput)


def test_safetensors_round_trip(tmp_path: Path) -> None:
    safetensors = pytest.importorskip("safetensors.torch")
    model = wrap_cyclic(small_vit(), 2)
    plain = small_vit()
    path = str(tmp_path / "model.safetensors")
    safetensors.save_model(model, path)
    assert safetensors.load_model(plain, path, strict=True) == (set(), [])
    x = torch.randn(2, 3, 32, 32)
    assert_same(plain.eval()(x), model.eval()(x))
    other = wrap_cyclic(small_vit(), 3)
    safetensors.load_model(other, path, strict=True)
    assert_same(other.eval()(x), model(x))


def test_weights_only_checkpoint_round_trip(tmp_path: Path) -> None:
    model = wrap_cyclic(toys.make(), 2)
    torch.save(model.state_dict(), tmp_path / "weights.pt")
    plain = toys.make(seed=9)
    plain.load_state_dict(torch.load(tmp_path / "weights.pt", weights_only=True), strict=True)
    x, _ = toys.batch()
    assert_same(plain.eval()(x), model.eval()(x))


@pytest.mark.slow
def test_no_tensor_of_a_forward_outlives_it() -> None:
    model = wrap_cyclic(toys.make(), 2)
    out = model(toys.batch()[0])
    alive = [weakref.ref(t) for t in (*out.outputs, *out.tokens)]
    del out
    gc.collect()
    assert [ref() for ref in alive] == [None] * 4


@pytest.mark.slow
def test_no_tensor_outlives_a_failed_forward() -> None:
    model = wrap_cyclic(toys.make(), 2)
    alive: list[weakref.ref[Tensor]] = []

    def fail(_module: nn.Module, args: tuple[Tensor], _output: Tensor) -> None:
        alive.append(weakref.ref(args[0]))
        raise RuntimeError("on purpose")

    handle = model.head.register_forward_hook(fail)
    with pytest.raises(RuntimeError, match="on purpose"):
        model(toys.batch()[0])
    handle.remove()
    gc.collect()
    assert [ref() for ref in alive] == [None]
    copy.deepcopy(model)
    x, _ = toys.batch()
    assert_same(model(x).outputs, Truth(unwrap_cyclic(copy.deepcopy(model))).cycles(2, x))


GROUPS = [{}, {"layer_decay": 0.7}, {"filter_bias_and_bn": False}]


@pytest.mark.parametrize("options", GROUPS, ids=str)
@pytest.mark.parametrize("name", ["deit_tiny_patch16_224", "beit_base_patch16_224", "test_vit"])
def test_optimizer_groups_are_those_of_the_bare_model(name: str, options: dict[str, float]) -> None:
    from timm.optim import create_optimizer_v2

    def groups(model: nn.Module) -> list[tuple[object, ...]]:
        optimizer = create_optimizer_v2(model, opt="adamw", lr=1e-3, weight_decay=0.05, **options)
        names = {id(p): n for n, p in model.named_parameters()}
        return [
            (g["weight_decay"], g["lr"], g.get("lr_scale"), [names[id(p)] for p in g["params"]])
            for g in optimizer.param_groups
        ]

    with torch.device("meta"):
        model = timm.create_model(name)
    want = groups(model)
    no_decay, matcher = model.no_weight_decay(), model.group_matcher()
    wrap_cyclic(model, 2)
    assert groups(model) == want and len(want) > 1 - ("filter_bias_and_bn" in options)
    assert model.no_weight_decay() == no_decay
    assert repr(model.group_matcher()) == repr(matcher) or model.group_matcher().keys() == matcher.keys()


def test_deit_tiny_keeps_fifty_parameters_with_decay() -> None:
    """A wrapper that hides no_weight_decay() would decay 52 (cls_token and pos_embed too)."""
    from timm.optim import create_optimizer_v2

    with torch.device("meta"):
        model = wrap_cyclic(timm.create_model("deit_tiny_patch16_224"), 2)
    optimizer = create_optimizer_v2(model, opt="adamw", weight_decay=0.05)
    assert sum(len(g["params"]) for g in optimizer.param_groups if g["weight_decay"] > 0) == 50


def test_handle_says_what_it_holds() -> None:
    model = wrap_cyclic(toys.make(), 3)
    assert (model.cyclic.stack.path, model.cyclic.stack.depth) == ("blocks", 3)
    assert (model.cyclic.cycles, model.cyclic.exit) == (3, 1)
    with pytest.raises(AttributeError):
        model.cyclic.stack = None


def test_output_is_a_pytree_and_a_sequence() -> None:
    from torch.utils import _pytree as pytree

    out = wrap_cyclic(toys.make(), 2)(toys.batch()[0])
    leaves, spec = pytree.tree_flatten(out)
    assert leaves and all(isinstance(leaf, Tensor) for leaf in leaves)
    again = pytree.tree_unflatten(leaves, spec)
    assert isinstance(again, CycleOutput)
    assert again.task_weights == out.task_weights and list(again.losses) == list(out.losses)
    assert_same(again.outputs, out.outputs)
    assert out[-1] is out.outputs[-1] and out[0] is out.outputs[0] and len(out) == 2


def test_a_distilled_deit_loop_that_unpacks_gets_a_clear_error() -> None:
    model = wrap_cyclic(toys.make(toys.PairViT), 2)
    with pytest.raises((TypeError, ValueError), match=r"(?i)CycleOutput"):
        _main, _dist = model(toys.batch()[0])


def test_apply_to_and_half_work_after_wrapping() -> None:
    model = wrap_cyclic(toys.make(), 2)
    x, _ = toys.batch()
    assert model.float()(x.float())[0].dtype == torch.float32
    assert model.to(torch.bfloat16)(x.bfloat16())[1].dtype == torch.bfloat16
    model.requires_grad_(True)
    seen: list[str] = []
    model.apply(lambda m: seen.append(type(m).__name__))
    assert "ToyViT" in seen


def test_add_module_and_forward_hooks_see_the_first_cycle() -> None:
    """A hook that observes must not change the result, nor fail."""
    model = toys.make()
    x, _ = toys.batch()
    want = Truth(model).cycles(2, x)
    wrap_cyclic(model, 2)
    calls: dict[str, int] = {}

    def count(name: str) -> None:
        calls[name] = calls.get(name, 0) + 1

    for name, module in model.named_modules():
        module.register_forward_hook(lambda _m, _a, _y, name=name: count(name))
        module.register_forward_pre_hook(lambda _m, _a, name=name: None)
    assert_same(model(x).outputs, want)
    assert calls["embed"] == 1 and calls["blocks.0"] == 2 and calls["head"] == 2 and calls[""] == 1


def test_unwrap_refuses_when_another_tool_swapped_the_class() -> None:
    from torch.nn.utils import parametrize

    class Double(nn.Module):
        def forward(self, x: Tensor) -> Tensor:
            return 2 * x

    model = wrap_cyclic(toys.make(), 2)
    parametrize.register_parametrization(model, "cls_token", Double())
    with pytest.raises(StackError, match="(?i)swapped|another tool"):
        unwrap_cyclic(model)
    x, _ = toys.batch()
    assert len(model(x)) == 2  # still whole
    parametrize.remove_parametrizations(model, "cls_token", leave_parametrized=True)
    unwrap_cyclic(model)
    assert type(model) is toys.ToyViT


def test_parametrized_before_wrapping_stays_parametrized() -> None:
    from torch.nn.utils.parametrizations import weight_norm

    model = toys.make()
    weight_norm(model.head)
    weight_norm(model.embed)
    weight_norm(model.blocks[0].mlp[0])
    x, target = toys.batch()
    before = snapshot(model)
    want = model(x)
    wrap_cyclic(model, 2, distill="exits")
    out = model(x)
    assert_same(out[0], want)
    CycleLoss(task)(out, target).backward()
    unwrap_cyclic(model)
    assert snapshot(model) == before


def test_unwrap_of_a_plain_model_is_refused() -> None:
    with pytest.raises(StackError, match=re.escape("not wrapped")):
        unwrap_cyclic(toys.make())


def test_backward_hooks_fire_once_a_cycle() -> None:
    model = wrap_cyclic(toys.make(), 2, distill="exits")
    fired: list[int] = []
    model.blocks[0].register_full_backward_hook(lambda *_: fired.append(1))
    x, target = toys.batch()
    CycleLoss(task)(model(x), target).backward()
    assert len(fired) == 2
