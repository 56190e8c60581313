"""Weights, ours and official."""
