"""Train Hugging Face models with cycles under ``Trainer``, after one line: :func:`wrap_for_trainer`.

Needs ``pip install cycledistill[transformers]`` to be of use; the functions themselves work on any model that returns
an output with a loss.
"""

from .trainer import rewrap_for_trainer, unwrap_for_trainer, wrap_for_trainer

__all__ = ["rewrap_for_trainer", "unwrap_for_trainer", "wrap_for_trainer"]
