"""HTTP/2 bytes for tests: frames by hand, header blocks by hpack's encoder."""

from __future__ import annotations

import hpack

PREFACE = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"
END_STREAM, END_HEADERS, PADDED, PRIORITY = 0x1, 0x4, 0x8, 0x20


def frame(kind: int, flags: int, stream: int, payload: bytes = b"") -> bytes:
    return len(payload).to_bytes(3, "big") + bytes((kind, flags)) + stream.to_bytes(4, "big") + payload


def settings(*pairs: tuple[int, int]) -> bytes:
    return frame(4, 0, 0, b"".join(k.to_bytes(2, "big") + v.to_bytes(4, "big") for k, v in pairs))


SETTINGS_ACK = frame(4, 1, 0)
START = PREFACE + settings((3, 100))


class Sender:
    """One side's HPACK state."""

    def __init__(self) -> None:
        self.encoder = hpack.Encoder()

    def block(self, *headers: tuple[str, str]) -> bytes:
        return bytes(self.encoder.encode(list(headers)))

    def request(self, stream: int, path: str = "/", method: str = "GET", *more: tuple[str, str]) -> bytes:
        head = ((":method", method), (":scheme", "http"), (":path", path), (":authority", "a.example"))
        return frame(1, END_HEADERS | END_STREAM, stream, self.block(*head, *more))

    def call(self, stream: int, path: str) -> bytes:
        """A gRPC request with an empty message."""
        head = self.request(stream, path, "POST", ("content-type", "application/grpc+proto"), ("te", "trailers"))
        head = head[:4] + bytes((END_HEADERS,)) + head[5:]
        return head + frame(0, END_STREAM, stream, bytes(5))

    def response(self, stream: int, status: int = 200) -> bytes:
        return frame(1, END_HEADERS, stream, self.block((":status", str(status)), ("content-type", "text/plain")))
