"""RDP's connection request and its answer ([MS-RDPBCGR] sections 2.2.1.1 and 2.2.1.2, over TPKT and X.224).

The client says who it is in a cookie, if at all, and which security it knows; the server picks. All but RDP's own means
that TLS follows. Behind RDP's own, and behind a refusal, nothing is read.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Final

from parsers.base import TO_CLIENT, TO_SERVER, Field, Kind, ParseError, Said, Value
from parsers.stream import FOREVER, StreamParser


@dataclass(frozen=True, slots=True)
class Limits:
    """Bounds of one connection's parser."""

    # X.224's length indicator has one byte, and 255 is reserved: 4 + 1 + 254.
    packet: int = 259


_REQUEST: Final = 0xE0
_CONFIRM: Final = 0xD0
_COOKIE: Final = re.compile(rb"(?:Cookie: mstshash=)?([^\x00-\x1f\x7f]*)\r\n")
_ASKS: Final = 1
_ANSWERS: Final = 2
_FAILURE: Final = 3
_PROTOCOLS: Final = {1: b"tls", 2: b"credssp", 4: b"rdstls", 8: b"credssp-ex", 16: b"rdsaad"}


class RdpParser(StreamParser):
    """One connection; see `parsers.base.Parser`."""

    name = "rdp"
    fields = (
        Field("rdp.cookie", "user name (mstshash) or routing token of the connection request", once=True),
        Field("rdp.protocols", "security that the client offers: rdp, tls, credssp and more", Kind.LIST, once=True),
    )

    def __init__(self, limits: Limits | None = None) -> None:
        super().__init__()
        self.limits = limits or Limits()
        self._asked = False
        self._offered = 0

    def _read(self, direction: int, data: bytes, at: int) -> int:
        if direction == TO_SERVER and self._asked:
            return self._hold(direction)
        if direction == TO_CLIENT and not self._asked:
            raise ParseError("order")
        if len(data) - at < 5:
            return self._wait(direction, 5)
        size = int.from_bytes(data[at + 2 : at + 4], "big")
        if data[at : at + 2] != b"\3\0" or not 11 <= size <= self.limits.packet or data[at + 4] != size - 5:
            raise ParseError("packet")
        if len(data) - at < size:
            return self._wait(direction, size)
        kind = data[at + 5]
        body = data[at + 11 : at + size]
        # Class 0 is all there is.
        if kind != (_REQUEST if direction == TO_SERVER else _CONFIRM) or data[at + 10]:
            raise ParseError("connection_request")
        if direction == TO_SERVER:
            self._request(body)
        else:
            self._confirm(body)
        return at + size

    def _request(self, body: bytes) -> None:
        said: dict[str, Value] = {}
        # Neither kind of cookie begins like what may stand there without one.
        if body[:1] not in {b"", b"\1"}:
            cookie = _COOKIE.match(body)
            if cookie is None:
                raise ParseError("cookie")
            said["rdp.cookie"] = cookie[1]
            body = body[cookie.end() :]
        if body:
            flags = body[1:2]
            self._offered, body = _negotiation(body, _ASKS)
            # Section 2.2.1.1.2: the flag says whether a correlation id of 36 bytes follows.
            if bool(body) != bool(flags[0] & 8) or (body and (len(body) != 36 or body[:4] != b"\6\0\x24\0")):
                raise ParseError("correlation")
        offered = tuple(name for bit, name in _PROTOCOLS.items() if self._offered & bit)
        said["rdp.protocols"] = offered or (b"rdp",)
        self._asked = True
        self._events.append(Said(self.name, said))

    def _confirm(self, body: bytes) -> None:
        selected = 0
        if body:
            failed = body[0] == _FAILURE
            value, rest = _negotiation(body, _FAILURE if failed else _ANSWERS)
            selected = 0 if failed else value
            if rest or selected & ~self._offered or selected.bit_count() > 1:
                raise ParseError("not_offered")
        if selected:
            self._switch("tls")
            return
        self._skip[:] = FOREVER, FOREVER
        self._release(TO_SERVER)


def _negotiation(body: bytes, kind: int) -> tuple[int, bytes]:
    """Its protocols, or why it failed, and what follows."""
    if len(body) < 8 or body[0] != kind or body[2:4] != b"\x08\0":
        raise ParseError("negotiation")
    return int.from_bytes(body[4:8], "little"), body[8:]
