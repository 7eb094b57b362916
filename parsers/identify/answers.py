"""What checks answer, and the little that several share."""

from __future__ import annotations

from collections.abc import Callable
from typing import Final

# In this order: `max` of what alternatives answer is what they answer together.
NO: Final = 0
MORE: Final = 1
# Whole on this side, and other protocols' too: what the other side says must tell.
ASK: Final = 2
# Both sides agree in shape, and no more than that.
LIKELY: Final = 3
YES: Final = 4

# One side's bytes, from the very first.
Check = Callable[[bytes], int]
# Those to the server and those to the client.
Dialogue = Callable[[bytes, bytes], int]

UPPER = frozenset(b"ABCDEFGHIJKLMNOPQRSTUVWXYZ")
ALNUM = UPPER | frozenset(b"abcdefghijklmnopqrstuvwxyz0123456789")
DIGITS = frozenset(b"0123456789")
PRINTABLE = frozenset(range(0x20, 0x7F))


def fixed(data: bytes, pattern: bytes) -> int:
    """`pattern`, or a prefix of it."""
    head = data[: len(pattern)]
    if not pattern.startswith(head):
        return NO
    return YES if len(head) == len(pattern) else MORE
