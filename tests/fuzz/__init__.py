"""Fuzzing of parsers: `make fuzz PARSER=dns TIME=120`."""
