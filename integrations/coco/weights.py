"""Read and write files of weights, without ever running code from them: as all integrations do."""

from __future__ import annotations

from cycledistill.recipes.errors import CheckpointError as CheckpointError
from cycledistill.recipes.weights import State as State
from cycledistill.recipes.weights import read_weights as read_weights
from cycledistill.recipes.weights import write_weights as write_weights
