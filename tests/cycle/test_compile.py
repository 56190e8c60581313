"""The training step compiles to one graph, and stays at it.

The graph is mostly run as it was traced (``eager``), in a fraction of the time: what this library adds is there or not
when it is traced. What AOTAutograd then makes of it (``aot_eager``) is tried once for each thing that it treats in its
own way: gradients, states that change, autocast, free sizes, and a graph for each block.
"""

from __future__ import annotations

import copy
import dataclasses
from collections.abc import Iterable
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch._dynamo.testing import CompileCounterWithBackend

from cycledistill import CycleLoss, CycleOutput, Distill, StackError, unwrap_cyclic, wrap_cyclic
from tests import toys
from tests.cycle.test_equality import task
from tests.oracle import Truth, assert_same, assert_same_gradients, gradients, statistics

pytestmark = [pytest.mark.filterwarnings("ignore::DeprecationWarning"), pytest.mark.usefixtures("cuda_in_use")]


def first_alone(names: Iterable[str]) -> list[Any]:
    """Names as parameters. A graph takes seconds to make: for a quick look, the first stands for all."""
    return [pytest.param(name, marks=[pytest.mark.slow] if number else []) for number, name in enumerate(names)]


def compiled(model: nn.Module, backend: str = "eager") -> tuple[Any, CompileCounterWithBackend]:
    counter = CompileCounterWithBackend(backend)
    return torch.compile(model, fullgraph=True, backend=counter), counter


SCHEMES = {
    "sdpose": "sdpose",
    "elt": "elt",
    "mct": "mct",
    "normalized": Distill(token_weight=0.1, normalize=True, detach=True, output_weight=0.5, temperature=2.0),
    "callable": lambda out: (out.tokens[0] - out.tokens[1]).square().mean(),
}
MODELS = {
    "toy": (toys.ToyViT, {"depth": 2}, "auto"),
    "sequential": (toys.ToyViT, {"container": "sequential", "depth": 2}, "auto"),
    "taps": (toys.TapViT, {"depth": 2}, "auto"),
    "two_states": (toys.TwoStateViT, {}, "blocks"),
    "arguments": (toys.ArgumentViT, {"depth": 2}, "blocks"),
    "batchnorm": (toys.NormedViT, {}, "blocks"),
    "pair": (toys.PairViT, {}, "auto"),
    "slicing": (toys.SlicingViT, {}, "blocks"),
}


@pytest.mark.parametrize("scheme", first_alone(SCHEMES))
def test_train_step_of_every_scheme_is_one_graph_equal_to_eager(scheme: str) -> None:
    check_train_step(toys.make(depth=2), "auto", SCHEMES[scheme], "aot_eager" if scheme == "sdpose" else "eager")


@pytest.mark.slow
@pytest.mark.parametrize("name", first_alone(MODELS))
def test_train_step_of_every_kind_of_model_is_one_graph_equal_to_eager(name: str) -> None:
    cls, options, path = MODELS[name]
    scheme = Distill(token_weight=0.1, output_weight=0.1)
    check_train_step(toys.make(cls, **options), path, scheme, "aot_eager" if name == "batchnorm" else "eager")


def check_train_step(model: nn.Module, path: str, scheme: Any, backend: str) -> None:
    x, target = toys.batch()
    eager = wrap_cyclic(copy.deepcopy(model), 2, distill=scheme, blocks=path)
    model = wrap_cyclic(model, 2, distill=scheme, blocks=path)
    fast, counter = compiled(model, backend)
    criterion = CycleLoss(task)
    for step in range(3):
        losses = []
        for run, owner in ((fast, model), (eager, eager)):
            owner.zero_grad()
            torch.manual_seed(step)
            out = run(x)
            assert isinstance(out, CycleOutput)
            loss = criterion(out, target)
            loss.backward()
            losses.append(loss.detach())
        assert_same(losses[0], losses[1], rtol=1e-12)
        assert_same_gradients(gradients(model), gradients(eager), rtol=1e-12)
    assert counter.frame_count == 1
    assert not torch._dynamo.utils.counters["graph_break"]
    assert_same(dict(model.named_buffers()), dict(eager.named_buffers()), rtol=1e-12)


