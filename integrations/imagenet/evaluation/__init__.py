"""From logits to accuracy."""
