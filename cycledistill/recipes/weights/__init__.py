"""Files of weights and checkpoints."""

from cycledistill.recipes.weights.files import read_weights, write_weights

__all__ = ["read_weights", "write_weights"]
