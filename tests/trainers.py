"""Checkpoints as the authors' trainers write them: what each puts beside the weights, in its own container.

Read from their code: MotionBERT ``train.py``, MixSTE ``run.py``, MHFormer and HoT ``common/utils.py``, TokenPose and
the single-view PPT ``tools/train.py`` (HRNet's), the multi-view PPT ``run/pose2d/train.py``, and for SDPose, which
trains with mmpose 0.29, mmcv 1's ``save_checkpoint`` and ``EvalHook``.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch

State = dict[str, torch.Tensor]


def _optimizer(state: State) -> dict[str, Any]:
    """An optimizer after a step, over the first few weights."""
    weights = [torch.nn.Parameter(each.detach().clone()) for each in state.values() if each.is_floating_point()][:3]
    optimizer = torch.optim.Adam(weights, lr=1e-3, amsgrad=True)
    for weight in weights:
        weight.grad = torch.ones_like(weight)
    optimizer.step()
    return optimizer.state_dict()


def _parallel(state: State) -> State:
    return OrderedDict((f"module.{name}", each) for name, each in state.items())


def motionbert(state: State, path: Path) -> None:
    """``min_loss`` is a mean of NumPy's."""
    held = {"epoch": 60, "lr": 1e-4, "optimizer": _optimizer(state), "model_pos": _parallel(state)}
    torch.save({**held, "min_loss": np.mean(np.array([39.1, 39.3]))}, path)


def mixste(state: State, path: Path) -> None:
    """The state of the generator that shuffles the clips is the generator."""
    held = {"epoch": 120, "lr": 1e-5, "random_state": np.random.RandomState(1234), "optimizer": _optimizer(state)}
    torch.save({**held, "model_pos": _parallel(state)}, path)


def mhformer(state: State, path: Path) -> None:
    """The weights alone; HoT writes the same, of a data-parallel model."""
    torch.save(OrderedDict(state), path)


def hot(state: State, path: Path) -> None:
    torch.save(_parallel(state), path)


def hrnet(state: State, path: Path) -> None:
    """``model`` is the network's name, ``perf`` the AP, a NumPy number."""
    held = {"epoch": 300, "model": "pose_tokenpose_b", "state_dict": _parallel(state), "best_state_dict": state}
    torch.save({**held, "perf": np.float64(0.747), "optimizer": _optimizer(state)}, path)


def multiview_ppt(state: State, path: Path) -> None:
    held = {"epoch": 20, "model": "multiview_ppt", "state_dict": state, "perf": np.float64(0.96)}
    torch.save({**held, "optimizer": _optimizer(state)}, path)


def mmcv(state: State, path: Path) -> None:
    """``best_AP_epoch_*.pth``: the score that made it the best is COCO's, a NumPy number."""
    told = {
        "last_ckpt": "work/epoch_210.pth",
        "best_score": np.float64(0.735),
        "best_ckpt": "work/best_AP_epoch_210.pth",
    }
    meta = {"env_info": "Python: 3.8", "config": "model = dict()\n", "seed": 0, "epoch": 210, "hook_msgs": told}
    torch.save({"meta": meta, "state_dict": OrderedDict(state), "optimizer": _optimizer(state)}, path)


TRAINERS: dict[str, Callable[[State, Path], None]] = {
    each.__name__: each for each in (motionbert, mixste, mhformer, hot, hrnet, multiview_ppt, mmcv)
}
