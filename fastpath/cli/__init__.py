"""The command microseg-fastpath."""
