"""HTTP/1."""

from parsers.base import TO_CLIENT, TO_SERVER
from tests.contract.conversations import Conversation

OF_REQUESTS = frozenset(
    ("http.version", "http.target", "http.query", "http.content_type", "http.encoding", "http.protocol",
     "http.header.x-key", "http.header.cookie", "http.header.not-there"),
)  # fmt: skip


def _said(method: bytes, path: bytes, host: bytes = b"web.lab") -> tuple[str, dict[str, bytes]]:
    return "http", {"http.method": method, "http.path": path, "http.host": host}


BODY = b"3\r\nabc\r\n0\r\n\r\n"

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
]  # fmt: skip
