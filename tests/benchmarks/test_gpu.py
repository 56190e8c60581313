"""The benchmark of a GPU: its jobs run, their records are gone on with, and no job costs those that follow."""

from __future__ import annotations

import json
import sys
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType, SimpleNamespace
from typing import Any

import pytest
import torch
from torch.autograd import DeviceType

pytest.importorskip("timm")
pytest.importorskip("pycocotools")

from cycledistill.recipes.errors import NotCapturableError
from tests.recipes.run.graph.tape import TapeCapture
from tests.scripts import ROOT, exit_code, load_script

CPU = torch.device("cpu")
CONDITIONS = {"device": "Some GPU (40 GB)", "versions": {"torch": "1"}, "code": "abc", "clock": "CUDA events"}


@pytest.fixture(scope="module")
def gpu() -> Iterator[ModuleType]:
    threads = torch.get_num_threads()
    yield load_script("benchmarks/gpu.py")
    torch.set_num_threads(threads)


@pytest.fixture
def parts(gpu: ModuleType) -> Any:
    """The modules behind the command, by their last names."""
    return SimpleNamespace(
        **{name: sys.modules[f"on_gpu.{name}"] for name in ("forms", "jobs", "records", "supervise", "tables")}
    )


@pytest.fixture
def records(parts: Any, tmp_path: Path) -> Any:
    return parts.records.Records(tmp_path, CONDITIONS)


def run(parts: Any, records: Any, jobs: list[Any], tmp_path: Path) -> list[dict[str, Any]]:
    assert parts.supervise.run_jobs(jobs, records, CPU, 2, tmp_path / "status") == 0
    assert records.unfinished((job.benchmark, job.name) for job in jobs) == []
    rows = [row for job in jobs for row in records.read(job.benchmark)["rows"] if row["job"] == job.name]
    assert all(row["form"] == ("compiled" if row["compiled"] else "eager") for row in rows)
    return rows


@pytest.mark.slow
def test_a_job_measures_what_its_benchmark_does(parts: Any, records: Any, tmp_path: Path) -> None:
    jobs = [parts.jobs.study_job(2, 2, False, depth=2, embed_dim=24), parts.jobs.decode_job(2)]
    step, decode = run(parts, records, jobs, tmp_path)
    assert step["images/s"] == pytest.approx(2 / step["median seconds, step"])
    assert decode["persons/s"] > 0
    assert sorted(path.name for path in tmp_path.glob("*.json")) == [
        f"{name}-some-gpu-40-gb.json" for name in ("pose_speed", "study_speed")
    ]
    shown = parts.tables.tables(parts.tables.read_records(tmp_path))
    assert shown.count("Some GPU (40 GB), torch 1") == 2
    assert f"| 2 | 2 | eager | {step['images/s']:,.0f} | - |" in shown


def test_the_recipes_step_is_timed_in_graphs_or_not_at_all(gpu: ModuleType) -> None:
    """Shown with tapes for graphs; the job itself leaves it out where there are none."""
    case, capture = sys.modules["on_gpu.study"].Case(2, 2, CPU, depth=2, embed_dim=24), TapeCapture()
    call = case.recipe_calls(capture)["step"]
    for _ in range(3):
        before = [parameter.clone() for parameter in case.model.parameters()]
        call()
        assert not all(torch.equal(*pair) for pair in zip(before, case.model.parameters(), strict=True))
    assert (capture.captures, capture.replays) == (2, 4)
    case.images, case.labels = case.images[:1], case.labels[:1]  # another shape, another graph
    capture.record = lambda work: refuse()  # type: ignore[method-assign]
    with pytest.raises(NotCapturableError, match="^no graph$"):
        call()


def refuse() -> Any:
    raise NotCapturableError("no graph")


@pytest.mark.slow
def test_jobs_of_the_other_benchmarks(parts: Any, records: Any, tmp_path: Path) -> None:
    jobs = [
        parts.jobs.overhead_job("test_vit", 1, False, depth=2),
        parts.jobs.hourglass_job("hot_frame_lifter", 27, 1, False),
        parts.jobs.pruning_job("deit_tiny_patch16_224", 1, False, "stack forward"),
    ]
    *overhead, hourglass, pruning = run(parts, records, jobs, tmp_path)
    assert [row["what"] for row in overhead] == ["saved bytes", "training", "eval", "sdpose"]
    assert overhead[0]["ratio"] == pytest.approx(1.0, abs=0.02) and overhead[0]["depth"] == 2
    assert hourglass["macs"] > 1 and hourglass["unfused"] is not None
    assert pruning["what"] == "stack forward" and pruning["reached"] == pruning["speed-up"] / pruning["macs"]
    assert "| test_vit, depth 2 | 2 | 1 | eager | saved bytes" in parts.tables.tables(
        parts.tables.read_records(tmp_path)
    )


