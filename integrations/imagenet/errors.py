"""The errors a user of this integration can meet, each with a message that says what to do."""

from cycledistill.recipes.errors import CheckpointError, NonFiniteLossError, RecipeError

__all__ = ["CheckpointError", "DataError", "NonFiniteLossError", "RecipeError"]


class DataError(ValueError):
    """Images that are missing, empty, broken or labelled in a way that cannot be trained on."""
