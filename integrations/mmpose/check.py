"""Say whether mmpose can run here, and if not, what is missing and which commands install it.

python -m cycledistill.integrations.mmpose.check
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence

from .installed import explain, find_problems


def main(arguments: Sequence[str] | None = None) -> int:
    """Say what is missing; 0 if nothing is, else 1."""
    parser = argparse.ArgumentParser(prog="python -m cycledistill.integrations.mmpose.check", description=__doc__)
    parser.parse_args(arguments)
    problems = find_problems()
    sys.stdout.write((explain(problems) if problems else "the mmpose adapter can run here") + "\n")
    return 1 if problems else 0


if __name__ == "__main__":
    sys.exit(main())
