"""Bytes to typed events, one protocol a file; no sockets, no clock, no decisions."""
