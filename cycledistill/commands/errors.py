"""What a subcommand raises when it cannot do what it was asked for."""


class BadInput(Exception):
    """Something the user gave cannot be used; the message says what and what to do."""
