"""Tests of the library's core against oracles that share no code with it."""
