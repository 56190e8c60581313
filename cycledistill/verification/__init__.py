"""Proof on the user's own model, with whatever stands around it, of what the tests prove on models of this project."""

from cycledistill.verification.proof import verify
from cycledistill.verification.table import Row, Verification

__all__ = ["Row", "Verification", "verify"]
