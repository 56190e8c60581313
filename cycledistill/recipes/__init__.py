"""What training commands share: recipes in YAML, checkpoints, logs and seeds.

Knows nothing about any task or model, and nothing of the library needs it: only this subpackage imports PyYAML,
safetensors and NumPy, which come with the extras of the integrations (``pip install 'cycledistill[imagenet]'``).
"""
