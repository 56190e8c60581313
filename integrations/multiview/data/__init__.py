"""Moments that several calibrated cameras see, and batches of their views."""

from cycledistill import versions

versions.require("numpy", "opencv-python-headless")
