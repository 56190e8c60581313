"""The same flag means the same in every command: its help, the word for its value, its type and its choices.

What stands in brackets at the end of a help is the command's own: a default, the recipe's key, the forms of a file.
"""

from __future__ import annotations

import argparse
import importlib
from collections import defaultdict
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from cycledistill.announced import announced
from cycledistill.integrations.coco import commands as of_coco
from cycledistill.integrations.human36m import commands as of_human36m
from cycledistill.terminal.flags import FLAGS, MEASURED, TRAINED

# Flag -> what may differ between commands. The reasons: of several views there is a value each, NAME=VALUE; a lifting
# model knows the joints that it lifts, so that there are no others; authors have codes of their own.
MAY_DIFFER = {"--boxes": "word", "--track-id": "word", "--layout": "choices", "--to": "choices"}
# What other commands call so, or called so once -> its one name.
ONE_NAME = {
    "--camera": "--calibration", "--cameras": "--calibration", "--camera-unit": "--unit", "--root": "--data",
    "--source": "--dataset", "--official": "--to", "--train": "--train-data", "--test": "--test-data",
    "--checkpoint": "MODEL", "--weights": "MODEL", "--keypoints": "SOURCE", "--poses": "--output", "--out": "--output",
    "--conf": "--min-confidence", "--batch": "--batch-size", "--img": "--img-size", "--imgsz": "--img-size",
    "--fps": "--frame-rate", "--recipe": "--config", "--max-samples": "--limit",
}  # fmt: skip
WORDS = {
    "N", "FILE", "FOLDER", "PATH", "NAME", "MODEL", "SOURCE", "DEVICE", "SCORE", "UNIT", "ID", "RATE",
    "NAME=ID", "NAME=FILE", "KEY=VALUE", "FRAMES", "PIXELS", "METRES", "KIND", "FORMAT", "COMMAND", "IN", "OUT",
}  # fmt: skip


def parsers() -> Iterator[tuple[str, argparse.ArgumentParser]]:
    for words, command in announced().items():
        if hasattr(command, "add_arguments"):
            parser = argparse.ArgumentParser(words)
            command.add_arguments(parser)
            yield words, parser


def flags() -> dict[str, list[tuple[str, argparse.Action]]]:
    found = defaultdict(list)
    for words, parser in parsers():
        for action in parser._actions:
            for name in action.option_strings:
                if name.startswith("--") and name != "--help":
                    found[name].append((words, action))
    return found


def test_all_commands_are_looked_at() -> None:
    assert {"train coco", "evaluate imagenet", "predict triangulate", "convert human36m", "report"} <= dict(
        parsers()
    ).keys()


def meaning(action: argparse.Action) -> dict[str, Any]:
    kind = str if action.type in (None, Path) else action.type
    return {
        "help": str(action.help).partition(" (")[0],
        "word": action.metavar,
        "kind": getattr(kind, "__name__", kind),
        "values": action.nargs,
        "choices": action.choices and tuple(action.choices),
    }


def test_a_flag_means_the_same_everywhere() -> None:
    for flag, found in flags().items():
        first = meaning(found[0][1])
        for command, action in found:
            other = {key: value for key, value in meaning(action).items() if key != MAY_DIFFER.get(flag)}
            assert other == {key: first[key] for key in other}, (flag, command, found[0][0])


def test_what_differs_does_so_still() -> None:
    found = flags()
    for flag, what in MAY_DIFFER.items():
        assert len({str(meaning(action)[what]) for _, action in found[flag]}) > 1, flag


def test_a_thing_has_one_name() -> None:
    assert flags().keys() & ONE_NAME.keys() == set()
    assert {name for name in ONE_NAME.values() if name.startswith("--")} <= flags().keys()


def test_what_several_packages_have_stands_in_one_place() -> None:
    found = flags()
    assert FLAGS.keys() <= found.keys()
    for flag, told in FLAGS.items():
        assert {meaning(action)["help"] for _, action in found[flag]} == {told["help"]}, flag


def test_a_trained_model_is_given_in_the_same_forms() -> None:
    for command, parser in parsers():
        if command.startswith(("predict ", "evaluate ")) and command != "predict triangulate":
            forms = MEASURED if command.startswith("evaluate ") else TRAINED  # a recipe says on what is measured
            assert parser._actions[1].metavar == "MODEL" and parser._actions[1].help == forms, command


def test_a_flag_has_one_name_and_help_shows_it() -> None:
    for command, parser in parsers():
        for action in parser._actions:
            assert (action.help != argparse.SUPPRESS and len(action.option_strings) <= 1) or action.dest == "help", (
                command,
                action.option_strings,
            )


def test_values_are_called_by_words() -> None:
    for command, parser in parsers():
        for action in parser._actions:
            if action.nargs != 0 and action.choices is None:
                assert action.metavar in WORDS, (command, action.dest, action.metavar)


def test_what_help_may_not_load_is_said_again_rightly() -> None:
    pytest.importorskip("cv2")

    def of(module: str, name: str) -> object:
        return getattr(importlib.import_module(f"cycledistill.integrations.{module}"), name)

    theirs, mine = "human36m.data.keypoints.gaps", of_human36m
    assert mine.JOINT_ORDERS == tuple(of(theirs, "NAMES"))  # type: ignore[arg-type]
    assert of(theirs, "LONGEST_GAP") == mine.FILLED_FRAMES
    assert of(theirs, "LEAST_CONFIDENCE") == mine.SEEN_CONFIDENCE
    assert of("human36m.multiview.triangulation", "THRESHOLD") == mine.VIEW_THRESHOLD
    assert mine.JOINT_ORDERS == tuple(of("human36m.multiview.views", "LAYOUTS"))  # type: ignore[arg-type]
    assert of("human36m.data.skeleton", "COCO_MAPPINGS") == mine.MAPPINGS
    assert of("human36m.written.upright", "UPS") == mine.UP_AXES
    assert mine.FORMAT_NAMES == tuple(of("human36m.weights.key_map", "FORMATS"))  # type: ignore[arg-type]
    assert tuple(of("coco.prediction.written.folder", "KINDS")) == of_coco.KINDS  # type: ignore[arg-type]
    assert of_coco.FORMAT_NAMES == tuple(of("coco.weights.key_map", "FORMATS"))  # type: ignore[arg-type]
