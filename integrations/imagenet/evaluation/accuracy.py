"""Top-1 and top-5 accuracy of a model at each of its exits."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

import torch
import torch.distributed as dist
from timm.task.evaluator import ClassificationEvaluator, evaluation_sample_limit
from timm.utils.model import unwrap_model
from torch import nn

from cycledistill import at_exit
from cycledistill.plugin.handle import handle_of
from cycledistill.recipes.progress import with_progress
from cycledistill.recipes.run.accelerator import autocast, shared
from cycledistill.recipes.run.batches import received


@torch.no_grad()
def evaluate(
    model: nn.Module,
    loader: Iterable[tuple[torch.Tensor, torch.Tensor]],
    exits: Sequence[int] = (1,),
    *,
    precision: str = "fp32",
    progress: bool = False,
) -> dict[int, dict[str, float]]:
    """Run every batch once per exit and count.

    In a process group the counts of all ranks are added; the sampler's padding is left out.

    Args:
        model: A wrapped model (also compiled), or a plain one, which has exit 1 only. Left in eval mode with the exit
            it had.
        loader: Batches of images (B, C, H, W) and labels (B,); moved to the model's device.
        exits: Cycles whose prediction is measured; may exceed the cycles trained.
        precision: ``"fp32"``, ``"bf16"`` or ``"fp16"``.
        progress: Say where it is: by a bar, or by lines in the log where there is no terminal.

    Returns:
        ``{exit: {"top1": percent, "top5": percent, "loss": cross-entropy, "images": how many}}``.

    Raises:
        ValueError: A plain model was asked for another exit than 1.

    Example:
        >>> evaluate(model, loader, exits=(1, 2, 3))[1]["top1"]
    """
    bare = unwrap_model(model)
    check_exits(bare, exits)
    device = next(bare.parameters()).device
    limit = evaluation_sample_limit(loader)
    counts = {number: ClassificationEvaluator(device, max_samples=limit) for number in exits}
    model.eval()
    for images, target in received(with_progress(loader, "evaluate", "batches", shown=progress)):
        images, target = images.to(device), target.to(device)
        for number, evaluator in counts.items():
            with at_exit(bare, number), autocast(device, precision):
                output = model(images)
            evaluator.update(output, target)
    images = torch.tensor([evaluator.num_samples for evaluator in counts.values()], device=device)
    if shared():
        dist.all_reduce(images)
    totals = {number: evaluator.compute(distributed=shared()) for number, evaluator in counts.items()}
    return {
        number: {name: round(float(total[name]), 6) for name in ("top1", "top5", "loss")} | {"images": count}
        for (number, total), count in zip(totals.items(), images.tolist(), strict=True)
    }


def check_exits(model: nn.Module, exits: Sequence[int]) -> None:
    """Refuse exits that a model does not have.

    Raises:
        ValueError: A plain model was asked for another exit than 1.
    """
    if handle_of(model, "cyclic") is None and list(exits) != [1]:
        raise ValueError(f"exits={list(exits)}: a model that is not wrapped has exit 1 only; wrap_cyclic it first.")
