"""Moments that several calibrated cameras see, and batches of their views."""
