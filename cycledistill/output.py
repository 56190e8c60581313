"""What a wrapped model returns while training."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import torch

from cycledistill.plugin.torch_private import register_pytree_node


@dataclass
class CycleOutput:
    """The result of one training forward of a wrapped model: every cycle's prediction and tokens.

    A registered pytree and a dataclass, so that ``torch.export`` and DDP find the tensors inside.

    Attributes:
        outputs: What the model returns, one entry a cycle: tensors, tuples, dicts or Hugging Face outputs.
        tokens: What the stack returned, one entry a cycle: a tensor, shape (B, N, C) for most models, or a tuple of
            tensors where the blocks hand on several states.
        losses: Distillation terms by name, each a scalar with its weight already applied.
        task_weights: The weight of the task loss of each cycle.

    Example:
        >>> out = model(images)                     # a wrapped model in training mode
        >>> out[0].shape, out[-1].shape, len(out)   # the student, the deepest cycle, the number of cycles
    """

    outputs: tuple[Any, ...]
    tokens: tuple[torch.Tensor | tuple[torch.Tensor, ...], ...]
    losses: dict[str, torch.Tensor]
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
