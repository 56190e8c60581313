"""The lifting networks."""
