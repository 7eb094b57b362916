"""HTTP/2 and gRPC: grpcio 1.85, client and server, as recorded (tests/data/record.py)."""

import hpack

from parsers.base import TO_CLIENT, TO_SERVER, Value
from tests.contract.conversations import Conversation
from tests.data import recorded

_PREFACE = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"


def _frame(kind: int, flags: int, stream: int, payload: bytes = b"") -> bytes:
    return len(payload).to_bytes(3, "big") + bytes((kind, flags)) + stream.to_bytes(4, "big") + payload


def _headers(method: str, path: str, kind: str = "") -> bytes:
    fields = [(":method", method), (":scheme", "http"), (":path", path), (":authority", "web.lab")]
    encoded: bytes = hpack.Encoder().encode([*fields, *([("content-type", kind)] if kind else [])])
    return encoded


_CALL = _headers("POST", "/lab.Echo/Say", "application/grpc")
_MESSAGE = b"\0\0\0\0\5hello"


def _call(service: bytes, method: bytes) -> tuple[str, dict[str, Value]]:
    return "grpc", {
        "http.method": b"POST",
        "http.path": b"/%b/%b" % (service, method),
        "http.host": b"127.0.0.1:50051",
        "grpc.service": service,
        "grpc.method": method,
    }


RECORDED = {"grpcio": (_call(b"lab.Echo", b"Say"), _call(b"lab.No", b"Method"), _call(b"lab.Echo", b"Chat"))}

CONVERSATIONS = [
    *(Conversation(name, "http2", parts, RECORDED[name]) for name, parts in recorded("grpc").items()),
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
]  # fmt: skip