@pytest.mark.slow
def test_train_step_under_autocast_is_one_graph_equal_to_eager() -> None:
    eager = wrap_cyclic(toys.make(depth=2).float(), 2, distill="sdpose")
    model, (x, target) = copy.deepcopy(eager), toys.batch()
    fast, counter = compiled(model, "aot_eager")
    for run in (fast, eager):
        with torch.autocast("cpu", torch.bfloat16):
            out = run(x.float())
            assert out.outputs[0].dtype == torch.bfloat16
            CycleLoss(task)(out, target).backward()
    assert_same_gradients(gradients(model), gradients(eager), rtol=0.02)  # of 16 bits
    assert counter.frame_count == 1
    model.eval()
    eager.eval()
    model.cyclic.exit = eager.cyclic.exit = 2
    with torch.no_grad(), torch.autocast("cpu", torch.bfloat16):
        assert_same(fast(x.float()), eager(x.float()), rtol=0.02)


def test_criterion_may_be_compiled_with_the_model() -> None:
    model = wrap_cyclic(toys.make(depth=2), 2, distill=Distill(token_weight=0.1))
    eager = copy.deepcopy(model)
    criterion = CycleLoss(nn.CrossEntropyLoss())
    x, target = toys.batch()
    counter = CompileCounterWithBackend("aot_eager")
    step = torch.compile(lambda x, y: criterion(model(x), y), fullgraph=True, backend=counter)
    for _ in range(2):
        step(x, target).backward()
        criterion(eager(x), target).backward()
    assert_same_gradients(gradients(model), gradients(eager), rtol=1e-12)
    assert counter.frame_count == 1


@pytest.mark.slow
@pytest.mark.parametrize("name", ["test_vit", "xcit_nano_12_p16_224", "tnt_s_legacy_patch16_224"])
def test_timm_train_step(name: str) -> None:
    timm = pytest.importorskip("timm")
    model = timm.create_model(name, img_size=32, num_classes=5, depth=2).double()
    eager = wrap_cyclic(copy.deepcopy(model), 2)
    fast, counter = compiled(wrap_cyclic(model, 2))
    x, target = torch.randn(2, 3, 32, 32, dtype=torch.float64), torch.tensor([0, 3])
    for _ in range(2):
        for run in (fast, eager):
            run.zero_grad()
            CycleLoss(task)(run(x), target).backward()
        assert_same_gradients(gradients(model), gradients(eager), rtol=1e-9)
    assert counter.frame_count == 1


@pytest.mark.slow
def test_a_schedule_of_weights_costs_at_most_two_graphs() -> None:
    model = wrap_cyclic(toys.make(depth=2), 2, distill=Distill(token_weight=0.01, output_weight=0.5))
    eager = copy.deepcopy(model)
    fast, counter = compiled(model)
    x, _ = toys.batch()
    for step in range(1, 9):
        scheme = dataclasses.replace(model.cyclic.distill, token_weight=0.01 * 1.7**step, output_weight=0.5 / step)
        model.cyclic.distill = eager.cyclic.distill = scheme
        assert_same(dict(fast(x).losses), dict(eager(x).losses), rtol=1e-12)
    assert counter.frame_count <= 2, f"{counter.frame_count} graphs for one schedule"


