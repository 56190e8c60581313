"""What can be wrong with poses and the files that hold them."""

from cycledistill.recipes.errors import DataError


class LiftingDataError(DataError):
    """Keypoints, poses or cameras that cannot be used; the message names the file and what was expected."""
