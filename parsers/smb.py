"""SMB 1 to 3 ([MS-CIFS], [MS-SMB2]) over TCP or NetBIOS sessions: commands, dialects and shares.

Every command of the client is a unit, also those of a compound or an AndX chain, told with its header; of negotiation
and tree connect what they say is read too. Of the server only which dialect of SMB 2 it chose. What is encrypted or
compressed is a unit named so, and not read: a rule that lets it pass lets everything pass that is inside.

NetBIOS' own packets (RFC 1002 section 4.3) have one form each; a server that refuses a session ends the connection.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

from parsers.base import TO_CLIENT, TO_SERVER, Field, Kind, ParseError, Said, Value
from parsers.identify.answers import YES
from parsers.identify.windows import session_request
from parsers.stream import StreamParser


@dataclass(frozen=True, slots=True)
class Limits:
    """Bounds of one connection's parser."""

    # Of a command that is read as a whole: a session setup of SMB 1 with a Kerberos ticket has up to 64 KiB.
    command: int = 96 * 1024
    # Commands of an AndX chain; Windows sent two or three. Each may point at the same path.
    chain: int = 8


_SESSION_MESSAGE: Final = 0
_SESSION_REQUEST: Final = 0x81
_NEGATIVE: Final = 0x83
_RETARGET: Final = 0x84
_KEEPALIVE: Final = 0x85
# What a side sends besides messages and requests, and its size.
_OTHERS: Final = ({_KEEPALIVE: 0}, {0x82: 0, _NEGATIVE: 1, _RETARGET: 6, _KEEPALIVE: 0})
# Two names of 255 bytes.
_REQUEST_MAX: Final = 510
# Over NetBIOS a length has 17 bits, over TCP alone 24: who reads the upper ones and who does not would see other
# messages.
_MESSAGE_MAX: Final = 0x1FFFF
_OPAQUE: Final = {b"\xfdSMB": b"encrypted", b"\xfcSMB": b"compressed"}

_NEGOTIATE: Final = 0
_TREE_CONNECT: Final = 3
_COMMANDS: Final = (
    b"negotiate", b"session_setup", b"logoff", b"tree_connect", b"tree_disconnect", b"create", b"close", b"flush",
    b"read", b"write", b"lock", b"ioctl", b"cancel", b"echo", b"query_directory", b"change_notify", b"query_info",
    b"set_info", b"oplock_break", b"notification",
)  # fmt: skip
_DIALECTS: Final = {0x202: b"2.0.2", 0x210: b"2.1", 0x300: b"3.0", 0x302: b"3.0.2", 0x311: b"3.1.1"}

_NEGOTIATE_1: Final = 0x72
_TREE_CONNECT_1: Final = 0x70
_TREE_CONNECT_ANDX: Final = 0x75
_UNICODE: Final = 0x8000
_COMMANDS_1: Final = {
    0x00: b"create_directory", 0x01: b"delete_directory", 0x04: b"close", 0x05: b"flush", 0x06: b"delete",
    0x07: b"rename", 0x08: b"query_information", 0x10: b"check_directory", 0x24: b"lock", 0x25: b"transaction",
    0x2B: b"echo", 0x2D: b"open", 0x2E: b"read", 0x2F: b"write", 0x32: b"transaction2", 0x34: b"find_close",
    _TREE_CONNECT_1: b"tree_connect", 0x71: b"tree_disconnect", _NEGOTIATE_1: b"negotiate", 0x73: b"session_setup",
    0x74: b"logoff", _TREE_CONNECT_ANDX: b"tree_connect", 0xA0: b"nt_transaction", 0xA2: b"create",
    0xA4: b"cancel",
}  # fmt: skip
# Those that another command may follow in the same message.
_ANDX: Final = frozenset((0x24, 0x2D, 0x2E, 0x2F, 0x73, 0x74, _TREE_CONNECT_ANDX, 0xA2))
_NO_ANDX: Final = 0xFF
_HEADER_1: Final = 32
_HEADER: Final = 64


