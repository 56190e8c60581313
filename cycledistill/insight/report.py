"""A report on a trained model as one HTML file: ``cycledistill insight CHECKPOINT --image photo.jpg``.

Which model a checkpoint holds is known by the integration that wrote it. Integrations announce a function under the
entry point group ``cycledistill.checkpoints``; it takes a folder and returns a `Subject`, or ``None`` if it is not its
own.
"""

from __future__ import annotations

import base64
import html
import io
import os
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from importlib.metadata import entry_points
from pathlib import Path
from typing import Any

from torch import Tensor, nn

from cycledistill.insight import plots
from cycledistill.insight.measures import AttentionMap, attention_maps, parameter_profile, token_drift
from cycledistill.plugin.install import handle_of

GROUP = "cycledistill.checkpoints"


@dataclass(frozen=True)
class Subject:
    """A trained model, and how to show it something.

    Attributes:
        name: What to call it.
        model: In eval mode, wrapped or plain.
        prepare: Reads a file: the model's input, batch first, for example (1, 3, H, W), and the picture (H, W, 3) in
            [0, 1], or ``None`` where the file holds none (keypoints).
        grid: Height and width of the image in patches, whose tokens come last in the state; ``None`` if there is none:
            then attention is drawn as a matrix, queries by keys.
        rows: The query tokens whose attention is read.
        row_names: Names of those whose attention is drawn over the picture.
        row_places: Their numbers among ``rows``; by default the first ones.
        prefix: Tokens before the patches, as `plot_attention` takes it.
        facts: What else is known, such as the scores of its last evaluation, as text.
        scores: What its last evaluation measured, by exit; a curve is drawn of more than one.
        score_name: What ``scores`` are, with their unit.
        key_names: Without a grid: what the keys of a matrix are, by their number: ``{243: "frames", 17: "joints"}``.
        blocks: The stack of a plain model, as ``wrap_cyclic`` takes it.
        path: Where it was read from.
    """

    name: str
    model: nn.Module
    prepare: Callable[[Path], tuple[Tensor, Tensor | None]]
    grid: tuple[int, int] | None
    rows: slice
    row_names: tuple[str, ...]
    facts: Mapping[str, str] = field(default_factory=dict)
    row_places: tuple[int, ...] = ()
    prefix: int | None = None
    scores: Mapping[int, float] = field(default_factory=dict)
    score_name: str = "score"
    key_names: Mapping[int, str] = field(default_factory=dict)
    blocks: str = "auto"
    path: Path | None = None


def open_subject(path: Path) -> Subject:
    """The model of a checkpoint, by whichever installed integration wrote it.

    Raises:
        ValueError: There is no such folder, what is in it is damaged, or no integration knows it.
    """
    if not path.is_dir():
        raise ValueError(f"{path}: the folder of a run or checkpoint is expected")
    asked, lacking = [], []
    for point in sorted(entry_points(group=GROUP), key=lambda point: point.name):
        try:
            opens = point.load()
        except ModuleNotFoundError as error:  # an integration whose packages are not installed
            lacking.append(f"{point.name} (needs {error.name})")
            continue
        asked.append(point.name)
        subject: Subject | None = opens(path)
        if subject is not None:
            return replace(subject, path=path)
    names = ", ".join(asked) or "none; is cycledistill installed?"
    more = f"; could not be asked: {', '.join(lacking)}" if lacking else ""
    raise ValueError(f"{path} holds no checkpoint that an integration knows (asked: {names}{more})")


