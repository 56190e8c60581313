"""What only PyTorch's private parts tell of a running backward."""

from __future__ import annotations

import torch


def recomputing() -> bool:
    """Whether a backward is running: a checkpointed block then repeats an earlier forward."""
    return not torch.compiler.is_compiling() and torch._C._current_graph_task_id() != -1
