"""A sign of life from the first second: what a command loads and opens takes longer than anybody likes to wait."""

from __future__ import annotations

import functools
import logging
import os
import sys

_logger = logging.getLogger(__name__)


@functools.cache
def say_loading() -> None:
    """Say once on standard error that PyTorch is being loaded, where it is not yet; of several processes, the first.

    Written, not logged: nothing may be imported before it, nor any log set up.
    """
    if "torch" not in sys.modules and os.environ.get("RANK", "0") == "0":
        sys.stderr.write("loading PyTorch and what else is needed\n")
        sys.stderr.flush()


def say_opening(what: str) -> None:
    """Say in the log what is opened next."""
    _logger.info("opening %s", what)
