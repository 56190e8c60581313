"""SDPose-T, SDPose (CVPR 2024): 6 layers, 3 cycles, 8 x 64 persons. Published: 69.7 AP; not reproduced here."""

_base_ = ["./base_coco.py"]

model = dict(head=dict(model="sdpose_t", cycles=3))
