"""`.ci/run` in its steps, and the workflows that call them."""

from __future__ import annotations

import os
import re
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

yaml = pytest.importorskip("yaml")

if sys.version_info >= (3, 11):
    import tomllib
else:
    tomllib = pytest.importorskip("tomli")

ROOT = Path(__file__).resolve().parents[1]
WORKFLOWS = sorted((ROOT / ".github" / "workflows").glob("*.yml"))
STEPS = re.search(r"^steps=\((.+)\)$", (ROOT / ".ci" / "run").read_text(), re.MULTILINE)[1].split()

# Every program of an environment, and the Python that makes it: notes its call, and fails or hangs if it is told to.
PROGRAM = """#!/bin/sh
called="$(basename "$0") $*"
echo "$called" >> "$CALLS"
case "$called" in
  "python -m venv "*)
    mkdir -p "$3/bin"
    for each in python pip ruff mypy sphinx-build pytest cycledistill; do cp "$0" "$3/bin/$each"; done ;;
  "python -c import sysconfig"*) dirname "$0" ;;
  "$FAILS"*) exit 1 ;;
  "$HANGS"*) echo $$ > "$CALLS.asleep"; exec sleep 60 ;;
esac
"""


def load(workflow: Path) -> Any:
    return yaml.safe_load(workflow.read_text(encoding="utf-8"))


def started(folder: Path, *steps: str, fails: str = "nothing", hangs: str = "nothing") -> subprocess.Popen[str]:
    """`.ci/run` with programs that do nothing but note their calls in a file."""
    python, temporary, calls = folder / "python", folder / "tmp", folder / "calls"
    temporary.mkdir()
    calls.touch()
    python.write_text(PROGRAM)
    python.chmod(0o755)
    own = {
        "PYTHON": python,
        "FLOOR_PYTHON": python,
        "CALLS": calls,
        "FAILS": fails,
        "HANGS": hangs,
        "TMPDIR": temporary,
    }
    environment = os.environ | {name: os.fspath(value) for name, value in own.items()}
    command = ["bash", os.fspath(ROOT / ".ci" / "run"), *steps]
    pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE}
    return subprocess.Popen(command, env=environment, cwd=folder, text=True, **pipes)


def run(folder: Path, *steps: str, fails: str = "nothing") -> tuple[subprocess.CompletedProcess[str], list[str]]:
    """What came of it, and what was called."""
    with started(folder, *steps, fails=fails) as process:
        said, errors = process.communicate()
    assert list((folder / "tmp").iterdir()) == [], "the temporary folder is still there"
    done = subprocess.CompletedProcess(steps, process.returncode, said, errors)
    return done, (folder / "calls").read_text().splitlines()


def wait_for(happened: Callable[[], bool]) -> None:
    end = time.monotonic() + 30
    while not happened():
        assert time.monotonic() < end
        time.sleep(0.02)


def is_gone(process: int) -> bool:
    try:
        os.kill(process, 0)
    except ProcessLookupError:
        return True
    state = Path(f"/proc/{process}/stat")
    return state.exists() and state.read_text().rpartition(")")[2].split()[0] == "Z"  # ended, and not yet asked about


def test_the_named_steps_run_in_one_environment(tmp_path: Path) -> None:
    done, calls = run(tmp_path, "lint", "types")
    assert done.returncode == 0, done.stderr
    assert calls[1:] == ["pip install -e .[dev]", "ruff check .", "ruff format --check .", "mypy "]


def test_a_check_that_fails_does_not_hide_the_next(tmp_path: Path) -> None:
    done, calls = run(tmp_path, "lint", "tests", fails="ruff check")
    assert done.returncode == 1
    assert calls[-2:] == ["ruff format --check .", "pytest "]
    assert [line for line in done.stdout.splitlines() if line.startswith("failed")] == ["failed: ruff check ."]


def test_without_the_newest_versions_the_oldest_are_still_tried(tmp_path: Path) -> None:
    done, calls = run(tmp_path, "types", "floor", "tests", fails="pip install -e .[dev]")
    assert done.returncode == 1
    assert [call.split()[0] for call in calls].count("mypy") == 0
    assert sum(call.startswith("python -m pytest") for call in calls) == 1  # the floor's
    assert sum(call.startswith("pip install -e .[dev]") for call in calls) == 1  # what failed is not tried again
    assert done.stdout.splitlines()[-2:] == ["failed: types", "failed: tests"]


