"""Commands about recipes, and about the models that were trained by one: which there are, and whose a model is."""
