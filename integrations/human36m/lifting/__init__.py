"""Lifting what a user has: clips of any length and rate, streams, and the models that do it."""
