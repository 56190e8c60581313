"""The error of image sets, with a message that says what to do."""


class DataError(ValueError):
    """Images that are missing, empty, broken or labelled in a way that cannot be trained on."""
