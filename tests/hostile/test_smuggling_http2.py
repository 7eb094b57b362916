"""Requests of HTTP/2 that become others where a server writes them down as HTTP/1 (RFC 9113 §8.1.1, §8.2.1, §10.3): all
are malformed, and none gets to the server whole.
"""

from __future__ import annotations

import pytest

from tests.hostile.attack import Quick, judged, no_admin, through
from tests.hostile.smuggling import HIDDEN
from tests.unit.slowpath.core import h2
from tests.unit.slowpath.core.h2 import END_HEADERS, END_STREAM, PADDED, frame

RULES = no_admin("http2")
HEAD = ((b":method", b"POST"), (b":scheme", b"http"), (b":path", b"/ok"), (b":authority", b"a.example"))
Fields = tuple[tuple[bytes, bytes], ...]


def begun() -> tuple[Quick, h2.Sender]:
    p = Quick(judged("http2"), RULES)
    p.client(h2.START)
    p.server(h2.settings())
    return p, h2.Sender()


def headers(sender: h2.Sender, fields: Fields, *, stream: int = 1, end: bool = False) -> bytes:
    return frame(1, END_HEADERS | (END_STREAM if end else 0), stream, bytes(sender.encoder.encode(list(fields))))


def data(payload: bytes, *, stream: int = 1, end: bool = False, pad: int | None = None) -> bytes:
    flags = END_STREAM if end else 0
    if pad is None:
        return frame(0, flags, stream, payload)
    return frame(0, flags | PADDED, stream, bytes((pad,)) + payload + bytes(pad))


def changed(name: bytes, value: bytes) -> Fields:
    """A pseudo header with another value."""
    return tuple((key, value if key == name else old) for key, old in HEAD)


CRLF = b"x\r\n\r\n" + HIDDEN
MALFORMED: dict[str, Fields] = {
    "transfer-encoding": (*HEAD, (b"transfer-encoding", b"chunked")),
    "connection": (*HEAD, (b"connection", b"keep-alive")),
    "connection names another": (*HEAD, (b"connection", b"content-length")),
    "keep-alive": (*HEAD, (b"keep-alive", b"timeout=5")),
    "proxy-connection": (*HEAD, (b"proxy-connection", b"keep-alive")),
    "upgrade": (*HEAD, (b"upgrade", b"websocket")),
    "te other than trailers": (*HEAD, (b"te", b"chunked")),
    "CR LF in a value": (*HEAD, (b"x", CRLF)),
    "LF in a value": (*HEAD, (b"x", b"y\nz: w")),
    "CR in a value": (*HEAD, (b"x", b"y\rz: w")),
    "NUL in a value": (*HEAD, (b"x", b"y\0z")),
    "value begins with a space": (*HEAD, (b"x", b" y")),
    "value ends with a tab": (*HEAD, (b"x", b"y\t")),
    "CR LF in a name": (*HEAD, (b"x: y\r\ntransfer-encoding", b"chunked")),
    "LF in a name": (*HEAD, (b"x\ny", b"z")),
    "NUL in a name": (*HEAD, (b"x\0", b"z")),
    "colon in a name": (*HEAD, (b"transfer-encoding:chunked", b"z")),
    "colon behind a name": (*HEAD, (b"transfer-encoding:", b"chunked")),
    "space in a name": (*HEAD, (b"content-length ", b"0")),
    "space before a name": (*HEAD, (b" content-length", b"0")),
    "tab in a name": (*HEAD, (b"x\ty", b"0")),
    "high byte in a name": (*HEAD, (b"x\xffy", b"0")),
    "DEL in a name": (*HEAD, (b"x\x7f", b"0")),
    "empty name": (*HEAD, (b"", b"0")),
    "upper case": (*HEAD, (b"Content-Length", b"0")),
    "upper case of transfer-encoding": (*HEAD, (b"Transfer-Encoding", b"chunked")),
    "CR LF in the path": changed(b":path", b"/ok HTTP/1.1\r\nHost: a\r\n\r\n" + HIDDEN),
    "space in the path": changed(b":path", b"/ok HTTP/1.1"),
    "tab in the path": changed(b":path", b"/ok\tHTTP/1.1"),
    "control in the path": changed(b":path", b"/ok\x01"),
    "DEL in the path": changed(b":path", b"/ok\x7f"),
    "path without a slash": changed(b":path", b"ok"),
    "path of another authority": changed(b":path", b"http://b.example/ok"),
    "empty path": changed(b":path", b""),
    "CR LF in the method": changed(b":method", b"GET /admin HTTP/1.1\r\nHost: a\r\n\r\nPOST"),
    "space in the method": changed(b":method", b"GET /admin HTTP/1.1"),
    "colon in the method": changed(b":method", b"GET:"),
    "slash in the method": changed(b":method", b"GET/admin"),
    "empty method": changed(b":method", b""),
    "CR LF in the scheme": changed(b":scheme", b"http\r\nx"),
    "path in the scheme": changed(b":scheme", b"http://a.example/admin?"),
    "space in the scheme": changed(b":scheme", b"http /"),
    "empty scheme": changed(b":scheme", b""),
    "CR LF in the authority": changed(b":authority", b"a\r\nx: y"),
    "space in the authority": changed(b":authority", b"a b"),
    "path in the authority": changed(b":authority", b"a/admin"),
    "userinfo in the authority": changed(b":authority", b"a@b"),
    "method twice": (*HEAD, (b":method", b"GET")),
    "path twice": (*HEAD[:3], (b":path", b"/admin"), HEAD[3]),
    "scheme twice": (*HEAD[:3], (b":scheme", b"https"), HEAD[3]),
    "authority twice": (*HEAD, (b":authority", b"b.example")),
    "unknown pseudo header": (*HEAD, (b":x", b"y")),
    "status": (*HEAD, (b":status", b"200")),
    "pseudo header behind another": (*HEAD[:3], (b"x", b"y"), HEAD[3]),
    "no path": (HEAD[0], HEAD[1], HEAD[3]),
    "no scheme": (HEAD[0], *HEAD[2:]),
    "no method": HEAD[1:],
    "another host": (*HEAD, (b"host", b"b.example")),
    "host twice": (*HEAD, (b"host", b"a.example"), (b"host", b"a.example")),
    "content-length +": (*HEAD, (b"content-length", b"+0")),
    "content-length -": (*HEAD, (b"content-length", b"-1")),
    "content-length 0x": (*HEAD, (b"content-length", b"0x0")),
    "content-length empty": (*HEAD, (b"content-length", b"")),
    "content-length list": (*HEAD, (b"content-length", b"0, 0")),
    "content-length huge": (*HEAD, (b"content-length", b"9" * 30)),
    "content-length twice, different": (*HEAD, (b"content-length", b"0"), (b"content-length", b"5")),
    "content-length twice, equal": (*HEAD, (b"content-length", b"0"), (b"content-length", b"0")),
}


