r"""Several calibrated cameras: data sets of their pictures, training of multi-view PPT, and 3D poses in metres.

    cycledistill train multiview --config small_generated --output runs/a    # needs no data
    cycledistill predict runs/a front=front left=left --calibration cameras.yml \
        --output poses.npz

The network and the geometry are in ``cycledistill.integrations.human36m.multiview``. Needs
``pip install cycledistill[coco,human36m]``.
"""

import typing

from cycledistill import lazy

if typing.TYPE_CHECKING:
    from .prediction.poses import predict_poses as predict_poses
else:
    __all__, __getattr__, __dir__ = lazy.hand_on(
        __name__, {"predict_poses": ".prediction.poses"}, requires="cycledistill[coco,human36m]"
    )
