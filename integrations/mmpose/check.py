"""Say whether mmpose can run here, and if not, what is missing and which commands install it.

python integrations/mmpose/check.py                 # in a clone, also where nothing is installed yet
python -m cycledistill.integrations.mmpose.check
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence

if __package__:
    from .installed import explain, find_problems
else:  # run by its path, as where PyTorch is missing, without which the package does not import
    from installed import explain, find_problems  # type: ignore[import-not-found,no-redef]


def main(arguments: Sequence[str] | None = None) -> int:
    """Say what is missing; 0 if nothing is, else 1."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.parse_args(arguments)
    problems = find_problems()
    sys.stdout.write((explain(problems) if problems else "the mmpose adapter can run here") + "\n")
    return 1 if problems else 0


if __name__ == "__main__":
    sys.exit(main())
