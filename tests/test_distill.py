"""Distillation terms and their gradients equal a loop written out by hand."""

from __future__ import annotations

import copy
import dataclasses
import math
from collections.abc import Callable

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from cycledistill import CycleLoss, CycleOutput, Distill, StackError, distill, wrap_cyclic
from tests import toys
from tests.oracle import assert_same, assert_same_gradients, gradients

GROUPS = {"query": slice(0, 1), "visual": slice(1, None)}


def unrolled(model: nn.Module, x: Tensor, cycles: int) -> tuple[list[Tensor], list[Tensor]]:
    """Tokens and logits of each cycle of a ToyViT, each line of its forward written out."""
    state = torch.cat([model.cls_token.expand(x.shape[0], -1, -1), model.embed(x)], dim=1)
    tokens, logits = [], []
    for _ in range(cycles):
        for block in model.blocks:
            state = block(state)
        tokens.append(state)
        logits.append(model.head(model.norm(state)[:, 0]))
    return tokens, logits


def layer_norm(x: Tensor) -> Tensor:
    return (x - x.mean(-1, keepdim=True)) / (x.var(-1, unbiased=False, keepdim=True) + 1e-5).sqrt()


def mse(s: Tensor, t: Tensor) -> Tensor:
    return (s - t).square().mean()


def smooth_l1(s: Tensor, t: Tensor) -> Tensor:
    gap = (s - t).abs()
    return torch.where(gap < 1, gap.square() / 2, gap - 0.5).mean()


def cosine(s: Tensor, t: Tensor) -> Tensor:
    return (1 - (s * t).sum(-1) / (s.norm(dim=-1) * t.norm(dim=-1))).mean()


def kl(s: Tensor, t: Tensor, temperature: float = 1.0) -> Tensor:
    """Hinton's: T^2 x KL(teacher || student), summed over classes, mean over the batch."""
    p, log_q = (t / temperature).softmax(-1), (s / temperature).log_softmax(-1)
    return temperature**2 * (p * (p.log() - log_q)).sum(-1).mean()


def l1(s: Tensor, t: Tensor) -> Tensor:
    return (s - t).abs().mean()


Term = Callable[[list[Tensor], list[Tensor]], dict[str, Tensor]]


Case = tuple[Distill, Term]


def pairs(values: list[Tensor], loss: Callable[[Tensor, Tensor], Tensor], teacher: str, detach: bool) -> Tensor:
    """Sum over the students of one loss: cycle i learns from i + 1 ("next") or from the deepest ("last")."""
    total = torch.zeros((), dtype=values[0].dtype)
    for i in range(len(values) - 1):
        t = values[i + 1] if teacher == "next" else values[-1]
        total = total + loss(values[i], t.detach() if detach else t)
    return total


