"""The `microseg-slowpath` command."""
