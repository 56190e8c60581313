"""``python benchmarks/study run | status | report``."""

import sys
from pathlib import Path

if __name__ == "__main__":
    sys.path[0] = str(Path(__file__).parents[1])  # Python put this folder there; it is a package of the one above
    from study.command import main

    sys.exit(main())
