from __future__ import annotations

import ast

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fastpath.text import aligned, escape


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("/lab.Admin/Wipe", "/lab.Admin/Wipe"),
        ("", ""),
        ("a\nb\tc\r", "a\\nb\\tc\\r"),
        ("\x1b[2J\x07\x7f\x9b", "\\x1b[2J\\x07\\x7f\\x9b"),
        ("a\\b", "a\\\\b"),
        ("\u202e\u200b\u2028\ufeff", "\\u202e\\u200b\\u2028\\ufeff"),
        ("\u05d0é", "\\u05d0\\xe9"),
        ("\ud800\U0001f600", "\\ud800\\U0001f600"),
    ],
)
def test_escape(text: str, shown: str) -> None:
    assert escape(text) == shown


@pytest.mark.parametrize(
    ("text", "width", "shown"),
    [
        ("abcdef", 6, "abcdef"),
        ("abcdefg", 6, "abc..."),
        ("ab\x1b\x1b", 10, "ab\\x1b\\x1b"),
        ("ab\x1b\x1bc", 10, "ab\\x1b..."),
        ("\x1b\x1b", 5, "..."),
        ("abcdef", 2, ".."),
        ("x" * 10_000_000, 10, "xxxxxxx..."),
    ],
)
def test_width(text: str, width: int, shown: str) -> None:
    assert escape(text, width) == shown


@given(st.text(), st.integers(0, 50))
def test_safe_and_reversible(text: str, width: int) -> None:
    shown = escape(text)
    assert shown.isascii()
    assert shown.isprintable()
    assert ast.literal_eval('"' + shown.replace('"', '\\"') + '"') == text
    assert len(escape(text, width)) <= width


def test_aligned_lines_are_escaped() -> None:
    status: dict[str, object] = {
        "mode": "enforce\x1b",
        "sessions": {"now": 3, "share": 0.25, "big": 12345678.9},
        "interfaces": ["eth0", "eth1"],
        "problem": None,
        "healthy": True,
        "empty": [],
        "counts": [1, 2],
    }
    assert aligned(status) == (
        "mode            enforce\\x1b\n"
        "sessions.now    3\n"
        "sessions.share  0.25\n"
        "sessions.big    12345679\n"
        "interfaces      eth0, eth1\n"
        "problem         none\n"
        "healthy         yes\n"
        "empty           none\n"
        "counts          1, 2\n"
    )
    assert aligned({}) == ""
