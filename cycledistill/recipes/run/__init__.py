"""A training run: its loop, state, logs, seeds, command line."""
