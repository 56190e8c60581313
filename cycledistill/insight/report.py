"""A report on a trained model as one HTML file: ``cycledistill insight CHECKPOINT --image photo.jpg``."""

from __future__ import annotations

import os
from datetime import datetime, timezone
from pathlib import Path
from typing import Any

from cycledistill.cost.report import cost, count_exits
from cycledistill.insight import pictures, plots
from cycledistill.insight.measures import AttentionMap, attention_maps, parameter_profile, token_drift
from cycledistill.insight.pages import render
from cycledistill.insight.rows import attention_rows
from cycledistill.insight.scores import Scores
from cycledistill.insight.subject import Subject
from cycledistill.plugin.install import handle_of
from cycledistill.versions import made_with

_DRIFT = (
    "Tokens before and after each cycle: the step beside the token's own length, and how alike both are (cosine, CKA: "
    "1 is alike)"
)


def insight_report(
    subject: Subject, images: list[Path], *, cycles: int | None = None, compare: Subject | None = None
) -> str:
    """A self-contained HTML page: what it is of, cost and scores by exit, weights, and by file drift and attention.

    Args:
        subject: The model.
        images: Files to show it, of the kind that ``subject.prepare`` reads; may be empty, then there is no drift and
            no attention.
        cycles: Cycles to run on the files; default: as trained.
        compare: A second model whose facts, costs, scores and weights stand beside.

    Raises:
        ValueError: A model without attention, an image it does not take, or ``cycles`` and nothing to run them on.
        ImportError: matplotlib or jinja2 is not installed.
    """
    if cycles is not None and not images:
        raise ValueError(f"cycles={cycles} are run on the files that are shown, and there is none: give one")
    subjects = [each for each in (subject, compare) if each is not None]
    files = [{"name": file.name, **_shown(subject, file, cycles)} for file in images]  # first, for it may refuse one
    models = [_model(label, each, images) for label, each in zip(_labels(subjects), subjects, strict=True)]
    profiles = {each["label"]: parameter_profile(one.model) for each, one in zip(models, subjects, strict=True)}
    title, summary = _words(subject, cycles)
    return render(
        Path(__file__).with_name("report.html.jinja"),
        title=title,
        summary=summary,
        models=models,
        facts=list(dict.fromkeys(key for each in models for key in each["facts"])),
        curve=_curve(models),
        parameters=pictures.of_figure(
            plots.plot_parameters(profiles), "Distribution of the weights; how many are near 0"
        ),
        files=files,
        bar=pictures.scale_bar(),
        made=datetime.now(timezone.utc).strftime("%d %B %Y, %H:%M UTC").lstrip("0"),
        versions=", ".join(f"{name} {version}" for name, version in made_with().items()),
    )


def _words(subject: Subject, cycles: int | None) -> tuple[str, str]:
    """The title, and a sentence of what was read."""
    handle = handle_of(subject.model, "cyclic")
    if handle is None:
        return f"A look into {subject.name}", "A plain model: its blocks run once."
    ran = cycles or handle.cycles
    title = f"What {ran} cycles did to {subject.name}" if ran > 1 else f"One cycle of {subject.name}"
    trained = f"{handle.cycles} cycles" if handle.cycles > 1 else "1 cycle"
    return title, f"Its {handle.stack.depth} blocks run again on their own output; it was trained with {trained}."


def _model(label: str, subject: Subject, images: list[Path]) -> dict[str, Any]:
    """What the page says of a model: facts, and a line an exit."""
    scores, handle = subject.scores, handle_of(subject.model, "cyclic")
    last = 1 if handle is None else handle.cycles
    numbers = sorted({*range(1, last + 1), *(scores.values if scores is not None else ())})
    costs, note = _costs(subject, images, numbers[-1])
    exits = [
        {
            "number": number,
            "cost": f"{costs[number - 1] / 1e9:.3g}" if number <= len(costs) else "",
            "ratio": f"{costs[number - 1] / max(costs[0], 1):.2f}" if number <= len(costs) else "",
            "score": scores.text(number) if scores is not None else "",
            "interval": scores.interval_text(number) if scores is not None else "",
        }
        for number in numbers
    ]
    return {"label": label, "facts": _facts(subject), "scores": scores, "exits": exits, "cost_note": note}


