"""How sure an output is, one number a sample: of class scores, of heatmaps, and what a callable may return."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from typing import Any

import torch
from torch import Tensor

Confidence = Callable[[Any], Tensor]
"""From an output to a number for each of its samples, (B,); the larger, the surer."""


def probability(output: Any, before: Any = None) -> Tensor:
    """The largest softmax probability of (B, classes) scores; of heatmaps (B, K, H, W) the mean of the K maxima.

    Heatmaps are no probabilities: their unit is the height of the peak in the training targets, 1 for TokenPose and
    SDPose. Each maximum counts as at most 1 and at least 0. Both are in [0, 1].
    """
    scores = scores_of(output, "probability")
    if scores.ndim == 4:
        return scores.flatten(2).amax(2).clamp(0, 1).mean(1)
    check_classes(scores, "probability")
    return scores.softmax(1).amax(1)


def entropy(output: Any, before: Any = None) -> Tensor:
    """``1 - H(p) / log(classes)`` of the softmax p of (B, classes) scores: 1 where one class has it all, 0 for a tie.

    BranchyNet (Teerapittayanon et al., ICPR 2016) leaves where the entropy H is below a threshold; this is that, turned
    round and scaled so that larger is surer and the number of classes does not matter. Of heatmaps: of the softmax of
    each map's cells would say little, so they are refused.
    """
    scores = scores_of(output, "entropy")
    if scores.ndim == 4:
        raise TypeError(
            'confidence="entropy" is for scores (B, classes), and the output is heatmaps '
            f'{tuple(scores.shape)}: use "probability" (the mean of their maxima), or "agreement"'
        )
    check_classes(scores, "entropy")
    logs = scores.log_softmax(1)
    spread = -(logs.exp() * logs.nan_to_num(neginf=0.0)).sum(1)
    return 1 - spread / math.log(scores.shape[1])


def agreement(output: Any, before: Any = None) -> Tensor:
    """How far an output agrees with that of the exit before: 0 where the answer changed, 1 where nothing did.

    Of (B, classes) scores: 1 less the distance of both softmaxes (total variation, half the sum of the absolute
    differences) where the first class is the same, else 0. Of heatmaps (B, K, H, W): the share of the K joints whose
    maximum moved by at most one cell. At the first exit there is nothing to agree with: NaN, never sure.
    """
    scores = scores_of(output, "agreement")
    if scores.ndim == 2:
        check_classes(scores, "agreement")
    if before is None:
        return scores.new_full((scores.shape[0],), math.nan)
    earlier = scores_of(before, "agreement")
    if scores.ndim == 4:
        width = scores.shape[3]
        here, there = (each.flatten(2).argmax(2) for each in (scores, earlier))
        moved = torch.maximum((here // width - there // width).abs(), (here % width - there % width).abs())
        known = ~(scores.isnan() | earlier.isnan()).flatten(2).any(2)  # the maximum of nan is nowhere
        return ((moved <= 1) & known).float().mean(1)
    distance = (scores.softmax(1) - earlier.softmax(1)).abs().sum(1) / 2
    return (1 - distance) * (scores.argmax(1) == earlier.argmax(1))


BUILT_IN: dict[str, Callable[..., Tensor]] = {"probability": probability, "entropy": entropy, "agreement": agreement}
"""By name; each takes the output and that of the exit before, and is in [0, 1]."""


def scores_of(output: Any, name: str) -> Tensor:
    """Scores (B, classes) or heatmaps (B, K, H, W) of an output, in float32 at least.

    That is the output itself, or what it calls ``logits`` or ``heatmaps``.

    Raises:
        TypeError: It is neither.
    """
    found = output
    for key in ("logits", "heatmaps"):
        if isinstance(output, Mapping) and key in output:
            found = output[key]
        elif not isinstance(output, Tensor) and isinstance(getattr(output, key, None), Tensor):
            found = getattr(output, key)
    if not isinstance(found, Tensor) or found.ndim not in (2, 4) or not found.is_floating_point():
        given = f"a tensor {tuple(found.shape)}" if isinstance(found, Tensor) else f"a {type(found).__name__}"
        raise TypeError(
            f'confidence="{name}" reads scores (B, classes) or heatmaps (B, K, H, W), of the output itself or under '
            f'"logits" or "heatmaps", and the model returned {given}: give confidence= a callable (output) -> (B,)'
        )
    return found if found.dtype == torch.float64 else found.float()


def check_classes(scores: Tensor, name: str) -> None:
    """Refuse scores of fewer than two classes, whose softmax is 1 whatever they are.

    Raises:
        TypeError: They are.
    """
    if scores.shape[1] < 2:
        raise TypeError(
            f'confidence="{name}" compares classes, and of scores {tuple(scores.shape)} every sample would be sure: '
            "give confidence= a callable, such as lambda output: (2 * output.sigmoid() - 1).abs().squeeze(1)"
        )


def check_confidence(given: Any) -> None:
    """Refuse what is neither a name nor a callable.

    Raises:
        ValueError: It is neither.
    """
    if not callable(given) and not (isinstance(given, str) and given in BUILT_IN):
        names = ", ".join(f'"{name}"' for name in BUILT_IN)
        raise ValueError(f"confidence={given!r}: {names}, or a callable (output) -> (B,) is expected")


def confidence_of(given: str | Confidence, output: Any, before: Any, batch: int) -> Tensor:
    """The confidence of each sample, (B,), in float64; NaN where it is not known, which is never sure.

    An infinite one is held to the largest finite number: a threshold of infinity means that none leaves.

    Raises:
        TypeError: The callable returned no real number for each of the ``batch`` samples.
    """
    # What is named is in [0, 1] but for rounding.
    values = BUILT_IN[given](output, before).clamp(0, 1) if isinstance(given, str) else given(output)
    if not isinstance(values, Tensor) or tuple(values.shape) != (batch,) or values.is_complex():
        shown = f"a tensor {tuple(values.shape)}, {values.dtype}" if isinstance(values, Tensor) else repr(values)
        raise TypeError(
            f"confidence: one real number a sample is expected, a tensor ({batch},), and "
            f"{getattr(given, '__name__', given)!r} returned {shown}"
        )
    # Thresholds are chosen between two confidences, which 16 bits would round them to.
    wide = values.detach().to(torch.float32 if values.device.type == "mps" else torch.float64)
    return wide.nan_to_num(nan=math.nan)
