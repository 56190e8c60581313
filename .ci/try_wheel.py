"""Train, read and unwrap a model with the package that is installed in a folder: try_wheel.py SITE_PACKAGES."""

import sys
from importlib.resources import files
from pathlib import Path

import timm
import torch

import cycledistill
import cycledistill.integrations.imagenet as imagenet

for module in (cycledistill, imagenet):
    assert Path(sys.argv[1]) in Path(module.__file__).parents, f"not the wheel's: {module.__file__}"
assert (files("cycledistill") / "py.typed").is_file()

model = cycledistill.wrap_cyclic(timm.create_model("test_vit"), cycles=2)
images = torch.randn(2, 3, 160, 160)
loss = cycledistill.CycleLoss(torch.nn.CrossEntropyLoss())(model(images), torch.tensor([0, 1]))
loss.backward()
model.eval()
with torch.no_grad():
    logits = model(images)
    assert torch.equal(cycledistill.unwrap_cyclic(model)(images), logits)
print(f"cycledistill {cycledistill.__version__} from {cycledistill.__file__}: loss {loss.item():.3f}")
