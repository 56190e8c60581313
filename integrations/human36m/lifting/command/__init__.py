"""What the command that lifts files makes of its arguments, before it lifts."""
