"""WebSocket behind its upgrade, as browsers and the websockets package send it."""

from __future__ import annotations

from parsers.base import TO_CLIENT, TO_SERVER, Value
from tests.contract.conversations import Conversation

KEY = b"\x37\xfa\x21\x3d"


def frame(opcode: int, payload: bytes = b"", *, key: bytes = KEY, fin: bool = True, rsv: int = 0) -> bytes:
    size = len(payload)
    masked = 0x80 if key else 0
    wide = b"" if size < 126 else size.to_bytes(2, "big") if size < 65536 else size.to_bytes(8, "big")
    length = size if size < 126 else 126 if size < 65536 else 127
    body = bytes(byte ^ key[at % 4] for at, byte in enumerate(payload)) if key else payload
    return bytes((fin << 7 | rsv << 4 | opcode, masked | length)) + wide + key + body


def reply(opcode: int, payload: bytes = b"", *, fin: bool = True, rsv: int = 0) -> bytes:
    return frame(opcode, payload, key=b"", fin=fin, rsv=rsv)


def text(payload: bytes, size: int = 0) -> tuple[str, dict[str, Value]]:
    said: dict[str, Value] = {"websocket.kind": b"text", "websocket.text": payload}
    return "websocket", said | {"websocket.size": size or len(payload)}


def other(kind: bytes, size: int) -> tuple[str, dict[str, Value]]:
    return "websocket", {"websocket.kind": kind, "websocket.size": size}


CONVERSATIONS = [
    Conversation(
        "texts, fragments and a close",
        "websocket",
        (
            (TO_SERVER, frame(1, b'{"op":"subscribe"}') + frame(9, b"here?")),
            (TO_CLIENT, reply(10, b"here?") + reply(1, "ü".encode() * 3)),
            (TO_SERVER, frame(1, b"ab", fin=False) + frame(10) + frame(0, b"c", fin=False) + frame(0)),
            (TO_CLIENT, reply(2, bytes(126))),
            (TO_SERVER, frame(8, b"\x03\xe8bye")),
            (TO_CLIENT, reply(8, b"\x03\xe8")),
        ),
        (text(b'{"op":"subscribe"}'), text("ü".encode() * 3), text(b"abc"), other(b"binary", 126)),
    ),
    Conversation(
        "long ones and compressed ones",
        "websocket",
        (
            (TO_SERVER, frame(1, b"0123456789" * 500) + frame(1, b"")),
            (TO_CLIENT, reply(1, b"\xf2\x48\xcd\xc9\xc9\x07\x00", rsv=4) + reply(8)),
            (TO_SERVER, frame(2, b"\x63", rsv=4, fin=False) + frame(0, b"\x60\x00") + frame(8, b"\x0f\xa0")),
        ),
        (
            text((b"0123456789" * 500)[:4096], 5000),
            text(b""),
            other(b"text", 7),
            other(b"binary", 3),
        ),
    ),
]
