"""What a wrapped model returns while training."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any, NoReturn

import torch

from cycledistill.plugin.torch_private import register_pytree_node


@dataclass(eq=False)
class UnscaledTerms(Mapping[str, torch.Tensor]):
    """Distillation terms of which some still lack their weight: those of ``Distill(token_weight="auto")``.

    ``CycleLoss`` gives it to them. Whoever reads the terms as if they had one is told so: a sum of them would train on
    tokens alone. Names and their number can be asked for.

    Attributes:
        tokens: Token terms without a weight, by name.
        weighted: The other terms, with theirs.
        fraction: What the token terms shall be of the task loss, together; a scalar.
        counted: The ``id`` of each criterion that has learned from them: a step counts once, however often it is read.
    """

    tokens: dict[str, torch.Tensor]
    weighted: dict[str, torch.Tensor]
    fraction: torch.Tensor
    counted: tuple[int, ...] = field(default=(), repr=False)

    def __getitem__(self, name: str) -> NoReturn:
        self._refuse()

    def __iter__(self) -> NoReturn:
        self._refuse()

    def __contains__(self, name: object) -> bool:
        return name in self.tokens or name in self.weighted

    def __len__(self) -> int:
        return len(self.tokens) + len(self.weighted)

    def _refuse(self) -> NoReturn:
        raise TypeError(
            f'Distill(token_weight="auto"): {", ".join(self.tokens)} of out.losses have no weight yet, for it follows '
            "the task loss. CycleLoss(task_loss) gives it: take criterion(out, target), or criterion.parts(out, "
            "target) for the terms by name. To sum out.losses yourself, give token_weight a number"
        )


@dataclass
class CycleOutput:
    """The result of one training forward of a wrapped model: every cycle's prediction and tokens.

    A registered pytree and a dataclass, so that ``torch.export`` and DDP find the tensors inside.

    Attributes:
        outputs: What the model returns, one entry a cycle: tensors, tuples, dicts or Hugging Face outputs.
        tokens: What the stack returned, one entry a cycle: a tensor, shape (B, N, C) for most models, or a tuple of
            tensors where the blocks hand on several states.
        losses: Distillation terms by name, each a scalar with its weight already applied; :class:`UnscaledTerms`
            where ``CycleLoss`` applies it.
        task_weights: The weight of the task loss of each cycle.

    Example:
        >>> out = model(images)                     # a wrapped model in training mode
        >>> out[0].shape, out[-1].shape, len(out)   # the student, the deepest cycle, the number of cycles
    """

    outputs: tuple[Any, ...]
    tokens: tuple[torch.Tensor | tuple[torch.Tensor, ...], ...]
    losses: Mapping[str, torch.Tensor]
    task_weights: tuple[float, ...]

    def __getitem__(self, cycle: int) -> Any:
        """The output of one cycle: ``out[0]`` is the student, ``out[-1]`` the deepest cycle."""
        return self.outputs[cycle]

    def __len__(self) -> int:
        """The number of cycles."""
        return len(self.outputs)

    def __iter__(self) -> Iterator[Any]:
        # `main, dist = model(x)` of a distilled DeiT would otherwise unpack cycles and train on the wrong thing.
        raise TypeError(
            "a CycleOutput is not unpacked: out[0] is the student's output, out.outputs the tuple over the cycles. "
            "A training loop that unpacks the model's output should take out[i] for each cycle, or use CycleLoss."
        )


def _flatten(out: CycleOutput) -> tuple[list[Any], Any]:
    return [out.outputs, out.tokens, out.losses], out.task_weights


def _unflatten(children: Any, task_weights: Any) -> CycleOutput:
    outputs, tokens, losses = children
    return CycleOutput(outputs, tokens, losses, tuple(task_weights))


register_pytree_node(
    CycleOutput,
    _flatten,
    _unflatten,
    serialized_type_name="cycledistill.CycleOutput",
    to_dumpable_context=list,
    from_dumpable_context=tuple,
)

register_pytree_node(
    UnscaledTerms,
    lambda terms: ([terms.tokens, terms.weighted, terms.fraction], None),
    lambda children, _: UnscaledTerms(*children),
    serialized_type_name="cycledistill.UnscaledTerms",
)
