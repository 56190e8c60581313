"""How good the joints in the pictures and the triangulated poses are."""

from cycledistill import versions

versions.require("numpy")
