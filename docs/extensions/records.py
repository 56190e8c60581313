"""The page of results: every committed record, as tables. ``python docs/extensions/records.py`` prints them.

A record is a JSON file under ``benchmarks/results`` or ``docs/figures``. Nothing here knows what a record is of: lists
become tables, rows of several seeds their mean and standard deviation, lists of more than `LONG` rows counts. Sphinx
puts the text in place of ``<!-- records -->``, so the page cannot differ from the files.
"""

from __future__ import annotations

import json
import math
import re
import statistics
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from sphinx.application import Sphinx

ROOT = Path(__file__).resolve().parents[2]
PLACES = {
    "<!-- records -->": "page",
    "<!-- studies -->": "studies",
}  # what stands in a page: the function whose text it gets
LONG, FEW = 100, 8  # rows that are counted, not shown; values that fit in a line, and kinds that are counted by
ABOUT = ("conditions", "device", "versions")  # keys of what a record was measured with

BOUND = "\N{NO-BREAK SPACE}±\N{NO-BREAK SPACE}"

Row = dict[str, Any]


def files() -> list[Path]:
    """The committed records, and the reports of the studies."""
    results, figures = ROOT / "benchmarks" / "results", ROOT / "docs" / "figures"
    return [
        *sorted(results.glob("*.json")),
        *sorted(results.glob("study/*-adaptive.json")),
        *sorted(figures.glob("*.json")),
    ]


def question(path: Path) -> str:
    """What a record answers: its benchmark's row in ``benchmarks/README.md``, or its example's first line."""
    text = (ROOT / "benchmarks" / "README.md").read_text(encoding="utf-8")
    asked = dict(re.findall(r"^\| `(\w+)\.py` \| (.+?) \|", text, re.MULTILINE))
    name = path.stem.partition("-")[0]
    if path.parent.name == "study":
        return f"Adaptive inference in the study {path.stem.removesuffix('-adaptive')}"
    if (example := ROOT / "examples" / f"{name}.py").exists():
        return example.read_text(encoding="utf-8").splitlines()[0].strip('"')
    return asked.get(name) or asked.get(f"{name}_study") or asked["gpu"]


def page() -> str:
    """The Markdown of all records: a table of them, then a section each."""
    named = {path: json.loads(path.read_text(encoding="utf-8")) for path in files()}
    head = [
        {"record": f"[{path.stem}](#{anchor(path.stem)})", "question": question(path), "on": machine(record)}
        for path, record in named.items()
    ]
    return "\n\n".join([table(head), *(section(path, record) for path, record in named.items())])


def studies() -> str:
    """The Markdown of the studies: of each, its question and what became of it, from its report."""
    rows = []
    for path in sorted((ROOT / "benchmarks" / "results" / "study").glob("*.md")):
        text = path.read_text(encoding="utf-8")
        asked = text.split("\n\n")[1].replace("\n", " ")
        (verdict,) = re.findall(r"^What was to count as a yes: \**(.+?)\**\.(?: Not judged: .+)?$", text, re.MULTILINE)
        rows.append({"study": f"[{path.stem}](results/{path.stem}.md)", "question": asked, "a yes was": verdict})
    return table(rows)


def filled(text: str) -> str:
    """A page with the texts in their places."""
    for place, name in PLACES.items():
        text = text.replace(place, globals()[name]()) if place in text else text
    return text


def anchor(title: str) -> str:
    """The anchor that MyST gives to a heading."""
    return re.sub(r"[^\w\- ]", "", title.lower()).replace(" ", "-")