def _costs(subject: Subject, images: list[Path], exits: int) -> tuple[list[int], str]:
    """Multiply-accumulates of an answer at exits 1 to ``exits``, and what was counted in words."""
    example = subject.example
    if example is None and images:
        example = subject.prepare(images[0])[0]
    if example is None:
        return [], "What an exit costs was not counted: give a file to show it."
    try:
        if handle_of(subject.model, "cyclic") is None:
            counted = cost(subject.model, example, 1, blocks=subject.blocks).exits
        else:
            counted = count_exits(subject.model, ((example,), {}), exits)[1]
    except ValueError as error:
        return [], f"What an exit costs was not counted: {error}."
    shape = " x ".join(map(str, example.shape))
    said = f"Billions of multiply-accumulates of one answer, x those of one cycle; input {shape}."
    return [macs.total for macs in counted], said


def _curve(models: list[dict[str, Any]]) -> pictures.Picture | None:
    """Scores by exit, of both models where they are the same figure; nothing where there is one exit."""
    own: Scores | None = models[0]["scores"]
    if own is None or len(own.values) < 2:
        return None
    drawn = {each["label"]: each["scores"] for each in models if each["scores"] and each["scores"].title == own.title}
    figure = plots.plot_exits(
        {label: each.values for label, each in drawn.items()},
        own.title,
        intervals={label: each.intervals for label, each in drawn.items()},
    )
    bars = "; bars are the intervals" if any(each.intervals for each in drawn.values()) else ""
    return pictures.of_figure(figure, f"{own.title}, by cycles at inference, from 0{bars}")


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
    facts = dict(subject.facts) | {
        "model": type(subject.model).__name__,
        "parameters": f"{sum(p.numel() for p in subject.model.parameters()):,}",
    }
    if handle is None:
        facts["cycles while training"] = "none, a plain model"
    else:
        facts["stack"] = f"{handle.stack.path}, {handle.stack.depth} blocks"
        facts["cycles while training"] = str(handle.cycles)
    return facts


def _shown(subject: Subject, file: Path, cycles: int | None) -> dict[str, Any]:
    """Drift and attention of one file."""
    inputs, image = subject.prepare(file)
    drifts = token_drift(subject.model, inputs, cycles=cycles, blocks=subject.blocks)
    drift = pictures.of_figure(plots.plot_drift(drifts), _DRIFT)
    whole = not subject.row_names
    maps = attention_maps(subject.model, inputs, cycles=cycles, rows=subject.rows, blocks=subject.blocks, mean=whole)
    found: dict[str, Any] = {"drift": drift, "sections": [], "notes": []}
    if whole:
        return found | {"sections": _matrices(subject, maps)}
    if subject.grid is not None:
        keys, patches = max(m.weights.shape[-1] for m in maps), subject.grid[0] * subject.grid[1]
        if keys < patches:
            said = f"Attention reaches over {keys} tokens at a time and the picture has {patches} patches: its "
            return found | {"notes": [f"{said}windows are not drawn beside the picture."]}
    for row, name in zip(subject.row_places or range(len(subject.row_names)), subject.row_names, strict=False):
        rows = attention_rows(maps, grid=subject.grid, row=row, prefix=subject.prefix)
        found["sections"].append(pictures.of_attention(rows, f"Where {name} looks", image))
    return found


def _matrices(subject: Subject, maps: list[AttentionMap]) -> list[pictures.AttentionSection]:
    """Attention as queries by keys, a section for each number of keys."""
    sections = []
    for keys in sorted({m.weights.shape[-1] for m in maps}, reverse=True):
        drawn = attention_rows([m for m in maps if m.weights.shape[-1] == keys])
        what = f"Attention over {keys} {subject.key_names.get(keys, 'tokens')}, queries down, keys across"
        sections.append(pictures.of_attention(drawn, f"{what}; a mean over all else too"))
    return sections