@pytest.mark.slow
def test_a_schedule_of_group_weights_and_temperature_costs_at_most_two_graphs() -> None:
    groups = {"a": slice(0, 1), "b": slice(1, None)}
    start = Distill(token_weight={"a": 0.01, "b": 0.5}, output_weight=1.0)
    model = wrap_cyclic(toys.make(depth=2), 2, distill=start, tokens=groups)
    eager = copy.deepcopy(model)
    fast, counter = compiled(model)
    x, _ = toys.batch()
    for step in range(1, 7):
        scheme = dataclasses.replace(
            start, token_weight={"a": 0.01 * step, "b": 0.5 / step**1.5}, temperature=1 + step**0.5
        )
        model.cyclic.distill = eager.cyclic.distill = scheme
        assert_same(dict(fast(x).losses), dict(eager(x).losses), rtol=1e-12)
    assert counter.frame_count <= 2, f"{counter.frame_count} graphs for one schedule"


@pytest.mark.slow
def test_weight_that_warms_up_from_zero() -> None:
    model = wrap_cyclic(toys.make(depth=2), 2, distill=Distill(token_weight=0.0))
    eager = copy.deepcopy(model)
    fast, counter = compiled(model)
    x, target = toys.batch()
    for weight in (0.0, 0.0, 0.1, 0.2, 0.3, 0.4):
        model.cyclic.distill = eager.cyclic.distill = Distill(token_weight=weight)
        losses = [CycleLoss(task)(run(x), target) for run in (fast, eager)]
        assert_same(losses[0], losses[1], rtol=1e-12)
    assert counter.frame_count <= 3, f"{counter.frame_count} graphs: one without the term, at most two with it"


@pytest.mark.slow
def test_random_student_needs_one_graph_whatever_is_drawn() -> None:
    model = wrap_cyclic(toys.make(depth=2), 4, distill="elt")
    fast, counter = compiled(model)
    x, _ = toys.batch()
    drawn = {round(float(fast(x).losses["output"].detach()), 9) for _ in range(16)}
    assert len(drawn) == 3 and counter.frame_count == 1


@pytest.mark.slow
def test_cycles_change_with_one_graph_each() -> None:
    model = toys.make(depth=2)
    x, _ = toys.batch()
    want = Truth(model).cycles(3, x)
    fast, counter = compiled(wrap_cyclic(model, 2, distill="exits"))
    for cycles in (2, 3, 1, 2, 3, 1):
        model.cyclic.cycles = cycles
        out = fast(x)
        assert len(out) == cycles
        assert_same(out.outputs, want[:cycles], rtol=1e-12)
    assert counter.frame_count == 3


@pytest.mark.slow
def test_eval_and_exits_compile_to_one_graph_each() -> None:
    model = toys.make(depth=2).eval()
    x, _ = toys.batch()
    want = Truth(model).cycles(3, x)
    fast, counter = compiled(wrap_cyclic(model, 2))
    for k in (1, 2, 3, 1, 2, 3):
        model.cyclic.exit = k
        got = fast(x)
        assert isinstance(got, Tensor)
        assert_same(got, want[k - 1], rtol=1e-12)
    assert counter.frame_count == 3


@pytest.mark.slow
@pytest.mark.parametrize("name", first_alone(["taps", "two_states", "batchnorm", "slicing"]))
def test_exits_of_every_kind_of_model_compile(name: str) -> None:
    cls, options, path = MODELS[name]
    model = toys.make(cls, **options).eval()
    x, _ = toys.batch()
    eager = wrap_cyclic(copy.deepcopy(model), 2, blocks=path)
    fast, counter = compiled(wrap_cyclic(model, 2, blocks=path))
    for k in (1, 2):
        model.cyclic.exit = eager.cyclic.exit = k
        assert_same(fast(x), eager(x), rtol=1e-12)
    assert counter.frame_count == 2


@pytest.mark.slow
def test_an_exit_with_a_norm_left_in_training_is_one_graph() -> None:
    model, (x, _) = toys.make(toys.NormedViT).eval(), toys.batch()
    model.blocks[0].bn.train()
    eager = wrap_cyclic(copy.deepcopy(model), 2, blocks="blocks")
    fast, counter = compiled(wrap_cyclic(model, 2, blocks="blocks"))
    model.cyclic.exit = eager.cyclic.exit = 3
    for _ in range(2):
        assert_same(fast(x), eager(x))
    assert counter.frame_count == 1
    assert_same(statistics(model), statistics(eager))


