"""SDPose-S-V2, SDPose (CVPR 2024): finer patches, 2 cycles, 8 x 24 persons. Published: 73.5 AP; not reproduced here."""

_base_ = ["./base_coco.py"]

model = dict(head=dict(model="sdpose_s_v2"))
train_dataloader = dict(batch_size=24)
