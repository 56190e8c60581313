"""Clips of keypoints and poses."""
