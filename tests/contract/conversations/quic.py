"""QUIC. The datagrams are recorded ones of aioquic 1.7, client and server."""

from parsers.base import UDP, Value
from tests.contract.conversations import Conversation
from tests.data import recorded


def _hello(
    version: bytes, alpn: tuple[bytes, ...] = (b"h3",), ja4: bytes = b"q13d0308h3_55b375c5d22e_a06176d7f541"
) -> tuple[str, dict[str, Value]]:
    return "quic", {
        "quic.version": version,
        "tls.version": (b"1.3",),
        "tls.alpn": alpn,
        "tls.ech": 0,
        "tls.sni": b"web.lab",
        "tls.ja4": ja4,
    }


UNITS = {
    "aioquic hello of two datagrams": (
        _hello(
            b"1",
            tuple(b"protocol-number-%d" % number for number in range(90)),
            b"q13d0308p0_55b375c5d22e_a06176d7f541",
        ),
    ),
    "aioquic retry": (_hello(b"1"), _hello(b"1")),
    "aioquic version negotiation": (_hello(b"2"), _hello(b"1")),
    "aioquic compatible version": (_hello(b"1"), _hello(b"2")),
}

CONVERSATIONS = [Conversation(name, "quic", parts, UNITS[name], UDP) for name, parts in recorded("quic").items()]
