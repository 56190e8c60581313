"""Plain data to dataclasses and back: unknown keys and wrong types are named, nothing is guessed.

Knows nothing about any particular recipe. YAML is read by ``safe_load``: a file cannot name code.
"""

from __future__ import annotations

import copy
import dataclasses
import difflib
import logging
import types
from collections.abc import Iterator, Mapping, Sequence
from importlib import resources
from pathlib import Path
from typing import Any, Literal, TypeVar, Union, get_args, get_origin, get_type_hints

import yaml

from cycledistill.recipes.config.packaged import packaged_names
from cycledistill.recipes.errors import RecipeError

_logger = logging.getLogger(__name__)

T = TypeVar("T")
Overrides = Sequence[str | tuple[str, Any]] | Mapping[str, Any]


def load(
    cls: type[T],
    package: str,
    source: str | Path | Mapping[str, Any] | None = None,
    overrides: Overrides = (),
    renamed: Mapping[str, str] | None = None,
) -> T:
    """Read a recipe: the defaults of ``cls``, then a file, then overrides.

    Args:
        cls: The recipe, a dataclass of dataclasses.
        package: The package whose folder ``configs`` holds the packaged files.
        source: A YAML file, the name of a packaged one, a mapping, or nothing for the defaults. A file holds only what
            differs from the defaults.
        overrides: ``"section.key=value"`` strings, the value read as YAML, or pairs of dotted key and value; or a
            mapping of dotted keys to values. The later one wins; only the whole is checked.
        renamed: Dotted keys of earlier versions to today's; they are taken for those, with a warning.

    Raises:
        RecipeError: A file that is not there or not YAML, an unknown key (the nearest known one is named), a value of
            the wrong type or out of range.
    """
    data = copy.deepcopy(dict(source)) if isinstance(source, Mapping) else read_yaml(source, package)
    pairs = overrides.items() if isinstance(overrides, Mapping) else overrides
    _rename(data, renamed or {}, cls)
    for key, value in (parse_override(each) if isinstance(each, str) else each for each in pairs):
        merge(data, _todays(key, renamed or {}), value, cls)
    return build(cls, data)


def check(ok: bool, key: str, given: object, expected: str) -> None:
    """Refuse a value that is out of range.

    Raises:
        RecipeError: ``ok`` is false; the message has the key, what was given and what was expected.
    """
    if not ok:
        raise RecipeError(f"{key}={given!r}: expected {expected}.")


def read_yaml(source: str | Path | None, package: str) -> dict[str, Any]:
    """Read a YAML file by path, or one packaged in ``package`` by name; nothing gives an empty recipe."""
    if source is None:
        return {}
    packaged = resources.files(package) / "configs"
    names = packaged_names(package)
    name = str(source).removesuffix(".yaml")
    if Path(source).is_file():
        try:
            text = Path(source).read_text(encoding="utf-8")
        except (UnicodeDecodeError, OSError) as error:
            raise RecipeError(f"config {source} cannot be read as text: {error}") from error
    elif name in names:
        text = (packaged / f"{name}.yaml").read_text(encoding="utf-8")
    else:
        raise RecipeError(f"config {str(source)!r} is neither a file nor one of the packaged recipes {names}.")
    try:
        data = yaml.safe_load(text)
    except yaml.YAMLError as error:
        raise RecipeError(f"config {source} is not plain YAML (no code, no tags): {error}") from error
    if data is not None and not isinstance(data, dict):
        raise RecipeError(f"config {source}: expected sections such as 'optim:', got {type(data).__name__}.")
    return data or {}


def parse_override(text: str) -> tuple[str, Any]:
    """Split ``"optim.lr=1e-3"`` into its key and its value, read as YAML."""
    key, equals, value = text.partition("=")
    if not equals or not key.strip():
        raise RecipeError(f"--set {text!r}: expected section.key=value, for example --set optim.lr=1e-3.")
    try:
        return key.strip(), yaml.safe_load(value)
    except yaml.YAMLError as error:
        raise RecipeError(f"--set {text!r}: the value is not plain YAML: {error}") from error


def merge(data: dict[str, Any], key: str, value: Any, cls: type) -> None:
    """Put ``value`` at a dotted key of nested ``data``; the key must exist in ``cls`` (or lie inside a mapping)."""
    section, _, rest = key.partition(".")
    hints = get_type_hints(cls)
    if section not in hints or (not rest and dataclasses.is_dataclass(hints[section])):
        raise _unknown(key, list(_leaves(cls)))
    if not rest:
        data[section] = value
    elif dataclasses.is_dataclass(hints[section]):
        inner = data.setdefault(section, {})
        if not isinstance(inner, dict):
            raise RecipeError(f"{section}: got {inner!r}, expected a section with keys.")
        _merge_leaf(inner, section, rest, value, hints[section])
    else:
        raise _unknown(key, list(_leaves(cls)))


def _merge_leaf(data: dict[str, Any], section: str, key: str, value: Any, cls: Any) -> None:
    name, _, rest = key.partition(".")
    hints = get_type_hints(cls)
    if name not in hints or (rest and dict not in _origins(hints[name])):
        raise _unknown(f"{section}.{key}", [f"{section}.{leaf}" for leaf in _leaves(cls)])
    if not rest:
        data[name] = value
        return
    # A field inside a mapping, such as cyclic.distill.token_weight: a preset's name becomes a mapping first.
    current = data.get(name, _default(cls, name))
    inner = {"preset": current} if isinstance(current, str) else dict(current or {})
    inner[rest] = value
    data[name] = inner


