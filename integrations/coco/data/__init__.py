"""Persons and pictures."""
