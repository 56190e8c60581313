"""Training speed of the small classifier that studies train by the hundred: on a large GPU it waits for launches."""

from __future__ import annotations

import itertools
import statistics
from typing import Any

import timm
import torch
from common import Row, precision  # in the folder above
from torch import Tensor, nn

from cycledistill import CycleLoss, wrap_cyclic
from cycledistill.recipes.errors import NotCapturableError
from cycledistill.recipes.run.graph.capture import Capture
from cycledistill.recipes.run.graph.replay import GraphedStep
from cycledistill.recipes.run.step import EagerStep, Inputs

from .forms import Call, Compile

SIZE = {"img_size": 32, "patch_size": 4, "embed_dim": 96, "depth": 6, "num_heads": 3, "num_classes": 10}


class Case:
    """A six-block ViT of width 96 on 64 tokens, its optimizer, and a batch that lies on the device."""

    def __init__(self, cycles: int, batch: int, device: torch.device, **options: Any) -> None:
        torch.manual_seed(0)
        self.cycles, self.batch, self.device = cycles, batch, device
        self.model = timm.create_model("vit_tiny_patch16_224", **{**SIZE, **options}).to(device)
        wrap_cyclic(self.model, cycles, "exits").train()
        on_gpu = device.type == "cuda"
        rate = torch.tensor(1e-3, device=device) if on_gpu else 1e-3  # a graph reads it anew at each step
        self.optimizer = torch.optim.AdamW(self.model.parameters(), lr=rate, fused=on_gpu, capturable=on_gpu)
        self.criterion = CycleLoss(nn.CrossEntropyLoss(label_smoothing=0.1))
        self.images = torch.randint(256, (batch, 3, 32, 32), dtype=torch.uint8, device=device)
        self.labels = torch.randint(10, (batch,), device=device)

    def loss(self) -> Tensor:
        """Of every cycle, from pixels as they are stored."""
        return self.criterion(self.model(self.images.float() / 127.5 - 1), self.labels)

    def calls(self, form: Compile[Tensor]) -> dict[str, Call]:
        """The whole step: forward, backward, optimizer."""
        loss = form(self.loss)

        def step() -> None:
            self.optimizer.zero_grad(set_to_none=True)
            with precision(self.device):
                value = loss()
            value.backward()
            self.optimizer.step()

        return {"step": step}

    def recipe_calls(self, capture: Capture) -> dict[str, Call]:
        """The step that the training commands take with ``run.compile=graph``, as their loop takes it.

        Its optimizer is made capturable: this case's other calls are for another one.
        """

        def losses(inputs: Inputs, logs: bool) -> dict[str, Tensor]:
            images, labels = inputs
            with precision(self.device):
                return {"loss": self.criterion(self.model(images.float() / 127.5 - 1), labels)}

        task = nn.ModuleList([self.model, self.criterion])
        step, counts = GraphedStep(EagerStep(task, self.optimizer, losses), capture), itertools.count(1)

        def call() -> None:
            step.set_rate(1e-3)
            step.gradients((self.images, self.labels)).numbers()
            step.update(next(counts))
            if step.reason:  # an eager step's time is no graph's
                raise NotCapturableError(step.reason)

        return {"step": call}

    def figures(self, seconds: dict[str, list[float]]) -> Row:
        """Images a second, at the median."""
        middle = statistics.median(seconds["step"])
        return {"what": "training", "images/s": self.batch / middle, "median seconds, step": middle}
