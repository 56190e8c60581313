"""Wrapped models that were saved."""
