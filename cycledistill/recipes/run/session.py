"""A run under Accelerate: its parts, where it is, and its state as plain data, to go on from bit for bit."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from dataclasses import dataclass, field
from datetime import datetime, timezone
from pathlib import Path
from typing import Any, ClassVar, TypeVar

import torch.distributed as dist
from torch import Tensor, nn

from cycledistill.metadata.model import words_of
from cycledistill.plugin.install import handle_of
from cycledistill.recipes.config.overrides import changed_since
from cycledistill.recipes.errors import CheckpointError, RecipeError
from cycledistill.recipes.run.accelerator import synced_batch_norm
from cycledistill.recipes.run.graph.optimizer import portable_state
from cycledistill.recipes.run.guard.lock import RunLock
from cycledistill.recipes.run.guard.start import find_start
from cycledistill.recipes.run.logs import Meter, RunLog, open_log
from cycledistill.recipes.run.seeding import INIT, derive_seed, seed_all
from cycledistill.recipes.run.step import Inputs
from cycledistill.recipes.weights import read_weights
from cycledistill.recipes.weights.checkpoint import CheckpointStore, load_weights, read_recipe, read_state, store_of
from cycledistill.versions import made_with, require

_logger = logging.getLogger(__name__)

S = TypeVar("S", bound="TrainingSession")
Figures = dict[int, dict[str, Any]]
"""Exit -> name -> what was measured."""


@dataclass(kw_only=True)
class TrainingSession:
    """A run: its parts, where it is (``step`` done in all, next ``batch`` of ``epoch``), and what a step of it does.

    A command's own session adds what it needs, makes its parts in :meth:`assemble`, says in ``command`` whose it is, in
    ``unit`` what a batch is made of and in ``advice`` what to look at when weights do not fit, and has the methods that
    raise ``NotImplementedError`` here. The others may be done otherwise.
    """

    recipe: Any
    accelerator: Any
    task: nn.Module
    """The model and its loss: ``task.model`` is the model, without DDP and compile."""
    wrapped: nn.Module = field(init=False)
    """The task, compiled and data-parallel as the run wants it."""
    optimizer: Any
    batches: Any
    """The batch sampler: has ``batch_size``, ``world_size``, a length, and ``epoch`` and ``start`` to set."""
    loader: Any
    exits: list[int]
    store: CheckpointStore
    ema: Any = None
    step: int = 0
    epoch: int = 0
    batch: int = 0
    skipped: int = 0
    meter: Meter = field(default_factory=Meter)
    log: RunLog | None = None
    lock: RunLock | None = None
    owes_evaluation: bool = False
    """Whether the checkpoint gone on from was to be measured, and the run ended before it was."""

    command: ClassVar[str]
    """The command's name, as in ``cycledistill train NAME``: its checkpoints are no other's."""
    unit: ClassVar[str] = "items"
    advice: ClassVar[str] = "check the recipe's model"
    measures: ClassVar[tuple[str, ...]] = ()
    """First letters of terms that are not losses: they go into the log's row as they are, not as means."""

    @classmethod
    def start(cls: type[S], recipe: Any, accelerator: Any, resume: str | None) -> S:
        """Put a run together, step by step; with ``resume`` (a path, or ``"auto"``) at the point where it stopped.

        Raises:
            RecipeError: The recipe does not fit the model, or a new run would write over an old one.
            CheckpointError: The checkpoint cannot be gone on from.
        """
        run, ema = recipe.run, recipe.ema
        store = store_of(run.output, run.keep, cls.best_by(recipe))
        checkpoint = find_start(run.output, store, resume, writes=accelerator.is_main_process)
        accelerator.wait_for_everyone()  # nobody writes before all have looked
        seed_all(derive_seed(run.seed, INIT))  # the same on every process: the same weights
        session = cls.assemble(recipe, accelerator, store, fresh=checkpoint is None)
        if run.sync_batch_norm:
            session.task = synced_batch_norm(session.task, accelerator)
        if ema.enabled:
            require("timm")
            from timm.utils.model_ema import ModelEmaV3  # comes with the integrations

            session.ema = ModelEmaV3(session.model, decay=ema.decay, use_warmup=ema.warmup)
        if checkpoint:
            session.load(checkpoint)
        if run.compile == "default":
            session.compile(run.compile_backend)
        session.wrapped = accelerator.prepare_model(session.task)
        if accelerator.is_main_process:
            session.log = open_log(session)
        return session

    @classmethod
    def assemble(cls: type[S], recipe: Any, accelerator: Any, store: CheckpointStore, fresh: bool) -> S:
        """The session of a recipe with fresh weights, or with those it starts from if the run is a ``fresh`` one.

        The task is on the accelerator's device, and nothing but the optimiser is prepared by the accelerator.
        """
        raise NotImplementedError

    def prepare(self) -> tuple[float, dict[str, float]]:
        """Set all that is a function of the step; returns the learning rate and what else the log shall hold."""
        raise NotImplementedError

    def inputs(self, batch: Any) -> Inputs:
        """A batch as the forward takes it, on the device; what is counted or drawn on the CPU is done here."""
        raise NotImplementedError

    def terms(self, inputs: Inputs, logs: bool) -> dict[str, Tensor]:
        """The forward: ``loss`` and its terms, with measures where ``logs`` says that this step is logged.

        It must be a function of its inputs and of modules, for it may be captured in a CUDA graph.
        """
        raise NotImplementedError

    def measure(self, model: Any) -> Figures:
        """The figures of a model at each exit."""
        raise NotImplementedError

    def look_at_validation(self) -> None:
        """Read a first batch of what :meth:`measure` reads, so that a run whose evaluation must fail does not begin."""

    def tell(self, name: str, figures: Figures) -> str:
        """A line that says the figures of ``name``, ``"model"`` or ``"ema"``."""
        raise NotImplementedError

    @classmethod
    def best_by(cls, recipe: Any) -> Sequence[str]:
        """Keys down to the figure by which the best checkpoint is chosen; none: no best one is kept."""
        return ()

    def compile(self, backend: str) -> None:
        """Compile the task. The weights have been loaded by now."""
        self.task.compile(backend=backend)

    @property
    def model(self) -> Any:
        """The model inside the task, without DDP and compile."""
        return self.task.model

    @property
    def _criterion(self) -> nn.Module:
        """What remembers how large the loss's terms were, a `CycleLoss`; for a task without one, nothing."""
        return getattr(self.task, "criterion", nn.Module())

    @property
    def position(self) -> str:
        """Where the run is, in words."""
        return f"step {self.step} (epoch {self.epoch}, batch {self.batch})"

    @property
    def stopped(self) -> bool:
        """Whether ``run.max_steps`` is reached."""
        limit = self.recipe.run.max_steps
        return limit is not None and self.step >= limit

    @property
    def evaluation_due(self) -> bool:
        """Whether the run is where models are measured: at the end of some epochs, of the schedule, of the run."""
        ends = self.epoch >= self.recipe.schedule.epochs or self.epoch % self.recipe.evaluate.every == 0
        return self.stopped or (self.epoch > 0 and self.batch == 0 and ends)

    @property
    def per_step(self) -> int:
        """What a step is trained on, in ``unit``, over all processes."""
        return int(self.batches.batch_size * self.batches.world_size)

    def evaluate(self, **logged: Any) -> dict[str, Any]:
        """Measure the weights and, where there is one, their average; the figures, and ``logged``, go to the log.

        Returns:
            ``exits`` and, with an average, ``ema_exits``: exit -> figures.
        """
        models = {"model": self.model} | ({"ema": self.ema.module} if self.ema else {})
        measured: dict[str, Any] = {}
        for name, model in models.items():
            figures = measured["exits" if name == "model" else f"{name}_exits"] = self.measure(model)
            numbers = {
                f"{metric}@{exit}": value
                for exit, found in figures.items()
                for metric, value in found.items()
                if isinstance(value, (int, float))
            }
            if self.log:
                self.log.write("eval", step=self.step, epoch=self.epoch, weights=name, **logged, **numbers)
            _logger.info("step %d, %s", self.step, self.tell(name, figures))
        return measured

    def network(self) -> dict[str, Any]:
        """What describes the model in the checkpoint's ``recipe.json``, beside the recipe."""
        return {}

    def weights_metadata(self) -> dict[str, str]:
        """What the checkpoint's files of weights say beside what every file does."""
        return {}

    def check_outputs(self, stored: dict[str, Any], checkpoint: Path) -> None:
        """Refuse a checkpoint (``stored``: its ``recipe.json``) whose outputs mean something else than the run's data.

        Raises:
            CheckpointError: They are of other classes or other joints.
        """

    def task_state(self) -> dict[str, Any]:
        """State of the loss."""
        return {}

    def load_task_state(self, state: dict[str, Any]) -> None:
        """Put back what :meth:`task_state` gave."""

    def clip_gradients(self) -> None:
        """Limit the gradients' norm before a step, where the recipe says so."""
        if self.recipe.optim.clip is not None:
            self.accelerator.clip_grad_norm_(self.task.parameters(), self.recipe.optim.clip)

    def share_buffers(self) -> None:
        """Before an evaluation, give every process the first one's BatchNorm statistics: each has seen other data."""
        if self.accelerator.num_processes > 1:
            for buffer in self.task.buffers():
                dist.broadcast(buffer, src=0)

    def evaluate_saved(self) -> dict[str, Any]:
        """Evaluate, and put the figures into the checkpoint of this step.

        It is there already, so that an evaluation that fails takes no epoch with it.

        Returns:
            ``step`` and what :meth:`evaluate` returns.
        """
        measured = {"step": self.step, **self.evaluate()}
        if self.accelerator.is_main_process:
            self.check_lock()
            self.store.record(self.step, measured)
        self.owes_evaluation = False
        return measured

    def save(self) -> Path | None:
        """Write a checkpoint on the main process; returns its folder there."""
        if not self.accelerator.is_main_process:
            return None
        self.check_lock()
        scaler = self.accelerator.scaler
        state = {
            "optimizer": portable_state(self.optimizer),
            "scaler": scaler.state_dict() if scaler else None,
            "task_loss": self.task_state(),
            "criterion": self._criterion.state_dict(),
            "position": {"step": self.step, "epoch": self.epoch, "batch": self.batch, "skipped": self.skipped},
            f"{self.unit}_per_step": self.per_step,
            "meter": {"sums": self.meter.sums, "count": self.meter.count},
        }
        average = self.ema.module.state_dict() if self.ema else None
        weights, words = self.model.state_dict(), words_of(self.model) | self.weights_metadata()
        return self.store.save(self.step, weights, average, state, self._description(), words)

    def load(self, checkpoint: Path) -> None:
        """Go on from a checkpoint: weights, average, optimiser, scaler and position.

        Raises:
            CheckpointError: It is damaged, of another model or command, its outputs mean something else than this run's
                data, or it was cut mid-epoch with other batches.
        """
        recipe, state = read_recipe(checkpoint, self.command), read_state(checkpoint / "state.pt")
        self.check_outputs(recipe, checkpoint)
        if self.accelerator.is_main_process:
            for line in changed_since(recipe["recipe"], self.recipe):
                _logger.warning("resuming with another recipe: %s", line)
        load_weights(self.model, read_weights(checkpoint / "model.safetensors"), checkpoint, self.advice)
        if self.ema:
            file = checkpoint / "ema.safetensors"
            source = file if file.is_file() else checkpoint / "model.safetensors"
            load_weights(self.ema.module, read_weights(source), source, self.advice)
        try:
            position, before = state["position"], state[f"{self.unit}_per_step"]
            if position["batch"] and before != self.per_step:
                raise CheckpointError(
                    f"{checkpoint} was saved inside an epoch with {before} {self.unit} a step, this run has "
                    f"{self.per_step}: go on with the same number, or from a checkpoint at the end of an epoch."
                )
            self.load_task_state(state["task_loss"])
            self._criterion.load_state_dict(state["criterion"])
            self.optimizer.load_state_dict(state["optimizer"])
            if self.accelerator.scaler and state["scaler"]:
                self.accelerator.scaler.load_state_dict(state["scaler"])
            self.meter = Meter(**state["meter"])
            self.step, self.epoch, self.batch = position["step"], position["epoch"], position["batch"]
            self.skipped = position["skipped"]
        except CheckpointError:
            raise
        except (KeyError, TypeError, ValueError, RuntimeError) as error:
            raise CheckpointError(f"{checkpoint / 'state.pt'} does not fit this run: {error}") from error
        own = checkpoint.resolve().parent == self.store.folder.resolve()
        self.owes_evaluation = own and self.evaluation_due and not recipe.get("metrics")
        _logger.info("resumed from %s: %s", checkpoint, self.position)

    def check_lock(self) -> None:
        """Find the folder still this run's, before something is written to it; see `RunLock.check`."""
        if self.lock is not None:
            self.lock.check()

    def _description(self) -> dict[str, Any]:
        handle = handle_of(self.model, "cyclic")
        return {
            "format": 1,
            "command": self.command,
            "model": self.recipe.model.name,
            **self.network(),
            "cycles": handle.cycles if handle else None,
            "distill": self.recipe.cyclic.distill,
            "step": self.step,
            "epoch": self.epoch,
            "batch": self.batch,
            "saved": datetime.now(timezone.utc).isoformat(timespec="seconds"),
            "metrics": {},  # what an evaluation adds
            "recipe": self.recipe.to_dict(),
            "versions": made_with("torch", "timm", "accelerate", "cycledistill"),
        }


def wanted_exits(model: nn.Module, exits: list[int] | None, best_exit: int | None = None) -> list[int]:
    """The cycles to evaluate: those named, else 1 to one beyond those trained; a plain model has exit 1 only.

    Raises:
        RecipeError: ``best_exit`` (by which the best checkpoint is chosen, if by any) is not among them, or a plain
            model is asked for other exits.
    """
    handle = handle_of(model, "cyclic")
    found = exits or list(range(1, handle.cycles + 2) if handle else [1])
    if (best_exit or found[0]) not in found or (handle is None and found != [1]):
        best = "" if best_exit is None else f"evaluate.best_exit={best_exit} with "
        raise RecipeError(
            f"{best}exits {found}: the best one must be among them, and a model without cycles has exit 1 only "
            "(cyclic.cycles=1 gives it more)."
        )
    return found