CASES: dict[str, Case] = {
    "sdpose": (
        Distill.preset("sdpose"),
        lambda x, y: {f"token_{n}": 5e-6 * pairs([t[:, g] for t in x], mse, "next", False) for n, g in GROUPS.items()},
    ),
    "mse_attached_last": (
        Distill(token_weight=0.5, teacher="last"),
        lambda x, y: {f"token_{n}": 0.5 * pairs([t[:, g] for t in x], mse, "last", False) for n, g in GROUPS.items()},
    ),
    "normalized_detached": (
        Distill(token_weight=0.3, normalize=True, detach=True),
        lambda x, y: {
            f"token_{n}": 0.3 * pairs([layer_norm(t[:, g]) for t in x], mse, "next", True) for n, g in GROUPS.items()
        },
    ),
    "smooth_l1_detached": (
        Distill(token_weight=0.3, token_loss="smooth_l1", detach=True, teacher="last"),
        lambda x, y: {
            f"token_{n}": 0.3 * pairs([t[:, g] for t in x], smooth_l1, "last", True) for n, g in GROUPS.items()
        },
    ),
    "cosine": (
        Distill(token_weight=0.3, token_loss="cosine"),
        lambda x, y: {
            f"token_{n}": 0.3 * pairs([t[:, g] for t in x], cosine, "next", False) for n, g in GROUPS.items()
        },
    ),
    "own_token_loss_detached": (
        Distill(token_weight=0.3, token_loss=l1, detach=True),
        lambda x, y: {f"token_{n}": 0.3 * pairs([t[:, g] for t in x], l1, "next", True) for n, g in GROUPS.items()},
    ),
    "one_group": (
        Distill(token_weight={"visual": 0.7}),
        lambda x, y: {"token_visual": 0.7 * pairs([t[:, 1:] for t in x], mse, "next", False)},
    ),
    "two_group_weights": (
        Distill(token_weight={"visual": 0.7, "query": 0.1}),
        lambda x, y: {
            "token_visual": 0.7 * pairs([t[:, 1:] for t in x], mse, "next", False),
            "token_query": 0.1 * pairs([t[:, :1] for t in x], mse, "next", False),
        },
    ),
    "group_of_weight_zero": (
        Distill(token_weight={"visual": 0.7, "query": 0.0}),
        lambda x, y: {"token_visual": 0.7 * pairs([t[:, 1:] for t in x], mse, "next", False)},
    ),
    "kl": (Distill(output_weight=2.0), lambda x, y: {"output": 2.0 * pairs(y, kl, "next", False)}),
    "kl_detached_hot": (
        Distill(output_weight=2.0, temperature=3.0, detach=True, teacher="last"),
        lambda x, y: {"output": 2.0 * pairs(y, lambda s, t: kl(s, t, 3.0), "last", True)},
    ),
    "output_mse": (
        Distill(output_weight=0.4, output_loss="mse", detach=True),
        lambda x, y: {"output": 0.4 * pairs(y, mse, "next", True)},
    ),
    "own_output_loss": (
        Distill(output_weight=0.4, output_loss=l1),
        lambda x, y: {"output": 0.4 * pairs(y, l1, "next", False)},
    ),
    "tokens_and_outputs": (
        Distill(token_weight={"visual": 0.7}, output_weight=0.5, temperature=2.0),
        lambda x, y: {
            "token_visual": 0.7 * pairs([t[:, 1:] for t in x], mse, "next", False),
            "output": 0.5 * pairs(y, lambda s, t: kl(s, t, 2.0), "next", False),
        },
    ),
    "exits": (Distill.preset("exits"), lambda x, y: {}),
    "mct": (Distill.preset("mct"), lambda x, y: {}),
}


@pytest.mark.parametrize("cycles", [1, 2, 3])
@pytest.mark.parametrize("name", CASES)
def test_terms_and_gradients_equal_the_unrolled_loop(name: str, cycles: int) -> None:
    scheme, terms = CASES[name]
    model = toys.make()
    twin = copy.deepcopy(model)
    x, target = toys.batch()
    wrap_cyclic(model, cycles, distill=scheme, tokens=GROUPS)
    out = model(x)
    tokens, logits = unrolled(twin, x, cycles)
    want = terms(tokens, logits) if cycles > 1 else {}
    assert set(out.losses) == set(want)
    for key, value in want.items():
        assert out.losses[key].ndim == 0
        assert_same(out.losses[key], value, rtol=1e-12, what=key)
    task_weights = [1.0] * cycles if scheme.task_weights == "all" else [0.0] * (cycles - 1) + [1.0]
    assert out.task_weights == tuple(task_weights)
    loss = CycleLoss(nn.CrossEntropyLoss())(out, target)
    total = sum(w * F.cross_entropy(y, target) for w, y in zip(task_weights, logits, strict=True))
    total = total + sum(want.values())
    assert_same(loss, total, rtol=1e-12)
    loss.backward()
    total.backward()
    assert_same_gradients(gradients(model), gradients(twin), rtol=1e-11)


@pytest.mark.parametrize("name", [n for n, (scheme, _) in CASES.items() if scheme.token_weight or scheme.output_weight])
def test_distillation_alone_has_the_gradients_of_the_unrolled_loop(name: str) -> None:
    """Without the task losses beside them, a teacher that is detached by mistake (or not) cannot hide."""
    scheme, terms = CASES[name]
    model = toys.make()
    twin = copy.deepcopy(model)
    x, _ = toys.batch()
    out = wrap_cyclic(model, 3, distill=scheme, tokens=GROUPS)(x)
    sum(out.losses.values()).backward()
    sum(terms(*unrolled(twin, x, 3)).values()).backward()
    assert_same_gradients(gradients(model), gradients(twin), rtol=1e-11)


