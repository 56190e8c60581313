"""The errors a user of this integration can meet, each with a message that says what to do."""

from cycledistill.recipes.errors import CheckpointError, DataError, NonFiniteLossError, RecipeError

__all__ = ["CheckpointError", "DataError", "NonFiniteLossError", "RecipeError"]
