"""What an image run does otherwise than the others: clipping, BatchNorm statistics, streams; and what it refuses."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch
from torch import nn

from cycledistill.integrations.imagenet.data.loader import TrainLoader
from cycledistill.integrations.imagenet.recipe import Recipe, RecipeError, load_recipe
from cycledistill.integrations.imagenet.train import train
from cycledistill.integrations.imagenet.training.session import Session
from cycledistill.metadata.model import words_of
from cycledistill.recipes.errors import CheckpointError, DataError
from cycledistill.recipes.run.accelerator import open_accelerator
from cycledistill.recipes.run.guard import signals
from cycledistill.recipes.run.guard.signals import heeded
from cycledistill.recipes.run.session import TrainingSession
from cycledistill.recipes.weights.checkpoint import CheckpointStore, read_state
from tests.spawn import run


def change(recipe: Recipe, **overrides: object) -> Recipe:
    return load_recipe(recipe.to_dict(), {name.replace("__", "."): value for name, value in overrides.items()})


@pytest.fixture
def session(tiny: Recipe, request: pytest.FixtureRequest) -> Iterator[Session]:
    recipe = change(tiny, **request.param)
    Path(recipe.run.output).mkdir(parents=True)  # as the run's lock does
    with open_accelerator("cpu", recipe.run.precision) as accelerator:
        session = Session.start(recipe, accelerator, None)
        images, target = torch.randn(4, 3, 24, 24), torch.full((4, 2), 0.5)
        accelerator.backward(session.wrapped(images, target)["loss"])
        yield session


def clip(session: Session) -> list[tuple[nn.Parameter, torch.Tensor, torch.Tensor]]:
    """Parameters, their gradients before (the scale of fp16 taken out) and after."""
    scaler = session.accelerator.scaler
    scale = scaler.get_scale() if scaler else 1.0
    parameters = [p for p in session.model.parameters() if p.grad is not None]
    before = [p.grad / scale for p in parameters]
    session.clip_gradients()
    return [(p, g, p.grad) for p, g in zip(parameters, before, strict=True)]


@pytest.mark.parametrize("session", [{}], indirect=True, ids=["plain"])
def test_images_without_names_keep_the_classes_of_the_training(session: Session) -> None:
    """A stream names none: the run would forget its own, and go on with any others afterwards."""
    stored, session.classes = {"classes": ["dark", "pale"]}, []
    session.check_outputs(stored, Path("run"))
    assert session.network()["classes"] == ["dark", "pale"]
    words = words_of(session.model)
    assert json.loads(words["classes"]) == ["dark", "pale"] and "assumed" not in words  # a run knows its pixels
    session.classes = ["pale", "dark"]
    with pytest.raises(CheckpointError, match="class 0: 'dark' in the training, and here 'pale'"):
        session.check_outputs(stored, Path("run"))


@pytest.mark.parametrize(
    "session",
    [{"optim__clip": 0.1}, {"optim__clip": 0.1, "run__precision": "fp16"}],
    indirect=True,
    ids=["fp32", "fp16"],
)
def test_clipping_the_norm(session: Session) -> None:
    found = clip(session)
    norm = torch.stack([before.square().sum() for _, before, _ in found]).sum().sqrt()
    assert norm > 0.1
    for _, before, after in found:
        torch.testing.assert_close(after, before * 0.1 / norm, rtol=1e-4, atol=1e-8)


@pytest.mark.parametrize("session", [{"optim__clip": 0.01, "optim__clip_mode": "value"}], indirect=True)
def test_clipping_values(session: Session) -> None:
    found = clip(session)
    assert any((before.abs() > 0.01).any() for _, before, _ in found)
    for _, before, after in found:
        assert torch.equal(after, before.clamp(-0.01, 0.01))


@pytest.mark.parametrize("session", [{"optim__clip": 0.01, "optim__clip_mode": "agc"}], indirect=True)
def test_adaptive_clipping_by_unit_spares_the_head(session: Session) -> None:
    """Brock et al., "High-Performance Large-Scale Image Recognition Without Normalization", equation 3."""
    found, clipped = clip(session), 0
    head = list(map(id, session.model.head.parameters()))
    for parameter, before, after in found:
        if id(parameter) in head:
            assert torch.equal(after, before)
        elif parameter.ndim == 2:
            limit = 0.01 * parameter.norm(dim=1, keepdim=True).clamp(min=1e-3)
            norm = before.norm(dim=1, keepdim=True)
            expected = torch.where(norm > limit, before * limit / norm.clamp(min=1e-6), before)
            torch.testing.assert_close(after, expected, rtol=1e-4, atol=1e-8)
            clipped += int((norm > limit).sum())
    assert clipped > 0


def test_workers_of_both_loaders_leave_signals_to_the_run(tiny: Recipe) -> None:
    Path(tiny.run.output).mkdir(parents=True)
    with heeded(), open_accelerator("cpu", "fp32") as accelerator:
        session = Session.start(tiny, accelerator, None)
        for loader in (session.loader.loader, session.validation.loader):
            assert loader.worker_init_fn.func is signals._leave_signals_alone


def share(rank: int, world: int, kind: type[TrainingSession]) -> list[float]:
    layer = nn.BatchNorm1d(1)
    layer.running_mean.fill_(rank + 1.0)
    accelerator = SimpleNamespace(num_processes=world)
    kind.share_buffers(SimpleNamespace(accelerator=accelerator, model=layer, task=layer))
    return layer.running_mean.tolist()


@pytest.mark.slow
@pytest.mark.parametrize(("kind", "mean"), [(Session, 1.5), (TrainingSession, 1.0)])
def test_processes_agree_on_batch_norm_statistics(kind: type[TrainingSession], mean: float) -> None:
    assert run(share, kind) == [[mean], [mean]]


def test_a_stream_that_holds_less_than_it_says_ends_its_epochs(tiny: Recipe, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(TrainLoader, "__len__", lambda self: 6)
    summary = train(tiny)
    assert (summary["step"], summary["epoch"], summary["finished"]) == (8, 2, True)
    monkeypatch.setattr(TrainLoader, "batches", lambda self, epoch, start=0: iter(()))
    with pytest.raises(DataError, match="made no batch"):
        train(change(tiny, run__output=tiny.run.output + "2"))


def test_the_best_checkpoint_is_kept_and_named(tiny: Recipe) -> None:
    summary = train(change(tiny, run__keep=1, schedule__epochs=4))
    lines = (Path(tiny.run.output) / "log.jsonl").read_text().splitlines()
    rows = [json.loads(line) for line in lines]
    scores = {row["step"]: row["top1@1"] for row in rows if row["kind"] == "eval" and row["weights"] == "model"}
    best = max(scores, key=lambda step: (scores[step], step))
    assert sorted(scores) == [4, 8, 12, 16]
    assert Path(summary["best"]).name == f"step-{best:08d}"
    kept = {path.name for path in CheckpointStore(Path(tiny.run.output) / "checkpoints").complete()}
    assert kept == {"step-00000016", f"step-{best:08d}"}


def test_exits_without_the_best_one_are_refused(tiny: Recipe) -> None:
    with pytest.raises(RecipeError, match=r"evaluate.best_exit=3 with exits \[1, 2\]"):
        train(change(tiny, evaluate__exits=[1, 2], evaluate__best_exit=3))


@pytest.mark.parametrize("missing", ["position", "optimizer", "meter", "images_per_step"])
def test_a_state_without_a_part_is_named(tiny: Recipe, missing: str) -> None:
    train(change(tiny, run__max_steps=1))
    file = next(Path(tiny.run.output).glob("checkpoints/step-*")) / "state.pt"
    state = read_state(file)
    del state[missing]
    torch.save(state, file)
    with pytest.raises(CheckpointError, match=rf"state.pt does not fit this run: .*{missing}"):
        train(tiny, resume="auto")
