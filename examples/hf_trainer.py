"""Hugging Face ``Trainer`` with cycles: one line more than without.

    pip install -e ".[all]"
    python examples/hf_trainer.py              # scikit-learn's digits, a small ViT, under a minute on a CPU
    python examples/hf_trainer.py --cycles 1   # without cycles, for comparison; --distill, --steps, --output too

The checkpoint it writes is a plain ViT: ``AutoModelForImageClassification.from_pretrained(folder)`` reads it. Not
supported: Trainer's own evaluation reads one exit; the table of all exits is made here, by ``exit_scores``.
"""

from __future__ import annotations

import argparse
import sys
import tempfile
from pathlib import Path

if __name__ == "__main__":
    print("loading PyTorch and what else is needed", file=sys.stderr, flush=True)  # that takes seconds


import torch
from sklearn.datasets import load_digits
from torch import Tensor
from transformers import AutoModelForImageClassification, Trainer, TrainingArguments, ViTConfig, set_seed

from cycledistill.insight.measures import exit_scores
from cycledistill.integrations.transformers import wrap_for_trainer

TRAIN = 1200  # of 1797 images


class Digits(torch.utils.data.Dataset[dict[str, Tensor]]):
    """Images (1, 8, 8) in [-1, 1] and their digits."""

    def __init__(self, part: slice) -> None:
        digits = load_digits()
        order = torch.randperm(len(digits.target), generator=torch.Generator().manual_seed(0))[part]
        self.images = torch.tensor(digits.images, dtype=torch.float32)[order, None] / 8 - 1
        self.labels = torch.tensor(digits.target)[order]

    def __len__(self) -> int:
        return len(self.labels)

    def __getitem__(self, index: int) -> dict[str, Tensor]:
        return {"pixel_values": self.images[index], "labels": self.labels[index]}


def main(argv: list[str] | None = None) -> int:
    """Train, evaluate at three exits, save, and read the plain model back."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--cycles", type=int, default=2)
    parser.add_argument("--distill", default="exits", choices=("sdpose", "exits", "elt", "mct"), help="default: exits")
    parser.add_argument("--steps", type=int, default=400)
    parser.add_argument("--output", type=Path, help="folder for the checkpoint (default: a temporary one)")
    options = parser.parse_args(argv)
    if options.cycles < 1 or options.steps < 1:
        parser.error(f"--cycles {options.cycles} --steps {options.steps}: at least 1 of each")
    print(
        f"training a ViT of 3 blocks on {TRAIN} digits: {options.steps} steps, {options.cycles} cycles", file=sys.stderr
    )
    torch.set_num_threads(1)  # tensors this small are slower on several
    set_seed(0)
    config = ViTConfig(
        image_size=8,
        patch_size=2,
        num_channels=1,
        hidden_size=32,
        num_hidden_layers=3,
        num_attention_heads=2,
        intermediate_size=64,
        num_labels=10,
    )
    model = AutoModelForImageClassification.from_config(config)
    wrap_for_trainer(model, cycles=options.cycles, distill=options.distill)  # the one line
    train, test = Digits(slice(0, TRAIN)), Digits(slice(TRAIN, None))
    with tempfile.TemporaryDirectory() as temporary:
        folder = str(options.output or temporary)
        arguments = TrainingArguments(
            output_dir=folder,
            per_device_train_batch_size=64,
            max_steps=options.steps,
            learning_rate=3e-3,
            warmup_steps=20,
            logging_steps=100,
            save_strategy="no",
            report_to=[],
            use_cpu=True,
        )
        trainer = Trainer(model, arguments, train_dataset=train, eval_dataset=test)
        trainer.train()
        trainer.save_model(folder)
        scores = exit_scores(model, [(test.images, test.labels)], exits=(1, 2, 3))
        plain = AutoModelForImageClassification.from_pretrained(folder)
        with torch.no_grad():
            agreement = torch.equal(plain(test.images).logits, model.eval()(test.images).logits)
    for number, accuracy in scores.items():
        sys.stdout.write(f"{number} cycle{'s' if number > 1 else ' '} at inference: {accuracy:.1%} of {len(test)}\n")
    sys.stdout.write(f"the saved {type(plain).__name__} gives the same logits at one cycle: {agreement}\n")
    return 0 if agreement else 1


if __name__ == "__main__":
    sys.exit(main())