@pytest.mark.parametrize(
    "scheme", [Distill(output_weight=1.0, detach=True), Distill(token_weight=1.0, normalize=True, detach=True)]
)
def test_no_gradient_reaches_the_teacher(scheme: Distill) -> None:
    model = wrap_cyclic(toys.make(), 2, distill=scheme)
    out = model(toys.batch()[0])
    watched = out.outputs if scheme.output_weight else out.tokens
    student, teacher = torch.autograd.grad(sum(out.losses.values()), watched, allow_unused=True)
    assert student is not None and student.abs().max() > 0
    assert teacher is None or teacher.abs().max() == 0


@pytest.mark.parametrize(("weights", "cycles"), [((1.0, 0.0), 2), ((0.0, 1.0), 2), ((0.25, 0.0, 2.0), 3)])
def test_task_weights_reach_their_cycle_only(weights: tuple[float, ...], cycles: int) -> None:
    model = wrap_cyclic(toys.make(), cycles, distill=Distill(task_weights=weights))
    twin = toys.make()
    x, target = toys.batch()
    loss = CycleLoss(nn.CrossEntropyLoss())(model(x), target)
    _, logits = unrolled(twin, x, cycles)
    want = sum(w * F.cross_entropy(y, target) for w, y in zip(weights, logits, strict=True) if w)
    assert_same(loss, want, rtol=1e-12)
    loss.backward()
    want.backward()
    assert_same_gradients(gradients(model), gradients(twin), rtol=1e-11)


def test_all_weights_zero_is_the_task_loss() -> None:
    model = wrap_cyclic(toys.make(), 2, distill=Distill(task_weights=(1.0, 0.0), token_weight=0.0, output_weight=0.0))
    x, target = toys.batch()
    out = model(x)
    assert out.losses == {}
    assert_same(CycleLoss(nn.CrossEntropyLoss())(out, target), F.cross_entropy(toys.make()(x), target))


ELT = {"task_weights": "all", "output_weight": 1.0, "teacher": "last", "student": "random", "detach": True}


def test_presets_are_those_of_the_design() -> None:
    base = Distill()
    assert Distill.preset("sdpose") == dataclasses.replace(base, task_weights="all", token_weight=5e-6)
    assert not Distill.preset("sdpose").detach and Distill.preset("sdpose").teacher == "next"
    assert Distill.preset("exits") == dataclasses.replace(base, task_weights="all")
    assert Distill.preset("mct") == dataclasses.replace(base, task_weights="last")
    elt = Distill.preset("elt")
    assert {key: getattr(elt, key) for key in ELT} == ELT and elt.output_loss == "kl" and not elt.token_weight


def test_random_student_is_one_exit_drawn_anew_each_step() -> None:
    cycles, x = 4, toys.batch()[0]
    model = wrap_cyclic(toys.make(), cycles, distill="elt")
    _, logits = unrolled(toys.make(), x, cycles)
    choices = [float(kl(logits[i], logits[-1]).detach()) for i in range(cycles - 1)]
    assert len({round(c, 9) for c in choices}) == cycles - 1
    drawn = []
    for step in range(24):
        torch.manual_seed(step)
        term = float(model(x).losses["output"].detach())
        near = [i for i, c in enumerate(choices) if math.isclose(term, c, rel_tol=1e-9)]
        assert len(near) == 1, f"{term} is the loss of no single exit of {choices}"
        drawn += near
        torch.manual_seed(step)
        assert float(model(x).losses["output"].detach()) == term, "the draw must follow torch's seed"
    assert set(drawn) == {0, 1, 2}


def test_random_student_has_the_gradient_of_the_exit_drawn() -> None:
    x = toys.batch()[0]
    for seed in range(4):
        model, twin = wrap_cyclic(toys.make(), 3, distill="elt"), toys.make()
        torch.manual_seed(seed)
        out = model(x)
        _, logits = unrolled(twin, x, 3)
        terms = [kl(logits[i], logits[-1].detach()) for i in range(2)]
        term = min(terms, key=lambda t: abs(float(t.detach()) - float(out.losses["output"].detach())))
        out.losses["output"].backward()
        term.backward()
        assert_same_gradients(gradients(model), gradients(twin), rtol=1e-11)