def section(path: Path, record: Mapping[str, Any]) -> str:
    """One record: where it is, what it was measured with, and its tables, folded."""
    single = {key: value for key, value in record.items() if is_short(value) and value != {} and key not in ABOUT}
    parts = [f"### {path.stem}", question(path), f"`{path.relative_to(ROOT).as_posix()}`. {conditions(record)}".strip()]
    if single:
        parts.append("; ".join(f"{key} {cell(value)}" for key, value in single.items()) + ".")
    for name, rows in tables(record):
        size = f"{len(rows)} row{'s' * (len(rows) > 1)}"
        parts.append(f":::{{dropdown}} {size if name == 'rows' else f'{name}: {size}'}\n\n{table(rows)}\n:::")
    return "\n\n".join(parts)


def machine(record: Mapping[str, Any]) -> str:
    """The device, where the record has it; one of a GPU always does."""
    found = record.get("conditions", record)
    return cell(found.get("device") or found.get("hardware") or "CPU, not named")


def conditions(record: Mapping[str, Any]) -> str:
    """Device, clock, load and versions, as the record has them."""
    found = {**record.get("conditions", {}), **{key: record[key] for key in ABOUT[1:] if key in record}}
    versions = found.pop("versions", {})
    said = [
        cell(value) if key in ("device", "hardware", "clock") else f"{key} {cell(value)}"
        for key, value in found.items()
    ]
    return "; ".join([*said, *(f"{name} {version}" for name, version in versions.items())])


def tables(record: Mapping[str, Any]) -> Iterator[tuple[str, list[Row]]]:
    """Name and rows of each list or mapping of a record."""
    for key, value in record.items():
        if is_short(value) or key in ABOUT:
            continue
        rows = [flat(inner) for row in as_rows(value) for inner in unfolded(row)]
        if len(rows) > LONG:
            yield f"{key}, counted", counts(rows)
        elif any("seed" in row for row in rows):
            yield f"{key}, mean ± standard deviation over seeds", over_seeds(rows, record.get("exits"))
        elif len({tuple(row) for row in rows}) > 1 and all("what" in row for row in rows):
            for what in dict.fromkeys(row["what"] for row in rows):
                yield f"{what}", [row for row in rows if row["what"] == what]
        else:
            yield key, rows


def as_rows(value: Any) -> Iterator[Mapping[str, Any]]:
    """A list of rows, or a mapping whose keys are written in front of each of its rows."""
    if isinstance(value, Mapping) and any(map(is_plain, value.values())):
        yield from ({"name": key, "value": inner} for key, inner in flat(value).items())
    elif isinstance(value, Mapping):
        for key, inner in value.items():
            if isinstance(inner, Mapping):
                yield {"name": key, **inner}
            elif isinstance(inner, list) and inner and isinstance(inner[0], Mapping):
                yield from ({"name": key, **row} for row in inner)
            else:
                yield {"name": key, "value": inner}
    else:
        yield from (row if isinstance(row, Mapping) else {"value": row} for row in value)


def unfolded(row: Mapping[str, Any]) -> Iterator[Mapping[str, Any]]:
    """A row that holds a list of rows, as these, numbered."""
    nested = [key for key, value in row.items() if isinstance(value, list) and value and isinstance(value[0], Mapping)]
    if not nested:
        yield row
    for key in nested:
        own = {name: value for name, value in row.items() if name not in nested}
        for number, inner in enumerate(row[key], 1):
            yield {**own, key: str(number), **{f"{key}, {name}": value for name, value in inner.items()}}


def flat(row: Mapping[str, Any], before: str = "") -> Row:
    """Mappings within a row as columns of their own."""
    result: Row = {}
    for key, value in row.items():
        name = f"{before}{key}"
        if isinstance(value, Mapping):
            result |= flat(value, f"{name}, ")
        else:
            result[name] = value
    return result


