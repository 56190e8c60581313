"""From logits to accuracy."""

from cycledistill.versions import require

require("tqdm")
