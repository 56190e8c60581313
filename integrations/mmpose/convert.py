"""Convert a file of weights between mmpose's model and the plain pose model.

    python -m cycledistill.integrations.mmpose.convert weights.safetensors for_mmpose.pth

Whichever names the file holds, the other ones are written. A checkpoint of mmengine holds pickled objects too; add
``--trust-checkpoint`` for one that you wrote yourself.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path

from cycledistill.recipes.errors import CheckpointError
from cycledistill.recipes.weights import State, read_weights, write_weights

from .names import from_mmpose, is_mmpose, to_mmpose
from .shims import trusted_checkpoints


def main(arguments: Sequence[str] | None = None) -> None:
    """Convert a file."""
    parser = argparse.ArgumentParser(prog="python -m cycledistill.integrations.mmpose.convert", description=__doc__)
    parser.add_argument("source", type=Path, help="weights under either names")
    parser.add_argument("target", type=Path, help=".safetensors or .pth; mmpose reads .pth")
    parser.add_argument("--trust-checkpoint", action="store_true", help="the file is your own: it may run code")
    asked = parser.parse_args(arguments)
    try:
        if asked.trust_checkpoint:
            with trusted_checkpoints(asked.source):
                state = _read_trusted(asked.source)
        else:
            state = read_weights(asked.source)
        write_weights(from_mmpose(state) if is_mmpose(state) else to_mmpose(state), asked.target)
    except (CheckpointError, OSError) as error:
        sys.exit(f"error: {error}")


def _read_trusted(path: Path) -> State:
    import torch

    if not path.is_file():
        raise CheckpointError(f"{path}: there is no such file")
    found = torch.load(path, map_location="cpu", weights_only=False)
    return dict(found["state_dict"])


if __name__ == "__main__":
    main()
