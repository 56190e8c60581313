"""Multi-view PPT: 2D poses in several views of one person."""

from .model import MultiViewPPT, create_multiview

__all__ = ["MultiViewPPT", "create_multiview"]