@pytest.mark.parametrize("name", MALFORMED)
def test_malformed_heads_are_refused(name: str) -> None:
    p, sender = begun()
    head = headers(sender, MALFORMED[name], end=True)
    p.client(head)
    assert [(r["verdict"], r["reason"]) for r in p.records] == [("deny", "parse_error")]
    assert through(p) == h2.START


LENGTH = b"content-length"
# Bodies that differ from what is announced (RFC 9113 §8.1.1): what is too much would be the next request of HTTP/1.
BODIES: dict[str, tuple[bytes, list[bytes]]] = {
    "more than announced": (b"0", [data(HIDDEN, end=True)]),
    "more, in a second frame": (b"5", [data(b"hello"), data(HIDDEN, end=True)]),
    "less than announced": (b"80", [data(HIDDEN, end=True)]),
    "none at all": (b"5", [data(b"", end=True)]),
    "less, ended by trailers": (b"5", [data(b"he"), frame(1, END_HEADERS | END_STREAM, 1, b"\x00\x01x\x01y")]),
    "padding does not count": (b"80", [data(HIDDEN, pad=80 - len(HIDDEN), end=True)]),
}


@pytest.mark.parametrize("name", BODIES)
def test_bodies_that_are_not_as_long_as_they_say_are_refused(name: str) -> None:
    length, frames = BODIES[name]
    p, sender = begun()
    p.client(headers(sender, (*HEAD, (LENGTH, length))))
    assert p.records[-1]["verdict"] == "allow"
    for each in frames:
        p.client(each)
    assert (p.records[-1]["verdict"], p.records[-1]["reason"]) == ("deny", "parse_error")
    assert not through(p).endswith(frames[-1])


@pytest.mark.parametrize("name", [b":path", b"transfer-encoding", b"Upper", b"a b", b""])
def test_bad_trailers_are_refused(name: bytes) -> None:
    p, sender = begun()
    p.client(headers(sender, HEAD))
    p.client(headers(sender, ((name, b"chunked"),), end=True))
    assert (p.records[-1]["verdict"], p.records[-1]["reason"]) == ("deny", "parse_error")


def test_a_second_head_is_no_trailer() -> None:
    p, sender = begun()
    p.client(headers(sender, HEAD))
    p.client(headers(sender, ((b"x", b"y"),)))
    assert (p.records[-1]["verdict"], p.records[-1]["reason"]) == ("deny", "parse_error")


def test_a_head_that_ends_the_stream_has_no_body_to_come() -> None:
    p, sender = begun()
    p.client(headers(sender, (*HEAD, (LENGTH, b"5")), end=True))
    assert (p.records[-1]["verdict"], p.records[-1]["reason"]) == ("deny", "parse_error")


def test_bodies_as_long_as_they_say_are_allowed() -> None:
    p, sender = begun()
    p.client(headers(sender, (*HEAD, (LENGTH, b"5"))) + headers(sender, (*HEAD, (LENGTH, b"3")), stream=3))
    p.client(data(b"he") + data(b"abc", stream=3, pad=200, end=True) + data(b"llo", pad=0) + data(b"", end=True))
    p.client(headers(sender, (*HEAD, (LENGTH, b"0")), stream=5, end=True))
    p.client(headers(sender, HEAD, stream=7) + data(HIDDEN, stream=7, end=True))
    p.client(headers(sender, (*HEAD, (LENGTH, b"4000")), stream=9) + frame(3, 0, 9, bytes(4)))
    assert {record["verdict"] for record in p.records} == {"allow"}
    assert len(p.records) == 5
    p.client(headers(sender, changed(b":path", b"/admin"), stream=11, end=True))
    assert p.records[-1]["l7_rule"] == "no-admin"


def test_te_trailers_is_what_grpc_says() -> None:
    p, sender = begun()
    p.client(headers(sender, (*HEAD, (b"te", b"trailers")), end=True))
    assert [record["verdict"] for record in p.records] == ["allow"]
