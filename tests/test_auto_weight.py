"""``token_weight="auto"``: CycleLoss scales the token terms to a fraction of the task loss, as a loop by hand does."""

from __future__ import annotations

import copy
import dataclasses
from collections.abc import Callable
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch._dynamo.testing import CompileCounterWithBackend
from torch.nn.parallel.distributed import _find_tensors
from torch.utils._pytree import tree_leaves, tree_map

from cycledistill import CycleLoss, CycleOutput, Distill, wrap_cyclic
from cycledistill.output import UnscaledTerms
from tests import toys
from tests.oracle import assert_same, assert_same_gradients, gradients
from tests.test_distill import GROUPS, mse, pairs, unrolled

AUTO = Distill(token_weight="auto", token_fraction=0.1)


class Mean:
    """The running mean in Python's numbers: of all steps up to twenty, then with a twentieth of each new one."""

    def __init__(self) -> None:
        self.count, self.task = 0, 0.0

    def scale(self, task: float, tokens: float, fraction: float) -> float:
        self.count += 1
        self.task += (1 / self.count if self.count < 20 else 0.05) * (task - self.task)
        return fraction * self.task / tokens


def given(task: float, tokens: float, fraction: float = 0.1) -> CycleOutput:
    """One cycle whose task loss is ``task``, beside a token loss without its weight."""
    leaf = torch.tensor(tokens, requires_grad=True)
    terms = UnscaledTerms({"token_all": leaf}, {}, torch.tensor(fraction))
    return CycleOutput((torch.tensor(task, requires_grad=True),), (leaf,), terms, (1.0,))


def taught(criterion: CycleLoss, *numbers: float) -> float:
    return float(criterion.parts(given(*numbers))["token_all"].detach())


@pytest.fixture
def criterion() -> CycleLoss:
    return CycleLoss(lambda output: output)


@pytest.mark.parametrize("student", ["all", "random"])
def test_losses_and_gradients_are_those_of_a_loop_by_hand(student: Any) -> None:
    """Two groups have one weight; the output term keeps its own. Batches grow, so that the mean matters."""
    model = toys.make(depth=2)
    twin = copy.deepcopy(model)
    scheme = Distill(token_weight="auto", token_fraction=0.3, output_weight=0.5, output_loss="mse", student=student)
    wrap_cyclic(model, 3, distill=scheme, tokens=GROUPS)
    criterion, mean = CycleLoss(nn.CrossEntropyLoss()), Mean()
    for step in range(4):
        x, target = toys.batch(seed=step)
        x = x * (1 + step)
        for each in (model, twin):
            each.zero_grad()
        torch.manual_seed(step)
        parts = criterion.parts(model(x), target)
        loss = sum(parts.values())
        loss.backward()
        torch.manual_seed(step)
        drawn = None if student == "all" else int(torch.randint(2, (1,)))
        tokens, logits = unrolled(twin, x, 3)
        wanted = {name: one_or_all([t[:, group] for t in tokens], drawn) for name, group in GROUPS.items()}
        task = sum(F.cross_entropy(each, target) for each in logits)
        scale = mean.scale(float(task.detach()), sum(float(each.detach()) for each in wanted.values()), 0.3)
        total = task + scale * sum(wanted.values()) + 0.5 * one_or_all(logits, drawn)
        total.backward()
        assert_same(loss, total, rtol=1e-6)
        assert_same_gradients(gradients(model), gradients(twin), rtol=1e-5)
        for name, term in wanted.items():
            assert_same(parts[f"token_{name}"], scale * term, rtol=1e-6)


def one_or_all(values: list[Tensor], drawn: int | None) -> Tensor:
    return pairs(values, mse, "next", False) if drawn is None else mse(values[drawn], values[drawn + 1])


def test_the_mean_is_over_all_steps_and_later_over_about_twenty(criterion: CycleLoss) -> None:
    mean = Mean()
    for step in range(60):
        task, tokens = 2.0 + step % 7, 0.01 * (1 + step % 5)
        assert taught(criterion, task, tokens) == pytest.approx(mean.scale(task, tokens, 0.1) * tokens, rel=1e-4)


def test_tokens_stay_at_their_fraction_of_a_task_loss_that_falls() -> None:
    """The token loss itself falls to a hundredth meanwhile."""
    model = wrap_cyclic(toys.make(depth=2), 2, distill=AUTO)
    criterion = CycleLoss(nn.CrossEntropyLoss())
    optimizer = torch.optim.Adam(model.parameters(), lr=1e-2)
    log = []
    for step in range(60):
        x, _ = toys.batch(seed=step, size=16)
        out = model(x)
        parts = criterion.parts(out, x.mean(1)[:, : toys.CLASSES].argmax(1))
        optimizer.zero_grad()
        sum(parts.values()).backward()
        optimizer.step()
        log.append([float(each.detach()) for each in (parts["task_1"] + parts["task_2"], parts["token_all"])])
        log[-1].append(float(mse(*out.tokens).detach()))
    first, last = (torch.tensor(rows).mean(0) for rows in (log[:10], log[-10:]))
    assert last[0] < 0.95 * first[0] and last[2] < 0.05 * first[2]
    for task, tokens, _ in log:
        assert tokens / task == pytest.approx(0.1, rel=0.25)
    assert sum(row[1] for row in log) / sum(row[0] for row in log) == pytest.approx(0.1, rel=0.03)


