"""HTTP/1."""

import gzip
import zlib
from base64 import b64encode

from parsers.base import TO_CLIENT, TO_SERVER
from tests.contract.conversations import Conversation

OF_REQUESTS = frozenset(
    ("http.version", "http.target", "http.query", "http.content_type", "http.encoding", "http.protocol",
     "http.header.x-key", "http.header.cookie", "http.header.not-there"),
)  # fmt: skip


def _said(method: bytes, path: bytes, host: bytes = b"web.lab") -> tuple[str, dict[str, bytes]]:
    return "http", {"http.method": method, "http.path": path, "http.host": host}


BODY = b"3\r\nabc\r\n0\r\n\r\n"

_POST = {"http.method": b"POST", "http.path": b"/b", "http.host": b"web.lab"}
_GET = {"http.method": b"GET", "http.path": b"/a", "http.host": b"web.lab"}
_ANSWERS = frozenset(("http.status", "http.encoding", "http.response_header.set-cookie"))
_BODIES = frozenset(("http.body", "http.response_body"))
_TEXT = b"a text, " * 40
_ZIPPED = gzip.compress(_TEXT, mtime=0)


def _deflated(data: bytes) -> bytes:
    raw = zlib.compressobj(wbits=-15)
    return raw.compress(data) + raw.flush()


def _chunked(data: bytes) -> bytes:
    """The rest of a head, and a body in chunks with an extension and trailers."""
    half = len(data) // 2
    chunks = b"".join(b"%x;a=b\r\n%b\r\n" % (len(each), each) for each in (data[:half], data[half:]))
    return b"Transfer-Encoding: chunked\r\n\r\n" + chunks + b"0\r\nX-Trailer: no body\r\n\r\n"


def _sized(data: bytes) -> bytes:
    return b"Content-Length: %d\r\n\r\n" % len(data) + data


CHUNKED = _chunked(b"abcde")
_CALL = {
    "http.method": b"POST", "http.path": b"/lab.Echo/Say", "http.host": b"web.lab", "grpc.service": b"lab.Echo",
    "grpc.method": b"Say",
}  # fmt: skip

