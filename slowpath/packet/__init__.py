"""Packet mode: held frames in from the tap, judged ones out, verdicts to the kernel."""
