"""What training commands share: recipes in YAML, checkpoints, logs and seeds, and models on the hub.

Knows nothing about any task or model, and nothing of the library needs it: only this subpackage imports PyYAML,
safetensors, NumPy and, in ``hub*.py``, huggingface_hub, which come with the extras of the integrations
(``pip install 'cycledistill[imagenet]'``).
"""

from cycledistill.versions import require

require("huggingface_hub", "numpy", "pyyaml", "safetensors")
