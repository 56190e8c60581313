"""The command ``cycledistill`` and its subcommands."""
