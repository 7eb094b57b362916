"""HTTP/2 and gRPC."""

import gzip

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
_TEXT = b"a text, " * 40
_ZIPPED = gzip.compress(_TEXT)
_SAY = {
    "http.method": b"POST", "http.path": b"/lab.Echo/Say", "http.host": b"web.lab",
    "grpc.service": b"lab.Echo", "grpc.method": b"Say",
}  # fmt: skip
_B = {"http.method": b"POST", "http.path": b"/b", "http.host": b"web.lab"}

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
    Conversation(
        "responses, bodies and messages",
        "http2",
        (
            (TO_SERVER, _PREFACE + _frame(4, 0, 0) + _frame(1, 4, 1, _CALL)),
            (TO_SERVER, _frame(1, 4, 3, _headers("POST", "/b", "", ("content-encoding", "gzip")))),
            (TO_CLIENT, _frame(4, 0, 0) + _frame(4, 1, 0)),
            # Two messages over three frames, one of them padded, and between them the other stream's.
            (TO_SERVER, _frame(0, 0, 1, _MESSAGE + b"\0\0") + _frame(0, 0, 3, _ZIPPED[:20])),
            (TO_SERVER, _frame(0, 9, 1, b"\3\0\0\3abc" + bytes(3)) + _frame(0, 1, 3, _ZIPPED[20:])),
            (TO_CLIENT, _frame(1, 4, 1, _encoded((":status", "100")))),
            (TO_CLIENT, _frame(1, 4, 1, _encoded((":status", "200"), ("content-type", "application/grpc+proto")))),
            (TO_CLIENT, _frame(1, 4, 3, _encoded((":status", "404"), ("server", "lab")))),
            (TO_CLIENT, _frame(0, 8, 3, b"\2not there\0\0") + _frame(0, 0, 1, b"\1\0\0\0\0")),
            (TO_CLIENT, _frame(1, 5, 1, _encoded(("grpc-status", "7"), ("grpc-message", "no"))) + _frame(0, 1, 3)),
        ),
        (
            ("grpc", _SAY),
            ("http2", _B),
            ("grpc", {**_SAY, "grpc.message_size": 5, "grpc.compressed": 0}),
            ("grpc", {**_SAY, "grpc.message_size": 3, "grpc.compressed": 0}),
            ("grpc", {**_SAY, "http.status": 100}),
            ("grpc", {**_SAY, "http.status": 200}),
            ("http2", {**_B, "http.status": 404, "http.response_header.server": (b"lab",)}),
            ("grpc", {**_SAY, "http.status": 200, "grpc.message_size": 0, "grpc.compressed": 1}),
            ("grpc", {**_SAY, "http.status": 200, "grpc.status": 7, "http.response_header.grpc-message": (b"no",)}),
            ("grpc", {**_SAY, "http.body": _MESSAGE + b"\0\0\0\0\3abc"}),
            ("http2", {**_B, "http.body": _TEXT}),
            (
                "http2",
                {
                    **_B, "http.status": 404, "http.response_header.server": (b"lab",),
                    "http.response_body": b"not there",
                },
            ),
            ("grpc", {**_SAY, "http.status": 200, "http.response_body": b"\1\0\0\0\0"}),
        ),
        asked=frozenset((
            "http.status", "http.response_header.server", "http.response_header.grpc-message", "http.body",
            "http.response_body", "grpc.status", "grpc.message_size", "grpc.compressed",
        )),
    ),
]  # fmt: skip
