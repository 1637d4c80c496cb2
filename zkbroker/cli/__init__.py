"""What the scripts in ``bin/`` call."""
