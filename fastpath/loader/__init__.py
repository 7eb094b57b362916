"""Compile, load and pin the BPF programs and maps; open what is pinned."""
