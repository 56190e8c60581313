"""What cycling did to a model."""

from cycledistill.insight.measures import (
    AttentionMap,
    Drift,
    ParameterProfile,
    attention_maps,
    exit_scores,
    parameter_profile,
    token_drift,
)

__all__ = [
    "AttentionMap",
    "Drift",
    "ParameterProfile",
    "attention_maps",
    "exit_scores",
    "parameter_profile",
    "token_drift",
]
