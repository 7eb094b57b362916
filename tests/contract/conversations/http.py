"""HTTP/1."""

from parsers.base import TO_CLIENT, TO_SERVER
from tests.contract.conversations import Conversation


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
]
