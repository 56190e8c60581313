"""Convolutional parts in front of the transformer."""