def test_what_runs_beside_another_step_is_shown_after_it_and_its_failures_are_named(tmp_path: Path) -> None:
    done, calls = run(tmp_path, "types", "docs", "wheel", "mmpose", fails="mypy")
    shown = [Path(line.split()[1]).name for line in done.stdout.splitlines() if line.startswith("== ")]
    assert shown == ["environment", "sphinx-build", "mypy", "environment", "python", "python", "wheel", "smoke", "done"]
    assert [line for line in done.stdout.splitlines() if line.startswith("failed")] == ["failed: mypy"]
    assert done.returncode == 1 and calls.count("mypy ") == 1


def test_nothing_that_was_begun_outlives_a_run_that_is_stopped(tmp_path: Path) -> None:
    """Here while the packages of the floor are being installed, in the background."""
    asleep = tmp_path / "calls.asleep"
    with started(tmp_path, "floor", hangs="pip install -r") as process:
        wait_for(lambda: asleep.exists() and asleep.read_text().endswith("\n"))
        process.terminate()
        process.communicate(timeout=30)
    assert process.returncode == 130
    wait_for(lambda: is_gone(int(asleep.read_text())))
    assert list((tmp_path / "tmp").iterdir()) == []


def test_an_unknown_step_is_refused_before_anything_is_made(tmp_path: Path) -> None:
    done, calls = run(tmp_path, "lint", "typos")
    assert (done.returncode, calls) == (2, [])
    assert done.stderr == f"no step is called typos: those are {' '.join(STEPS)}\n"


def test_the_workflow_runs_every_step_on_every_python_that_is_promised() -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    promised = [each.split(" :: ")[-1] for each in project["classifiers"] if re.search(r":: 3\.\d+$", each)]
    jobs = load(ROOT / ".github" / "workflows" / "check.yml")["jobs"]["check"]["strategy"]["matrix"]["include"]
    assert {step for job in jobs for step in job["steps"].split()} == set(STEPS)
    assert [job["python"] for job in jobs if job["steps"] == "tests"] == promised
    assert [f">={job['python']}" for job in jobs if job["steps"] == "floor"] == [project["requires-python"]]


@pytest.mark.parametrize("workflow", WORKFLOWS, ids=lambda path: path.stem)
def test_workflows_call_steps_that_exist_and_may_do_little(workflow: Path) -> None:
    content = load(workflow)
    assert content["permissions"] == {}
    used = [step["uses"] for job in content["jobs"].values() for step in job.get("steps", []) if "uses" in step]
    assert [each for each in used if not re.fullmatch(r"[\w/.-]+@[0-9a-f]{40}", each)] == [], "not pinned by commit"
    called = re.findall(r"\.ci/run ([a-z ]+)", workflow.read_text(encoding="utf-8"))
    assert {step for words in called for step in words.split()} <= set(STEPS)


def test_publishing_is_off_until_it_is_turned_on_and_passes_the_checks_first() -> None:
    jobs = load(ROOT / ".github" / "workflows" / "publish.yml")["jobs"]
    assert [name for name, job in jobs.items() if "needs" not in job] == ["check"]
    assert jobs["check"]["if"] == "vars.PUBLISH == 'true'" and jobs["check"]["uses"] == "./.github/workflows/check.yml"
    assert [name for name, job in jobs.items() if "id-token" in job["permissions"]] == ["publish"]
    assert (jobs["build"]["needs"], jobs["publish"]["needs"]) == ("check", "build")
    assert jobs["publish"]["environment"] == "pypi"


@pytest.mark.parametrize("form", sorted((ROOT / ".github").rglob("*.yml")), ids=lambda path: path.stem)
def test_forms_are_read(form: Path) -> None:
    content = load(form)
    if form.parent.name == "ISSUE_TEMPLATE":
        assert {"name", "description", "body"} <= content.keys()
        assert all(part["attributes"]["label"] for part in content["body"])
