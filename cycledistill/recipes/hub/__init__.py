"""Models on the Hugging Face hub."""

from cycledistill.recipes.hub.model import HubModel

__all__ = ["HubModel"]
