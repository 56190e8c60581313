"""JSON and YAML: plain data or an error, whatever a file holds. YAML's ``SafeLoader`` runs no code."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import yaml

from cycledistill.recipes.reading.guard import JSON, Kind, first_line, reading
from cycledistill.recipes.reading.plain import check_plain


def read_json(path: str | Path, error: type[Exception], where: object = None, kind: Kind = JSON) -> Any:
    """What a JSON file holds.

    Args:
        path: The file.
        error: What is raised.
        where: What an error calls the file; default: its path.
        kind: What is said of one that is no JSON.

    Raises:
        error: There is no such file, or it is not JSON.

    Example:
        >>> read_json("boxes.json", DataError)
        [{'image_id': 785, 'bbox': [34, 50, 120, 300], 'score': 0.9}]
    """
    with reading(path if where is None else where, kind, error):
        return json.loads(Path(path).read_bytes())


def parse_json(text: str | bytes, where: object, error: type[Exception]) -> Any:
    """What JSON text holds; ``where`` is what an error calls it."""
    with reading(where, JSON, error):
        return json.loads(text)


def parse_yaml(text: str, where: str, error: type[Exception], key: str = "") -> Any:
    """What YAML text holds: mappings, lists, text, finite numbers, truth values and nothing.

    Args:
        text: The YAML.
        where: What an error calls it.
        error: What is raised.
        key: The key whose value the text is, if it is not a whole file.

    Raises:
        error: It is no YAML, has tags, says a key twice, or holds what is not plain (see `check_plain`); line and
            column, or the key, are named.

    Example:
        >>> parse_yaml("optim: {lr: 1.0e-3}", "my.yaml", RecipeError)
        {'optim': {'lr': 0.001}}
    """
    try:
        loader = _Loader(text)
        node = loader.get_single_node()
        twice = None if node is None else _said_twice(node, key)
        data = None if node is None or twice else loader.construct_document(node)
    except yaml.YAMLError as reason:
        raise error(f"{where} {_NOT_YAML}: {_in_a_line(reason)}") from reason
    except RecursionError as reason:
        raise error(f"{where} {_NOT_YAML}: brackets inside brackets, too deep") from reason
    if twice:
        raise error(f"{where}: {twice}; the last one alone would count, so leave one")
    check_plain(data, where, error, key)
    return data


def _said_twice(root: Any, key: str) -> str | None:
    """The first key that stands twice in one mapping, and where: ``"optim.lr stands on lines 2 and 3"``."""
    waiting, seen = [(key, root)], set[int]()
    while waiting:
        key, node = waiting.pop()
        if id(node) in seen:  # an alias
            continue
        seen.add(id(node))
        if isinstance(node, yaml.SequenceNode):
            waiting += [(f"{key}[{number}]", each) for number, each in enumerate(node.value)]
        elif isinstance(node, yaml.MappingNode):
            lines: dict[tuple[str, str], int] = {}
            for name, value in node.value:
                if not isinstance(name, yaml.ScalarNode) or name.tag == _MERGE:
                    continue
                place, line = f"{key}.{name.value:.80}".lstrip("."), name.start_mark.line + 1
                first = lines.get((name.tag, name.value))
                if first is not None:
                    where = f"lines {first} and {line}" if first != line else f"line {line} twice"
                    return f"{place} stands on {where}"
                lines[name.tag, name.value] = line
                waiting.append((place, value))
    return None


_MERGE = "tag:yaml.org,2002:merge"

_NOT_YAML = "is not plain YAML (no code, no tags)"


class _Loader(yaml.SafeLoader):
    """Says where it is what cannot be made of a value that looks like a date or a number: ``2026-13-45``, ``0b_``."""

    def construct_object(self, node: Any, deep: bool = False) -> Any:
        try:
            return super().construct_object(node, deep)
        except (yaml.YAMLError, RecursionError):
            raise
        except Exception as reason:
            said = f"{str(node.value)[:80]!r} cannot be read ({first_line(reason)}); if text is meant, put it in quotes"
            raise yaml.constructor.ConstructorError(None, None, said, node.start_mark) from reason


def _in_a_line(error: yaml.YAMLError) -> str:
    """What the parser says over several lines, and where: lines and columns as editors count them."""
    if not isinstance(error, yaml.MarkedYAMLError) or error.problem_mark is None:
        return " ".join(str(error).split())
    mark = error.problem_mark
    return f"line {mark.line + 1}, column {mark.column + 1}: {error.problem}"
