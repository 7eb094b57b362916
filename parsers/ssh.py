"""SSH 2 up to its encryption (RFC 4253): both banners, both KEXINITs.

Read: identification strings (section 4.2; a server may say lines before its own, old peers end theirs with LF alone)
and what each side offers (section 7.1). Of the packets of the key exchange only the frame is read, of what follows a
side's NEWKEYS nothing. SSH 1 is refused: its packets are others. HASSH is the fingerprint of
github.com/salesforce/hassh.

Each unit also says what was said before it, so that one rule may ask for both sides.
"""

from __future__ import annotations

import hashlib
import re
from dataclasses import dataclass
from typing import Final

from parsers.base import TO_CLIENT, TO_SERVER, Field, Kind, ParseError, Said, Value
from parsers.stream import FOREVER, StreamParser


@dataclass(frozen=True, slots=True)
class Limits:
    """Bounds of one connection's parser."""

    # RFC 4253 section 4.2, CR LF included.
    banner: int = 255
    # OpenSSH reads lines of 8 KiB before a server's banner.
    line: int = 8192
    # All of them together; OpenSSH takes 1024 lines.
    before: int = 64 * 1024
    # RFC 4253 section 6.1; OpenSSH's KEXINIT has 1.5 KiB.
    packet: int = 35000


DISCONNECT: Final = 1
DEBUG: Final = 4
KEXINIT: Final = 20
NEWKEYS: Final = 21

_BANNER: Final = re.compile(rb"SSH-(2\.0|1\.99)-([^\x00-\x20\x7f-][^\x00-\x1f\x7f]*)")
_NAMES: Final = re.compile(rb"(?:[!-+\--~]+(?:,[!-+\--~]+)*)?")
_SIDES: Final = ("client", "server")
_PREFIX: Final = ("", "server_")


class SshParser(StreamParser):
    """One connection; see `parsers.base.Parser`."""

    name = "ssh"
    fields = (
        Field("ssh.client", "software that the client's banner names, with its comment", once=True),
        Field("ssh.server", "software that the server's banner names, with its comment", once=True),
        Field("ssh.kex", "key exchanges that the client offers", Kind.LIST, once=True),
        Field("ssh.host_key", "algorithms of host keys that the client offers", Kind.LIST, once=True),
        Field("ssh.ciphers", "ciphers that the client offers, for either direction", Kind.LIST, once=True),
        Field("ssh.macs", "MACs that the client offers, for either direction", Kind.LIST, once=True),
        Field("ssh.hassh", "HASSH fingerprint of the client's offer", once=True, folded=True),
        Field("ssh.server_kex", "key exchanges that the server offers", Kind.LIST, once=True),
        Field("ssh.server_host_key", "algorithms of host keys that the server offers", Kind.LIST, once=True),
        Field("ssh.server_ciphers", "ciphers that the server offers, for either direction", Kind.LIST, once=True),
        Field("ssh.server_macs", "MACs that the server offers, for either direction", Kind.LIST, once=True),
        Field("ssh.server_hassh", "HASSH fingerprint of the server's offer", once=True, folded=True),
    )
    judged = (TO_SERVER, TO_CLIENT)

    def __init__(self, limits: Limits | None = None) -> None:
        super().__init__()
        self.limits = limits or Limits()
        self._said: dict[str, Value] = {}
        self._before = 0  # bytes of lines before the server's banner
        self._greeted = [False, False]
        self._offered = [False, False]

    def pending(self, direction: int) -> bool:
        """The banner or the KEXINIT is incomplete."""
        return super().pending(direction) and not self._offered[direction]

    def _read(self, direction: int, data: bytes, at: int) -> int:
        return self._packet(direction, data, at) if self._greeted[direction] else self._banner(direction, data, at)

    def _banner(self, direction: int, data: bytes, at: int) -> int:
        start = data[at : at + 4]
        banner = b"SSH-".startswith(start)
        if banner and len(start) < 4:
            return self._wait(direction, len(start) + 1)  # the next byte may be another one
        if not banner and direction == TO_SERVER:
            raise ParseError("banner")
        most = self.limits.banner if banner else self.limits.line
        end = data.find(b"\n", at, at + most)
        if end < 0:
            if len(data) - at >= most:
                raise ParseError("banner_too_long" if banner else "line_too_long", most)
            return self._wait(direction, most, b"\n")
        if not banner:
            self._before += end + 1 - at
            if self._before > self.limits.before:
                raise ParseError("lines_before_banner")
            return end + 1
        match = _BANNER.fullmatch(data[at:end].removesuffix(b"\r"))
        if match is None:
            raise ParseError("banner")
        self._greeted[direction] = True
        self._tell(direction, {f"ssh.{_SIDES[direction]}": match[2]})
        return end + 1

    def _packet(self, direction: int, data: bytes, at: int) -> int:
        if len(data) - at < 6:
            return self._wait(direction, 6)
        size = int.from_bytes(data[at : at + 4], "big")
        padding, kind = data[at + 4], data[at + 5]
        # Section 6: whole blocks of 8, 4 bytes of padding, 16 bytes at least.
        if not 12 <= size <= self.limits.packet or (size + 4) % 8 or not 4 <= padding <= size - 2:
            raise ParseError("packet")
        if kind == KEXINIT and not self._offered[direction]:
            if len(data) - at < size + 4:
                return self._wait(direction, size + 4)
            self._kexinit(direction, data[at + 6 : at + 4 + size - padding])
            self._offered[direction] = True
            return at + 4 + size
        if not DISCONNECT <= kind <= DEBUG and not (self._offered[direction] and (kind == NEWKEYS or 30 <= kind < 50)):
            raise ParseError("message")
        # A NEWKEYS' padding is part of what is skipped.
        self._skip[direction] = FOREVER if kind == NEWKEYS else size - 2
        return at + 6

    def _kexinit(self, direction: int, payload: bytes) -> None:
        lists: list[bytes] = []
        at = 16
        for _ in range(10):
            end = at + 4 + int.from_bytes(payload[at : at + 4], "big")
            if at + 4 > len(payload) or end > len(payload):
                raise ParseError("kexinit")
            lists.append(payload[at + 4 : end])
            at = end
        if len(payload) != at + 5 or not all(map(_NAMES.fullmatch, lists)):
            raise ParseError("kexinit")
        kex, host_key, *ways = lists
        ciphers, macs, compressions = ways[:2], ways[2:4], ways[4:6]
        print_of = b";".join((kex, ciphers[direction], macs[direction], compressions[direction]))
        prefix = f"ssh.{_PREFIX[direction]}"
        self._tell(
            direction,
            {
                prefix + "kex": _names(kex),
                prefix + "host_key": _names(host_key),
                prefix + "ciphers": _names(*ciphers),
                prefix + "macs": _names(*macs),
                prefix + "hassh": hashlib.md5(print_of, usedforsecurity=False).hexdigest().encode(),
            },
        )

    def _tell(self, direction: int, fresh: dict[str, Value]) -> None:
        self._said |= fresh
        later = frozenset(field.name for field in self.fields if field.name not in self._said)
        self._events.append(Said(self.name, dict(self._said), direction, later))


def _names(*lists: bytes) -> tuple[bytes, ...]:
    """The names of all lists, each once."""
    return tuple(dict.fromkeys(name for each in lists if each for name in each.split(b",")))
