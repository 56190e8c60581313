"""What all plug-ins stand on: classes swapped in place, where they sit, rows of tokens."""

from cycledistill.versions import require

require("torch")
