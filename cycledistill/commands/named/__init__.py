"""Models that a command is given by name."""
