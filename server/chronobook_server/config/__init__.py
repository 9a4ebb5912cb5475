"""Settings of the commands."""