class SmbParser(StreamParser):
    """One connection; see `parsers.base.Parser`."""

    name = "smb"
    fields = (
        Field("smb.command", "as tree_connect, a number where it has no name; encrypted or compressed", folded=True),
        Field("smb.version", "1, or the dialect of SMB 2 or 3 that the server chose, once it has"),
        Field("smb.dialects", "dialects that the client offers", Kind.LIST),
        Field("smb.share", "path that a tree connect names", folded=True),
    )

    def __init__(self, limits: Limits | None = None) -> None:
        super().__init__()
        self.limits = limits or Limits()
        self._left = 0  # bytes of a message behind the command that is read
        self._chosen = b""
        self._netbios = False
        self._refused = False

    def _read(self, direction: int, data: bytes, at: int) -> int:
        if self._refused:
            raise ParseError("session")
        if self._left and direction == TO_SERVER:
            return self._compound(data, at, self._left)
        if len(data) - at < 4:
            return self._wait(direction, 4)
        size = int.from_bytes(data[at + 1 : at + 4], "big")
        if data[at] != _SESSION_MESSAGE:
            return self._session(direction, data, at, size)
        if size < _HEADER_1 + 3 or (self._netbios and size > _MESSAGE_MAX):
            raise ParseError("message")
        if len(data) - at < 8:
            return self._wait(direction, 8)
        mark = data[at + 4 : at + 8]
        if mark not in _OPAQUE and mark not in {b"\xffSMB", b"\xfeSMB"}:
            raise ParseError("message")
        if direction == TO_CLIENT:
            return self._answer(data, at, size, mark)
        if mark == b"\xfeSMB":
            return self._compound(data, at + 4, size, at)
        if mark == b"\xffSMB":
            return self._one(data, at, size)
        self._skip[TO_SERVER] = size - 4
        self._tell(_OPAQUE[mark], self._chosen, {})
        return at + 8

    def _session(self, direction: int, data: bytes, at: int, size: int) -> int:
        """NetBIOS': a request and what answers it come first, keep-alives at any time."""
        kind = data[at]
        request = kind == _SESSION_REQUEST and direction == TO_SERVER and size <= _REQUEST_MAX
        if not request and _OTHERS[direction].get(kind) != size:
            raise ParseError("session")
        if kind != _KEEPALIVE and self._offset[direction]:
            raise ParseError("session")
        if len(data) - at < 4 + size:
            return self._wait(direction, 4 + size)
        if request and session_request(data[at : at + 4 + size]) != YES:
            raise ParseError("session")
        self._netbios |= kind != _KEEPALIVE
        self._refused = kind in {_NEGATIVE, _RETARGET}
        return at + 4 + size

    def _answer(self, data: bytes, at: int, size: int, mark: bytes) -> int:
        """Of the server: its negotiation is read, all else passed."""
        read = 8
        if mark == b"\xfeSMB" and size >= _HEADER:
            read = 4 + _HEADER
            if len(data) - at < read:
                return self._wait(TO_CLIENT, read)
            if _word(data, at + 16) == _NEGOTIATE and size >= _HEADER + 6:
                read += 6
                if len(data) - at < read:
                    return self._wait(TO_CLIENT, read)
                chosen = _DIALECTS.get(_word(data, at + 4 + _HEADER + 4))
                # An error has none, and 0x2ff asks to negotiate again.
                if chosen and not any(data[at + 12 : at + 16]):
                    self._chosen = chosen
        self._skip[TO_CLIENT] = 4 + size - read
        return at + read

    def _compound(self, data: bytes, at: int, left: int, begin: int | None = None) -> int:
        """A command of SMB 2 at `at`, the first one behind the session header at `begin`."""
        begin = at if begin is None else begin
        if left < _HEADER:
            raise ParseError("message")
        if len(data) - at < _HEADER:
            return self._wait(TO_SERVER, at - begin + _HEADER)
        command, after = _word(data, at + 12), int.from_bytes(data[at + 20 : at + 24], "little")
        if data[at : at + 4] != b"\xfeSMB" or _word(data, at + 4) != _HEADER or data[at + 16] & 1:
            raise ParseError("header")
        if after and (after % 8 or not _HEADER <= after < left):
            raise ParseError("compound")
        size = after or left
        said: dict[str, Value] = {}
        end = at + _HEADER
        if command in {_NEGOTIATE, _TREE_CONNECT}:
            if size > self.limits.command:
                raise ParseError("command_too_long")
            if len(data) - at < size:
                return self._wait(TO_SERVER, at - begin + size)
            end = at + size
            said = _negotiated(data[at:end]) if command == _NEGOTIATE else _connected(data[at:end])
        self._left = left - size
        self._skip[TO_SERVER] = size - (end - at)
        name = _COMMANDS[command] if command < len(_COMMANDS) else b"%d" % command
        self._tell(name, self._chosen, said)
        return end

    def _one(self, data: bytes, at: int, size: int) -> int:
        """A message of SMB 1."""
        if len(data) - at < 4 + _HEADER_1 + 3:
            return self._wait(TO_SERVER, 4 + _HEADER_1 + 3)
        command = data[at + 8]
        first = 4 + _HEADER_1
        if data[at + 13] & 0x80:
            raise ParseError("header")  # an answer
        chained = command in _ANDX and (data[at + first] < 2 or data[at + first + 1] != _NO_ANDX)
        if not chained and command not in {_NEGOTIATE_1, _TREE_CONNECT_1, _TREE_CONNECT_ANDX}:
            self._tell(_name_1(command), b"1", {})
            self._skip[TO_SERVER] = size - _HEADER_1 - 3
            return at + first + 3
        if size > self.limits.command:
            raise ParseError("command_too_long")
        if len(data) - at < 4 + size:
            return self._wait(TO_SERVER, 4 + size)
        self._chain(data[at + 4 : at + 4 + size], command)
        return at + 4 + size

    def _chain(self, message: bytes, command: int) -> None:
        unicode = bool(_word(message, 10) & _UNICODE)
        at = _HEADER_1
        for _ in range(self.limits.chain):
            words = at + 1 + 2 * _byte(message, at)
            start, end = words + 2, words + 2 + _word(message, words)
            # Some clients of SMB 1 count what follows as well: only less is a lie.
            if start > len(message) or (end > len(message) and command in {_NEGOTIATE_1, _TREE_CONNECT_1}):
                raise ParseError("message")
            said: dict[str, Value] = {}
            if command == _NEGOTIATE_1:
                said["smb.dialects"] = _dialects(message[start:end])
            elif command == _TREE_CONNECT_1:
                said["smb.share"] = _old_path(message[start:end], unicode=unicode)
            elif command == _TREE_CONNECT_ANDX:
                if words - at < 9:
                    raise ParseError("tree_connect")
                said["smb.share"] = _path(message, start + _word(message, at + 7), unicode=unicode)
            self._tell(_name_1(command), b"1", said)
            if command not in _ANDX:
                return
            if words - at < 5:
                raise ParseError("andx")
            command, after = message[at + 1], _word(message, at + 3)
            if command == _NO_ANDX:
                return
            # Forward only, so that it ends.
            if after < words or after + 3 > len(message):
                raise ParseError("andx")
            at = after
        raise ParseError("chain_too_long")

    def _tell(self, command: bytes, version: bytes, said: dict[str, Value]) -> None:
        told: dict[str, Value] = {"smb.command": command, **said}
        if version:
            told["smb.version"] = version
        self._events.append(Said(self.name, told))