@pytest.mark.slow
def test_compiled_exit_runs_the_tail_once_in_the_graph() -> None:
    """The first tail of a compiled exit may be traced, but must not be in the graph that runs."""
    model = wrap_cyclic(toys.make(depth=2).eval(), 2)
    model.cyclic.exit = 3
    ops: list[list[str]] = []

    def backend(graph: torch.fx.GraphModule, _inputs: Any) -> Any:
        from torch._dynamo.backends.common import aot_autograd

        def inner(graph: torch.fx.GraphModule, _inputs: Any) -> Any:
            graph.graph.eliminate_dead_code()
            ops.append([str(node.target) for node in graph.graph.nodes if node.op == "call_function"])
            return graph.forward

        return aot_autograd(fw_compiler=inner)(graph, _inputs)

    with torch.no_grad():
        torch.compile(model, fullgraph=True, backend=backend)(toys.batch()[0])
    (names,) = ops
    norms = sum("native_layer_norm" in name for name in names)
    assert norms == 3 * 2 * 2 + 1, f"{norms} layer norms: 3 cycles x 2 blocks x 2, and one in the tail"


@pytest.mark.slow
def test_train_and_eval_alternate_without_recompiling() -> None:
    model = wrap_cyclic(toys.make(depth=2), 2)
    fast, counter = compiled(model)
    x, _ = toys.batch()
    for _ in range(3):
        assert isinstance(fast(x), CycleOutput)
        model.eval()
        assert isinstance(fast(x), Tensor)
        model.train()
    assert counter.frame_count == 2


@pytest.mark.slow
def test_compile_before_training_forward_in_place() -> None:
    model = toys.make(depth=2)
    x, target = toys.batch()
    want = Truth(model).cycles(2, x)
    wrap_cyclic(model, 2).compile(fullgraph=True, backend="eager")
    out = model(x)
    assert_same(out.outputs, want, rtol=1e-12)
    CycleLoss(task)(out, target).backward()


def test_compile_of_each_block() -> None:
    model = toys.make(depth=2)
    x, target = toys.batch()
    truth = Truth(model)
    want = truth.cycles(2, x)
    wrap_cyclic(model, 2, distill="exits")
    for block in model.blocks:
        block.compile(backend="aot_eager")
    out = model(x)
    assert_same(out.outputs, want, rtol=1e-12)
    CycleLoss(task)(out, target).backward()
    sum(task(y, target) for y in want).backward()
    assert_same_gradients(gradients(model), truth.gradients(), rtol=1e-12)


def test_an_optimized_module_cannot_be_unwrapped_but_its_original_can() -> None:
    model = wrap_cyclic(toys.make(depth=2), 2)
    fast = torch.compile(model, backend="eager")
    with pytest.raises(StackError):
        wrap_cyclic(fast, 2)
    unwrap_cyclic(model)
    assert isinstance(fast(toys.batch()[0]), Tensor)


@pytest.mark.slow
def test_dynamic_batch_size() -> None:
    model = toys.make(depth=2)
    truth = Truth(model)
    counter = CompileCounterWithBackend("aot_eager")
    fast = torch.compile(wrap_cyclic(model, 2), fullgraph=True, backend=counter, dynamic=True)
    graphs = []
    for size in (2, 3, 5):
        x, _ = toys.batch(size=size)
        assert_same(fast(x).outputs, truth.cycles(2, x), rtol=1e-12)
        graphs.append(counter.frame_count)
    assert graphs[0] == graphs[-1], "another batch size made another graph"


def test_a_refusal_inside_a_compiled_forward_is_still_a_refusal() -> None:
    model = wrap_cyclic(toys.make(depth=2), 2)
    model.blocks.append(toys.Block().double())
    with pytest.raises(Exception, match=r"(?s)edited|blocks"):
        compiled(model)[0](toys.batch()[0])
