"""The errors a user of this integration can meet, each with a message that says what to do."""

from cycledistill.recipes.errors import CheckpointError, ConfigError, NonFiniteLossError

__all__ = ["CheckpointError", "ConfigError", "DataError", "NonFiniteLossError"]


class DataError(ValueError):
    """Images that are missing, empty, broken or labelled in a way that cannot be trained on."""