CONVERSATIONS = [
    Conversation(
        "keep-alive",
        "http",
        (
            (TO_SERVER, b"GET /a?b=c HTTP/1.1\r\nHost: web.lab\r\n\r\n"),
            (TO_CLIENT, b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok"),
            (
                TO_SERVER,
                b"POST /b HTTP/1.1\r\nHost: web.lab\r\nTransfer-Encoding: chunked\r\n\r\n" + BODY,
            ),
            (TO_CLIENT, b"HTTP/1.1 204 No Content\r\n\r\n"),
        ),
        (_said(b"GET", b"/a?b=c"), _said(b"POST", b"/b")),
    ),
    Conversation(
        "pipelined",
        "http",
        ((TO_SERVER, b"GET / HTTP/1.1\r\nHost: a\r\n\r\nDELETE /x HTTP/1.1\r\nHost: b:8080\r\n\r\n"),),
        (_said(b"GET", b"/", b"a"), _said(b"DELETE", b"/x", b"b:8080")),
    ),
    Conversation(
        "h2c declined",
        "http",
        (
            (
                TO_SERVER,
                b"POST /b HTTP/1.1\r\nHost: web.lab\r\nConnection: Upgrade, HTTP2-Settings\r\nUpgrade: h2c\r\n"
                b"HTTP2-Settings: AAMAAABk\r\nTransfer-Encoding: chunked\r\n\r\n" + BODY,
            ),
            (TO_CLIENT, b"HTTP/1.1 204 No Content\r\n\r\n"),
            (TO_SERVER, b"GET /a HTTP/1.1\r\nHost: web.lab\r\n\r\n"),
        ),
        (_said(b"POST", b"/b"), _said(b"GET", b"/a")),
    ),
    Conversation(
        "fields on demand",
        "http",
        (
            (
                TO_SERVER,
                (
                    b"POST http://web.lab/b?c=/d?e HTTP/1.0\r\nhost: web.lab\r\nConnection: keep-alive\r\n"
                    b"X-Key:one\r\nx-key:\t two \r\nX_Key: three\r\nContent-Type: Text/HTML; charset=utf-8\r\n"
                    b"Content-Encoding: gzip, identity\r\nContent-Encoding: BR\r\n\r\n"
                ),
            ),
            (TO_SERVER, b"GET / HTTP/1.1\r\nHost: a\r\nConnection: Upgrade\r\nUpgrade: foo/2,Bar\r\n\r\n"),
        ),
        (
            (
                "http",
                {
                    "http.method": b"POST", "http.path": b"/b?c=/d?e", "http.host": b"web.lab", "http.version": b"1.0",
                    "http.target": b"http://web.lab/b?c=/d?e", "http.query": b"c=/d?e",
                    "http.content_type": (b"Text/HTML",), "http.encoding": b"gzip, br",
                    "http.header.x-key": (b"one", b"two"),
                },
            ),
            (
                "http",
                {
                    "http.method": b"GET", "http.path": b"/", "http.host": b"a", "http.version": b"1.1",
                    "http.target": b"/", "http.encoding": b"identity", "http.protocol": (b"foo/2", b"bar"),
                },
            ),
        ),
        asked=OF_REQUESTS,
    ),
    Conversation(
        "responses",
        "http",
        (
            (TO_SERVER, b"GET /a HTTP/1.1\r\nHost: web.lab\r\n\r\nHEAD /a HTTP/1.1\r\nHost: web.lab\r\n\r\n"),
            (TO_SERVER, b"GET /a HTTP/1.1\r\nHost: web.lab\r\n\r\nGET /a HTTP/1.1\r\nHost: web.lab\r\n\r\n"),
            (TO_CLIENT, b"HTTP/1.1 103 Early Hints\r\nSet-Cookie: c\r\n\r\nHTTP/1.1 200 OK\r\n" + CHUNKED),
            (TO_CLIENT, b"HTTP/1.1 200\r\nContent-Length: 9\r\nset-cookie: a=1\r\nSet-Cookie: b=2 \r\n\r\n"),
            (TO_CLIENT, b"HTTP/1.1 304 Not Modified\r\nContent-Length: 9\r\n\r\n"),
            (TO_CLIENT, b"HTTP/1.0 404 Not Found\r\nContent-Encoding: br\r\n\r\nHTTP/1.1 200 OK\r\n\r\n"),
        ),
        (
            *[
                ("http", {**_GET, "http.method": method, "http.encoding": b"identity"})
                for method in (b"GET", b"HEAD", b"GET", b"GET")
            ],
            (
                "http",
                {
                    **_GET, "http.encoding": b"identity", "http.status": 103,
                    "http.response_header.set-cookie": (b"c",),
                },
            ),
            ("http", {**_GET, "http.encoding": b"identity", "http.status": 200}),
            (
                "http",
                {
                    **_GET, "http.method": b"HEAD", "http.encoding": b"identity", "http.status": 200,
                    "http.response_header.set-cookie": (b"a=1", b"b=2"),
                },
            ),
            ("http", {**_GET, "http.encoding": b"identity", "http.status": 304}),
            ("http", {**_GET, "http.encoding": b"br", "http.status": 404}),
        ),
        asked=_ANSWERS,
    ),
    Conversation(
        "bodies",
        "http",
        (
            (TO_SERVER, b"POST /b HTTP/1.1\r\nHost: web.lab\r\nContent-Length: 320\r\n\r\n" + _TEXT),
            (TO_CLIENT, b"HTTP/1.1 200 OK\r\n" + CHUNKED),
            (
                TO_SERVER,
                b"POST /b HTTP/1.1\r\nHost: web.lab\r\nContent-Encoding: gzip\r\n" + _chunked(_ZIPPED * 2),
            ),
            (TO_CLIENT, b"HTTP/1.1 200 OK\r\nContent-Encoding: deflate\r\n" + _sized(zlib.compress(_TEXT))),
            (
                TO_SERVER,
                b"POST /b HTTP/1.1\r\nHost: web.lab\r\nContent-Encoding: br\r\n" + _sized(b"no piece of it is told"),
            ),
            (TO_CLIENT, b"HTTP/1.1 200 OK\r\nContent-Encoding: deflate\r\n\r\n" + _deflated(_TEXT)),
        ),
        (
            *[("http", _POST)] * 3,
            ("http", {**_POST, "http.body": _TEXT}),
            ("http", {**_POST, "http.response_body": b"abcde"}),
            ("http", {**_POST, "http.body": _TEXT * 2}),
            ("http", {**_POST, "http.response_body": _TEXT}),
            ("http", {**_POST, "http.response_body": _TEXT}),
        ),
        asked=_BODIES,
    ),
    Conversation(
        "grpc-web",
        "http",
        (
            (
                TO_SERVER,
                b"POST /lab.Echo/Say HTTP/1.1\r\nHost: web.lab\r\nContent-Type: application/grpc-web+proto\r\n"
                + _chunked(b"\0\0\0\0\5hello\1\0\0\0\1x"),
            ),
            (
                TO_CLIENT,
                b"HTTP/1.1 200 OK\r\nContent-Type: application/grpc-web-text\r\n"
                + _sized(b64encode(b"\0\0\0\0\5hello\x80\0\0\0\x10") + b64encode(b"grpc-status: 7\r\n")),
            ),
        ),
        (
            ("http", _CALL),
            ("http", {**_CALL, "grpc.message_size": 5, "grpc.compressed": 0}),
            ("http", {**_CALL, "grpc.message_size": 1, "grpc.compressed": 1}),
            ("http", _CALL),
            ("http", {**_CALL, "grpc.message_size": 5, "grpc.compressed": 0}),
            ("http", {**_CALL, "grpc.status": 7}),
        ),
        asked=frozenset(("grpc.message_size", "grpc.compressed", "grpc.status")),
    ),
]  # fmt: skip
