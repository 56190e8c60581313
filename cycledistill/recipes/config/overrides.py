"""Plain data to dataclasses and back: unknown keys and wrong types are named, nothing is guessed.

Knows nothing about any particular recipe. How YAML is read: ``recipes/reading/texts.py``.
"""

from __future__ import annotations

import copy
import dataclasses
import difflib
import logging
import math
import types
from collections.abc import Iterator, Mapping, Sequence
from importlib import resources
from pathlib import Path
from typing import Any, Literal, TypeVar, Union, get_args, get_origin, get_type_hints

from cycledistill.recipes.config.packaged import commands_with, packaged_names
from cycledistill.recipes.errors import RecipeError
from cycledistill.recipes.reading.plain import check_plain, is_finite
from cycledistill.recipes.reading.texts import parse_yaml

_logger = logging.getLogger(__name__)

T = TypeVar("T")
_IN_WORDS = {
    type(None): "null",
    str: "text",
    int: "a whole number",
    float: "a number",
    bool: "true or false",
    dict: "a mapping",
}
_GONE = {"run.tensorboard": "set run.log_with=[tensorboard] in its place, or leave it out."}
"""Keys of earlier versions, and what to do in their place."""
Overrides = Sequence[str | tuple[str, Any]] | Mapping[str, Any]


def load(
    cls: type[T],
    package: str,
    source: str | Path | Mapping[str, Any] | None = None,
    overrides: Overrides = (),
    renamed: Mapping[str, str] | None = None,
) -> T:
    """Read a recipe: the defaults of ``cls``, then a file, then overrides; see any command's ``load_recipe``.

    ``renamed`` are dotted keys of earlier versions and today's; they are taken for those, with a warning.

    Raises:
        RecipeError: A file that is not there or not YAML, an unknown key (the nearest known one is named), a value of
            the wrong type or out of range.
    """
    data = copy.deepcopy(dict(source)) if isinstance(source, Mapping) else read_yaml(source, package)
    renamed = renamed or {}
    given = overrides.items() if isinstance(overrides, Mapping) else overrides
    pairs = [parse_override(each) if isinstance(each, str) else each for each in given]
    for key, value in _take_renamed(data, renamed) + copy.deepcopy(pairs):
        if key in renamed:
            _logger.warning("%s is called %s now", key, renamed[key])
        merge(data, renamed.get(key, key), value, cls)
    return build(cls, data)


def check(ok: bool, key: str, given: object, expected: str) -> None:
    """Refuse a value that is out of range."""
    if not ok:
        raise RecipeError(f"{key}={given!r}: expected {expected}.")


def read_yaml(source: str | Path | None, package: str) -> dict[str, Any]:
    """Read a YAML file by path, or one packaged in ``package`` by name; nothing gives an empty recipe."""
    if source is None:
        return {}
    names = packaged_names(package)
    name = str(source).removesuffix(".yaml")
    if Path(source).is_file():
        try:
            text = Path(source).read_text(encoding="utf-8")
        except (UnicodeDecodeError, OSError) as error:
            raise RecipeError(f"config {source} cannot be read as text: {error}") from error
    elif name in names:
        text = (resources.files(package) / "configs" / f"{name}.yaml").read_text(encoding="utf-8")
    else:
        others = [f"`cycledistill train {each}`" for each in commands_with(name)]
        near = f" It is a recipe of {' and '.join(others)}." if others else did_you_mean(name, names)
        near = near or f" They are: {', '.join(names)}."
        raise RecipeError(f"config {str(source)!r} is neither a file nor one of the packaged recipes.{near}")
    data = parse_yaml(text, f"config {source}", RecipeError)
    if isinstance(data, dict):
        take_published(data, f"config {source}")
    if data is not None and not isinstance(data, dict):
        raise RecipeError(f"config {source}: expected sections such as 'optim:', got {type(data).__name__}.")
    if not data:
        raise RecipeError(
            f"config {source} says nothing: sections such as 'optim:' are expected. By the defaults alone: no --config."
        )
    return data


def take_published(data: dict[str, Any], where: str) -> str:
    """Take the key ``published`` out of a recipe's file, and return it: what others reported, and nothing to train by.

    Raises:
        RecipeError: It is no text.
    """
    said = data.pop("published", "")
    if not isinstance(said, str):
        raise RecipeError(f"{where}: published={said!r}: expected text, what was reported for this recipe.")
    return said


def parse_override(text: str) -> tuple[str, Any]:
    """Split ``"optim.lr=1e-3"`` into its key and its value, read as YAML."""
    key, equals, value = text.partition("=")
    if not equals or not key.strip():
        raise RecipeError(f"--set {text!r}: expected section.key=value, for example --set optim.lr=1e-3.")
    return key.strip(), parse_yaml(value, f"--set {text[:200]!r}: the value", RecipeError, key.strip())


def merge(data: dict[str, Any], key: str, value: Any, cls: Any, path: str = "") -> None:
    """Put ``value`` at a dotted key of nested ``data``; the key must exist in ``cls`` (or lie inside a mapping)."""
    name, _, rest = key.partition(".")
    hint = get_type_hints(cls).get(name)
    mapping = dict in [get_origin(each) for each in _members(hint)]
    if rest and dataclasses.is_dataclass(hint):
        inner = data.setdefault(name, {})
        if not isinstance(inner, dict):
            raise RecipeError(f"{path}{name}: got {inner!r}, expected a section with keys.")
        merge(inner, rest, value, hint, f"{path}{name}.")
    elif dataclasses.is_dataclass(hint):
        first = next(_leaves(hint, f"{path}{name}."))
        raise RecipeError(f"{path}{name} is a section: set one of its keys, such as {first}.")
    elif hint is None or (rest and not mapping):
        raise _unknown(f"{path}{key}", list(_leaves(cls, path)))
    elif rest:  # a field inside a mapping, such as cyclic.distill.token_weight: a preset's name becomes a mapping first
        current = data.get(name, getattr(cls(), name))
        data[name] = ({"preset": current} if isinstance(current, str) else current or {}) | {rest: value}
    else:
        data[name] = value


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


