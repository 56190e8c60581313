"""The same flag means the same in every command: its name for the value, the type of it, and what it is about.

A flag that is not in the table has been added since: put it there, after looking whether another command has a flag for
the same thing.
"""

from __future__ import annotations

import argparse
import importlib
from collections import defaultdict
from collections.abc import Iterator

import pytest

from cycledistill.announced import announced
from cycledistill.integrations.coco import commands as of_coco
from cycledistill.integrations.human36m import commands as of_human36m

# Flag -> the word for its value ("": it takes none, "|": one of several words), and a word that its help must hold.
TABLE = {
    "--all-views": ("", "view"),
    "--animate": ("FILE", "animation"),
    "--batch-size": ("N", "at once|a process and step"),
    "--blocks": ("PATH", "stack"),
    "--box-score": ("SCORE", "box"),
    "--boxes": ("FILE", "boxes"),
    "--bvh": ("FILE", ".bvh"),
    "--calibration": ("PATH|DIR", "calibration|cameras|pictures"),  # of `export`: what integers are calibrated on
    "--camera": ("FILE", "calibration"),
    "--camera-name": ("NAME", "camera"),
    "--camera-unit": ("UNIT", "metres"),
    "--cameras": ("FILE", "cameras"),
    "--categories": ("ID", "boxes"),
    "--coco-mapping": ("|", "authors"),
    "--compare": ("MODEL", "beside"),
    "--config": ("NAME", "recipe"),
    "--convention": ("KEY=VALUE", "numbers mean"),
    "--cycles": ("N", "cycles"),
    "--data": ("DATA", "where|folder"),
    "--delay": ("FRAMES", "frames"),
    "--detector": ("NAME", "detector of torchvision"),
    "--device": ("DEVICE", "auto, cpu, cuda or mps"),
    "--distill": ("NAME", "preset"),
    "--ema": ("", "average of the weights"),
    "--epochs": ("N", "schedule"),
    "--evaluate": ("MODEL", "measure"),
    "--exif": ("|", "turn"),
    "--exit": ("N", "cycle that answers"),
    "--figure": ("FILE", "draw"),
    "--fill-gaps": ("FRAMES", "frames"),
    "--first-picture": ("N", "first picture"),
    "--format": ("|", "default"),
    "--frame-rate": ("RATE", "a second"),
    "--frames": ("FRAMES", "window"),
    "--from-coco": ("", "COCO"),
    "--full-range": ("", "bits"),
    "--gltf": ("FILE", "glTF"),
    "--height": ("PIXELS", "the same"),
    "--image": ("FILE", "images"),
    "--img-size": ("PIXELS", "images"),
    "--int8": ("KIND", "static"),
    "--json": ("FILE", "report"),
    "--layout": ("|", "joints|order"),
    "--limit": ("N", "at most"),
    "--loss": ("FILE", "RLELoss"),
    "--max-steps": ("N", "steps"),
    "--min-confidence": ("SCORE", "keypoint"),
    "--min-views": ("N", "agree"),
    "--model": ("NAME", "model|list_"),
    "--motion": ("FILE", "motion"),
    "--official": ("", "authors"),
    "--output": ("PATH|FILE", "folder|write|default|new"),
    "--overlap": ("FRAMES", "windows"),
    "--person": ("N", "person"),
    "--person-height": ("METRES", "poses"),
    "--pictures": ("PATH", "video or folder"),
    "--pose-2d": ("FILE", "2D"),
    "--pose-3d": ("FILE", "3D"),
    "--print-config": ("", "recipe"),
    "--repeats": ("N", "rounds"),
    "--resize": ("", "interpolate"),
    "--results": ("FOLDER", "poses"),
    "--resume": ("MODEL", "run"),
    "--root": ("FOLDER", "folder"),
    "--seed": ("N", "random"),
    "--set": ("KEY=VALUE", "key of the recipe|field of the model"),
    "--skip-broken": ("", "cannot be read"),
    "--test": ("FOLDER", "measure"),
    "--test-data": ("PATH", "test set"),
    "--threshold": ("PIXELS", "off"),
    "--time": ("", "time"),
    "--to": ("FORMAT", "other way"),
    "--track": ("", "follow persons"),
    "--track-id": ("ID|NAME=ID", "track|person"),
    "--train": ("FOLDER", "train"),
    "--train-data": ("PATH", "training set"),
    "--unchecked": ("", "person"),
    "--unit": ("UNIT", "m, cm, mm"),
    "--up": ("|", "points up"),
    "--width": ("PIXELS", "pictures"),
    "--workers": ("N", "processes"),
    "--write": ("KIND", "of"),
}
WORDS = {
    "N", "FILE", "FOLDER", "DIR", "PATH", "NAME", "MODEL", "SOURCE", "DATA", "DEVICE", "SCORE", "UNIT", "ID", "RATE",
    "NAME=ID", "KEY=VALUE", "FRAMES", "PIXELS", "METRES", "KIND", "FORMAT", "COMMAND", "IN", "OUT",
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


@pytest.mark.parametrize("flag", sorted(TABLE))
def test_a_flag_means_the_same_everywhere(flag: str) -> None:
    words, about = TABLE[flag]
    for command, action in flags().get(flag, []):
        shown = "|" if action.choices and action.metavar is None else "" if action.nargs == 0 else action.metavar
        assert shown == words or shown in words.split("|"), (command, shown)
        assert any(each in str(action.help) for each in about.split("|")), (command, action.help)
    kinds = {action.type for _, action in flags().get(flag, []) if action.type not in (None, str)}
    assert len({kind.__name__ for kind in kinds if kind is not None}) <= 1, kinds


def test_no_flag_is_out_of_the_table() -> None:
    assert flags().keys() - TABLE.keys() == set()


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
    assert mine.VIEW_ORDERS == tuple(of("human36m.multiview.views", "LAYOUTS"))  # type: ignore[arg-type]
    assert of("human36m.data.skeleton", "COCO_MAPPINGS") == mine.MAPPINGS
    assert of("human36m.written.upright", "UPS") == mine.UP_AXES
    assert of_coco.FORMAT_NAMES == tuple(of("coco.weights.key_map", "FORMATS"))  # type: ignore[arg-type]
