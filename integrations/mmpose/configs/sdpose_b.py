"""SDPose-B, SDPose (CVPR 2024), as published: a first stage of width 32, 2 cycles, 8 x 32 persons.

Published: 73.7 AP; not reproduced here. HRNet's ImageNet weights need stage1_width=64 and model="sdpose_b".
"""

_base_ = ["./base_coco.py"]

model = dict(
    backbone=dict(type="TokenPoseHRNet", width=32, stage1_width=32),
    head=dict(model="sdpose_b_narrow"),
)
train_dataloader = dict(batch_size=32)
