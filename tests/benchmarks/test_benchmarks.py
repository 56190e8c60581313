"""The benchmarks run, and notice what they are there to notice."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from cycledistill import wrap_cyclic
from tests.scripts import load_script

timm = pytest.importorskip("timm")
BENCHMARKS = Path(__file__).parents[2] / "benchmarks"


def load(name: str) -> ModuleType:
    return load_script(f"benchmarks/{name}.py")


@pytest.fixture
def sweep(monkeypatch: pytest.MonkeyPatch) -> ModuleType:
    module = load("sweep_timm")
    monkeypatch.setattr(module, "_quiet", lambda: None)  # it silences the whole process
    return module


@pytest.fixture
def overhead() -> ModuleType:
    return load("overhead")


@pytest.mark.slow
def test_sweep_sorts_names_by_what_happens(
    sweep: ModuleType, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "sweep.json"
    names = ["test_vit", "swin_tiny_patch4_window7_224", "resnet18", "vgg11"]
    assert sweep.main(["--names", *names, "--out", str(out)]) == 0
    records = {record["name"]: record for record in json.loads(out.read_text())["names"]}
    assert {name: records[name]["status"] for name in names} == {
        "test_vit": "wraps",
        "swin_tiny_patch4_window7_224": "staged",
        "resnet18": "refused",
        "vgg11": "refused",
    }
    assert (records["test_vit"]["path"], records["test_vit"]["depth"]) == ("blocks", 6)
    assert records["swin_tiny_patch4_window7_224"]["path"].endswith(".blocks")
    assert all(records[name]["message"] for name in names[1:])
    assert "wraps          1  VisionTransformer 1" in capsys.readouterr().out
    assert list(tmp_path.iterdir()) == [out]


def one_cycle(model: nn.Module, cycles: int = 2, **_: Any) -> nn.Module:
    return wrap_cyclic(model, 1)


def other_keys(model: nn.Module, cycles: int = 2, **_: Any) -> nn.Module:
    wrap_cyclic(model, cycles)
    model.extra = nn.Parameter(torch.zeros(1))
    return model


def teaches_nothing(model: nn.Module, cycles: int = 2, **_: Any) -> nn.Module:
    return wrap_cyclic(model, cycles, None)


def crashes(model: nn.Module, cycles: int = 2, **_: Any) -> nn.Module:
    raise IndexError("list index out of range")


@pytest.mark.parametrize(
    ("broken", "noticed"),
    [
        (one_cycle, "blocks ran"),
        (other_keys, "state_dict keys changed"),
        (teaches_nothing, "losses are"),
        (crashes, "IndexError"),
    ],
)
def test_sweep_notices_what_goes_wrong(
    sweep: ModuleType, monkeypatch: pytest.MonkeyPatch, broken: Callable[..., nn.Module], noticed: str
) -> None:
    monkeypatch.setattr(sweep, "wrap_cyclic", broken)
    record = sweep.examine("test_vit")
    assert record["status"] == "wrong"
    assert noticed in record["message"]


def test_sweep_goes_on_where_it_was_stopped(sweep: ModuleType, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    out, partial = tmp_path / "sweep.json", tmp_path / "sweep.json.partial"
    kept = {"name": "a", "status": "wraps", "class": "A", "attention": True}
    out.write_text(json.dumps({"names": [{"name": "z", "status": "refused"}]}))
    partial.write_text(json.dumps(kept) + '\n{"name": "b", "sta')  # cut while writing
    examined: list[str] = []

    def examine(name: str) -> dict[str, str]:
        examined.append(name)
        return {"name": name, "status": "refused"}

    monkeypatch.setattr(sweep, "examine", examine)
    sweep.sweep(["a", "b", "c"], out, jobs=1)
    assert examined == ["b", "c"]
    records = sweep.read(out)
    assert list(records) == ["a", "b", "c", "z"]
    assert records["a"] == kept
    assert not partial.exists()


@pytest.mark.parametrize("arguments", [["--shard", "3/2"], ["--shard", "x"], ["--names", "no_such_model"]])
def test_sweep_refuses_bad_arguments(sweep: ModuleType, arguments: list[str], tmp_path: Path) -> None:
    with pytest.raises(SystemExit):
        sweep.main([*arguments, "--out", str(tmp_path / "x.json")])


def test_shards_cover_every_name_once(sweep: ModuleType, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    seen: list[str] = []

    def note(name: str) -> dict[str, str]:
        seen.append(name)
        return {"name": name, "status": "refused"}

    monkeypatch.setattr(sweep, "examine", note)
    for shard in ("1/3", "2/3", "3/3"):
        assert sweep.main(["--names", "vit_t*", "--shard", shard, "--out", str(tmp_path / "x.json")]) == 0
    assert sorted(seen) == sorted(timm.list_models("vit_t*"))
    assert sorted(sweep.read(tmp_path / "x.json")) == sorted(seen)


@pytest.mark.slow
def test_overhead_compares_and_writes(overhead: ModuleType, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    out = tmp_path / "overhead.json"
    call = ["--device", "cpu", "--models", "test_vit", "--batch", "1", "--cycles", "2", "--repeats", "2"]
    threads = torch.get_num_threads()
    try:
        assert overhead.main([*call, "--mode", "eager", "--out", str(out)]) == 0
    finally:
        torch.set_num_threads(threads)
    record = json.loads(out.read_text())
    rows = {row["what"]: row for row in record["rows"]}
    assert set(rows) == {"training", "eval", "saved bytes", "sdpose"}
    assert all(row["ratio"] > 0 for row in rows.values())
    assert rows["saved bytes"]["pass"] is (rows["saved bytes"]["ratio"] <= 1.02)
    assert rows["saved bytes"]["ratio"] == pytest.approx(1.0, abs=0.02)  # bytes are counted, not timed
    assert {"allocator", "clock", "device", "versions"} <= set(record["conditions"])
    assert "saved bytes" in capsys.readouterr().out


def test_the_hand_written_loop_is_the_model_itself_at_one_cycle(overhead: ModuleType) -> None:
    torch.manual_seed(0)
    model = timm.create_model("test_vit", img_size=32)
    images, target = torch.randn(2, 3, 32, 32), torch.tensor([3, 7])
    loss = F.cross_entropy(model(images), target)
    torch.testing.assert_close(overhead.by_hand(model, images, target, 1), loss, rtol=0, atol=0)


def test_sides_that_compute_different_things_are_not_compared(overhead: ModuleType) -> None:
    case = overhead.Case("test_vit", 2, 1, torch.device("cpu"))
    losses = case.losses()
    case.check(losses, 1e-4)
    case.cycles = 3  # by hand only
    with pytest.raises(AssertionError):
        case.check(losses, 1e-4)


def test_saved_bytes_are_those_of_distinct_activations(overhead: ModuleType) -> None:
    layer = nn.Linear(8, 16, bias=False)
    x = torch.randn(4, 8, requires_grad=True)

    def loss() -> torch.Tensor:
        y = layer(x)  # keeps x, and its own weight, which is a parameter
        return (y.view(64) * y.view(64)).sum()  # keeps y once, however many views of it

    assert overhead.saved_bytes(loss, layer) == 4 * (4 * 8 + 4 * 16)


@pytest.fixture
def study(monkeypatch: pytest.MonkeyPatch) -> ModuleType:
    pytest.importorskip("accelerate")
    module = load("lifting_study")
    small = {"data.sequences": 4, "data.length": 81, "data.views": 1, "data.batch_size": 2}
    for arm, overrides in module.ARMS.items():
        monkeypatch.setitem(module.ARMS, arm, {**overrides, **small})
    return module


@pytest.mark.slow
def test_study_goes_on_where_it_stopped(study: ModuleType, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    out = tmp_path / "study.json"
    arguments = ["generated", "--epochs", "1", "--work", str(tmp_path), "--out", str(out), "--seeds", "1", "--arms"]
    assert study.main([*arguments, "full"]) == 0
    assert study.main([*arguments, "full", "tpc, linear, 2 cycles"]) == 0
    record = json.loads(out.read_text())
    assert [(run["arm"], list(run["exits"])) for run in record["runs"]] == [
        ("full", ["1"]),
        ("tpc, linear, 2 cycles", ["1", "2"]),
    ]
    assert record["macs"]["full"][0] > record["macs"]["tpc, linear, 2 cycles"][0]
    printed = capsys.readouterr().out
    assert printed.count("full, seed 0:") == 1
    assert "tpc, linear, 2 cycles        2" in printed
    again = tmp_path / "again.json"  # what was trained is there, its figures are not
    assert study.main([*arguments, "full", "--out", str(again)]) == 0
    assert json.loads(again.read_text())["runs"][0] == record["runs"][0]
    other = tmp_path / "other" / "study.json"
    assert study.main([*arguments, "full", "--epochs", "2", "--out", str(other)]) == 0
    assert json.loads(other.read_text())["runs"][0]["steps"] == 2 * record["runs"][0]["steps"]
    assert (
        len(list((tmp_path / "generated-tiny-2-cpu").iterdir())) == 1
    )  # trained afresh, not from the other study's end
    with pytest.raises(SystemExit):
        study.main([*arguments, "full", "--epochs", "2"])
    assert "holds a study of other settings" in capsys.readouterr().err


def test_hosts_of_the_study_have_their_own_place_to_drop_frames(study: ModuleType) -> None:
    settings = {"motion": "generated", "epochs": 30, "device": "auto"}
    for host, wanted in (("tiny", (1, 27, 81, 48)), ("small", (1, 27, 81, None)), ("mixste", (3, 81, 243, None))):
        recipe = study.recipe_of("tpc, local", 2, {**settings, "host": host}, Path("work"))
        glass, options = recipe.hourglass, recipe.model.options
        assert (glass.layer, glass.keep, recipe.data.frames, options.get("dim")) == wanted
        assert (glass.recover, recipe.schedule.epochs, recipe.run.seed) == ("local", 30, 2)
        assert study.recipe_of("full", 0, {**settings, "host": host}, Path("work")).hourglass.layer is None
    assert recipe.optim.lr == 4e-5  # the published recipe's
    with pytest.raises(SystemExit):
        study.main(["generated", "--host", "large"])


def test_ratios_are_taken_within_a_round() -> None:
    common = load_script("benchmarks/common.py")
    # A machine that slows down tenfold half way: paired ratios do not notice.
    seconds = {"a": [2.0, 2.2, 20.0, 24.0], "b": [1.0, 1.0, 10.0, 10.0]}
    ratio, spread = common.paired_ratio(seconds, "a", "b")
    assert ratio == pytest.approx(2.1)
    assert spread == pytest.approx((2.25 - 2.0) / 2)
    assert common.paired_ratio({"a": [3.0], "b": [2.0]}, "a", "b") == (1.5, 0.0)


def test_kernels_and_bytes_of_ops_are_counted_by_hand() -> None:
    kernels = load("pruning_kernels")
    x, rows = torch.randn(1, 6, 4), torch.tensor([0, 5, 2])

    def call(x: torch.Tensor) -> torch.Tensor:
        picked = x.view(6, 4).index_select(0, rows)  # 3 rows of 16 bytes in and out, 3 numbers of 8
        spread = x.new_zeros(6, 4).index_copy_(0, rows, picked)  # 96 bytes of zeros; the same rows and numbers again
        return x + spread  # three times 96

    count = kernels.eager(call, x)
    assert (count.kernels, count.bytes) == (4, 2 * (3 * 16 * 2 + 3 * 8) + 96 + 3 * 96)


@pytest.mark.slow
def test_a_pruning_block_runs_no_kernel_more_than_by_hand_but_for_putting_rows_back() -> None:
    kernels = load("pruning_kernels")
    case = kernels.Case("test_vit", layers=(1,))  # its outputs are compared there
    plain, pruned, hand = (
        kernels.eager(case.call("block", version), case.input("block")) for version in kernels.VERSIONS
    )
    assert plain.kernels < hand.kernels
    assert pruned.kernels == hand.kernels + 3  # zeros, the rows put in, the rows picked again
