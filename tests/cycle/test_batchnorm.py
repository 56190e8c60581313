"""Running statistics belong to the cycle that is deployed; random draws belong to each cycle."""

from __future__ import annotations

import copy

import pytest
import torch
from torch import nn

from cycledistill import CycleLoss, wrap_cyclic
from tests import toys
from tests.cycle.test_equality import task
from tests.oracle import assert_differ, assert_same, gradients, statistics


def recorded(model: nn.Module) -> dict[str, torch.Tensor]:
    return {name: value.clone() for name, value in statistics(model).items()}


def assert_step_moves_statistics_as_the_base_does(model: nn.Module, path: str, x: torch.Tensor, steps: int = 2) -> None:
    base = copy.deepcopy(model).train()
    start = recorded(base)
    assert start, "no BatchNorm in this model"
    wrap_cyclic(model, 3, distill="exits", blocks=path).train()
    for _ in range(steps):
        torch.manual_seed(3)
        base(x)
        torch.manual_seed(3)
        model(x)
    want, got = recorded(base), recorded(model)
    assert_differ({k: v for k, v in want.items() if "mean" in k}, {k: v for k, v in start.items() if "mean" in k})
    for name, value in want.items():
        assert_same(got[name], value, what=name)


@pytest.mark.parametrize("momentum", [0.1, None])
def test_toy_statistics_equal_an_unwrapped_step(momentum: float | None) -> None:
    model = toys.make(toys.NormedViT)
    for module in model.modules():
        if isinstance(module, nn.BatchNorm1d):
            module.momentum = momentum  # None: cumulative average, a harder case for "momentum 0"
    assert_step_moves_statistics_as_the_base_does(model, "blocks", toys.batch()[0])
    momenta = {m.momentum for m in model.modules() if isinstance(m, nn.BatchNorm1d)}
    assert momenta == {momentum}, "the layers' own settings must be put back"


def test_statistics_survive_the_whole_step() -> None:
    """Backward and the optimizer must not bring the extra cycles' statistics back."""
    model = toys.make(toys.NormedViT)
    base = copy.deepcopy(model)
    x, target = toys.batch()
    wrap_cyclic(model, 2, blocks="blocks")
    CycleLoss(task)(model(x), target).backward()
    base(x)
    assert_same(recorded(model), recorded(base))
    assert all(g is not None for g in gradients(model).values())


def test_update_lets_every_cycle_move_them() -> None:
    model = toys.make(toys.NormedViT)
    wrap_cyclic(model, 3, blocks="blocks", batch_norm="update")
    model(toys.batch()[0])
    assert int(model.blocks[0].bn.num_batches_tracked) == 3
    assert int(model.tail_bn.num_batches_tracked) == 3
    assert int(model.stem_bn.num_batches_tracked) == 1  # the stem answers from notes


def test_an_error_in_a_later_cycle_leaves_the_layers_as_they_were() -> None:
    model = toys.make(toys.NormedViT)
    settings = [
        (m.momentum, m.track_running_stats, m.training) for m in model.modules() if isinstance(m, nn.BatchNorm1d)
    ]
    wrap_cyclic(model, 2, blocks="blocks")
    calls = []

    def fail_second(*_: object) -> None:
        calls.append(1)
        if len(calls) == 2:
            raise RuntimeError("from the head")

    handle = model.head.register_forward_hook(fail_second)
    with pytest.raises(RuntimeError, match="from the head"):
        model(toys.batch()[0])
    handle.remove()
    assert settings == [
        (m.momentum, m.track_running_stats, m.training) for m in model.modules() if isinstance(m, nn.BatchNorm1d)
    ]
    assert len(model(toys.batch()[0])) == 2


def test_batchnorm_in_eval_inside_a_training_model_stays_in_eval() -> None:
    model = toys.make(toys.NormedViT)
    model.blocks[0].bn.eval()
    before = recorded(model.blocks[0])
    wrap_cyclic(model, 2, blocks="blocks")
    model(toys.batch()[0])
    assert_same(recorded(model.blocks[0]), before)
    assert not model.blocks[0].bn.training


@pytest.mark.parametrize(
    ("name", "path"),
    [("levit_128s", "stages.2.blocks"), ("xcit_nano_12_p16_224", "blocks"), ("volo_d1_224", "network[2:5]")],
)
def test_timm_statistics_equal_an_unwrapped_step(name: str, path: str) -> None:
    timm = pytest.importorskip("timm")
    model = timm.create_model(name, img_size=64)
    assert_step_moves_statistics_as_the_base_does(model, path, torch.randn(2, 3, 64, 64), steps=1)


@pytest.mark.parametrize("batch_norm", ["freeze", "update"])
@pytest.mark.parametrize("where", ["stem_bn", "blocks.0.bn", "tail_bn"])
def test_a_norm_left_in_training_moves_at_exits_as_in_training(where: str, batch_norm: str) -> None:
    """As where norms adapt to new data while the rest of a model stands still."""
    model, (x, _) = toys.make(toys.NormedViT).eval(), toys.batch()
    model.get_submodule(where).train()
    once = copy.deepcopy(model)
    once(x)
    wrap_cyclic(model, 2, batch_norm=batch_norm, blocks="blocks")
    model.cyclic.exit = 3
    got = model(x)
    if batch_norm == "freeze":
        assert_same(recorded(model), recorded(once))
        assert model.get_submodule(where).track_running_stats
    else:
        assert model.get_submodule(where).num_batches_tracked == {"stem_bn": 1, "blocks.0.bn": 3, "tail_bn": 1}[where]
    assert_differ(got, once(x))


def test_batchnorm_argument_is_checked() -> None:
    model = toys.make(toys.NormedViT)
    with pytest.raises(ValueError, match="(?s)'sync'.*freeze"):
        wrap_cyclic(model, 2, blocks="blocks", batch_norm="sync")
    assert not hasattr(model, "cyclic")


def test_dropout_draws_afresh_in_each_cycle() -> None:
    model = toys.make(toys.ToyViT, drop=0.5, depth=1)
    masks: list[torch.Tensor] = []
    wrap_cyclic(model, 3, blocks="blocks")
    model.blocks[0].drop.register_forward_hook(lambda _m, _a, y: masks.append(y == 0))
    model(toys.batch(size=2, tokens=8)[0])
    per_cycle = [torch.cat(masks[i : i + 2]) for i in range(0, 6, 2)]
    assert len(masks) == 6
    assert not torch.equal(per_cycle[0], per_cycle[1]) and not torch.equal(per_cycle[1], per_cycle[2])


def test_drop_path_draws_afresh_in_each_cycle() -> None:
    timm = pytest.importorskip("timm")
    model = timm.create_model("test_vit", img_size=32, drop_path_rate=0.5)
    kept: list[list[bool]] = []
    wrap_cyclic(model, 2)
    model.blocks[-1].drop_path1.register_forward_hook(
        lambda _m, _a, y: kept.append([bool(v) for v in (y.flatten(1) != 0).any(1)])
    )
    model(torch.randn(16, 3, 32, 32))
    assert len(kept) == 2 and kept[0] != kept[1]


def test_random_masks_before_the_stack_are_drawn_once() -> None:
    model = toys.make(toys.NormedViT, mask=True)
    drawn: list[torch.Tensor] = []
    model.mask.register_forward_hook(lambda _m, _a, y: drawn.append(y))
    wrap_cyclic(model, 3, blocks="blocks")
    model(toys.batch()[0])
    distinct = [d for i, d in enumerate(drawn) if not any(torch.equal(d, e) for e in drawn[:i])]
    assert len(distinct) == 1
