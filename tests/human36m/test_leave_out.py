"""Subjects, actions and sequences left out by name, of every source."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

pytest.importorskip("accelerate")

from cycledistill.integrations.human36m.data.motion import generate_motion
from cycledistill.integrations.human36m.errors import LiftingDataError
from cycledistill.integrations.human36m.recipe import DataSection, LeaveOutSection, RecipeError, load_recipe
from cycledistill.integrations.human36m.training.leave_out import left_out
from cycledistill.integrations.human36m.training.sources import open_clips
from tests.human36m.data.mpi_inf_3dhp_files import write_test, write_train

KNOWN = [(s, name.split()[0], f"{s}/{name}") for s in ("S9", "S11") for name in ("Greeting", "Greeting 1", "Eating")]
GROUPS = {"damaged": ("S9/Greeting", "S9/SittingDown 1")}


@pytest.mark.parametrize(
    ("section", "gone"),
    [
        ({}, set()),
        ({"subjects": ["S9"]}, {"S9/Greeting", "S9/Greeting 1", "S9/Eating"}),
        ({"actions": ["Eating"]}, {"S9/Eating", "S11/Eating"}),
        ({"sequences": ["S11/Greeting 1"]}, {"S11/Greeting 1"}),
        ({"sequences": ["damaged"], "actions": ["Eating"]}, {"S9/Greeting", "S9/Eating", "S11/Eating"}),
    ],
)
def test_names(section: dict[str, Any], gone: set[str]) -> None:
    assert left_out(LeaveOutSection(**section), KNOWN, GROUPS) == gone


@pytest.mark.parametrize(
    ("section", "message"),
    [
        ({"subjects": ["S10"]}, r"data\.leave_out\.subjects: the data has no 'S10'.* It has S11, S9$"),
        ({"actions": ["Greetin"]}, r"actions: .*Did you mean 'Greeting'\? It has Eating, Greeting$"),
        ({"sequences": ["S9/Waiting"]}, r"It has S11/Eating, .*S9/Greeting 1; and for several at once, damaged"),
        ({"actions": ["damaged"]}, r"no 'damaged'\. It is known under data\.leave_out\.sequences\. It has Eating"),
        ({"subjects": ["Eating"]}, r"no 'Eating'\. It is known under data\.leave_out\.actions\. It has S11, S9$"),
        ({"sequences": ["S9"]}, r"no 'S9'\. It is known under data\.leave_out\.subjects\. It has"),
    ],
)
def test_names_that_the_data_does_not_have(section: dict[str, Any], message: str) -> None:
    with pytest.raises(LiftingDataError, match=message):
        left_out(LeaveOutSection(**section), KNOWN, GROUPS)


def test_of_many_names_those_of_the_subject_are_listed() -> None:
    many = [(f"S{number}", "Walking", f"S{number}/Walking {each}") for number in range(9) for each in range(9)]
    with pytest.raises(LiftingDataError, match=r"It has S3/Walking 0, .*, S3/Walking 8, \.\.\., 81 in all"):
        left_out(LeaveOutSection(sequences=["S3/Sitting"]), many)


def test_by_a_recipe() -> None:
    recipe = load_recipe("mixste", ["data.leave_out.subjects=[S7]", "data.leave_out.sequences=[damaged]"])
    assert recipe.data.leave_out == LeaveOutSection(["S7"], [], ["damaged"])
    assert load_recipe(recipe.to_dict()) == recipe
    with pytest.raises(RecipeError, match=r"Did you mean 'data\.leave_out\.sequences'"):
        load_recipe("mixste", ["data.leave_out.sequence=[damaged]"])


def sequences(clips: list[Any]) -> set[str]:
    return {clip.name.partition(", camera")[0].rpartition(": ")[2] for clip in clips}


def test_generated_motion() -> None:
    data = DataSection(source="generated", sequences=4, length=9, views=1)
    data.leave_out = LeaveOutSection(["figure_4"], ["reaching"], ["figure_0/walking"])
    train, test = open_clips(data)
    assert {clip.action for clip in train} == {"waving", "squatting"}
    assert {clip.subject for clip in test} == {"figure_5", "figure_6"}
    data.leave_out = LeaveOutSection(actions=["walking", "waving", "squatting", "reaching"])
    with pytest.raises(LiftingDataError, match="nothing is left of the train sequences"):
        open_clips(data)


def test_recorded_motion(tmp_path: Path) -> None:
    world = 1000 * generate_motion(1, 40)[0].world
    torn = np.concatenate([world, world + 500])
    np.savez(
        tmp_path / "cmu.npz", **{"train/run/a.1": torn, "train/run/b": world, "test/run/b": world, "test/jump/c": world}
    )
    data = DataSection(source="cmu", motion=str(tmp_path / "cmu.npz"), views=1, frames=9)
    data.leave_out = LeaveOutSection(sequences=["train/run/a.1", "test/jump/c"])
    assert [sequences(clips) for clips in open_clips(data)] == [{"cmu/run/b"}, {"cmu/run/b"}]
    with pytest.raises(
        LiftingDataError, match="no 'run/b'.*It has test/jump/c, test/run/b, train/run/a.1, train/run/b"
    ):
        data.leave_out = LeaveOutSection(sequences=["run/b"])
        open_clips(data, ("test",))


def test_mpi_inf_3dhp(tmp_path: Path) -> None:
    write_train(tmp_path / "train.npz", cameras=(0,))
    write_test(tmp_path / "test.npz")
    files = {"train_data": str(tmp_path / "train.npz"), "test_data": str(tmp_path / "test.npz")}
    data = DataSection(source="3dhp", **files, allow_pickle=True)  # type: ignore[arg-type]
    data.leave_out = LeaveOutSection(subjects=["S2", "TS1"], sequences=["S1/Seq2", "TS5"])
    train, test = open_clips(data)
    assert sequences(train) == {"S1/Seq1"} and sequences(test) == {"TS2", "TS3", "TS4", "TS6"}
    data.train_data = None
    assert sequences(open_clips(data, ("test",))[0]) == sequences(test), "names of the other file are known too"
    for name, hint in (("S9", " It has"), ("Seq2", " It is known under data.leave_out.actions.")):
        data.leave_out.subjects = [name]
        with pytest.raises(LiftingDataError, match=f"subjects: the data has no '{name}'.{hint}"):
            open_clips(data, ("test",))