def test_tokens_that_are_equal_or_differ_by_rounding_are_not_blown_up(criterion: CycleLoss) -> None:
    assert taught(criterion, 2.0, 0.0) == 0
    assert taught(criterion, 2.0, 1e-12) == pytest.approx(0.2 * 1e-12 / 1e-8)
    out = given(2.0, 0.0)
    loss = criterion(out)
    loss.backward()
    assert float(loss.detach()) == 2.0
    assert torch.isfinite(out.tokens[0].grad)


def test_signs_do_not_matter(criterion: CycleLoss) -> None:
    """A log-likelihood may be below zero, and so may a token loss of one's own."""
    assert taught(criterion, -2.0, -0.5) == pytest.approx(-0.1 * 2.0)


@pytest.mark.parametrize(
    "numbers", [(float("nan"), 0.5), (float("inf"), 0.5), (2.0, float("nan")), (2.0, float("inf"))]
)
@pytest.mark.parametrize("before", [0, 3])
def test_a_loss_that_is_no_number_is_not_remembered(
    criterion: CycleLoss, numbers: tuple[float, float], before: int
) -> None:
    for _ in range(before):
        taught(criterion, 2.0, 0.5)
    assert not torch.isfinite(criterion(given(*numbers)))
    assert torch.isfinite(criterion.task_mean)
    assert taught(criterion, 2.0, 0.5) == pytest.approx(0.2)


def no_grad(criterion: CycleLoss, *numbers: float) -> float:
    with torch.no_grad():
        return taught(criterion, *numbers)


def in_eval(criterion: CycleLoss, *numbers: float) -> float:
    try:
        return taught(criterion.eval(), *numbers)
    finally:
        criterion.train()


@pytest.mark.parametrize("evaluate", [no_grad, in_eval])
def test_evaluation_changes_nothing(criterion: CycleLoss, evaluate: Callable[..., float]) -> None:
    """Before any step it goes by its own numbers, afterwards by the mean."""
    assert evaluate(criterion, 4.0, 0.5) == pytest.approx(0.4)
    assert not any(criterion.state_dict().values())
    taught(criterion, 2.0, 0.5)
    state = copy.deepcopy(criterion.state_dict())
    assert evaluate(criterion, 100.0, 1.0) == pytest.approx(0.1 * 2.0)
    assert_same(criterion.state_dict(), state, rtol=0)


@pytest.mark.parametrize("how", ["deepcopy", "state_dict"])
def test_copies_and_loaded_states_go_on_alike(criterion: CycleLoss, how: str) -> None:
    for step in range(3):
        taught(criterion, 2.0 + step, 0.5)
    twin = copy.deepcopy(criterion) if how == "deepcopy" else CycleLoss(lambda output: output)
    if how == "state_dict":
        twin.load_state_dict(criterion.state_dict())
    taught(criterion, 9.0, 0.1)
    assert twin.seen == 3 and criterion.seen == 4
    taught(twin, 9.0, 0.1)
    assert taught(criterion, 3.0, 0.7) == taught(twin, 3.0, 0.7)


@pytest.mark.parametrize("compiled", [False, pytest.param(True, marks=pytest.mark.slow)])
def test_a_step_counts_once_however_often_its_loss_is_asked_for(criterion: CycleLoss, compiled: bool) -> None:
    """As one logs: the loss, and its terms by name, which sum to it. Another criterion has a memory of its own."""
    other, alone = CycleLoss(criterion.task_loss), Mean()

    def step(out: CycleOutput) -> tuple[Any, ...]:
        return criterion(out), criterion.parts(out), other.parts(out), criterion(out)

    run = torch.compile(step, fullgraph=True, backend="aot_eager") if compiled else step
    for count, (task, tokens) in enumerate([(4.0, 2.0), (1.0, 3.0), (2.5, 0.5), (2.0, 1.0)], start=1):
        loss, parts, of_other, again = run(given(task, tokens))
        assert loss == sum(parts.values()) == again
        assert float(parts["token_all"].detach()) == pytest.approx(alone.scale(task, tokens, 0.1) * tokens)
        assert of_other == parts
        assert criterion.seen == other.seen == count