def insight_report(
    subject: Subject, images: list[Path], *, cycles: int | None = None, compare: Subject | None = None
) -> str:
    """A self-contained HTML page: facts, scores by exit, parameters, and for each file drift and attention.

    Args:
        subject: The model.
        images: Files to show it, of the kind that ``subject.prepare`` reads; may be empty, then there is no drift and
            no attention.
        cycles: Cycles to run; default: as trained.
        compare: A second model whose parameters, and scores of the same name, are drawn beside.

    Raises:
        ValueError: A model without attention, or an image it does not take.
        ImportError: matplotlib is not installed.
    """
    models = [each for each in (subject, compare) if each is not None]
    labels = _labels(models)
    parts = [_table(_facts(subject))]
    curves = {
        label: each.scores
        for label, each in zip(labels, models, strict=True)
        if each.scores and each.score_name == subject.score_name
    }
    if len(subject.scores) > 1:
        parts.append("<h2>Scores by exit</h2>")
        caption = f"{subject.score_name} against the cycles at inference, as the run measured it at this checkpoint"
        parts.append(_picture(plots.plot_exits(curves, subject.score_name), caption))
    parts.append("<h2>Parameters</h2>")
    profiles = {label: parameter_profile(each.model) for label, each in zip(labels, models, strict=True)}
    parts.append(_picture(plots.plot_parameters(profiles), "Distribution of the weights"))
    for file in images:
        parts.append(f"<h2>{html.escape(file.name)}</h2>")
        parts += _shown(subject, file, cycles)
    return _PAGE.format(title=html.escape(subject.name), body="\n".join(parts))


def _labels(models: list[Subject]) -> list[str]:
    """Names that tell the models apart: with their folder where they share one, with a number where that is shared."""
    names = [each.name for each in models]
    paths = [os.path.abspath(each.path) for each in models if each.path is not None]
    if len(set(names)) < len(names) and len(paths) == len(models):
        above = os.path.commonpath([os.path.dirname(path) for path in paths])  # what both share says nothing
        names = [f"{name} ({os.path.relpath(path, above)})" for name, path in zip(names, paths, strict=True)]
    if len(set(names)) < len(names):
        names = [f"{name}, {number}" for number, name in enumerate(names, 1)]
    return names


def _facts(subject: Subject) -> dict[str, str]:
    handle = handle_of(subject.model, "cyclic")
    facts = {
        "model": type(subject.model).__name__,
        "parameters": f"{sum(p.numel() for p in subject.model.parameters()):,}",
    }
    if handle is None:
        facts["cycles while training"] = "none, a plain model"
    else:
        facts["stack"] = f"{handle.stack.path}, {handle.stack.depth} blocks"
        facts["cycles while training"] = str(handle.cycles)
    return facts | dict(subject.facts)


def _shown(subject: Subject, file: Path, cycles: int | None) -> list[str]:
    """Drift and attention of one file."""
    inputs, picture = subject.prepare(file)
    drifts = token_drift(subject.model, inputs, cycles=cycles, blocks=subject.blocks)
    parts = [_picture(plots.plot_drift(drifts), "Tokens before and after each cycle")]
    whole = not subject.row_names
    maps = attention_maps(subject.model, inputs, cycles=cycles, rows=subject.rows, blocks=subject.blocks, mean=whole)
    if whole:
        return parts + _matrices(subject, maps)
    if subject.grid is not None:
        keys, patches = sorted({m.weights.shape[-1] for m in maps}), subject.grid[0] * subject.grid[1]
        if keys[-1] < patches:
            text = f"Attention reaches over {keys[-1]} tokens at a time and the picture has {patches} patches: its "
            return [*parts, f"<p>{text}windows are not drawn over the picture.</p>"]
    places = subject.row_places or range(len(subject.row_names))
    for row, name in zip(places, subject.row_names, strict=True):
        figure = plots.plot_attention(maps, grid=subject.grid, image=picture, row=row, prefix=subject.prefix)
        parts.append(_picture(figure, f"Attention of {name}, mean over heads"))
    return parts


def _matrices(subject: Subject, maps: list[AttentionMap]) -> list[str]:
    """Attention as queries by keys, a figure for each number of keys."""
    parts = []
    for keys in sorted({m.weights.shape[-1] for m in maps}, reverse=True):
        drawn = [m for m in maps if m.weights.shape[-1] == keys]
        caption = f"Attention over {keys} {subject.key_names.get(keys, 'tokens')}, queries down, keys across"
        parts.append(_picture(plots.plot_attention(drawn), f"{caption}; mean over heads and all else"))
    return parts


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
