"""What can be wrong with poses and the files that hold them."""


class LiftingDataError(ValueError):
    """Keypoints, poses or cameras that cannot be used; the message names the file and what was expected."""
