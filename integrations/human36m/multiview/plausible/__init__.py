"""Whether what several views see fits together, and can be a body."""