def over_seeds(rows: Sequence[Row], exits: Sequence[int] | None) -> list[Row]:
    """One row for all that differ in seed and numbers alone; a list of a number an exit has a column an exit."""
    groups: dict[tuple[Any, ...], list[Row]] = {}
    for row in rows:
        groups.setdefault(tuple((key, value) for key, value in row.items() if isinstance(value, str)), []).append(row)
    result = []
    for key, members in groups.items():
        merged: Row = {**dict(key), "seeds": len(members)}
        for name in dict.fromkeys(name for row in members for name in row):
            values = [row[name] for row in members if name in row]
            if name == "seed" or isinstance(values[0], str):
                continue
            if not isinstance(values[0], list):
                merged[name] = spread(values)
            elif not all(len(value) == len(values[0]) <= FEW for value in values):
                merged[name] = cell(values[0])
            else:
                each = [spread(column) for column in zip(*values, strict=True)]
                by_exit = exits is not None and len(exits) == len(each) and list(exits) != values[0]
                columns = [f"{name} @{number}" for number in exits or ()] if by_exit else [name]
                merged |= dict(zip(columns, each if by_exit else [", ".join(each)], strict=True))
        result.append(merged)
    return result


def spread(values: Sequence[Any]) -> str:
    """Mean and standard deviation of numbers that differ."""
    if all(value == values[0] for value in values):
        return cell(values[0])
    if not all(isinstance(value, (int, float)) and math.isfinite(value) for value in values):
        return "differs"
    deviation = statistics.stdev(values)
    places = max(0, 1 - math.floor(math.log10(deviation)))  # two digits of the deviation, and as many of the mean
    return f"{statistics.mean(values):,.{places}f}{BOUND}{deviation:,.{places}f}"


def counts(rows: Sequence[Row]) -> list[Row]:
    """How many rows there are of each combination of the columns that have few values."""
    names = dict.fromkeys(name for row in rows for name in row)
    few = [name for name in names if len({repr(row.get(name)) for row in rows}) <= FEW]
    found: dict[tuple[str, ...], int] = {}
    for row in rows:
        key = tuple(cell(row.get(name)) for name in few)
        found[key] = found.get(key, 0) + 1
    ordered = sorted(found.items(), key=lambda item: -item[1])
    return [{**dict(zip(few, key, strict=True)), "how many": count} for key, count in ordered]


def is_plain(value: Any) -> bool:
    """Whether a value is one thing."""
    return not isinstance(value, (Mapping, list))


def is_short(value: Any) -> bool:
    """Whether a value is said in a line, not in a table."""
    if isinstance(value, Mapping):
        return len(value) <= FEW / 2 and all(map(is_plain, value.values()))
    return is_plain(value) or (len(value) <= FEW and all(map(is_plain, value)))


def cell(value: Any) -> str:
    """A value as a reader wants it: numbers to four digits, yes and no, lists in one line."""
    if value is None:
        return "–"
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, float):
        return f"{value:,.0f}" if abs(value) >= 1000 else f"{value:.4g}"
    if isinstance(value, int):
        return f"{value:,}" if abs(value) >= 10000 else str(value)
    if isinstance(value, list):
        plain = len(value) <= FEW and all(is_plain(each) for each in value)
        return ", ".join(map(cell, value)) if plain else f"{len(value)} values"
    if isinstance(value, Mapping):
        return ", ".join(f"{key} {cell(each)}" for key, each in value.items())
    return str(value)


def table(rows: Iterable[Row]) -> str:
    """Rows as a table in Markdown; a column for each key of any of them."""
    rows = list(rows)
    names = list(dict.fromkeys(name for row in rows for name in row))
    lines = [names, ["---"] * len(names), *([cell(row.get(name)) for name in names] for row in rows)]
    return "\n".join("| " + " | ".join(text.replace("|", "\\|") for text in line) + " |" for line in lines)


def fill(app: Sphinx, name: str, source: list[str]) -> None:
    """Sphinx's ``source-read``: the records in their place."""
    source[0] = filled(source[0])


def setup(app: Sphinx) -> dict[str, bool]:
    """What Sphinx calls."""
    app.connect("source-read", fill)
    app.connect("env-get-outdated", lambda app, env, *_: [name for name in env.found_docs if name == "results"])
    return {"parallel_read_safe": True}


if __name__ == "__main__":
    print(page())