@pytest.mark.slow
def test_compiled_jobs_compile(parts: Any, records: Any, tmp_path: Path) -> None:
    torch._dynamo.utils.counters.clear()
    (row,) = run(parts, records, [parts.jobs.study_job(1, 2, True, depth=2, embed_dim=24)], tmp_path)
    assert torch._dynamo.utils.counters["stats"]["unique_graphs"] == 1
    assert row["images/s"] > 0


def test_jobs_have_names_of_their_own_and_come_from_every_benchmark(parts: Any) -> None:
    for jobs in (parts.jobs.all_jobs(), parts.jobs.quick_jobs()):
        assert len({job.name for job in jobs}) == len(jobs)
        assert {job.benchmark for job in jobs} == set(parts.jobs.BENCHMARKS)
        for each in ("overhead", "pruning", "hourglass_speed", "study_speed"):  # compiled beside eager
            modes = {job.setting["compiled"] for job in jobs if job.benchmark == each}
            assert modes == {True, False} or (each == "pruning" and True in modes)


def test_a_record_of_other_code_or_another_version_is_begun_anew(parts: Any, records: Any, tmp_path: Path) -> None:
    records.add("overhead", {"job": "a"})
    records.finish("overhead", "a")
    assert records.unfinished([("overhead", "a"), ("overhead", "b")]) == ["b"]
    for change in ({"code": "other"}, {"versions": {"torch": "2"}}):
        other = parts.records.Records(tmp_path, CONDITIONS | change)
        assert other.unfinished([("overhead", "a")]) == ["a"]
        assert other.read("overhead")["rows"] == []
    again = parts.records.Records(tmp_path, CONDITIONS | {"load average at start": 3.0})
    assert again.read("overhead")["rows"] == [{"job": "a"}]


def test_rows_of_a_job_that_was_cut_off_are_dropped_when_it_begins_again(records: Any) -> None:
    for job in ("whole", "cut"):
        records.add("overhead", {"job": job})
    records.begin("overhead", "cut")
    assert [row["job"] for row in records.read("overhead")["rows"]] == ["whole"]


def test_jobs_that_failed_come_last(records: Any) -> None:
    records.finish("pruning", "a", "ValueError: no")
    names = [("pruning", "a"), ("pruning", "b")]
    assert records.unfinished(names) == ["b", "a"]
    records.finish("pruning", "a")
    assert records.unfinished(names) == ["b"]
    assert records.read("pruning")["failed"] == {}


