"""Several views of one person: multi-view PPT, whose 2D poses they share, and 3D poses by triangulation."""

from .model import MultiViewPPT, create_multiview
from .triangulation import triangulate
from .views import poses_from_views

__all__ = ["MultiViewPPT", "create_multiview", "poses_from_views", "triangulate"]
