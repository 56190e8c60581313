"""The errors that a user of any training command can meet, each with a message that says what to do."""


class RecipeError(ValueError):
    """A recipe that cannot be used; the message names the key, what was given and what was expected."""


class DataError(ValueError):
    """Data that is missing, broken or cannot be trained on; the message names the file and what was expected."""


class CheckpointError(ValueError):
    """A checkpoint that is missing, incomplete, of another model, or that would run code if it were loaded."""


class PickledCodeError(CheckpointError):
    """A file of weights that holds Python objects, which loading would have to build by running code."""


class OutageError(OSError):
    """A file that cannot be read for no fault of its own: the storage fails, or this process may open or hold no more.

    It is none of the above, so that nobody who skips broken files skips one file after the other.
    """


class NonFiniteLossError(RuntimeError):
    """The loss became nan or infinite; the step and the guilty terms are named."""


class NotCapturableError(RuntimeError):
    """A training step that no CUDA graph can hold; the message says why, and a run goes on without a graph."""
