"""What files of models say of themselves: one shape for ONNX, pt2 and safetensors, written and read here.

Words by name, as such files hold them. `KEYS` of :mod:`cycledistill.metadata.shape` are what every file should say;
what a model says beside them (`export_metadata`) stands there as it is. The face is empty: reading needs no PyTorch.
"""
