"""A step in graphs does what an eager one does, whatever changes from step to step; and leaves no trace before it.

All of it with tapes for graphs, and again with graphs where there is a GPU.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from typing import Any

import pytest
import torch
from torch import Tensor, nn

pytest.importorskip("timm")

from timm.layers.drop import DropPath
from timm.models.vision_transformer import VisionTransformer
from timm.utils.model_ema import ModelEmaV3

from cycledistill import CycleLoss, Distill, wrap_cyclic, wrap_pruning
from cycledistill.recipes.errors import NotCapturableError
from cycledistill.recipes.run.graph.optimizer import portable_state
from cycledistill.recipes.run.graph.replay import MOST_GRAPHS, GraphedStep
from cycledistill.recipes.run.step import EagerStep, Inputs
from tests.recipes.run.graph.tape import CountedCapture, TapeCapture

SIZE = 4
KINDS: dict[str, Callable[[], Any]] = {"cpu": TapeCapture, "cuda": CountedCapture}


class Place:
    """Where the present test runs."""

    device = "cpu"


@pytest.fixture(params=["cpu", pytest.param("cuda", marks=pytest.mark.gpu)], autouse=True)
def place(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    if request.param == "cuda" and not torch.cuda.is_available():
        pytest.skip("torch sees no CUDA device here")
    monkeypatch.setattr(Place, "device", request.param)


class Net(nn.Module):
    """Draws at random, has statistics, and reads a number."""

    def __init__(self) -> None:
        super().__init__()
        self.layers = nn.Sequential(nn.Linear(5, 8, bias=False), nn.BatchNorm1d(8), nn.Dropout(0.5), nn.Linear(8, 5))
        self.path = DropPath(0.2)
        self.scale = 1.0

    def forward(self, x: Tensor) -> Tensor:
        return self.scale * (x + self.path(self.layers(x)))


def build(kind: Callable[..., Any] = torch.optim.AdamW, net: nn.Module | None = None, **options: Any) -> EagerStep:
    torch.manual_seed(0)
    model = (Net() if net is None else net).to(Place.device)
    optimizer = kind(model.parameters(), lr=1.0, **options)

    def losses(inputs: Inputs, logs: bool) -> dict[str, Tensor]:
        task = (model(inputs[0]) - 1).square().mean()
        return {"loss": task, "task": task, **({"rms": inputs[0].square().mean()} if logs else {})}

    ema = ModelEmaV3(model, decay=0.9, use_warmup=True)
    return EagerStep(model, optimizer, losses, clip=lambda: clip(model), ema=ema)


def clip(model: nn.Module) -> None:
    nn.utils.clip_grad_norm_(model.parameters(), 0.5)


def graphed(step: EagerStep | None = None) -> tuple[GraphedStep, Any]:
    capture = KINDS[Place.device]()
    return GraphedStep(step or build(), capture, SIZE), capture


def batches(count: int, size: int = SIZE) -> Iterator[Tensor]:
    yield from torch.randn(count, size, 5, generator=torch.Generator().manual_seed(1)).to(Place.device)


def run(step: Any, batch: Tensor, count: int, logs: bool = False) -> dict[str, float]:
    for group in (step if isinstance(step, EagerStep) else step.eager).optimizer.param_groups:
        group["lr"] = 0.5  # as schedulers do
    step.set_rate(0.1 / count)
    torch.manual_seed(count)
    numbers: dict[str, float] = step.gradients((batch,), logs).numbers()
    step.update(count)
    return numbers


def assert_same(a: EagerStep, b: EagerStep, exact: bool = False) -> None:
    tolerance = 0.0 if exact else 1e-4
    for one, two in ((a.task, b.task), (a.ema.module, b.ema.module)):
        for name, value in one.state_dict().items():
            torch.testing.assert_close(two.state_dict()[name], value, atol=tolerance, rtol=tolerance, msg=name)


def test_a_step_in_graphs_is_an_eager_one() -> None:
    """Dropout, statistics, clipping, the rate and the average's weight, all of them other in each step."""
    eager, (step, capture) = build(), graphed()
    for count, batch in enumerate(batches(8), start=1):
        assert run(step, batch, count) == pytest.approx(run(eager, batch, count), rel=1e-4)
    assert_same(eager, step.eager)
    assert (capture.captures, capture.warm_ups, capture.replays) == (2, 1, 14)  # two halves; the first step is eager


