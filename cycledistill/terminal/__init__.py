"""What every command has in common where it is typed: its parser, and where its log goes."""
