"""The smallest run there can be: a model that draws at random and counts its batches, and data that is drawn too."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.utils.data import DataLoader, Dataset, Sampler

from cycledistill.recipes.config.overrides import load
from cycledistill.recipes.config.sections import (
    BaseRecipe,
    CyclicSection,
    EmaSection,
    EvalSection,
    ModelSection,
    OptimSection,
    RunSection,
)
from cycledistill.recipes.run.loop import run_training
from cycledistill.recipes.run.optim import create_optimizer
from cycledistill.recipes.run.seeding import IMAGE, derive_seed
from cycledistill.recipes.run.session import TrainingSession
from cycledistill.recipes.run.step import Inputs
from cycledistill.recipes.weights.checkpoint import CheckpointStore
from tests.recipes.run_checks import changing

ITEMS = 12


@dataclass
class DataSection:
    batch_size: int = 3
    workers: int = 0


@dataclass
class ScheduleSection:
    epochs: int = 2


@dataclass
class ToyRecipe(BaseRecipe):
    model: ModelSection = field(default_factory=lambda: ModelSection(name="toy"))
    cyclic: CyclicSection = field(default_factory=CyclicSection)
    data: DataSection = field(default_factory=DataSection)
    optim: OptimSection = field(default_factory=OptimSection)
    schedule: ScheduleSection = field(default_factory=ScheduleSection)
    ema: EmaSection = field(default_factory=EmaSection)
    evaluate: EvalSection = field(default_factory=lambda: EvalSection(every=1))
    run: RunSection = field(default_factory=RunSection)


def load_recipe(source: Any = None, overrides: Any = ()) -> ToyRecipe:
    return load(ToyRecipe, __package__, source, overrides)


change = changing(load_recipe)


class Drawn(Dataset[Tensor]):
    """An item is a function of the run's seed, the epoch and the item's number."""

    def __init__(self, seed: int) -> None:
        self.seed = seed

    def __getitem__(self, key: tuple[int, int]) -> Tensor:
        generator = torch.Generator().manual_seed(derive_seed(self.seed, IMAGE, *key))
        return torch.randn(4, generator=generator)


class Batches(Sampler[list[tuple[int, int]]]):
    world_size, epoch, start = 1, 0, 0

    def __init__(self, batch_size: int, seed: int) -> None:
        self.batch_size, self.seed = batch_size, seed

    def __len__(self) -> int:
        return ITEMS // self.batch_size

    def __iter__(self) -> Iterator[list[tuple[int, int]]]:
        order = np.random.default_rng((self.seed, self.epoch)).permutation(ITEMS).reshape(-1, self.batch_size)
        for numbers in order[self.start :].tolist():
            yield [(self.epoch, number) for number in numbers]


class Task(nn.Module):
    """Dropout draws anew in each step; the batch norm and the loss remember the batches before."""

    def __init__(self) -> None:
        super().__init__()
        self.model = nn.Sequential(nn.Linear(4, 8), nn.BatchNorm1d(8), nn.Dropout(0.5), nn.Linear(8, 4))
        self.seen = 0

    def forward(self, items: Tensor) -> dict[str, Tensor]:
        self.seen += 1
        task = (self.model(items) - items).square().mean()
        pull = task * (self.seen % 3)
        return {"loss": task + pull, "task": task, "pull": pull}


class ToySession(TrainingSession):
    task: Task
    command = "toy"
    measures = ("rms",)

    @classmethod
    def assemble(cls, recipe: ToyRecipe, accelerator: Any, store: CheckpointStore, fresh: bool) -> ToySession:
        task, batches = Task(), Batches(recipe.data.batch_size, recipe.run.seed)
        return cls(
            recipe=recipe,
            accelerator=accelerator,
            task=task,
            optimizer=accelerator.prepare_optimizer(create_optimizer(task, recipe.optim)),
            batches=batches,
            loader=DataLoader(Drawn(recipe.run.seed), batch_sampler=batches, num_workers=recipe.data.workers),
            exits=[1],
            store=store,
        )

    def task_state(self) -> dict[str, Any]:
        return {"seen": self.task.seen}

    def load_task_state(self, state: dict[str, Any]) -> None:
        self.task.seen = state["seen"]

    def prepare(self) -> tuple[float, dict[str, float]]:
        rate = 0.01 / (1 + self.step)
        return rate, {"half": rate / 2}

    def inputs(self, batch: Tensor) -> Inputs:
        return (batch,)

    def terms(self, inputs: Inputs, logs: bool) -> dict[str, Tensor]:
        terms: dict[str, Tensor] = self.wrapped(*inputs)
        return {**terms, "rms": inputs[0].square().mean().sqrt()} if logs else terms

    def evaluate(self, **logged: Any) -> dict[str, Any]:
        size = sum(float(parameter.detach().abs().sum()) for parameter in self.task.parameters())
        if self.log:
            self.log.write("eval", step=self.step, epoch=self.epoch, size=size)
        return {"size": size}


def train(recipe: ToyRecipe, resume: str | None = None, session_class: type[ToySession] = ToySession) -> dict[str, Any]:
    return run_training(session_class, recipe, resume)
