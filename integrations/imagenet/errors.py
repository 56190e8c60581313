"""The errors a user of this integration can meet, each with a message that says what to do."""


class DataError(ValueError):
    """Images that are missing, empty, broken or labelled in a way that cannot be trained on."""


class CheckpointError(ValueError):
    """A checkpoint that is missing, incomplete, of another model, or that would run code if it were loaded."""


class NonFiniteLossError(RuntimeError):
    """The loss became nan or infinite; the step and the guilty terms are named."""
