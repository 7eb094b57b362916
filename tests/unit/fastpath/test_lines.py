"""Lines of bounded length."""

from __future__ import annotations

import io

import pytest

from fastpath.lines import read_lines


@pytest.mark.parametrize(
    ("text", "lines"),
    [
        (b"", []),
        (b"a\n\nb", [b"a", b"", b"b"]),
        (b"1234\n12345\n", [b"1234", b"12345"]),
        # What is too long shows one byte more than is allowed, and the next line is whole.
        (b"1234567890123\nab\n", [b"12345", b"ab"]),
        (b"12345678901234567890", [b"12345"]),
    ],
)
def test_lines(text: bytes, lines: list[bytes]) -> None:
    assert list(read_lines(io.BytesIO(text), 4)) == lines
