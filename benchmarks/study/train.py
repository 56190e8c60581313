"""One run: an arm from a seed, trained, read at every exit, and taken back to the plain model."""

from __future__ import annotations

import dataclasses
import math
import time
from pathlib import Path
from typing import Any

import torch
from common import hardware, versions
from on_gpu.records import code_digest
from safetensors import safe_open
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

from cycledistill import CycleLoss, Distill, __version__, at_exit, unwrap_cyclic, wrap_cyclic
from cycledistill.files import atomic_write
from cycledistill.recipes.reading.guard import SAFETENSORS, TORCH, reading

from .costs import ArmCost
from .errors import StudyError
from .links import average_weights, link_cycles
from .plan import Plan
from .results import Record
from .schedules import EarlyDropPath, cycles_at, later_weights
from .step import make_step, optimizer_of, taught_by
from .tasks.task import Task, draw

_LOOKS = 20
"""How often in a run the loss is read back; a loss that is no number ends the run then."""
_SAVED_EVERY = 120.0
"""Seconds between two states of an unfinished run on the disk."""
_STATE = {"model", "optimizer", "step", "seconds", "looks", "content", "beside", "average"}


class Run:
    """A run that can be stopped and gone on with.

    Args:
        plan: The study.
        task: Its data.
        arm: Which.
        seed: Which.
        cost: Of the arm, which says how many steps it trains.
        work: Where its unfinished state and its weights are kept.
        device: Where it computes.
    """

    def __init__(
        self, plan: Plan, task: Task, arm: str, seed: int, cost: ArmCost, work: Path, device: torch.device
    ) -> None:
        self.plan, self.task, self.name, self.arm, self.seed, self.cost = plan, task, arm, plan.arms[arm], seed, cost
        self.work, self.device = work, device
        self.state_file = work / f"{arm}-{seed}.state"
        torch.manual_seed(seed)
        self.model: Any = task.network(plan.network_of(arm)).to(device)
        if self.arm.start_from is not None:
            self.model.load_state_dict(trained_weights(plan, self.arm.start_from, self._weights(self.arm.start_from)))
        self.drop_path = EarlyDropPath(self.model, self.arm.drop_path_until)
        size = plan.network_of(arm)
        if size.drop_path and not self.drop_path.modules:
            raise StudyError(
                f"arms.{arm}: the network of this task has no stochastic depth; drop_path would do nothing"
            )
        scheme = Distill() if self.arm.later_weight == "growing" else self.arm.scheme
        wrap_cyclic(self.model, self.arm.cycles, scheme, blocks=task.blocks)
        beside = link_cycles(self.model, self.model.cyclic.stack.modules(self.model)[0], self.arm.link, size.width)
        self.average = self._teacher() if self.arm.average else None
        # What trains with the model, or teaches it, and is not deployed.
        self.beside = nn.ModuleDict({"link": beside} if beside else {})
        self.criterion = CycleLoss(task.loss)
        self.optimizer = optimizer_of(nn.ModuleList([self.model, self.beside]), plan)
        self.step, self.seconds, self.looks = 0, 0.0, dict[str, list[Any]]()
        if self.state_file.is_file():
            self._load()

    def go(self, deadline: float) -> Record | None:
        """Train and measure; nothing where ``deadline`` (of ``time.monotonic``) comes before the end.

        Raises:
            StudyError: The arm's scheme does not fit the task.
        """
        try:
            ended = self._train(deadline)
        except ValueError as error:  # of the library's losses: what an output must be is known when there is one
            raise StudyError(f"arms.{self.name}: {error}") from error
        if not ended:
            return None
        diverged = not all(map(math.isfinite, self.looks.get("loss", [])))
        metrics = {} if diverged else self._measure()
        record = {
            "plan": self.plan.digest,
            "content": self.plan.content_of(self.name),
            "code": code_digest(),
            "arm": self.name,
            "seed": self.seed,
            "steps": self.cost.steps,
            "parameters": self.cost.parameters,
            "exit_macs": self.cost.exits,
            "training_macs": self.cost.training * self.plan.training.batch,
            "seconds": round(self.seconds, 1),
            "diverged": diverged,
            "deployed_equal": None if diverged else self._deployed_equal(),
            "metrics": metrics,
            "looks": {name: [_short(value) for value in values] for name, values in self.looks.items()},
            "device": hardware(self.device.type, f"{torch.get_num_threads()} thread(s)"),
            "versions": versions("timm") | {"cycledistill": __version__},
        }
        if not diverged:
            metadata = {"content": record["content"]}
            atomic_write(self._weights(self.name), lambda file: save_file(self.model.state_dict(), file, metadata))
        return record

    def forget(self) -> None:
        """Remove the unfinished state, once the record is kept."""
        self.state_file.unlink(missing_ok=True)

    def _weights(self, arm: str) -> Path:
        return self.work / f"{arm}-{self.seed}.safetensors"

    def _train(self, deadline: float) -> bool:
        """Whether it came to its end: the last step, or a loss that is no number."""
        teach = taught_by(self.average) if self.average is not None else None
        step = make_step(self.model, self.beside, self.criterion, self.optimizer, self.plan, self.device, teach)
        self.model.train()
        steps, batch = self.cost.steps, self.plan.training.batch
        look_every = max(1, steps // _LOOKS)
        began, saved = _clock(self.device), time.monotonic()
        while self.step < steps:
            self.model.cyclic.cycles = cycles_at(self.arm, self.step, steps, self.seed)
            self.drop_path.set(self.step, steps)
            weights = later_weights(self.arm, self.step, steps)
            if weights is not None and self.model.cyclic.distill.task_weights != weights:
                self.model.cyclic.distill = dataclasses.replace(self.model.cyclic.distill, task_weights=weights)
            step.set_rate(self._rate(self.step))
            # What a forward draws is the step's, also after a stop.
            torch.manual_seed(draw(self.seed, self.step, 3).initial_seed())
            drawing = _clock(self.device) if self.device.type == "cpu" else 0.0
            given, target = self.task.batch(self.seed, self.step, batch)
            if self.device.type == "cpu":
                began += _clock(self.device) - drawing  # data cost the same in every arm, or are there already
            looked = self.step % look_every == 0 or self.step == steps - 1
            terms = step.gradients((given, *target))
            if looked:
                self._look(terms.numbers())
                if not math.isfinite(self.looks["loss"][-1]):
                    break
            step.update(self.step + 1)
            self.step += 1
            if self.average is not None:
                average_weights(self.average, self.model, self.arm.average)
            now = time.monotonic()
            if now > deadline or now > saved + _SAVED_EVERY:
                self.seconds, began, saved = self.seconds + _clock(self.device) - began, _clock(self.device), now
                if self.step < steps:
                    self._save()
                if now > deadline and self.step < steps:
                    return False
        self.seconds += _clock(self.device) - began
        return True

    def _teacher(self) -> nn.Module:
        """An average of the weights, read at its last cycle."""
        model: Any = self.task.network(self.plan.network_of(self.name)).to(self.device)
        model.load_state_dict(self.model.state_dict())
        wrap_cyclic(model, self.arm.cycles, None, blocks=self.task.blocks)
        model.cyclic.exit = self.arm.cycles
        average: nn.Module = model.eval().requires_grad_(False)
        return average

    def _rate(self, step: int) -> float:
        steps, plan = self.cost.steps, self.plan.training
        return (
            self.arm.rate
            * plan.rate
            * min((step + 1) / max(1, plan.warmup * steps), (1 + math.cos(math.pi * step / steps)) / 2)
        )

    def _look(self, numbers: dict[str, float]) -> None:
        """Note numbers; one that a step has not is noted as missing."""
        steps = self.looks.setdefault("step", [])
        steps.append(self.step)
        for name, value in numbers.items():
            self.looks.setdefault(name, [None] * (len(steps) - 1)).append(value)
        for values in self.looks.values():
            values += [None] * (len(steps) - len(values))

    @torch.no_grad()
    def _measure(self) -> dict[str, dict[str, float]]:
        """Metric -> exit -> percent."""
        self.model.eval()
        found: dict[str, dict[str, float]] = {}
        for exit in self.plan.exits:
            sums: dict[str, list[Tensor]] = {}
            with at_exit(self.model, exit):
                for name, given, target in self.task.test():
                    with torch.autocast(
                        self.device.type, torch.bfloat16, enabled=self.plan.training.precision == "bf16"
                    ):
                        output = self.model(given)
                    for measure, values in self.task.right(output, *target).items():
                        sums.setdefault(f"{measure} {name}".strip(), []).append(values.double())
            for metric, parts in sums.items():
                found.setdefault(metric, {})[str(exit)] = round(100 * torch.cat(parts).mean().item(), 3)
        return found

    @torch.no_grad()
    def _deployed_equal(self) -> bool:
        """Whether the plain model that is taken back answers bit for bit like the wrapped one at one cycle."""
        _, given, _ = next(iter(self.task.test()))
        wrapped = self.model.eval()(given)
        plain: Tensor = unwrap_cyclic(self.model)(given)
        return torch.equal(wrapped, plain)

    def _save(self) -> None:
        state = {
            "model": self.model.state_dict(),
            "optimizer": self.optimizer.state_dict(),
            "step": self.step,
            "seconds": self.seconds,
            "looks": self.looks,
            "content": self.plan.content_of(self.name),
            "beside": self.beside.state_dict(),
            "criterion": self.criterion.state_dict(),
            "average": self.average.state_dict() if self.average is not None else {},
        }
        atomic_write(self.state_file, lambda file: torch.save(state, file))

    def _load(self) -> None:
        with reading(self.state_file, TORCH, StudyError):
            state = torch.load(self.state_file, map_location=self.device, weights_only=True)
        if not isinstance(state, dict) or not _STATE <= state.keys():
            raise StudyError(f"{self.state_file} is no state of an unfinished run: remove it, and the run begins anew")
        if state["content"] != self.plan.content_of(self.name):
            raise StudyError(f"{self.state_file} is of a study of other content: remove it, or name the study anew")
        self.model.load_state_dict(state["model"])
        self.beside.load_state_dict(state["beside"])
        self.criterion.load_state_dict(state["criterion"])
        if self.average is not None:
            self.average.load_state_dict(state["average"])
        self.optimizer.load_state_dict(state["optimizer"])
        self.step, self.seconds, self.looks = state["step"], state["seconds"], state["looks"]


@torch.no_grad()
def check_metrics(plan: Plan, task: Task) -> None:
    """Refuse a plan whose metrics the task does not measure, before anything is trained.

    Raises:
        StudyError: One is unknown; those that there are, are named.
    """
    model = task.network(plan.network).to(next(iter(task.test()))[1].device).eval()
    found: dict[str, None] = {}
    seen: set[str] = set()
    for name, given, target in task.test():
        if name not in seen:
            seen.add(name)
            few = task.right(model(given[:2]), *(each[:2] for each in target))
            found |= dict.fromkeys(f"{measure} {name}".strip() for measure in few)
    if missing := set(plan.metrics) - set(found):
        raise StudyError(f"metrics: the task has no {missing.pop()!r}; it has {', '.join(map(repr, found))}")


def trained_weights(plan: Plan, arm: str, file: Path) -> dict[str, Tensor]:
    """The weights that a run of an arm has left.

    Raises:
        StudyError: They are not there, or are of a study of other content.
    """
    if not file.is_file():
        raise StudyError(f"{file}: the weights of {arm} are not there; they are where it was run (--work)")
    with reading(file, SAFETENSORS, StudyError), safe_open(file, "pt") as opened:
        content = (opened.metadata() or {}).get("content")
    if content != plan.content_of(arm):
        raise StudyError(f"{file} is of a study of other content: remove it and the results, or name the study anew")
    return load_file(file)


def _clock(device: torch.device) -> float:
    """Seconds: of the process on a CPU, of the wall with the GPU's queue drained on CUDA."""
    if device.type == "cuda":
        torch.cuda.synchronize()
        return time.perf_counter()
    return time.process_time()


def _short(value: float | None) -> float | None:
    """Four digits; nothing for what is no number, which JSON has no word for."""
    return float(f"{value:.4g}") if value is not None and math.isfinite(value) else None
