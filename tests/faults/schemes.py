"""Fields of `Distill`: refused, or the terms that the formulas give, written out one by one."""

from __future__ import annotations

import math
from typing import Any

import torch
from hypothesis import strategies as st
from torch import Tensor

from cycledistill import Distill
from tests.faults.kinds import ERROR, RIGHT, Kind
from tests.faults.odd import mostly

GROUPS = {"cls": slice(0, 1), "patch": slice(1, None)}
WEIGHTS = st.floats(0, 10) | st.integers(0, 3)
FIELDS = mostly(
    {
        "task_weights": st.sampled_from(["all", "last"]) | st.lists(WEIGHTS, min_size=1, max_size=4).map(tuple),
        "token_weight": WEIGHTS | st.dictionaries(st.sampled_from(["cls", "patch", "x"]), WEIGHTS, max_size=2),
        "token_loss": st.sampled_from(["mse", "smooth_l1", "cosine"]),
        "normalize": st.booleans(),
        "output_weight": WEIGHTS,
        "output_loss": st.sampled_from(["kl", "mse"]),
        "temperature": st.floats(0.5, 4),
        "teacher": st.sampled_from(["next", "last"]),
        "student": st.sampled_from(["all", "random"]),
        "detach": st.booleans(),
    }
)
CASES = st.tuples(FIELDS, st.integers(1, 4), st.integers(0, 9))


def check_scheme(case: tuple[dict[str, Any], int, int]) -> str:
    fields, cycles, number = case
    generator = torch.Generator().manual_seed(number)
    outputs = tuple(torch.randn(3, 5, generator=generator, dtype=torch.float64) for _ in range(cycles))
    tokens = tuple(torch.randn(3, 4, 6, generator=generator, dtype=torch.float64) for _ in range(cycles))
    if any(callable(fields.get(name)) for name in ("token_loss", "output_loss")):
        return _refused_or_made(fields)  # functions are taken, and what they give is their own
    try:
        scheme = Distill(**fields)
        weights, terms = scheme.weights(cycles), scheme.losses(outputs, tokens, GROUPS)
    except ValueError as refused:
        assert str(refused)
        return ERROR
    assert weights == task_weights(fields.get("task_weights", "all"), cycles)
    expected = by_formula(scheme, outputs, tokens)
    assert set(terms) == set(expected)
    for name, choices in expected.items():
        assert any(math.isclose(float(terms[name]), each, rel_tol=1e-9, abs_tol=1e-9) for each in choices), name
    return RIGHT


def _refused_or_made(fields: dict[str, Any]) -> str:
    try:
        Distill(**fields)
    except ValueError as refused:
        assert str(refused)
        return ERROR
    return RIGHT


def task_weights(given: Any, cycles: int) -> tuple[float, ...]:
    if given == "all":
        return (1.0,) * cycles
    return (0.0,) * (cycles - 1) + (1.0,) if given == "last" else tuple(given)


def by_formula(scheme: Distill, outputs: tuple[Tensor, ...], tokens: tuple[Tensor, ...]) -> dict[str, list[float]]:
    """Each term's value; where one exit is drawn, each that it may be."""
    last = len(outputs) - 1
    pairs = [(i, i + 1 if scheme.teacher == "next" else last) for i in range(last)]
    if not pairs:
        return {}
    terms = {}
    for name, group in GROUPS.items():
        weights = scheme.token_weight
        weight = weights.get(name, 0.0) if isinstance(weights, dict) else weights
        if weight:
            terms[f"token_{name}"] = [
                weight * between_tokens(scheme, tokens[s][:, group], tokens[t][:, group]) for s, t in pairs
            ]
    if scheme.output_weight:
        terms["output"] = [scheme.output_weight * between_outputs(scheme, outputs[s], outputs[t]) for s, t in pairs]
    return {name: each if scheme.student == "random" else [math.fsum(each)] for name, each in terms.items()}


def between_tokens(scheme: Distill, student: Tensor, teacher: Tensor) -> float:
    if scheme.normalize:
        student, teacher = (
            (each - each.mean(-1, keepdim=True)) / (each.var(-1, correction=0, keepdim=True) + 1e-5).sqrt()
            for each in (student, teacher)
        )
    gap = (student - teacher).abs()
    if scheme.token_loss == "mse":
        return float((gap**2).mean())
    if scheme.token_loss == "smooth_l1":
        return float(torch.where(gap < 1, gap**2 / 2, gap - 0.5).mean())
    lengths = (student**2).sum(-1).sqrt() * (teacher**2).sum(-1).sqrt()
    return float((1 - (student * teacher).sum(-1) / lengths).mean())


def between_outputs(scheme: Distill, student: Tensor, teacher: Tensor) -> float:
    if scheme.output_loss == "mse":
        return float(((student - teacher) ** 2).mean())
    p, q = (
        (each / scheme.temperature).exp() / (each / scheme.temperature).exp().sum(1, keepdim=True)
        for each in (teacher, student)
    )
    return float((p * (p / q).log()).sum() / len(p) * scheme.temperature**2)


SCHEMES = [Kind("fields of Distill", CASES, check_scheme)]