def test_random_student_draws_one_exit_for_tokens_and_outputs() -> None:
    x = toys.batch()[0]
    scheme = Distill(token_weight=1.0, output_weight=1.0, student="random", teacher="last")
    model = wrap_cyclic(toys.make(), 3, distill=scheme, tokens={"all": slice(None)})
    tokens, logits = unrolled(toys.make(), x, 3)
    both = [(float(mse(tokens[i], tokens[-1]).detach()), float(kl(logits[i], logits[-1]).detach())) for i in range(2)]
    seen = set()
    for seed in range(12):
        torch.manual_seed(seed)
        losses = model(x).losses
        got = (float(losses["token_all"].detach()), float(losses["output"].detach()))
        (index,) = [i for i, pair in enumerate(both) if got == pytest.approx(pair, rel=1e-9)]
        seen.add(index)
    assert seen == {0, 1}


def test_two_cycles_leave_one_exit_to_draw() -> None:
    model = wrap_cyclic(toys.make(), 2, distill="elt")
    _, logits = unrolled(toys.make(), toys.batch()[0], 2)
    assert_same(model(toys.batch()[0]).losses["output"], kl(logits[0], logits[1]), rtol=1e-12)


def test_callable_scheme_is_the_one_term() -> None:
    def scheme(out: CycleOutput) -> Tensor:
        assert isinstance(out, CycleOutput) and len(out) == 2 and len(out.tokens) == 2
        return 0.1 * mse(out.tokens[0], out.tokens[1].detach())

    model, twin = wrap_cyclic(toys.make(), 2, distill=scheme), toys.make()
    assert model.cyclic.distill is scheme
    x, target = toys.batch()
    out = model(x)
    tokens, logits = unrolled(twin, x, 2)
    assert list(out.losses) == ["distill"] and out.task_weights == (1.0, 1.0)
    CycleLoss(nn.CrossEntropyLoss())(out, target).backward()
    want = 0.1 * mse(tokens[0], tokens[1].detach()) + sum(F.cross_entropy(y, target) for y in logits)
    want.backward()
    assert_same_gradients(gradients(model), gradients(twin), rtol=1e-11)


def test_none_leaves_task_losses_alone() -> None:
    model = wrap_cyclic(toys.make(), 3, distill=None)
    assert model.cyclic.distill is None
    out = model(toys.batch()[0])
    assert out.losses == {} and out.task_weights == (1.0, 1.0, 1.0)


def test_handle_holds_the_scheme_in_force_and_takes_another() -> None:
    model = wrap_cyclic(toys.make(), 2)
    assert model.cyclic.distill == Distill.preset("exits") and model(toys.batch()[0]).losses == {}
    model.cyclic.distill = "sdpose"
    assert model.cyclic.distill == Distill.preset("sdpose") and list(model(toys.batch()[0]).losses) == ["token_all"]
    model.cyclic.distill = dataclasses.replace(Distill.preset("sdpose"), token_weight=0.5)
    assert list(model(toys.batch()[0]).losses) == ["token_all"]
    for bad in ("nonsense", 3):
        with pytest.raises((ValueError, TypeError), match=repr(bad)):
            model.cyclic.distill = bad
    assert model.cyclic.distill.token_weight == 0.5


def test_schedule_of_weights_scales_the_term() -> None:
    model = wrap_cyclic(toys.make(), 2, distill=Distill(token_weight=1.0))
    x, _ = toys.batch()
    one = model(x).losses["token_all"]
    for weight in (0.5, 0.0, 2.0):
        model.cyclic.distill = dataclasses.replace(model.cyclic.distill, token_weight=weight)
        losses = model(x).losses
        if weight:
            assert_same(losses["token_all"], weight * one, rtol=1e-15)
        else:
            assert all(float(value.detach()) == 0.0 for value in losses.values())


def test_a_loss_between_tokens_is_added_in_one_place(monkeypatch: pytest.MonkeyPatch) -> None:
    """What is not among the losses is no loss: once, any name but two was the cosine."""
    monkeypatch.setitem(distill._TOKEN_LOSSES, "l1", F.l1_loss)
    monkeypatch.setitem(distill._OUTPUT_LOSSES, "l1", F.l1_loss)
    first, second = torch.randn(2, 3, 4), torch.randn(2, 3, 4)
    scheme = Distill(token_weight=1.0, token_loss="l1", output_weight=2.0, output_loss="l1")
    losses = scheme.losses((first, second), (first, second), {"all": slice(None)})
    assert_same(losses["token_all"], (first - second).abs().mean())
    assert_same(losses["output"], 2 * (first - second).abs().mean())


