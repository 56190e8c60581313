"""3D human pose from 2D keypoints over time: models, Human3.6M-format data, metrics and training.

Needs ``pip install cycledistill[human36m]``.
"""
