"""Cameras as OpenCV calibrates them: lenses, files, and the cameras in them."""
