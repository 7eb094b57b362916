import pytest

from slowpath.rules import normal


@pytest.mark.parametrize(
    ("target", "text"),
    [
        (b"/", "/"),
        (b"*", "*"),
        (b"/a/b?x=/../y", "/a/b"),
        (b"/%61dm%69n", "/admin"),
        (b"/a%2dB%7e", "/a-B~"),
        (b"/caf%c3%a9", "/caf%C3%A9"),
        (b"/caf\xc3\xa9", "/caf%C3%A9"),
        (b"/a.b/..c/.d", "/a.b/..c/.d"),
        (b"/100%25", "/100%25"),
        (b"/a/", "/a/"),
        (b"/a%3Bb", "/a%3Bb"),
    ],
)
def test_one_reading(target: bytes, text: str) -> None:
    assert normal.path(target) == normal.Path(text)


@pytest.mark.parametrize(
    "target",
    [
        b"/a/../b", b"/a/./b", b"/a/%2e%2E/b", b"/.%2e/b", b"/..", b"/a//b", b"//a", b"/a%2fb", b"/a%5Cb", b"/a\\b",
        b"/a%00", b"/a%0a", b"/a%7f", b"/a%zz", b"/a%", b"/a%2", b"/a%252e", b"/a;x=1/b", b"/a#b", b"/a\x01",
    ],
)  # fmt: skip
def test_more_than_one_reading(target: bytes) -> None:
    assert normal.path(target).ambiguous


def test_record_shows_resolved_text() -> None:
    assert normal.path(b"/a/../../b/.").text == "/b/"


@pytest.mark.parametrize(
    ("authority", "name"),
    [(b"Example.COM:8080", "example.com"), (b"a.", "a"), (b"[::1]:80", "[::1]"), (b"", "")],
)
def test_host(authority: bytes, name: str) -> None:
    assert normal.host(authority) == name
