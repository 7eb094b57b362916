"""HTTP/2 and gRPC."""

import hpack

from parsers.base import TO_CLIENT, TO_SERVER
from tests.contract.conversations import Conversation
from tests.contract.conversations.http import OF_REQUESTS

_PREFACE = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"


def _frame(kind: int, flags: int, stream: int, payload: bytes = b"") -> bytes:
    return len(payload).to_bytes(3, "big") + bytes((kind, flags)) + stream.to_bytes(4, "big") + payload


def _encoded(*fields: tuple[str, str]) -> bytes:
    encoded: bytes = hpack.Encoder().encode([hpack.NeverIndexedHeaderTuple(*field) for field in fields])
    return encoded


def _headers(method: str, path: str, kind: str = "", *more: tuple[str, str]) -> bytes:
    fields = [(":method", method), (":scheme", "http"), (":path", path), (":authority", "web.lab")]
    return _encoded(*fields, *([("content-type", kind)] if kind else []), *more)


_CALL = _headers("POST", "/lab.Echo/Say", "application/grpc")
_MESSAGE = b"\0\0\0\0\5hello"

CONVERSATIONS = [
    Conversation(
        "calls and a continuation",
        "http2",
        (
            (TO_SERVER, _PREFACE + _frame(4, 0, 0) + _frame(1, 5, 1, _headers("GET", "/a"))),
            (TO_CLIENT, _frame(4, 0, 0) + _frame(4, 1, 0)),
            (TO_SERVER, _frame(4, 1, 0) + _frame(1, 0, 3, _CALL[:7]) + _frame(9, 4, 3, _CALL[7:])),
            (TO_SERVER, _frame(0, 1, 3, _MESSAGE)),
        ),
        (
            ("http2", {"http.method": b"GET", "http.path": b"/a", "http.host": b"web.lab"}),
            (
                "grpc",
                {
                    "http.method": b"POST", "http.path": b"/lab.Echo/Say", "http.host": b"web.lab",
                    "grpc.service": b"lab.Echo", "grpc.method": b"Say",
                },
            ),
        ),
    ),
    Conversation(
        "fields on demand",
        "http2",
        (
            (TO_SERVER, _PREFACE + _frame(4, 0, 0) + _frame(1, 5, 1, _headers(
                "GET", "/a?b", "text/plain", ("cookie", "a=1"), ("x-key", "one"), ("cookie", "b=2"), ("x-key", "two"),
            ))),
            (TO_SERVER, _frame(1, 4, 3, _encoded(
                (":method", "CONNECT"), (":scheme", "http"), (":path", "/chat"), (":authority", "web.lab"),
                (":protocol", "websocket"),
            ))),
            (TO_SERVER, _frame(1, 4, 5, _encoded((":method", "CONNECT"), (":authority", "db.lab:3306")))),
        ),
        (
            (
                "http2",
                {
                    "http.method": b"GET", "http.path": b"/a?b", "http.host": b"web.lab", "http.version": b"2",
                    "http.target": b"/a?b", "http.query": b"b", "http.content_type": (b"text/plain",),
                    "http.encoding": b"identity", "http.header.cookie": (b"a=1; b=2",),
                    "http.header.x-key": (b"one", b"two"),
                },
            ),
            (
                "http2",
                {
                    "http.method": b"CONNECT", "http.path": b"/chat", "http.host": b"web.lab", "http.version": b"2",
                    "http.target": b"/chat", "http.encoding": b"identity", "http.protocol": (b"websocket",),
                },
            ),
            (
                "http2",
                {
                    "http.method": b"CONNECT", "http.path": b"", "http.host": b"db.lab:3306", "http.version": b"2",
                    "http.target": b"db.lab:3306", "http.encoding": b"identity",
                },
            ),
        ),
        asked=OF_REQUESTS,
    ),
]  # fmt: skip
