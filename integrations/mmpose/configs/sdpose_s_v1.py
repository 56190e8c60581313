"""SDPose-S-V1, SDPose (CVPR 2024): 2 cycles, 8 x 64 persons. Published: 72.3 AP; not reproduced here."""

_base_ = ["./base_coco.py"]
