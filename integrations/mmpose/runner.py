"""mmengine's Runner with weights that fit, or none. Imports mmengine."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from mmengine.model import is_model_wrapper
from mmengine.runner import Runner
from torch import Tensor, nn

from cycledistill.recipes.errors import CheckpointError
from cycledistill.recipes.weights.fitting import shorten

from .checkpoint import TRUST, read_checkpoint
from .key_map import is_mmpose, to_mmpose


class StrictRunner(Runner):
    """Loads, evaluates and resumes from every file that :func:`read_checkpoint` reads, and refuses what does not fit.

    mmengine's own Runner warns of weights that are missing, and goes on with random ones in their place.

    A config that starts from another model's weights sets ``load_strict = False``: training then loads what has the
    same name and shape, and names the rest in the log.

    Attributes:
        trusted: Checkpoints are the user's own and may run code.
    """

    trusted = False

    def load_checkpoint(self, filename: str, map_location: Any = "cpu", *_: Any, **__: Any) -> dict[str, Any]:
        """Load a checkpoint into the model.

        Raises:
            CheckpointError: A file that cannot be read, that does not fit, or that holds too little to resume from.
        """
        checkpoint = read_checkpoint(filename, self.trusted, map_location)
        if self._resume and "meta" not in checkpoint:
            alone = "weights alone; resuming needs a checkpoint of mmengine's, such as epoch_10.pth"
            raise CheckpointError(f"{filename}: {alone if self.trusted else TRUST}")
        model = self.model.module if is_model_wrapper(self.model) else self.model
        if is_mmpose(model.state_dict()) and not is_mmpose(checkpoint["state_dict"]):
            checkpoint["state_dict"] = to_mmpose(checkpoint["state_dict"])
        self.call_hook("after_load_checkpoint", checkpoint=checkpoint)
        partial = not self._resume and not self.cfg.get("load_strict", True)
        left = load_weights(model, checkpoint["state_dict"], filename, partial)
        if left:
            self.logger.warning(f"load_strict=False: {filename} does not fit everywhere: {left}")
        self.logger.info(f"weights loaded from {filename}")
        self._has_loaded = True
        return checkpoint


def load_weights(model: nn.Module, state: Mapping[str, Tensor], source: object, partial: bool = False) -> str:
    """Load weights, all of them or, if ``partial``, those that fit.

    Args:
        model: Where to.
        state: Name -> tensor, names as in the model.
        source: Where from, for the message.
        partial: Take what has the same name and shape.

    Returns:
        What did not fit; empty if everything did.

    Raises:
        CheckpointError: Something does not fit or, if ``partial``, nothing does.
    """
    own = model.state_dict()
    other = [name for name, tensor in own.items() if name in state and state[name].shape != tensor.shape]
    # PyTorch's own loading rather than a comparison of names: heads of mmpose take older names by hooks.
    found = model.load_state_dict({name: each for name, each in state.items() if name not in other}, strict=False)
    missing = [name for name in found.missing_keys if name not in other]
    shapes = [f"{name} {tuple(state[name].shape)} instead of {tuple(own[name].shape)}" for name in other]
    kinds = {"missing": missing, "unexpected": found.unexpected_keys, "of another shape": shapes}
    left = "; ".join(f"{len(names)} {kind}: {shorten(names)}" for kind, names in kinds.items() if names)
    if left and not partial:
        raise CheckpointError(f"{source} is of another model than the config's: {left}")
    if {name for name, _ in model.named_parameters()} <= {*missing, *other}:
        raise CheckpointError(f"{source}: nothing in it fits the config's model: {left}")
    return left