def build(cls: type[T], data: dict[str, Any], path: str = "") -> T:
    """Make the dataclass ``cls`` from nested plain data, checking every key and type."""
    hints = get_type_hints(cls)
    known = [f"{path}{name}" for name in hints]
    values = {}
    for key, value in data.items():
        full = f"{path}{key}"
        if key not in hints:
            raise _unknown(full, known if path else list(_leaves(cls)) + known)
        hint = hints[key]
        if dataclasses.is_dataclass(hint):
            if value is not None and not isinstance(value, dict):
                raise RecipeError(f"{full}: got {value!r} ({type(value).__name__}), expected a section with keys.")
            values[key] = build(hint, value or {}, f"{full}.")  # type: ignore[arg-type]
        else:
            values[key] = _coerce(value, hint, full)
    return cls(**values)


def as_dict(value: Any) -> dict[str, Any]:
    """The dataclass as nested plain data."""
    return dataclasses.asdict(value)


def changed(before: dict[str, Any], after: dict[str, Any], path: str = "") -> list[str]:
    """Dotted keys whose values differ between two nested mappings, as ``"key: old -> new"``."""
    lines = []
    for key in sorted(before.keys() | after.keys()):
        old, new = before.get(key), after.get(key)
        if isinstance(old, dict) and isinstance(new, dict):
            lines += changed(old, new, f"{path}{key}.")
        elif old != new:
            lines.append(f"{path}{key}: {old!r} -> {new!r}")
    return lines


def did_you_mean(word: str, known: list[str]) -> str:
    """`` Did you mean ...?`` for the known word most like ``word``, else an empty string."""
    found = difflib.get_close_matches(word, known, n=1, cutoff=0.5)
    if not found:  # a bare or misplaced key: compare last names
        tails = {name.rpartition(".")[2]: name for name in reversed(known)}
        found = [tails[tail] for tail in difflib.get_close_matches(word.rpartition(".")[2], list(tails), n=1)]
    return f" Did you mean {found[0]!r}?" if found else ""


def _rename(data: dict[str, Any], renamed: Mapping[str, str], cls: type) -> None:
    """Move the values under keys of earlier versions to where they belong today."""
    for old, new in renamed.items():
        (section, _, name), (to, _, key) = old.partition("."), new.partition(".")
        if not isinstance(data.get(section), dict) or name not in data[section]:
            continue
        if isinstance(data.get(to), dict) and key in data[to]:
            raise RecipeError(f"{old} is called {new} now: give one of the two.")
        merge(data, _todays(old, renamed), data[section].pop(name), cls)


def _todays(key: str, renamed: Mapping[str, str]) -> str:
    if key in renamed:
        _logger.warning("%s is called %s now", key, renamed[key])
    return renamed.get(key, key)


def _unknown(key: str, known: list[str]) -> RecipeError:
    hint = did_you_mean(key, known)
    listing = "" if hint else f" Known: {', '.join(known)}."
    return RecipeError(f"unknown key {key!r}.{hint}{listing}")


def _leaves(cls: Any, path: str = "") -> Iterator[str]:
    for name, hint in get_type_hints(cls).items():
        if dataclasses.is_dataclass(hint):
            yield from _leaves(hint, f"{path}{name}.")
        else:
            yield f"{path}{name}"


def _default(cls: Any, name: str) -> Any:
    found = next(item for item in dataclasses.fields(cls) if item.name == name)
    if found.default_factory is not dataclasses.MISSING:
        return found.default_factory()
    return found.default


def _members(hint: Any) -> tuple[Any, ...]:
    return get_args(hint) if get_origin(hint) in (Union, types.UnionType) else (hint,)


def _origins(hint: Any) -> list[Any]:
    return [get_origin(member) or member for member in _members(hint)]


def _coerce(value: Any, hint: Any, key: str) -> Any:
    for member in _members(hint):
        fits, result = _fit(value, member, key)
        if fits:
            return result
    choices = [choice for member in _members(hint) if get_origin(member) is Literal for choice in get_args(member)]
    suggestion = did_you_mean(value, choices) if choices and isinstance(value, str) else ""
    raise RecipeError(f"{key}: got {value!r} ({type(value).__name__}), expected {_describe(hint)}.{suggestion}")


def _fit(value: Any, hint: Any, key: str) -> tuple[bool, Any]:
    origin = get_origin(hint)
    if hint is type(None):
        return value is None, None
    if origin is Literal:
        return isinstance(value, str) and value in get_args(hint), value
    if origin is list:
        if not isinstance(value, (list, tuple)):
            return False, None
        (item,) = get_args(hint)
        return True, [_coerce(entry, item, f"{key}[{i}]") for i, entry in enumerate(value)]
    if origin is dict:
        return isinstance(value, dict) and all(isinstance(name, str) for name in value), value
    if hint is float:
        return _fit_float(value)
    if hint is int:
        return isinstance(value, int) and not isinstance(value, bool), value
    return isinstance(value, hint), value


def _fit_float(value: Any) -> tuple[bool, Any]:
    if isinstance(value, bool) or not isinstance(value, (int, float, str)):
        return False, None
    try:
        return True, float(value)  # YAML 1.1 reads 1e-3 (no dot) as text
    except ValueError:
        return False, None


def _describe(hint: Any) -> str:
    names = []
    for member in _members(hint):
        origin = get_origin(member)
        if origin is Literal:
            names.append("one of " + ", ".join(map(repr, get_args(member))))
        elif origin is list:
            names.append(f"a list of {_describe(get_args(member)[0])}")
        elif origin is dict:
            names.append("a mapping")
        elif member is type(None):
            names.append("null")
        else:
            names.append(
                {"str": "text", "int": "a whole number", "float": "a number", "bool": "true or false"}.get(
                    member.__name__, member.__name__
                )
            )
    return " or ".join(names)
