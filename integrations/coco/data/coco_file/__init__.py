"""What a COCO keypoint file holds: checked, brought into one form, and its boxes in pixels."""
