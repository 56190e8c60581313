"""The distillation scheme: what later cycles teach earlier ones."""

from __future__ import annotations

import sys
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, Literal, get_args

import torch
from torch.nn import functional as F

from cycledistill.output import UnscaledTerms
from cycledistill.plugin.plain import plain_value
from cycledistill.presets import SETTINGS

Loss = Callable[[torch.Tensor, torch.Tensor], torch.Tensor]
Tokens = torch.Tensor | tuple[torch.Tensor, ...]

Weighted = Literal["all", "last"]
Teacher = Literal["next", "last"]
Student = Literal["all", "random"]


def _cosine(student: torch.Tensor, teacher: torch.Tensor) -> torch.Tensor:
    return 1 - F.cosine_similarity(student, teacher, dim=-1).mean()


_TOKEN_LOSSES: dict[str, Loss] = {"mse": F.mse_loss, "smooth_l1": F.smooth_l1_loss, "cosine": _cosine}
_OUTPUT_LOSSES: dict[str, Loss] = {"mse": F.mse_loss}
"""By name, beside ``"kl"``, which takes the temperature as well."""


@dataclass(frozen=True)
class Distill:
    """How the cycles of a wrapped model are trained: task weights, and what later cycles teach earlier ones.

    Args:
        task_weights: Weight of the task loss of each cycle: ``"all"`` (1 for every cycle), ``"last"`` (1 for the
            deepest, 0 before), or one float a cycle.
        token_weight: Weight of the token loss, one number for every token group or a dict from group to number.
            It is relative to the task loss; the paper's 5e-6 belongs to a mean-reduced heatmap MSE. ``"auto"``:
            ``CycleLoss`` finds one for all groups, with which they are ``token_fraction`` of the task loss together.
        token_fraction: What ``token_weight="auto"`` aims at: the mean of the token terms over that of the task loss. On
            digits 1/400 did well; 1/20 harmed there and on poses (docs/when.md).
        token_loss: ``"mse"``, ``"smooth_l1"``, ``"cosine"`` (1 - cosine similarity), each a mean over the group's
            tokens, or a callable ``(student, teacher) -> scalar``.
        normalize: Apply LayerNorm without affine parameters to the tokens before the token loss.
        output_weight: Weight of the loss between the outputs of two cycles.
        output_loss: ``"kl"`` (on logits of shape (B, classes), softened by ``temperature`` and scaled by its square),
            ``"mse"``, or a callable ``(student, teacher) -> scalar``.
        temperature: Softening of the built-in KL (Hinton et al., arXiv 1503.02531, section 2).
        teacher: ``"next"``: cycle i + 1 teaches cycle i. ``"last"``: the deepest cycle teaches all others.
        student: ``"all"``, or ``"random"``: one exit a step, drawn by torch's random numbers.
        detach: Stop the gradient through the teacher.
        select: Maps the model's output to the tensor(s) the output loss sees. Default: the tensor itself, ``.logits``
            or ``["logits"]``, or each entry of a tuple, summed.

    Raises:
        ValueError: A field has a value outside its range, or the combination is known to diverge.

    Example:
        >>> wrap_cyclic(model, 2, distill=Distill(token_weight=0.01, output_weight=1.0, temperature=2.0))

    Source: SDPose (CVPR 2024), equations 4 to 6, for the token terms and the summed task loss; ELT (arXiv 2604.09168)
    for the deepest cycle teaching one random exit.
    """

    task_weights: Weighted | tuple[float, ...] = "all"
    token_weight: float | Mapping[str, float] | Literal["auto"] = 0.0
    token_fraction: float = 0.0025
    token_loss: str | Loss = "mse"
    normalize: bool = False
    output_weight: float = 0.0
    output_loss: str | Loss = "kl"
    temperature: float = 1.0
    teacher: Teacher = "next"
    student: Student = "all"
    detach: bool = False
    select: Callable[[Any], Any] | None = None

    def __post_init__(self) -> None:
        if isinstance(self.task_weights, list):  # a recipe read from YAML has lists
            object.__setattr__(self, "task_weights", tuple(self.task_weights))  # type: ignore[unreachable]
        if isinstance(self.token_weight, Mapping):
            object.__setattr__(self, "token_weight", dict(self.token_weight))
        self._check_task_weights()
        for name in ("normalize", "detach"):
            if not isinstance(getattr(self, name), bool):
                raise ValueError(f"{name}={getattr(self, name)!r}: True or False is expected")
        teaches_tokens = self._check_token_weight()
        _check_weight(self.output_weight, "output_weight")
        _check_choice(self.token_loss, tuple(_TOKEN_LOSSES), "token_loss", or_callable=True)
        _check_choice(self.output_loss, ("kl", *_OUTPUT_LOSSES), "output_loss", or_callable=True)
        _check_choice(self.teacher, get_args(Teacher), "teacher")
        _check_choice(self.student, get_args(Student), "student")
        for name in ("temperature", "token_fraction"):
            value = getattr(self, name)
            if not _is_number(value) or value <= 0:
                raise ValueError(f"{name}={value!r:.80}: a positive, finite number is expected")
        if self.select is not None and not callable(self.select):
            raise ValueError(f"select={self.select!r}: a callable output -> tensor is expected")
        if self.detach and self.token_loss == "mse" and not self.normalize and teaches_tokens:
            raise ValueError(
                "detach=True with an un-normalised MSE between tokens diverges (18 of 18 measured runs: the student "
                "chases x + f(x), which moves with it, and the tokens grow without bound). Use normalize=True, or "
                "detach=False as the published SDPose code does"
            )

    def _check_task_weights(self) -> None:
        weights = self.task_weights
        if isinstance(weights, str):
            _check_choice(weights, get_args(Weighted), "task_weights")
            return
        if not isinstance(weights, tuple) or not weights:
            raise ValueError(f'task_weights={weights!r}: "all", "last", or one number a cycle is expected')
        for index, weight in enumerate(weights):
            _check_weight(weight, f"task_weights[{index}]")
        if not any(weights):
            raise ValueError(f"task_weights={weights!r}: at least one cycle needs a weight above 0")

    def _check_token_weight(self) -> bool:
        """Refuse what is no weight; whether there is one above 0."""
        given = self.token_weight
        if isinstance(given, str):
            if given != "auto":
                raise ValueError(f'token_weight={given!r}: a number, a dict from token group to number, or "auto"')
            return True
        weights = given if isinstance(given, Mapping) else {"token_weight": given}
        for name, weight in weights.items():
            _check_weight(weight, f"token_weight[{name!r}]" if isinstance(given, Mapping) else name)
        return any(weights.values())

    @staticmethod
    def preset(name: str) -> Distill:
        """The scheme of a preset: ``"sdpose"``, ``"exits"``, ``"elt"`` or ``"mct"``.

        Raises:
            ValueError: There is no preset of this name.

        Example:
            >>> Distill.preset("sdpose").token_weight
            5e-06
        """
        if name not in PRESETS:
            raise ValueError(f"distill={name!r:.80}: unknown preset; the presets are {', '.join(map(repr, PRESETS))}")
        return PRESETS[name]

    def weights(self, cycles: int) -> tuple[float, ...]:
        """The task weight of each of ``cycles`` cycles.

        Raises:
            ValueError: ``task_weights`` was given for another number of cycles.
        """
        if self.task_weights == "all":
            return (1.0,) * cycles
        if self.task_weights == "last":
            return (0.0,) * (cycles - 1) + (1.0,)
        if len(self.task_weights) != cycles:
            raise ValueError(
                f"task_weights={self.task_weights!r} has {len(self.task_weights)} entries for {cycles} cycles: "
                'give one number a cycle, or "all" or "last"'
            )
        return tuple(float(weight) for weight in self.task_weights)

    def group_weights(self, groups: Mapping[str, Any]) -> dict[str, float]:
        """The token weight of each group; groups of weight 0 are left out, and with ``"auto"`` each has 1 for now.

        Raises:
            ValueError: ``token_weight`` names a group the model does not have.
        """
        if isinstance(self.token_weight, str):
            return dict.fromkeys(groups, 1.0)
        if not isinstance(self.token_weight, Mapping):
            return dict.fromkeys(groups, float(self.token_weight)) if self.token_weight != 0 else {}
        unknown = [name for name in self.token_weight if name not in groups]
        if unknown:
            raise ValueError(
                f"token_weight names the token group {unknown[0]!r}; the groups of this model are "
                f"{', '.join(map(repr, groups))} (set them by wrap_cyclic(..., tokens={{name: slice}}))"
            )
        return {name: float(weight) for name, weight in self.token_weight.items() if weight != 0}

    def losses(
        self, outputs: tuple[Any, ...], tokens: tuple[Tokens, ...], groups: Mapping[str, slice]
    ) -> Mapping[str, torch.Tensor]:
        """The distillation terms of one forward, weights applied, summed over the pairs of cycles.

        Args:
            outputs: The model's output of each cycle.
            tokens: The stack's output of each cycle, (B, N, C) or a tuple of tensors.
            groups: Token groups: name -> slice of dimension 1.

        Returns:
            ``token_<group>`` for every group with a weight, and ``output``; empty for one cycle. With
            ``token_weight="auto"`` they are :class:`UnscaledTerms`, which ``CycleLoss`` scales.
        """
        cycles = len(outputs)
        pairs = [(i, i + 1 if self.teacher == "next" else cycles - 1) for i in range(cycles - 1)]
        token_weights = self.group_weights(groups)
        if not pairs or not (token_weights or self.output_weight != 0):
            return {}
        drawn = self._draw(len(pairs), tokens[0]) if self.student == "random" else None
        terms = {}
        for name, weight in token_weights.items():
            part = [self._token_term(tokens[s], tokens[t], groups[name]) for s, t in pairs]
            terms[f"token_{name}"] = weight * _total(part, drawn)
        if self.output_weight != 0:
            part = [self._output_term(outputs[s], outputs[t]) for s, t in pairs]
            terms["output"] = float(self.output_weight) * _total(part, drawn)
        if self.token_weight != "auto":
            return terms
        taught = {name: terms.pop(name) for name in [*terms] if name != "output"}
        # A tensor made by a product: a number of its own would be part of the graph, and a schedule many graphs.
        one = torch.ones((), device=next(iter(taught.values())).device)
        return UnscaledTerms(taught, terms, one * float(self.token_fraction))

    def _draw(self, pairs: int, tokens: Tokens) -> torch.Tensor:
        # One-hot weights, never an index: the graph is the same whichever exit is drawn.
        device = tokens[0].device if isinstance(tokens, tuple) else tokens.device
        index = torch.randint(pairs, (1,), device=device)
        return (torch.arange(pairs, device=device) == index).to(torch.float32)

    def _token_term(self, student: Tokens, teacher: Tokens, group: slice) -> torch.Tensor:
        students = student if isinstance(student, tuple) else (student,)
        teachers = teacher if isinstance(teacher, tuple) else (teacher,)
        everything, loss = group == slice(None), _loss_named(self.token_loss, _TOKEN_LOSSES)
        parts = []
        for s, t in zip(students, teachers, strict=True):
            s, t = self._pair(s, t) if everything else self._pair(s[:, group], t[:, group])
            if self.normalize:
                s, t = F.layer_norm(s, s.shape[-1:]), F.layer_norm(t, t.shape[-1:])
            parts.append(loss(s, t))
        return sum(parts[1:], parts[0])

    def _output_term(self, student: Any, teacher: Any) -> torch.Tensor:
        parts = []
        for pair in zip(self._selected(student), self._selected(teacher), strict=True):
            s, t = self._pair(*pair)
            kl = self.output_loss == "kl"
            parts.append(_kl(s, t, self.temperature) if kl else _loss_named(self.output_loss, _OUTPUT_LOSSES)(s, t))
        return sum(parts[1:], parts[0])

    def _pair(self, student: torch.Tensor, teacher: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        return _full_precision(student), _full_precision(teacher.detach() if self.detach else teacher)

    def _selected(self, output: Any) -> tuple[torch.Tensor, ...]:
        chosen = output if self.select is None else self.select(output)
        if isinstance(chosen, Mapping) and "logits" in chosen:
            chosen = chosen["logits"]
        elif not isinstance(chosen, torch.Tensor) and getattr(chosen, "logits", None) is not None:
            chosen = chosen.logits
        entries = tuple(chosen) if isinstance(chosen, (tuple, list)) else (chosen,)
        if entries and all(isinstance(entry, torch.Tensor) for entry in entries):
            return entries
        if self.select is not None:
            raise ValueError(
                f"Distill(select=...) returned {type(chosen).__name__} for the model's {type(output).__name__}: "
                "a tensor to compare is expected, or a tuple of tensors"
            )
        keys = f" with keys {', '.join(map(repr, output))}" if isinstance(output, Mapping) else ""
        raise ValueError(
            f"the output loss needs a tensor, and the model returned a {type(output).__name__}{keys} without logits: "
            "give Distill(select=...), a callable from that output to the tensor to compare"
        )


def _loss_named(kind: str | Loss, known: Mapping[str, Loss]) -> Loss:
    return known[kind] if isinstance(kind, str) else kind


def _full_precision(tensor: torch.Tensor) -> torch.Tensor:
    # The difference of two near outputs drowns in the rounding of half precision: a KL in bfloat16 was 40 % off.
    return tensor.float() if tensor.dtype in (torch.float16, torch.bfloat16) else tensor


def _kl(student: torch.Tensor, teacher: torch.Tensor, temperature: float) -> torch.Tensor:
    if student.ndim != 2:
        raise ValueError(
            f'output_loss="kl" compares logits of shape (B, classes), and the output has shape {tuple(student.shape)}: '
            'use output_loss="mse", a callable, or select= the logits'
        )
    temperature = float(temperature)
    log_student = F.log_softmax(student / temperature, dim=-1)
    log_teacher = F.log_softmax(teacher / temperature, dim=-1)
    return F.kl_div(log_student, log_teacher, reduction="batchmean", log_target=True) * temperature * temperature


def _total(parts: list[torch.Tensor], drawn: torch.Tensor | None) -> torch.Tensor:
    if drawn is None:
        return sum(parts[1:], parts[0])
    return (torch.stack(parts) * drawn).sum()


def _is_number(value: object) -> bool:
    """Also that floating point holds it, which whole numbers of Python can be beyond; nan is none."""
    return isinstance(value, (int, float)) and not isinstance(value, bool) and abs(value) <= sys.float_info.max


def _check_weight(weight: object, name: str) -> None:
    if not _is_number(weight) or weight < 0:  # type: ignore[operator]
        raise ValueError(f"{name}={weight!r:.80}: a finite number of at least 0 is expected")


def _check_choice(value: object, choices: tuple[str, ...], name: str, or_callable: bool = False) -> None:
    if (isinstance(value, str) and value in choices) or (or_callable and callable(value)):
        return
    allowed = ", ".join(map(repr, choices)) + (" or a callable" if or_callable else "")
    raise ValueError(f"{name}={value!r:.80}: expected {allowed}")


PRESETS = {name: Distill(**settings) for name, settings in SETTINGS.items()}


def plain_scheme(scheme: object) -> Any:
    """What `read_scheme` reads the same scheme from: a preset's name, or the fields that differ from the defaults.

    Of a function it is ``{"code": its name}``, which that refuses.
    """
    return next((name for name, preset in PRESETS.items() if preset == scheme), None) or plain_value(scheme)
