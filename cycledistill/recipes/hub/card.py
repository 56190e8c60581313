"""The model card of a published model: what is known of it, counted or recorded, and nothing else."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import nn

from cycledistill.cost.report import CostReport, cost
from cycledistill.plugin.install import handle_of
from cycledistill.plugin.torch_private import tree_map_only
from cycledistill.recipes.hub.card_fields import CardFields, cycles_in_words

_PLACEHOLDER = "USER/NAME"


@dataclass(frozen=True)
class ModelFacts:
    """What a model knows of itself for its card.

    Attributes:
        module: Where its class is imported from.
        loader: Name of the class whose ``from_pretrained`` reads it.
        does: What it takes and gives, with shapes.
        inputs: What it is called with to count its costs.
        example: That in words.
        stack: Path of its stack, for a model without cycles.
    """

    module: str
    loader: str
    does: str
    inputs: Any
    example: str
    stack: str


def card_body(model: nn.Module, config: Mapping[str, Any], facts: ModelFacts, fields: CardFields) -> str:
    """The card below its metadata, in Markdown."""
    name = config["name"] or config["model_class"]
    plain: dict[str, Any] = {} if handle_of(model, "cyclic") else {"cycles": 1, "blocks": facts.stack}
    note = f" It was built from the name `{name}` ({config['note']}), with the sizes below." if config["note"] else ""
    parts = [
        f"# {name}",
        f"`{config['model_class']}` of the Python library cycledistill {config['version']}: takes {facts.does}.{note}",
        fields.description,
        _usage(facts, fields.model_id or _PLACEHOLDER, config),
        "## Costs",
        _costs(cost(model, _typed(facts.inputs, model), **plain), facts),
        "## Training",
        _training(config, fields),
        "## Results",
        _results(fields),
        "## Architecture",
        _architecture(config),
    ]
    return "\n\n".join(part.strip() for part in parts if part.strip()) + "\n"


def _usage(facts: ModelFacts, model_id: str, config: Mapping[str, Any]) -> str:
    lines = [f"from {facts.module} import {facts.loader}", "", f'model = {facts.loader}.from_pretrained("{model_id}")']
    added = " and those of the hourglass (`prune.*`, `recover.*`)" if config.get("recover") in (True, "local") else ""
    after = f"`model.safetensors` holds the weights under the names of the plain architecture{added}."
    if config.get("cycles"):
        lines.append("model.cyclic.exit = 2  # more cycles of the same weights; 1, the default, is the plain model")
        after += " `from_pretrained(..., cycles=None)` gives the plain model, without the wrapper for cycles."
    return "\n".join(["```python", *lines, "```", "", after])


def _costs(report: CostReport, facts: ModelFacts) -> str:
    rows = [(cycles_in_words(n), each) for n, each in enumerate(report.exits, 1)]
    lines = [
        f"{report.parameters:,} parameters, {report.trainable:,} of them trainable. Multiply-accumulates of a forward, "
        f"counted for {facts.example}, with the products of attention (queries with keys, weights with values) and, as "
        "most papers count, without:",
        "",
        "| inference | GMACs | without attention's products |",
        "|---|---|---|",
        *(f"| {name} | {each.total / 1e9:.4g} | {each.weights / 1e9:.4g} |" for name, each in rows),
    ]
    if report.cycles > 1:
        ratio = f"{report.training_step_ratio:.2f} times that of one"
        lines += ["", f"A training step of {report.cycles} cycles costs {ratio}."]
    return "\n".join(lines)


def _training(config: Mapping[str, Any], fields: CardFields) -> str:
    cycles, scheme = config.get("cycles"), config.get("distill")
    if not cycles:
        setup = "It is published without cycles: its stack runs once."
    else:
        words = "no distillation that a config can hold" if scheme is None else f"distillation `{scheme}`"
        setup = f"It is published with {cycles_in_words(cycles)} while training ({words}), and one in inference."
    return f"{fields.training or 'How the weights were trained was not stated.'}\n\n{setup}"


def _results(fields: CardFields) -> str:
    columns = fields.columns
    if not any(columns.values()):
        none = (
            "No results were given with these weights. Figures published for the architecture are not results of them."
        )
        return "\n\n".join(part for part in (none, fields.evaluation) if part)
    names = dict.fromkeys(name for figures in columns.values() for name in figures)
    lines = [_row(["", *columns]), "|" + "---|" * (1 + len(columns))]
    lines += [_row([name, *(_number(figures.get(name)) for figures in columns.values())]) for name in names]
    return "\n".join([*lines, "", fields.evaluation or "How they were measured was not stated."])


def _architecture(config: Mapping[str, Any]) -> str:
    told = {"library", "version", "model_class", "name", "note", "cycles", "distill"}
    lines = ["| field | value |", "|---|---|"]
    for name, value in config.items():
        if name not in told:
            inner = value.items() if isinstance(value, dict) else [("", value)]
            lines += [_row([f"{name}.{key}".rstrip("."), f"`{json.dumps(each)}`"]) for key, each in inner]
    return "\n".join(lines)


def _number(value: float | None) -> str:
    return "" if value is None else str(value) if isinstance(value, int) else f"{value:.4g}"


def _row(cells: Sequence[str]) -> str:
    return "| " + " | ".join(cell.replace("|", "\\|") for cell in cells) + " |"


def _typed(inputs: Any, model: nn.Module) -> Any:
    """The inputs in the floating-point type of the model's weights."""
    kind = next((each.dtype for each in model.parameters() if each.is_floating_point()), torch.float32)
    return tree_map_only(torch.Tensor, lambda x: x.to(kind) if x.is_floating_point() else x, inputs)
