"""Just enough HTTP/2 and gRPC to drive one connection byte by byte from both ends.

A real client (grpcio) takes milliseconds a call, a hundred times what is measured. What
goes over the wire is the same: preface, SETTINGS both ways, HEADERS after the server's
SETTINGS, length-prefixed messages, trailers (RFC 9113, gRPC over HTTP/2).
"""

from __future__ import annotations

import socket
import struct

from hpack import Encoder

PREFACE = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"
DATA, HEADERS, SETTINGS, WINDOW_UPDATE = 0x0, 0x1, 0x4, 0x8
END_STREAM, ACK, END_HEADERS = 0x1, 0x1, 0x4
# An empty protobuf message: not compressed, length 0.
MESSAGE = bytes(5)


def frame(kind: int, flags: int, stream: int, payload: bytes = b"") -> bytes:
    """RFC 9113, section 4.1."""
    return struct.pack(">I", len(payload))[1:] + struct.pack(">BBI", kind, flags, stream) + payload


# The connection's window never closes, so nobody need count.
OPENING = frame(SETTINGS, 0, 0) + frame(WINDOW_UPDATE, 0, 0, struct.pack(">I", 2**30))


class Connection:
    """A client's and a server's socket with an HTTP/2 connection between them."""

    def __init__(self, client: socket.socket, server: socket.socket, service: str = "lab.Echo") -> None:
        self.client = client
        self.server = server
        self._stream = -1
        requests, answers = Encoder(), Encoder()
        self._request = [
            requests.encode(
                [
                    (":method", "POST"),
                    (":scheme", "http"),
                    (":path", f"/{service}/Say"),
                    (":authority", "10.77.2.2:9000"),
                    ("te", "trailers"),
                    ("content-type", "application/grpc"),
                    ("user-agent", "grpc-bench/1"),
                ]
            )
            for _ in range(2)  # the second names what the first put into the table
        ]
        self._answer = [
            (
                answers.encode([(":status", "200"), ("content-type", "application/grpc")]),
                answers.encode([("grpc-status", "0")]),
            )
            for _ in range(2)
        ]

    def open(self) -> None:
        """Preface and settings, as far as they must have come before the first call."""
        self._pass(self.client, self.server, PREFACE + OPENING)
        self._pass(self.server, self.client, OPENING + frame(SETTINGS, ACK, 0))

    def call(self) -> None:
        """A unary call and its answer."""
        self._stream += 2
        later = self._stream > 1
        request = (
            (b"" if later else frame(SETTINGS, ACK, 0))
            + frame(HEADERS, END_HEADERS, self._stream, self._request[later])
            + frame(DATA, END_STREAM, self._stream, MESSAGE)
        )
        self._pass(self.client, self.server, request)
        head, trailers = self._answer[later]
        answer = (
            frame(HEADERS, END_HEADERS, self._stream, head)
            + frame(DATA, 0, self._stream, MESSAGE)
            + frame(HEADERS, END_HEADERS | END_STREAM, self._stream, trailers)
        )
        self._pass(self.server, self.client, answer)

    @staticmethod
    def _pass(source: socket.socket, destination: socket.socket, data: bytes) -> None:
        source.sendall(data)
        missing = len(data)
        while missing:
            got = destination.recv(missing)
            if not got:
                raise ConnectionError("the other end closed the connection")
            missing -= len(got)

    def close(self) -> None:
        """Both ends."""
        self.client.close()
        self.server.close()
