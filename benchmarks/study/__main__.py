"""``python benchmarks/study run | status | report``."""

import sys
from pathlib import Path

if __name__ == "__main__":
    root = Path(__file__).parents[2]
    # Python put this folder in front; it is a package of the one above, and shares its mazes with an example.
    sys.path[:1] = [str(root / "benchmarks"), str(root / "examples")]
    from study.command import main

    sys.exit(main())