def changed_since(stored: dict[str, Any], recipe: Any) -> list[str]:
    """As `changed`, from a stored recipe to today's, whose words and defaults are read into the stored one."""
    try:
        stored = build(type(recipe), stored).to_dict()  # a recipe: type(recipe) is unknown here
    except RecipeError:  # keys of another version: compared as they stand
        pass
    return changed(stored, recipe.to_dict())


def did_you_mean(word: str, known: list[str]) -> str:
    """`` Did you mean ...?`` for the known word most like ``word``, else an empty string."""
    found = difflib.get_close_matches(word, known, n=1, cutoff=0.6)
    return f" Did you mean {found[0]!r}?" if found else ""


def _key_meant(key: str, known: list[str]) -> str:
    """``did_you_mean`` for a dotted key: its last name among those of its section."""
    section, _, last = key.rpartition(".")
    if section in known:  # one name too many: a value has no keys
        return f" Did you mean {section!r}?"
    sections = {name.rpartition(".")[0] for name in known}
    if section not in sections:  # a mistyped section
        section = next(iter(difflib.get_close_matches(section, sorted(sections), n=1, cutoff=0.5)), section)
    within = {name.rpartition(".")[2]: name for name in known if name.rpartition(".")[0] == section}
    anywhere = {name.rpartition(".")[2]: name for name in reversed(known)}  # a bare or misplaced key
    for names, cutoff in ((within, 0.5), (anywhere, 0.6)):
        for near in difflib.get_close_matches(last, list(names), n=1, cutoff=cutoff):
            return f" Did you mean {names[near]!r}?"
    return ""


def _take_renamed(data: dict[str, Any], renamed: Mapping[str, str]) -> list[tuple[str, Any]]:
    """Take the values under keys of earlier versions out of a file's data."""
    taken = []
    for old, new in renamed.items():
        (section, _, name), (to, _, key) = old.partition("."), new.partition(".")
        if isinstance(data.get(section), dict) and name in data[section]:
            if isinstance(data.get(to), dict) and key in data[to]:
                raise RecipeError(f"{old} is called {new} now: give one of the two.")
            taken.append((old, data[section].pop(name)))
    return taken


def _unknown(key: str, known: list[str]) -> RecipeError:
    if key in _GONE:
        return RecipeError(f"{key} is gone: {_GONE[key]}")
    hint = _key_meant(key, known)
    listing = "" if hint else _listing(key, known)
    return RecipeError(f"unknown key {key!r}.{hint}{listing}")


def _listing(key: str, known: list[str]) -> str:
    """The keys of the section that a key names; all sections, where it names none."""
    section = key.rpartition(".")[0]
    within = [name for name in known if section and name.rpartition(".")[0] == section]
    if within:
        return f" Known: {', '.join(within)}."
    return f" Sections: {', '.join(dict.fromkeys(name.partition('.')[0] for name in known))}."


def _leaves(cls: Any, path: str = "") -> Iterator[str]:
    for name, hint in get_type_hints(cls).items():
        if dataclasses.is_dataclass(hint):
            yield from _leaves(hint, f"{path}{name}.")
        else:
            yield f"{path}{name}"


def _members(hint: Any) -> tuple[Any, ...]:
    return get_args(hint) if get_origin(hint) in (Union, types.UnionType) else (hint,)


def _coerce(value: Any, hint: Any, key: str) -> Any:
    for member in _members(hint):
        fits, result = _fit(value, member, key)
        if fits:
            return result
    choices = [choice for member in _members(hint) if get_origin(member) is Literal for choice in get_args(member)]
    suggestion = did_you_mean(value, choices) if choices and isinstance(value, str) else ""
    raise RecipeError(f"{key}: got {value!r:.200} ({type(value).__name__}), expected {_describe(hint)}.{suggestion}")


def _fit(value: Any, hint: Any, key: str) -> tuple[bool, Any]:
    """Whether a value fits a type, and the value in that type."""
    origin = get_origin(hint) or hint
    if origin is Literal:
        return isinstance(value, str) and value in get_args(hint), value
    if origin is list:
        if not isinstance(value, (list, tuple)):
            return False, None
        (item,) = get_args(hint)
        return True, [_coerce(entry, item, f"{key}[{i}]") for i, entry in enumerate(value)]
    if origin is dict:
        fits = isinstance(value, dict) and all(isinstance(name, str) for name in value)
        if fits:
            check_plain(value, key, RecipeError)  # as recipe.json will hold it
        return fits, value
    if isinstance(value, bool):
        return hint is bool, value
    if hint is float and isinstance(value, (int, float, str)):
        try:
            number = float(value)  # YAML 1.1 reads 1e-3 (no dot) as text
        except ValueError:
            return False, None
        except OverflowError:
            number = math.inf
        if not is_finite(number):
            raise RecipeError(f"{key}: got {value!r:.80}, expected a finite number.")
        return True, number
    return isinstance(value, hint), value


def _describe(hint: Any) -> str:
    names = []
    for member in _members(hint):
        origin = get_origin(member) or member
        if origin is Literal:
            names.append("one of " + ", ".join(map(repr, get_args(member))))
        elif origin is list:
            names.append(f"a list of {_describe(get_args(member)[0])}")
        else:
            names.append(_IN_WORDS[origin])
    return " or ".join(names)
