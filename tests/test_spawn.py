"""The processes that tests start: what they see, and that a dead one is noticed."""

from __future__ import annotations

import os
import time
from collections.abc import Callable
from typing import Any

import pytest

from tests import spawn


def seen(*args: Any) -> tuple[str | None, ...]:
    return tuple(os.environ.get(name) for name in ("SPAWN_FIRST", "SPAWN_SECOND"))


def die(*args: Any) -> None:
    os._exit(3)


def hang(*args: Any) -> None:
    time.sleep(60)


def fail(*args: Any) -> None:
    raise KeyError("mine")


@pytest.mark.slow
@pytest.mark.parametrize("start", [spawn.alone, lambda f: spawn.run(f, world=1)[0]], ids=["alone", "run"])
def test_processes_see_the_environment_of_the_call(start: Callable[..., Any], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SPAWN_FIRST", "1")
    assert start(seen) == ("1", None)  # the server that forks has been started by now
    monkeypatch.delenv("SPAWN_FIRST")
    monkeypatch.setenv("SPAWN_SECOND", "2")
    assert start(seen) == (None, "2")


@pytest.mark.slow
def test_a_process_that_dies_hangs_or_fails_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(AssertionError, match="rank 0 died, exit code 3"):
        spawn.alone(die)
    with pytest.raises(AssertionError, match=r"(?s)rank 0:\nTraceback.*KeyError: 'mine'"):
        spawn.alone(fail)
    monkeypatch.setattr(spawn, "TIMEOUT", 2)
    with pytest.raises(AssertionError, match=r"ranks \[0\] did not end within 2 s"):
        spawn.alone(hang)