def _byte(data: bytes, at: int) -> int:
    if at >= len(data):
        raise ParseError("message")
    return data[at]


def _word(data: bytes, at: int) -> int:
    if at + 2 > len(data):
        raise ParseError("message")
    return int.from_bytes(data[at : at + 2], "little")


def _name_1(command: int) -> bytes:
    return _COMMANDS_1.get(command) or b"%d" % command


def _negotiated(message: bytes) -> dict[str, Value]:
    """[MS-SMB2] section 2.2.3."""
    end = _HEADER + 36 + 2 * _word(message, _HEADER + 2)
    if _word(message, _HEADER) != 36 or end > len(message):
        raise ParseError("negotiate")
    numbers = [_word(message, at) for at in range(_HEADER + 36, end, 2)]
    return {"smb.dialects": tuple(_DIALECTS.get(number) or b"%d" % number for number in numbers)}


def _connected(message: bytes) -> dict[str, Value]:
    """[MS-SMB2] section 2.2.9; its extension, that clusters use among themselves, moves the path."""
    start, size = _word(message, _HEADER + 4), _word(message, _HEADER + 6)
    if _word(message, _HEADER) != 9 or _word(message, _HEADER + 2) & 4 or start < _HEADER + 8 or size % 2:
        raise ParseError("tree_connect")
    if start + size > len(message):
        raise ParseError("tree_connect")
    return {"smb.share": _utf8(message[start : start + size])}


def _dialects(text: bytes) -> tuple[bytes, ...]:
    """[MS-CIFS] section 2.2.4.52.1: each 0x02, name, NUL."""
    names = text.split(b"\0")
    if names.pop() or not all(name[:1] == b"\2" for name in names):
        raise ParseError("negotiate")
    return tuple(name[1:] for name in names)


def _path(message: bytes, at: int, *, unicode: bool) -> bytes:
    """Up to its NUL; UTF-16 is aligned to the header's beginning."""
    if not unicode:
        end = message.find(b"\0", at)
        if end < 0:
            raise ParseError("tree_connect")
        return message[at:end]
    at += at % 2
    end = message.find(b"\0\0", at)
    while end >= 0 and (end - at) % 2:
        end = message.find(b"\0\0", end + 1)
    if end < 0:
        raise ParseError("tree_connect")
    return _utf8(message[at:end])


def _old_path(text: bytes, *, unicode: bool) -> bytes:
    """[MS-CIFS] section 2.2.4.50.1: 0x04 and the path."""
    if text[:1] != b"\4":
        raise ParseError("tree_connect")
    # It is aligned: 32 bytes of header, 1, no words, 2 of size and 1 of format come before.
    return _path(text[1:], 0, unicode=unicode)


def _utf8(text: bytes) -> bytes:
    try:
        return text.decode("utf-16-le").encode()
    except UnicodeError:
        raise ParseError("utf16") from None
