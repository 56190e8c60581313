"""Views of moments, cut out of their pictures, in batches, with the rays of their cameras."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.utils.data import Dataset

from cycledistill.integrations.human36m.data.cameras import Camera
from cycledistill.integrations.human36m.multiview.config import MultiViewConfig
from cycledistill.integrations.human36m.multiview.crops import PADDING, cut_view, view_matrix
from cycledistill.integrations.human36m.multiview.rays import patch_rays
from cycledistill.recipes.run.batches import Key

from .moments import Array, Box, MultiViewSet, View


class Views(NamedTuple):
    """V views of each of B moments; which cameras they are of may differ from moment to moment."""

    pixels: Tensor
    """(V, B, 3, h, w), normalised."""
    rays: Tensor
    """(V, B, N, 3), see `patch_rays`."""
    centers: Tensor
    """(V, B, 3), the cameras' positions, metres."""
    joints: Tensor
    """(V, B, J, 2), pixels of the views."""
    labelled: Tensor
    """(V, B, J), 1 where a joint counts."""


class MultiViewSamples(Dataset[list[Views]]):
    """Moments of a set: ``samples[epoch, number]``, or ``samples[number]``.

    A batch of moments that have different numbers of views, because some lack one, is a list of several `Views`: a
    model takes any number of views, but of all moments that it is given at once the same.

    Args:
        moments: The set.
        config: Of the model, which says the sizes.
        padding: By which boxes are enlarged.

    Example:
        >>> samples = MultiViewSamples(read_folder("recordings/a"), MultiViewConfig())
        >>> samples[0][0].pixels.shape
        torch.Size([4, 1, 3, 256, 256])
    """

    def __init__(self, moments: MultiViewSet, config: MultiViewConfig, padding: float = PADDING) -> None:
        self.set, self.config, self.padding = moments, config, padding

    def __len__(self) -> int:
        """Moments."""
        return len(self.set)

    def __getitem__(self, key: Key | int) -> list[Views]:
        """One moment."""
        return self.__getitems__([key])

    def __getitems__(self, keys: Sequence[Key | int]) -> list[Views]:
        """The moments of a batch, those of as many views together, in the order of the batch.

        Raises:
            DataError: A picture that cannot be read, or of another size than its camera's.
        """
        return [views for views, _ in self.by_views([key[1] if isinstance(key, tuple) else key for key in keys])]

    def by_views(self, numbers: Sequence[int]) -> list[tuple[Views, list[int]]]:
        """As :meth:`__getitems__`, and beside each `Views` the numbers of its moments."""
        groups: dict[int, list[int]] = defaultdict(list)
        for number in numbers:
            groups[len(self.set.moments[number].views)].append(number)
        return [(self._batch(own), own) for own in groups.values()]

    def matrix(self, view: View) -> Array:
        """That cuts a view out of its picture, see `view_matrix`."""
        return view_matrix(view.box, self.config.image_size, self.padding)

    def _batch(self, numbers: Sequence[int]) -> Views:
        moments = [[self._view(view) for view in self.set.moments[number].views.values()] for number in numbers]
        stacked = [map(torch.stack, zip(*views, strict=True)) for views in moments]
        return Views(*(torch.stack(parts, dim=1) for parts in zip(*stacked, strict=True)))

    def _view(self, view: View) -> tuple[Tensor, ...]:
        pixels, rays, matrix = look(self.set.read(view), view.camera, view.box, self.config, self.padding)
        placed = view.joints[:, :2] @ matrix[:, :2].T + matrix[:, 2]
        centre, joints, labelled = (
            torch.from_numpy(each).float() for each in (view.camera.position, placed, view.joints[:, 2])
        )
        return pixels, rays, centre, joints, labelled


def look(
    picture: NDArray[np.uint8], camera: Camera, box: Box, config: MultiViewConfig, padding: float = PADDING
) -> tuple[Tensor, Tensor, Array]:
    """A person's box in a camera's picture as a model takes it.

    Args:
        picture: (H, W, 3), RGB bytes.
        camera: Whose it is.
        box: x, y, width, height in pixels.
        config: Of the model.
        padding: By which the box is enlarged.

    Returns:
        The view (3, h, w), normalised; points on the rays of its patches (N, 3); and the matrix (2, 3) that cut it, for
        `heatmap_to_picture`.

    Raises:
        LiftingDataError: A box without area, or a picture of another type.
    """
    matrix = view_matrix(box, config.image_size, padding)
    rays = patch_rays(camera, config.grid, config.patch_pixels, matrix)
    return cut_view(picture, matrix, config.image_size), torch.from_numpy(rays).float(), matrix
