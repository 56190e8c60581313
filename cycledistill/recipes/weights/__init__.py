"""Files of weights and checkpoints."""
