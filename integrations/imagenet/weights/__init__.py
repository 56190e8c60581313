"""Weights that a run did not write: what a file of them says of its classes."""