def test_the_halves_are_apart_so_that_a_loss_that_is_no_number_reaches_no_weight() -> None:
    step, _ = graphed()
    for count, batch in enumerate(batches(3), start=1):
        run(step, batch, count)
    before = [parameter.clone() for parameter in step.eager.task.parameters()]
    assert step.gradients((torch.full((SIZE, 5), torch.nan, device=Place.device),)).numbers()["loss"] != 0
    assert all(torch.equal(*pair) for pair in zip(before, step.eager.task.parameters(), strict=True))


def test_a_batch_of_another_size_runs_eagerly_between_replays() -> None:
    eager, (step, capture) = build(), graphed()
    stream = [*batches(3), *batches(1, SIZE - 1), *batches(2)]
    for count, batch in enumerate(stream, start=1):
        assert run(step, batch, count) == pytest.approx(run(eager, batch, count), rel=1e-4)
    assert_same(eager, step.eager)
    assert capture.replays == 2 * 4


def test_measures_for_the_log_have_graphs_of_their_own() -> None:
    eager, (step, capture) = build(), graphed()
    for count, batch in enumerate(batches(7), start=1):
        logs = count % 2 == 0
        numbers = run(step, batch, count, logs)
        assert numbers == pytest.approx(run(eager, batch, count, logs), rel=1e-4)
        assert ("rms" in numbers) == logs
    assert capture.captures == 4


def set_drop_path(step: EagerStep, count: int) -> None:
    step.task.path.drop_prob = 0.2 if count < 5 else 0.0  # type: ignore[union-attr]


def set_decay(step: EagerStep, count: int) -> None:
    step.optimizer.param_groups[0]["weight_decay"] = 0.1 if count < 5 else 0.5


def set_mode(step: EagerStep, count: int) -> None:
    step.task.train(count % 2 == 0)


@pytest.mark.parametrize("schedule", [set_drop_path, set_decay, set_mode])
def test_a_number_that_changes_is_captured_anew(schedule: Callable[[EagerStep, int], None]) -> None:
    eager, (step, capture) = build(), graphed()
    for count, batch in enumerate(batches(8), start=1):
        schedule(eager, count)
        schedule(step.eager, count)
        assert run(step, batch, count) == pytest.approx(run(eager, batch, count), rel=1e-4)
    assert_same(eager, step.eager)
    assert capture.captures == 4 and not step.reason


def set_weight(model: Any, count: int) -> None:
    model.cyclic.distill = replace(model.cyclic.distill, token_weight=1.0 if count < 5 else 0.1)


def set_keep(model: Any, count: int) -> None:
    model.pruning.keep = 1.0 if count < 5 else 0.5


def set_cycles(model: Any, count: int) -> None:
    model.cyclic.cycles = 2 if count < 5 else 1


@pytest.mark.parametrize("schedule", [set_weight, set_keep, set_cycles])
def test_settings_of_handles_are_captured_anew(schedule: Callable[[Any, int], None]) -> None:
    def wrapped() -> EagerStep:
        torch.manual_seed(0)
        vit = VisionTransformer(img_size=16, patch_size=8, embed_dim=16, depth=3, num_heads=2, num_classes=5)
        net = wrap_cyclic(wrap_pruning(vit, layers=(2,)), 2, Distill(token_weight=1.0, normalize=True))
        step, criterion = build(net=net), CycleLoss(nn.MSELoss())
        step.losses = lambda inputs, logs: {"loss": criterion(net(inputs[0]), inputs[0][:, 0, 0, :5])}
        return step

    eager, (step, capture) = wrapped(), graphed(wrapped())
    for count, batch in enumerate(torch.randn(8, SIZE, 3, 16, 16, device=Place.device), start=1):
        for each in (eager, step.eager):
            schedule(each.task, count)
        assert run(step, batch, count) == pytest.approx(run(eager, batch, count), rel=1e-4)
    assert capture.captures == 4 and not step.reason