def test_a_state_of_before_begins_the_mean_anew() -> None:
    criterion = CycleLoss(nn.CrossEntropyLoss(weight=torch.ones(5)))
    criterion.seen.fill_(7)
    criterion.load_state_dict({"task_loss.weight": torch.full((5,), 2.0)})
    assert criterion.seen == 0
    assert criterion.task_loss.weight.tolist() == [2.0] * 5


def test_whoever_sums_the_terms_by_hand_is_told() -> None:
    model = wrap_cyclic(toys.make(depth=2), 2, distill=dataclasses.replace(AUTO, output_weight=1.0))
    losses = model(toys.batch()[0]).losses
    for read in (
        lambda: sum(losses.values()),
        lambda: dict(losses),
        lambda: {**losses},
        lambda: losses["token_all"],
        lambda: losses["output"],
        lambda: losses.get("token_all"),
        lambda: [each for each in losses.items()],  # noqa: C416
    ):
        with pytest.raises(TypeError, match=r"token_all.*no weight yet.*CycleLoss"):
            read()
    assert "token_all" in losses and "output" in losses and "token" not in losses and len(losses) == 2


def test_without_pairs_there_are_no_terms() -> None:
    out = wrap_cyclic(toys.make(depth=2), 1, distill=AUTO)(toys.batch()[0])
    assert out.losses == {}


def test_every_tensor_is_found() -> None:
    """By pytrees (``torch.export``) and by DDP, which looks for what a forward's gradients begin at."""
    out = given(2.0, 0.5)
    assert len(tree_leaves(out)) == 4 and len([*_find_tensors(out)]) == 4
    doubled = tree_map(lambda each: each * 2, out)
    assert isinstance(doubled.losses, UnscaledTerms) and doubled.losses.tokens["token_all"] == 1.0


@pytest.mark.slow
def test_it_compiles_once_and_as_eager() -> None:
    """The mean and the draw are tensors; a schedule of the fraction costs a second graph at most."""
    model = wrap_cyclic(toys.make(depth=2), 3, distill=dataclasses.replace(AUTO, student="random"))
    eager, x, target = copy.deepcopy(model), *toys.batch()
    criterion, plain = CycleLoss(nn.CrossEntropyLoss()), CycleLoss(nn.CrossEntropyLoss())
    counter = CompileCounterWithBackend("eager")
    step = torch.compile(lambda x, y: criterion(model(x), y), fullgraph=True, backend=counter)
    for number in range(7):
        if number == 4:
            assert counter.frame_count == 1
        if number >= 4:
            model.cyclic.distill = dataclasses.replace(model.cyclic.distill, token_fraction=0.1 * number)
            eager.cyclic.distill = model.cyclic.distill
        losses = []
        for run in (step, lambda x, y: plain(eager(x), y)):
            torch.manual_seed(number)
            losses.append(run(x * (1 + number), target))
            losses[-1].backward()
        assert_same(losses[0], losses[1], rtol=1e-6)
    assert counter.frame_count <= 2
    assert_same(criterion.state_dict(), plain.state_dict(), rtol=1e-6)
    assert criterion.seen == 7
    assert_same_gradients(gradients(model), gradients(eager), rtol=1e-6)


def test_autocast() -> None:
    model = wrap_cyclic(toys.make(depth=2).float(), 2, distill=AUTO)
    x, target = toys.batch()
    with torch.autocast("cpu", torch.bfloat16):
        parts = CycleLoss(nn.CrossEntropyLoss()).parts(model(x.float()), target)
    assert float(parts["token_all"].detach()) == pytest.approx(
        0.1 * float((parts["task_1"] + parts["task_2"]).detach()), rel=1e-3
    )


@pytest.mark.parametrize("change", [lambda c: c.double(), lambda c: c.bfloat16()])
def test_a_criterion_in_another_precision(criterion: CycleLoss, change: Callable[[CycleLoss], CycleLoss]) -> None:
    change(criterion)
    for _ in range(3):
        found = taught(criterion, 2.0, 0.5)
    assert found == pytest.approx(0.2, rel=1e-2)


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"token_weight": "automatic"}, "'automatic'.*\"auto\""),
        ({"token_weight": {"all": "auto"}}, r"token_weight\['all'\]='auto'"),
        ({"token_weight": "auto", "token_fraction": 0.0}, "token_fraction=0.0: a positive"),
        ({"token_weight": "auto", "token_fraction": True}, "token_fraction=True"),
        ({"token_weight": "auto", "token_fraction": float("inf")}, "token_fraction=inf"),
        ({"token_weight": "auto", "detach": True}, "diverges"),
    ],
)
def test_what_is_refused(fields: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        Distill(**fields)


def test_normalised_tokens_may_be_detached() -> None:
    Distill(token_weight="auto", detach=True, normalize=True)
