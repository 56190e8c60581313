"""The error of image sets, with a message that says what to do."""

from cycledistill.recipes.errors import DataError

__all__ = ["DataError"]
