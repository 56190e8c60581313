"""Training of multi-view models."""
