"""Convolutional parts in front of the transformer."""

from .hrnet import HRNet
from .layers import init_convolutions
from .stemnet import StemNet

__all__ = ["HRNet", "StemNet", "init_convolutions"]
