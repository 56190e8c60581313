r"""Several calibrated cameras: data sets of their pictures, training of multi-view PPT, and 3D poses in metres.

    cycledistill train multiview --config small_generated --output runs/a    # needs no data
    python -m cycledistill.integrations.multiview.predict runs/a front=front left=left --calibration cameras.yml \
        --output poses.npz

The network and the geometry are in ``cycledistill.integrations.human36m.multiview``. Needs
``pip install cycledistill[coco,human36m]``.
"""

__all__: list[str] = []
