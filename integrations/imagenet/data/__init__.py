"""Images."""

from cycledistill.versions import require

require("pillow", "pyarrow", "torchvision")
