"""Persons, their pictures and joints, and crops of them in batches."""

import typing

from cycledistill import lazy, versions

versions.require("numpy", "opencv-python-headless", "pillow")

if typing.TYPE_CHECKING:
    from .annotations import Person as Person
    from .annotations import annotated_persons as annotated_persons
    from .annotations import detected_persons as detected_persons
    from .annotations import read_json as read_json
    from .augment import Augmentation as Augmentation
    from .dataset import PersonCrops as PersonCrops
    from .dataset import PictureBatches as PictureBatches
    from .dataset import crop_loader as crop_loader
    from .dataset import prepare_images as prepare_images
    from .detections import read_detections as read_detections
    from .images import ImageStore as ImageStore
    from .images import PoseDataError as PoseDataError
    from .joints import COCO as COCO
    from .joints import CROWDPOSE as CROWDPOSE
    from .joints import JOINT_SETS as JOINT_SETS
    from .joints import JointSet as JointSet
    from .synthetic import write_synthetic as write_synthetic
else:
    __all__, __getattr__, __dir__ = lazy.hand_on(
        __name__,
        {
            "Augmentation": ".augment",
            "COCO": ".joints",
            "CROWDPOSE": ".joints",
            "ImageStore": ".images",
            "JOINT_SETS": ".joints",
            "JointSet": ".joints",
            "Person": ".annotations",
            "PersonCrops": ".dataset",
            "PictureBatches": ".dataset",
            "PoseDataError": ".images",
            "annotated_persons": ".annotations",
            "crop_loader": ".dataset",
            "detected_persons": ".annotations",
            "prepare_images": ".dataset",
            "read_detections": ".detections",
            "read_json": ".annotations",
            "write_synthetic": ".synthetic",
        },
        requires="cycledistill[coco]",
    )
