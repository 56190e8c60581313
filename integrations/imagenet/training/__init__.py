"""A training run, put together."""
