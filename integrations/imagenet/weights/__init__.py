"""Weights that a run did not write: a file of them, a published model."""
