"""Lines of a stream that may be anything."""

from __future__ import annotations

from collections.abc import Iterator
from typing import IO


def read_lines(stream: IO[bytes], limit: int) -> Iterator[bytes]:
    """Lines without their ends; of one of more than `limit` bytes the first `limit` + 1."""
    while line := stream.readline(limit + 1):
        rest = line
        while not rest.endswith(b"\n") and (rest := stream.readline(limit)):
            pass
        yield line.removesuffix(b"\n")
