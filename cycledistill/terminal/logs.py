"""What a command says while it works goes to standard error: its own log, and that of the libraries it calls."""

from __future__ import annotations

import logging
import os


def log_to_stderr() -> None:
    """Show what is logged; of several processes that a launcher started, the first one's, and errors of the others."""
    primary = os.environ.get("RANK", "0") == "0"
    logging.basicConfig(level=logging.INFO if primary else logging.ERROR, format="%(name)s: %(message)s")
