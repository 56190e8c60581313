"""Say whether mmpose can run here, and if not, what is missing and which commands install it.

python -m cycledistill.integrations.mmpose.check
"""

from __future__ import annotations

import sys

from .installed import explain, find_problems


def main() -> int:
    """Say what is missing; 0 if nothing is, else 1."""
    problems = find_problems()
    sys.stdout.write((explain(problems) if problems else "the mmpose adapter can run here") + "\n")
    return 1 if problems else 0


if __name__ == "__main__":
    sys.exit(main())
