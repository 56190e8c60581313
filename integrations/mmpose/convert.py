"""Convert a file of weights between mmpose's model and the plain pose model.

    python -m cycledistill.integrations.mmpose.convert weights.safetensors for_mmpose.pth

Whichever names the file holds, the other ones are written. A checkpoint of mmengine holds pickled objects too; add
``--trust-checkpoint`` for one that you wrote yourself.
"""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from pathlib import Path

from cycledistill.recipes.errors import CheckpointError
from cycledistill.recipes.weights.files import write_weights

from .checkpoint import read_checkpoint
from .key_map import from_mmpose, is_mmpose, to_mmpose


def main(arguments: Sequence[str] | None = None) -> None:
    """Convert a file."""
    parser = argparse.ArgumentParser(prog="python -m cycledistill.integrations.mmpose.convert", description=__doc__)
    parser.add_argument("source", type=Path, help="weights under either names")
    parser.add_argument("target", type=Path, help=".safetensors or .pth; mmpose itself reads .pth")
    parser.add_argument("--trust-checkpoint", action="store_true", help="the file is your own: it may run code")
    asked = parser.parse_args(arguments)
    try:
        state = read_checkpoint(asked.source, asked.trust_checkpoint)["state_dict"]
        write_weights(from_mmpose(state) if is_mmpose(state) else to_mmpose(state), asked.target)
    except (CheckpointError, OSError) as error:
        parser.exit(2, f"error: {error}\n")


if __name__ == "__main__":
    main()
