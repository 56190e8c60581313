"""What the commands that make poses from several views share."""
