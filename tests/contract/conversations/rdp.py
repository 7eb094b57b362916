"""RDP: mstsc and FreeRDP at Windows."""

from __future__ import annotations

from parsers.base import TO_CLIENT, TO_SERVER
from tests.contract.conversations import Conversation


def request(body: bytes, kind: int = 0xE0) -> bytes:
    return b"\3\0" + (len(body) + 11).to_bytes(2, "big") + bytes((len(body) + 6, kind)) + bytes(5) + body


def confirm(body: bytes) -> bytes:
    return request(body, 0xD0)


def negotiation(protocols: int, kind: int = 1, flags: int = 0) -> bytes:
    return bytes((kind, flags, 8, 0)) + protocols.to_bytes(4, "little")


COOKIE = b"Cookie: mstshash=WDeployAd\r\n"

CONVERSATIONS = [
    Conversation(
        "cookie and TLS",
        "rdp",
        ((TO_SERVER, request(COOKIE + negotiation(3))), (TO_CLIENT, confirm(negotiation(2, 2, 0x1F)))),
        (("rdp", {"rdp.cookie": b"WDeployAd", "rdp.protocols": (b"tls", b"credssp")}),),
    ),
    Conversation(
        "RDP security",
        "rdp",
        (
            (TO_SERVER, request(b"Cookie: msts=3640205228.15629.0000\r\n")),
            (TO_CLIENT, confirm(b"")),
            (TO_SERVER, b"\3\0\1\x9c\2\xf0\x80\x7f\x65\x82"),
            (TO_CLIENT, b"\3\0\0\x55\2\xf0\x80\x7f\x66"),
        ),
        (("rdp", {"rdp.cookie": b"Cookie: msts=3640205228.15629.0000", "rdp.protocols": (b"rdp",)}),),
    ),
]
