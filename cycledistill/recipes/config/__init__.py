"""Recipes: YAML and overrides to dataclasses."""
