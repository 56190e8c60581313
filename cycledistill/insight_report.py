"""A report on a trained model as one HTML file: ``python -m cycledistill insight CHECKPOINT --image photo.jpg``.

Which model a checkpoint holds is known by the integration that wrote it. Integrations announce a function under the
entry point group ``cycledistill.checkpoints``; it takes a folder and returns a `Subject`, or ``None`` if it is not its
own.
"""

from __future__ import annotations

import base64
import html
import io
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from importlib.metadata import entry_points
from pathlib import Path
from typing import Any

from torch import Tensor, nn

from cycledistill.insight import attention_maps, parameter_profile, token_drift

GROUP = "cycledistill.checkpoints"


@dataclass(frozen=True)
class Subject:
    """A trained model, and how to show it an image.

    Attributes:
        name: What to call it.
        model: Wrapped, in eval mode.
        prepare: Reads an image file: the model's input (1, 3, H, W), and the picture (H, W, 3) in [0, 1].
        grid: Height and width of the image in patches, whose tokens come last in the state.
        rows: The query tokens that are watched.
        row_names: Names of those whose attention is drawn.
        row_places: Their numbers among ``rows``; by default the first ones.
        facts: What else is known, such as the scores of its last evaluation, as text.
    """

    name: str
    model: nn.Module
    prepare: Callable[[Path], tuple[Tensor, Tensor]]
    grid: tuple[int, int] | None
    rows: slice
    row_names: tuple[str, ...]
    facts: Mapping[str, str] = field(default_factory=dict)
    row_places: tuple[int, ...] = ()


def open_subject(path: Path) -> Subject:
    """The model of a checkpoint, by whichever installed integration wrote it.

    Raises:
        ValueError: There is no such folder, or no integration knows what is in it.
    """
    if not path.is_dir():
        raise ValueError(f"{path}: the folder of a run or checkpoint is expected")
    known = sorted(entry_points(group=GROUP), key=lambda point: point.name)
    for point in known:
        subject: Subject | None = point.load()(path)
        if subject is not None:
            return subject
    names = ", ".join(point.name for point in known) or "none; is cycledistill installed?"
    raise ValueError(f"{path} holds no checkpoint that an integration knows (asked: {names})")


def insight_report(
    subject: Subject, images: list[Path], *, cycles: int | None = None, compare: Subject | None = None
) -> str:
    """A self-contained HTML page: facts, parameters, and for each image drift and attention by layer and cycle.

    Args:
        subject: The model.
        images: Files to show it; may be empty, then parameters alone are reported.
        cycles: Cycles to run; default: as trained.
        compare: A second model whose parameters are drawn beside.

    Raises:
        ValueError: A model without attention, or an image it does not take.
        ImportError: matplotlib is not installed.
    """
    from cycledistill import plots

    handle: Any = vars(subject.model).get("cyclic")
    facts = {
        "model": type(subject.model).__name__,
        "parameters": f"{sum(p.numel() for p in subject.model.parameters()):,}",
        "stack": f"{handle.stack.path}, {handle.stack.depth} blocks",
        "cycles while training": str(handle.cycles),
        **subject.facts,
    }
    parts = [_table(facts), "<h2>Parameters</h2>"]
    profiles = {each.name: parameter_profile(each.model) for each in (subject, compare) if each is not None}
    parts.append(_picture(plots.plot_parameters(profiles), "Distribution of the weights"))
    for file in images:
        inputs, picture = subject.prepare(file)
        parts.append(f"<h2>{html.escape(file.name)}</h2>")
        drifts = token_drift(subject.model, inputs, cycles=cycles)
        parts.append(_picture(plots.plot_drift(drifts), "Tokens before and after each cycle"))
        maps = attention_maps(subject.model, inputs, cycles=cycles, rows=subject.rows)
        places = subject.row_places or range(len(subject.row_names))
        for row, name in zip(places, subject.row_names, strict=True):
            figure = plots.plot_attention(maps, grid=subject.grid, image=picture, row=row)
            parts.append(_picture(figure, f"Attention of {name}, mean over heads"))
    return _PAGE.format(title=html.escape(subject.name), body="\n".join(parts))


_PAGE = """<!doctype html>
<html lang="en"><head><meta charset="utf-8"><title>{title}</title><style>
body {{ font: 15px/1.5 system-ui, sans-serif; max-width: 70rem; margin: 2rem auto; padding: 0 1rem; color: #222 }}
td {{ padding: .1rem 1.2rem .1rem 0 }} figure {{ margin: 1rem 0 }} img {{ max-width: 100% }}
figcaption {{ color: #555 }}
</style></head><body>
<h1>{title}</h1>
{body}
</body></html>
"""


def _table(facts: Mapping[str, str]) -> str:
    rows = (f"<tr><td>{html.escape(key)}</td><td>{html.escape(value)}</td></tr>" for key, value in facts.items())
    return f"<table>{''.join(rows)}</table>"


def _picture(figure: Any, caption: str) -> str:
    buffer = io.BytesIO()
    figure.savefig(buffer, format="png")
    data = base64.b64encode(buffer.getvalue()).decode("ascii")
    text = html.escape(caption)
    return f'<figure><img alt="{text}" src="data:image/png;base64,{data}"><figcaption>{text}</figcaption></figure>'
