"""Thresholds for a mean cost, and accuracy against it, on the outputs of every exit.

`data.py` runs a loader to all exits, `by_shares.py` finds thresholds on that without targets, `by_metric.py` with them,
and `curve.py` sets accuracy against cost.
"""
