"""YAML and JSON from strangers: plain data, or the documented error with the file and the place; nothing else."""

from __future__ import annotations

import json
import random
import re
from pathlib import Path
from typing import Any

import pytest
import yaml

from cycledistill.commands.arguments import add_conversion
from cycledistill.integrations.coco.data.joints.joint_set import JointError
from cycledistill.integrations.coco.data.joints.own import joint_fields
from cycledistill.integrations.human36m.data.calibration.storage import read_storage
from cycledistill.integrations.human36m.errors import LiftingDataError
from cycledistill.integrations.human36m.recipe import load_recipe
from cycledistill.recipes.config.overrides import parse_override
from cycledistill.recipes.errors import CheckpointError, DataError, RecipeError
from cycledistill.recipes.reading.plain import check_plain, is_finite
from cycledistill.recipes.reading.texts import parse_json, parse_yaml, read_json
from cycledistill.recipes.weights.convert import fields_of
from cycledistill.terminal.parser import Parser
from tests.architecture import ROOT

LAUGHS = "a: &a [x, x, x, x, x, x, x, x, x, x]\n" + "\n".join(
    f"{name}: &{name} [{', '.join([f'*{before}'] * 10)}]" for before, name in zip("abcdef", "bcdefg", strict=True)
)
"""A few lines that stand for ten million values."""

REFUSED = {
    "2026-13-45": r"line 1, column \d+: '2026-13-45' cannot be read \(month must be in 1..12\); if text is meant, put",
    "0b_": r"line 1, column \d+: '0b_' cannot be read",
    "!!timestamp x": r"line 1, column \d+: 'x' cannot be read",
    "2026-11-27": r"=datetime.date\(2026, 11, 27\) is a date, which no recipe holds: if text is meant, put it",
    "!!binary aGk=": "is a bytes, which no recipe holds",
    "!!set {a}": "is a set, which no recipe holds",
    ".inf": "=inf: a finite number is expected",
    "0x" + "f" * 5000: "=a number of 20000 bits: a finite number is expected",
    "-.inf": "=-inf: a finite number is expected",
    ".nan": "=nan: a finite number is expected",
    "1" + "0" * 400: "=a number of 1329 bits: a finite number is expected",
    "&a [*a]": "contains itself: an alias",
    "&a {b: [{c: *a}]}": r"contains itself: an alias \(\*name\) stands inside what it names",
    "[" * 60 + "]" * 60: "is too large: at most 100000 entries, 50 inside each other",
    "[" * 600: "is not plain YAML.*too deep|is not plain YAML.*line 1",
    "!!python/name:os.system x": r"is not plain YAML \(no code, no tags\): line 1, column",
    "{1: a}": r"the key 1 in (model\.options\.)?x is no text: put it in quotes|the key 1 is no text",
    "{.inf: a}": "the key inf.* is no text",
    "? [a]\n: b": "found unhashable key",
    "'": "line 1, column",
}


@pytest.mark.parametrize("text", REFUSED, ids=lambda text: text[:20])
def test_what_yaml_takes_and_a_recipe_does_not_is_said_by_place(text: str, tmp_path: Path, capsys: Any) -> None:
    file = tmp_path / "recipe.yaml"
    file.write_text(f"model: {{options: {{x: {text}}}}}" if "\n" not in text else text)
    with pytest.raises(RecipeError, match=f"^config {file}") as raised:
        load_recipe(file)
    raised.match(REFUSED[text])
    with pytest.raises(RecipeError, match=r"^--set ['\"]model\.options\.x=") as raised:
        load_recipe(None, [f"model.options.x={text}"])
    raised.match(REFUSED[text])
    parser = Parser("convert")
    add_conversion(parser, "", "", "depth=2", [])
    argv = ["in.pth", "out.pth", "--model", "a", "--option", f"depth={text}"]
    with pytest.raises(CheckpointError, match="^--option depth="):
        fields_of(parser.parse_args(argv))


def test_the_key_is_named_and_small_aliases_are_fine() -> None:
    with pytest.raises(RecipeError, match=r"^a\.yaml: optim\.betas\[1\]=inf: a finite number is expected$"):
        parse_yaml("optim: {betas: [0.9, .inf]}", "a.yaml", RecipeError)
    with pytest.raises(RecipeError, match=r"^a\.yaml: \w is too large: at most 100000 entries"):
        parse_yaml(LAUGHS, "a.yaml", RecipeError)
    values = [1, "x", True, None, 2.5]
    assert parse_yaml("a: &a [1, x, true, null, 2.5]\nb: *a", "a.yaml", RecipeError) == {"a": values, "b": values}


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("optim:\n  lr: 1\n  lr: 2\n", "optim.lr stands on lines 2 and 3"),
        ("a: 1\n# a comment\n'a': 1\n", "a stands on lines 1 and 3"),
        ("a: [1, {b: 1, b: 1}]", r"a\[1\].b stands on line 1 twice"),
        ("a: 1\nb: &b {c: 1}\nd: *b\na: 2", "a stands on lines 1 and 4"),
    ],
)
def test_a_key_that_is_said_twice_is_refused(text: str, said: str, tmp_path: Path) -> None:
    with pytest.raises(RecipeError, match=f"^a.yaml: {said}; the last one alone would count"):
        parse_yaml(text, "a.yaml", RecipeError)
    with pytest.raises(RecipeError, match="the value: model.options.x stands on line 1 twice"):
        parse_override("model.options={x: 1, x: 1}")
    file = tmp_path / "a.yaml"
    file.write_text(text)
    with pytest.raises(RecipeError, match=said):
        load_recipe(file)
    with pytest.raises(JointError, match=said):
        joint_fields(str(file))
    file.write_text(f"%YAML:1.0\n---\n{text}")
    with pytest.raises(LiftingDataError, match="stands on line"):
        read_storage(file.rename(tmp_path / "a.yml"))