def test_more_graphs_than_are_of_use_end_in_eager_steps(caplog: pytest.LogCaptureFixture) -> None:
    eager, (step, capture) = build(), graphed()
    for count, batch in enumerate(batches(MOST_GRAPHS + 4), start=1):
        for each in (eager, step.eager):
            each.task.scale = 1 + count / 8
        assert run(step, batch, count) == pytest.approx(run(eager, batch, count), rel=1e-4)
    assert capture.captures == 2 * MOST_GRAPHS
    (said,) = caplog.messages
    assert said.startswith(f"run.compile=graph: the steps run eagerly: it would need more than {MOST_GRAPHS} graphs: ")
    assert said.endswith("there changes scale, 2.125 -> 2.25")


def test_shapes_that_change_end_in_eager_steps(caplog: pytest.LogCaptureFixture) -> None:
    class Mean(nn.Linear):
        def forward(self, x: Tensor) -> Tensor:
            return super().forward(x.mean(dim=1))

    eager, (step, _) = build(net=Mean(5, 5)), graphed(build(net=Mean(5, 5)))
    step.eager.task.load_state_dict(eager.task.state_dict())
    step.eager.ema.module.load_state_dict(eager.task.state_dict())
    for count in range(1, MOST_GRAPHS + 4):
        batch = torch.randn(SIZE, count, 5, device=Place.device)
        assert run(step, batch, count) == pytest.approx(run(eager, batch, count), rel=1e-4)
    assert [record.message.rpartition(": ")[2] for record in caplog.records] == [
        "there changes the shapes of its batches"
    ]


def test_warm_up_and_capture_leave_no_trace() -> None:
    """As a run does that goes on from a checkpoint: its first step is captured at once, and must be the step it was."""
    whole, (parts, _) = (graphed()[0], graphed())
    for count, batch in enumerate(batches(4), start=1):
        run(whole, batch, count)
        run(parts, batch, count)
    step, optimizer = build(), portable_state(parts.eager.optimizer)
    for one, other in ((step.task, parts.eager.task), (step.ema.module, parts.eager.ema.module)):
        one.load_state_dict(other.state_dict())
    step.optimizer.load_state_dict(optimizer)
    resumed, capture = graphed(step)
    torch.manual_seed(123)
    for count, batch in list(enumerate(batches(8), start=1))[4:]:
        assert run(resumed, batch, count) == run(whole, batch, count)
    assert_same(whole.eager, resumed.eager, exact=True)
    assert capture.replays == 2 * 4  # none of them eager


def test_generators_are_as_they_were_after_a_capture() -> None:
    step, _ = graphed()
    first, second = batches(2)
    run(step, first, 1)
    torch.manual_seed(7)
    read = torch.get_rng_state if Place.device == "cpu" else torch.cuda.get_rng_state
    state = read()
    assert step._graphs_for((second,), False)
    assert torch.equal(read(), state)


def test_state_that_begins_later_is_no_part_of_a_graph() -> None:
    """A part that is trained from some step on: its first update makes the optimiser's state, once."""

    class Late(Net):
        late = False

        def __init__(self) -> None:
            super().__init__()
            self.more = nn.Linear(5, 5)

        def forward(self, x: Tensor) -> Tensor:
            return super().forward(self.more(x) if self.late else x)

    torch.manual_seed(0)
    net = Late()
    other = Late()
    other.load_state_dict(net.state_dict())
    eager, (step, capture) = build(net=net), graphed(build(net=other))
    for count, batch in enumerate(batches(8), start=1):
        net.late = other.late = count > 4
        assert run(step, batch, count) == pytest.approx(run(eager, batch, count), rel=1e-4)
    assert_same(eager, step.eager)
    assert capture.replays == 2 * (3 + 3)


