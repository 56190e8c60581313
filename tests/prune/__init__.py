"""Tests of token pruning against loops that drop tokens after whole layers."""