def test_keys_that_a_merge_brings_are_said_once() -> None:
    text = "a: &a {x: 1, y: 1}\nb: &b {<<: *a, y: 2}\nc: {<<: *b, x: 3}\nd: {<<: [*a, *b], x: 4}"
    assert parse_yaml(text, "a.yaml", RecipeError) == yaml.safe_load(text)


@pytest.mark.parametrize("text", ["", "# optim: {lr: 1}\n", "---\n", "null", "{}", "published: words alone"])
def test_a_config_that_says_nothing_is_refused(text: str, tmp_path: Path) -> None:
    file = tmp_path / "empty.yaml"
    file.write_text(text)
    with pytest.raises(RecipeError, match=f"^config {file} says nothing: sections such as"):
        load_recipe(file)


def test_a_value_that_was_set_is_said_by_its_key() -> None:
    with pytest.raises(RecipeError, match=r"^--set 'optim\.lr=\.inf': the value: optim\.lr=inf: a finite"):
        parse_override("optim.lr=.inf")
    with pytest.raises(RecipeError, match=r"the value: optim\.betas\[1\]=nan: a finite number"):
        parse_override("optim.betas=[0.9, .nan]")


# Below the recipes, whose guard they cannot import; their own tests give them text that is torn, and too deep.
OWN_GUARD = {f"cycledistill/{name}.py" for name in ("metadata/model", "metadata/read", "metadata/told", "plugin/saved")}


def test_text_of_strangers_is_read_behind_the_guard_alone() -> None:
    """JSON and YAML: bare calls raise what nobody documents (too deep, not UTF-8, no memory)."""
    bare = re.compile(r"\b(json\.loads?|yaml\.\w*load\w*)\(")
    found = {
        f"{path.relative_to(ROOT)}: {line.strip()}"
        for folder in ("cycledistill", "integrations")
        for path in (ROOT / folder).rglob("*.py")
        if not path.is_relative_to(ROOT / "cycledistill" / "integrations")
        for line in path.read_text(encoding="utf-8").splitlines()
        if bare.search(line)
    }
    own = {each for each in found if "json.loads(json.dumps(" in each}
    assert {each.partition(":")[0] for each in found - own} == {"cycledistill/recipes/reading/texts.py"} | OWN_GUARD


@pytest.mark.parametrize("value", [float("inf"), float("nan"), "inf", "nan", "1e999", 10**400])
def test_a_rate_is_finite_wherever_it_comes_from(value: Any) -> None:
    with pytest.raises(RecipeError, match=r"^optim\.lr: got .*, expected a finite number\.$"):
        load_recipe({"optim": {"lr": value}})
    if not isinstance(value, str):
        with pytest.raises(RecipeError, match=r"^model\.options: x=.*: a finite number is expected$"):
            load_recipe({"model": {"options": {"x": value}}})


def test_a_mapping_that_contains_itself_is_refused() -> None:
    options: dict[str, Any] = {}
    options["again"] = options
    with pytest.raises(RecipeError, match=r"^model\.options: again contains itself"):
        load_recipe({"model": {"options": options}})
    shared = {"a": 1}  # twice the same is no circle
    check_plain({"x": shared, "y": [shared, shared]}, "a", RecipeError)


_WORDS = """a optim : [ ] { } , *a 0b 0x 0o _ 1 9 . e + - .inf 2026-13-45 12:61:61 T Z ' " | > ? << = % @ # ~ null
--- ... &a~ !!int~ !!float~ !!str~ !!timestamp~ !!binary~ !!omap~ !!set~ :~ -~ ~~ ÿ""".split()
WORDS = [word.replace("~", " ") if len(word) > 1 else word for word in _WORDS] + ["\n", "\t", "\x00"]
"""Pieces of YAML; a tilde stands for a space."""


def test_random_yaml_is_plain_data_or_an_error() -> None:
    draw = random.Random(0)
    read = 0
    for _ in range(3000):
        text = "".join(draw.choice(WORDS) for _ in range(draw.randrange(1, 12)))
        try:
            json.dumps(parse_yaml(text, "a.yaml", RecipeError), allow_nan=False, default=lambda value: 1 / 0)
            read += 1
        except RecipeError as error:
            assert str(error).startswith("a.yaml")
    assert read > 300


@pytest.mark.parametrize("text", [b"", b"{", b"[" * 100_000, b"1" * 5000, b"\xff\xfe", b"[1] 2"])
def test_what_is_no_json_is_said(text: bytes, tmp_path: Path) -> None:
    (tmp_path / "a.json").write_bytes(text)
    with pytest.raises(DataError, match=rf"^{tmp_path / 'a.json'}: cannot be read as JSON \("):
        read_json(tmp_path / "a.json", DataError)
    with pytest.raises(CheckpointError, match=r"^metadata: cannot be read as JSON \("):
        parse_json(text, "metadata", CheckpointError)
    with pytest.raises(DataError, match=r"none\.json: there is no such file$"):
        read_json(tmp_path / "none.json", DataError)


def test_numbers() -> None:
    finite = [3, 0.5, -1, 10**300, True, float("nan"), float("-inf"), 10**400, "3", None, [3]]
    assert [is_finite(value) for value in finite] == [True] * 4 + [False] * 7
