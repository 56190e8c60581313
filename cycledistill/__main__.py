"""``python -m cycledistill``: the command ``cycledistill``, for where a module is wanted."""

import sys

from cycledistill.commands.frame import main

if __name__ == "__main__":
    sys.exit(main())