def test_checkpoints_of_optimisers_are_the_same_in_graphs_or_not() -> None:
    eager, (step, _) = build(amsgrad=True), graphed(build(amsgrad=True))
    for count, batch in enumerate(batches(4), start=1):
        run(eager, batch, count)
        run(step, batch, count)
    states = portable_state(eager.optimizer), portable_state(step.eager.optimizer)
    assert states[0]["param_groups"][0].pop("lr") == pytest.approx(states[1]["param_groups"][0].pop("lr"))
    assert states[0]["param_groups"] == states[1]["param_groups"]
    for number, slots in states[0]["state"].items():
        for name, value in slots.items():
            found = states[1]["state"][number][name]
            assert (found.device, found.dtype) == (value.device, value.dtype)
            torch.testing.assert_close(found, value, atol=1e-5, rtol=1e-4)
    again = build(amsgrad=True)
    again.optimizer.load_state_dict(states[1] | {"param_groups": eager.optimizer.state_dict()["param_groups"]})
    run(again, next(batches(1)), 5)


def test_an_optimiser_that_counts_on_the_cpu_is_refused() -> None:
    with pytest.raises(NotCapturableError, match="SGD cannot be captured, as adam and adamw can"):
        graphed(build(torch.optim.SGD))


def test_other_capturable_optimisers_are_made_so(monkeypatch: pytest.MonkeyPatch) -> None:
    """On a CPU they refuse to be; nothing else of them differs there."""
    from torch.optim import nadam

    monkeypatch.setattr(nadam, "_get_capturable_supported_devices", lambda *args, **kwargs: ["cpu", "cuda"])
    eager, (step, capture) = build(torch.optim.NAdam, foreach=False), graphed(build(torch.optim.NAdam, foreach=False))
    for count, batch in enumerate(batches(6), start=1):
        assert run(step, batch, count) == pytest.approx(run(eager, batch, count), rel=1e-4)
    assert capture.replays == 2 * 5


@pytest.mark.parametrize("kind", [NotCapturableError, torch.OutOfMemoryError])
@pytest.mark.parametrize("where", ["aside", "record"])
def test_a_capture_that_fails_is_said_and_the_steps_go_on(
    kind: type[Exception], where: str, caplog: pytest.LogCaptureFixture
) -> None:
    class Failing(KINDS[Place.device]):  # type: ignore[misc]
        """Fails at once, or after the warm-up."""

    @contextmanager
    def fail(*given: Any) -> Iterator[None]:
        yield
        raise kind("no memory\nand advice")

    def fail_at_once(*given: Any) -> None:
        raise kind("no memory\nand advice")

    setattr(Failing, where, fail if where == "aside" else fail_at_once)
    eager, step = build(), GraphedStep(build(), Failing(), SIZE)
    with caplog.at_level(logging.WARNING):
        for count, batch in enumerate(batches(5), start=1):
            assert run(step, batch, count) == pytest.approx(run(eager, batch, count), rel=1e-4)
    assert_same(eager, step.eager)
    assert caplog.messages == ["run.compile=graph: the steps run eagerly: no memory"]


@pytest.mark.parametrize("place", [pytest.param("cuda", marks=pytest.mark.gpu)], indirect=True)
def test_what_only_a_capture_forbids_ends_in_eager_steps_that_draw_on() -> None:
    """No operator does it, so no warm-up minds it. The failed capture leaves the generator in order."""

    class Refuses(Net):
        def forward(self, x: Tensor) -> Tensor:
            if torch.cuda.is_current_stream_capturing():
                raise RuntimeError("not here")
            return super().forward(x)

    eager, (step, _) = build(net=Refuses()), graphed(build(net=Refuses()))
    step.eager.task.load_state_dict(eager.task.state_dict())
    step.eager.ema.module.load_state_dict(eager.task.state_dict())
    for count, batch in enumerate(batches(6), start=1):
        assert run(step, batch, count) == pytest.approx(run(eager, batch, count), rel=1e-4)
    assert step.reason.startswith("the capture failed: not here")