def test_the_digest_tells_other_code_and_no_other_file(parts: Any, tmp_path: Path) -> None:
    for name in ("cycledistill/a.py", "integrations/b.py", "benchmarks/c.py", "tests/d.py", "cycledistill/e.txt"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_text(name)
    first = parts.records.code_digest(tmp_path)
    for name in ("tests/d.py", "cycledistill/e.txt"):
        (tmp_path / name).write_text("other")
        assert parts.records.code_digest(tmp_path) == first
    (tmp_path / "integrations/b.py").write_text("other")
    assert parts.records.code_digest(tmp_path) != first


WORKER = """
import json, sys, time
status, path, names = sys.argv[1], sys.argv[2], sys.argv[3:]
for name in names:
    open(status, "w").write(name)
    record = json.load(open(path))
    if name.startswith("hangs"):
        time.sleep(60)
    if name.startswith("dies"):
        sys.exit(7)
    if name.startswith("fails"):
        record["failed"][name] = "ValueError: as it says"
    else:
        record["finished"].append(name)
        record["rows"].append({"job": name})
    json.dump(record, open(path, "w"))
    if name.startswith("fails"):
        sys.exit(3)
"""


def supervise(parts: Any, records: Any, names: list[str], **limits: float) -> list[str]:
    jobs = [SimpleNamespace(benchmark="overhead", name=name) for name in names]
    records.begin("overhead", "")
    path = str(records.path("overhead"))
    limits = {"seconds": 60.0, "job_seconds": 20.0, **limits}
    return parts.supervise.supervise(
        jobs, records, lambda status, open_jobs: [sys.executable, "-c", WORKER, str(status), path, *open_jobs], **limits
    )


@pytest.mark.slow
def test_a_job_that_fails_dies_or_hangs_costs_no_other(parts: Any, records: Any) -> None:
    names = ["first", "fails", "second", "dies", "third", "hangs", "fourth"]
    assert supervise(parts, records, names, job_seconds=2.0) == []
    record = records.read("overhead")
    assert record["finished"] == ["first", "second", "third", "fourth"]
    assert record["failed"] == {
        "fails": "ValueError: as it says",
        "dies": "its process ended with 7",
        "hangs": "it took longer than 2 s",
    }
    assert supervise(parts, records, ["first", "fifth"]) == []  # what is done is not done again
    assert records.read("overhead")["finished"] == [*record["finished"], "fifth"]


@pytest.mark.slow
def test_what_time_does_not_suffice_for_is_named_and_not_a_failure(parts: Any, records: Any) -> None:
    assert supervise(parts, records, ["first", "hangs", "second"], seconds=1.5) == ["hangs", "second"]
    assert records.read("overhead")["failed"] == {}


def test_a_process_that_never_begins_is_an_error(parts: Any, records: Any) -> None:
    jobs = [SimpleNamespace(benchmark="overhead", name="a")]
    with pytest.raises(RuntimeError, match="did not come to its next job: its process ended with 9"):
        parts.supervise.supervise(jobs, records, lambda *_: [sys.executable, "-c", "raise SystemExit(9)"], 30.0, 20.0)


def test_a_failing_job_keeps_its_rows_and_its_words(parts: Any, records: Any, tmp_path: Path) -> None:
    def measure(device: torch.device, repeats: int) -> Iterator[dict[str, Any]]:
        yield {"what": "one"}
        raise ValueError("no more")

    job = parts.jobs.Job("pruning", {"model": "m", "compiled": False}, measure)
    assert parts.supervise.run_jobs([job, job], records, CPU, 2, tmp_path / "status") == parts.supervise.BROKEN
    record = records.read("pruning")
    assert [row["what"] for row in record["rows"]] == ["one"]
    assert record["failed"] == {job.name: "ValueError: no more"}


def event(kind: DeviceType, start: float, end: float, mark: bool = False) -> Any:
    span = SimpleNamespace(start=start, end=end)
    return SimpleNamespace(device_type=kind, time_range=span, is_user_annotation=mark)


def test_busy_time_is_the_union_of_what_ran_on_the_gpu(parts: Any) -> None:
    cuda = DeviceType.CUDA
    events = [event(cuda, 0, 4), event(cuda, 2, 6), event(cuda, 8, 9), event(cuda, 3, 4)]
    others = [event(DeviceType.CPU, 0, 99), event(cuda, 0, 99, mark=True)]
    assert parts.forms.covered(parts.forms.spans([*events, *others])) == 7.0
    assert parts.forms.covered([]) == 0.0


def test_a_row_is_bound_by_launches_if_one_of_its_sides_is(parts: Any) -> None:
    assert parts.forms.launch_bound({"busy, a": 0.99, "busy, b": 0.5}) is True
    assert parts.forms.launch_bound({"busy, a": 0.99, "busy, b": 0.9}) is False
    assert parts.forms.launch_bound({"ratio": 1.0}) is None
    assert parts.tables.busy({"busy, a": 0.99, "busy, b": 0.5}) == "0.50, launches"


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["--device", "cpu"], "takes --quick"),
        (["--device", "cpu", "--quick"], "give a folder by --results"),
        (["--only", "export_speed"], "invalid choice"),
        pytest.param(
            ["--device", "cuda"],
            "torch sees no GPU",
            marks=pytest.mark.skipif(torch.cuda.is_available(), reason="it would run for minutes"),
        ),
    ],
)
def test_what_cannot_be_measured_is_refused(
    gpu: ModuleType, arguments: list[str], said: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert exit_code(gpu.main, arguments) == 2
    assert said in capsys.readouterr().err


@pytest.mark.slow
def test_the_command_measures_in_a_process_of_its_own(
    gpu: ModuleType, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    call = ["--device", "cpu", "--quick", "--results", str(tmp_path), "--only", "pose_speed"]
    assert gpu.main(call) == 0
    first = capsys.readouterr().out
    (path,) = tmp_path.iterdir()
    record = json.loads(path.read_text())
    assert [row["what"] for row in record["rows"]] == ["decode", "training"]
    assert record["conditions"]["code"] and len(record["finished"]) == 2
    assert gpu.main(call) == 0
    assert capsys.readouterr().out == first  # nothing is measured again


def test_the_guide_shows_the_committed_records(gpu: ModuleType, capsys: pytest.CaptureFixture[str]) -> None:
    assert gpu.main(["--show"]) == 0
    shown = capsys.readouterr().out
    assert shown.count("| --- |") >= 5
    page = (ROOT / "docs" / "gpu.md").read_text(encoding="utf-8")
    assert shown in page, "docs/gpu.md does not hold what benchmarks/gpu.py --show prints"
