"""Each source of clips has a reader of its own, and flags by which its files are named."""

from __future__ import annotations

import dataclasses
from typing import Any, get_args, get_type_hints

import pytest

from cycledistill.integrations.human36m.errors import LiftingDataError
from cycledistill.integrations.human36m.recipe import DataSection
from cycledistill.integrations.human36m.train import COMMAND
from cycledistill.integrations.human36m.training.sources import _READERS, open_clips


def test_every_source_has_a_reader() -> None:
    assert set(_READERS) == set(get_args(get_type_hints(DataSection)["source"]))


def test_an_unknown_source_is_not_taken_for_another() -> None:
    other: Any = dataclasses.replace(DataSection(), source="h37m")  # type: ignore[arg-type]
    with pytest.raises(
        LiftingDataError, match="data.source='h37m': expected one of 'generated', 'cmu', 'h36m', '3dhp'"
    ):
        open_clips(other)


@pytest.mark.parametrize(
    ("source", "flags"),
    [
        ("cmu", ["--motion"]),
        ("h36m", ["--pose-3d", "--pose-2d", "--calibration"]),
        ("3dhp", ["--train-data", "--test-data"]),
    ],
)
def test_what_names_the_missing_files_is_a_flag_of_the_command(source: Any, flags: list[str]) -> None:
    with pytest.raises(LiftingDataError) as error:
        open_clips(DataSection(source=source))
    assert all(flag in str(error.value) for flag in flags)
    assert {flag.name for flag in COMMAND.data} >= set(flags)