def test_kl_on_anything_but_logits_is_refused() -> None:
    class Dense(toys.ToyViT):
        def forward(self, x: Tensor) -> Tensor:
            return self.head(self.forward_features(x))

    model = wrap_cyclic(toys.make(Dense), 2, distill=Distill(output_weight=1.0))
    with pytest.raises(ValueError, match=r"\(B, classes\).*\(3, 5, 5\)"):
        model(toys.batch()[0])
    model.cyclic.distill = Distill(output_weight=1.0, output_loss="mse")
    assert "output" in model(toys.batch()[0]).losses


def test_output_without_logits_asks_for_select() -> None:
    class Named(toys.ToyViT):
        def forward(self, x: Tensor) -> dict[str, Tensor]:
            return {"heat": super().forward(x)}

    model = wrap_cyclic(toys.make(Named), 2, distill=Distill(output_weight=1.0))
    with pytest.raises(ValueError, match=r"(?s)'heat'.*select"):
        model(toys.batch()[0])
    model.cyclic.distill = Distill(output_weight=1.0, select=lambda output: output["heat"])
    _, logits = unrolled(toys.make(), toys.batch()[0], 2)
    assert_same(model(toys.batch()[0]).losses["output"], kl(*logits), rtol=1e-12)


def test_a_select_that_returns_no_tensor_is_named() -> None:
    model = wrap_cyclic(toys.make(), 2, Distill(output_weight=1.0, select=lambda output: None))
    with pytest.raises(ValueError, match=r"select=.*NoneType"):
        model(toys.batch()[0])


def test_tuple_outputs_are_compared_entry_by_entry_and_summed() -> None:
    model = wrap_cyclic(toys.make(toys.PairViT), 2, distill=Distill(output_weight=0.5, detach=True))
    out = model(toys.batch()[0])
    (a, b), (c, d) = out[0], out[1]
    assert_same(out.losses["output"], 0.5 * (kl(a, c) + kl(b, d)), rtol=1e-12)


def test_dict_outputs_are_compared_by_their_logits() -> None:
    model = wrap_cyclic(toys.make(toys.DictViT), 2, distill=Distill(output_weight=0.5))
    out = model(toys.batch()[0])
    assert_same(out.losses["output"], 0.5 * kl(out[0]["logits"], out[1]["logits"]), rtol=1e-12)


def test_tokens_of_several_states_all_count() -> None:
    model = wrap_cyclic(toys.make(toys.TwoStateViT), 2, blocks="blocks", distill=Distill(token_weight=0.5))
    out = model(toys.batch()[0])
    assert list(out.losses) == ["token_all"]
    want = 0.5 * sum(mse(a, b) for a, b in zip(out.tokens[0], out.tokens[1], strict=True))
    assert_same(out.losses["token_all"], want, rtol=1e-12)


def test_terms_are_computed_inside_forward_in_full_precision_under_autocast() -> None:
    model = wrap_cyclic(toys.make().float(), 2, distill=Distill(token_weight=1.0, output_weight=1.0, temperature=2.0))
    with torch.autocast("cpu", torch.bfloat16):
        out = model(toys.batch()[0].float())
    logits = [y.double() for y in out.outputs]
    tokens = [t.double() for t in out.tokens]
    assert out.outputs[0].dtype == torch.bfloat16
    for key, want in {"token_all": mse(*tokens), "output": kl(*logits, 2.0)}.items():
        assert out.losses[key].dtype == torch.float32, f"{key} is computed in {out.losses[key].dtype}"
        assert float(out.losses[key].detach()) == pytest.approx(float(want.detach()), rel=1e-4)


def test_error_in_groups_names_the_model_s_own() -> None:
    with pytest.raises((StackError, ValueError), match="'keypoint'"):
        wrap_cyclic(toys.make(), 2, distill=Distill(token_weight={"keypoint": 1.0}))(toys.batch()[0])
