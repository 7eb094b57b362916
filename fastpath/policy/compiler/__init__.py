"""Compile a policy to the tables that the kernel walks."""
