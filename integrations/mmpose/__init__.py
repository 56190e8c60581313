"""SDPose and TokenPose inside OpenMMLab's mmpose 1.x: head, backbones, hooks, configs and a launcher.

    from cycledistill.integrations.mmpose import load_mmpose

    load_mmpose()                            # before anything else imports mmpose
    from mmpose.apis import inference_topdown, init_model

    python -m cycledistill.integrations.mmpose.check              # what is missing, and how to install it
    python -m cycledistill.integrations.mmpose.train sdpose_t     # train; sdpose_t or a config file of your own

This package imports without mmpose. mmpose's releases do not run on current PyTorch and numpy as they are; what stands
in their way is bridged in `shims`. Best effort: the pose recipes of ``cycledistill.integrations.coco`` need none of it.
"""

from .installed import find_problems
from .key_map import from_mmpose, to_mmpose
from .loading import config_path, list_configs, load_mmpose

__all__ = ["config_path", "find_problems", "from_mmpose", "list_configs", "load_mmpose", "to_mmpose"]
