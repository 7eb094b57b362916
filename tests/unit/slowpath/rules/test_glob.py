import fnmatch
import time

import pytest
from hypothesis import given
from hypothesis import strategies as st

from slowpath.rules.glob import Glob


@pytest.mark.parametrize(
    ("pattern", "text", "expected"),
    [
        ("/a", "/a", True),
        ("/a", "/ab", False),
        ("/*", "/abc", True),
        ("/*", "/", True),
        ("/*", "/a/b", False),
        ("/**", "/a/b", True),
        ("/a/**/z", "/a/b/c/z", True),
        ("/a/**/z", "/a/z", False),
        ("/a?c", "/abc", True),
        ("/a?c", "/a/c", False),
        ("*", "", True),
        ("**", "", True),
        ("", "", True),
        ("", "a", False),
        ("?", "", False),
        ("*a*b*", "xxaxxbxx", True),
        ("*a*b*", "xxbxxaxx", False),
        ("***", "/a/b", True),
    ],
)
def test_vectors(pattern: str, text: str, expected: bool) -> None:
    assert Glob(pattern, "/").matches(text) is expected


@given(st.text(alphabet="ab*?", max_size=8), st.text(alphabet="abc", max_size=10))
def test_without_separator_it_is_fnmatch(pattern: str, text: str) -> None:
    assert Glob(pattern, "").matches(text) is fnmatch.fnmatchcase(text, pattern)


def test_hostile_text_costs_linear_time() -> None:
    glob = Glob("*a" * 30 + "b", "/")
    started = time.perf_counter()
    assert not glob.matches("a" * 20_000)
    assert time.perf_counter() - started < 1.0
