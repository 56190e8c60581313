"""The kinds of faults that need no process of their own."""

from tests.faults.files import FILES
from tests.faults.schemes import SCHEMES
from tests.faults.texts import TEXT_KINDS
from tests.faults.wrapping import WRAPPING

COSTLY = ("arguments of wrap_cyclic", "configs of published models", "paths of stacks")
"""Those that build and run models."""
PROPERTIES = [*WRAPPING, *SCHEMES, *TEXT_KINDS, *FILES]
