"""SMB: smbclient at Samba, with fewer contexts and tickets."""

from __future__ import annotations

from parsers.base import TO_CLIENT, TO_SERVER, Value
from tests.contract.conversations import Conversation


def session(message: bytes, kind: int = 0) -> bytes:
    return bytes((kind,)) + len(message).to_bytes(3, "big") + message


def netbios(name: bytes, kind: int = 0x20) -> bytes:
    """A name of up to 15 bytes, encoded (RFC 1001 section 14.1); `kind` is its last byte."""
    letters = b"".join(bytes((0x41 + (byte >> 4), 0x41 + (byte & 15))) for byte in name.ljust(15) + bytes((kind,)))
    return b"\x20" + letters + b"\0"


def old(command: int, words: bytes = b"", text: bytes = b"", *, answer: bool = False) -> bytes:
    """Of SMB 1, in Unicode."""
    flags = b"\x98" if answer else b"\x18"
    header = b"\xffSMB" + bytes((command,)) + bytes(4) + flags + b"\x43\xc8" + bytes(20)
    return header + bytes((len(words) // 2,)) + words + len(text).to_bytes(2, "little") + text


def new(command: int, body: bytes, *, after: int = 0, answer: bool = False, status: int = 0) -> bytes:
    """Of SMB 2."""
    numbers = status.to_bytes(4, "little") + command.to_bytes(2, "little") + b"\1\0"
    flags = answer.to_bytes(4, "little")
    return b"\xfeSMB\x40\0\1\0" + numbers + flags + after.to_bytes(4, "little") + bytes(40) + body


def negotiate(*dialects: int) -> bytes:
    body = b"\x24\0" + len(dialects).to_bytes(2, "little") + bytes(32)
    return new(0, body + b"".join(each.to_bytes(2, "little") for each in dialects))


def chosen(dialect: int) -> bytes:
    return session(new(0, b"\x41\0\1\0" + dialect.to_bytes(2, "little") + bytes(58), answer=True))


def tree_connect(path: str, *, after: int = 0) -> bytes:
    text = path.encode("utf-16-le")
    return new(3, b"\x09\0\0\0\x48\0" + len(text).to_bytes(2, "little") + text, after=after)


REQUEST = session(netbios(b"*SMBSERVER") + netbios(b"WINXP", 0), 0x81)
NEGOTIATE_1 = old(0x72, b"", b"\2NT LM 0.12\0\2SMB 2.002\0\2SMB 2.???\0")
PATH = "\\\\files\\PÜB".encode("utf-16-le")
# Its path begins behind 32 + 1 + 8 + 2 bytes and a password of 1: aligned.
TREE_CONNECT_1 = old(0x75, b"\xff\0\0\0\x08\0\1\0", b"\0" + PATH + b"\0\0?????\0")
CREATE = new(5, b"\x39\0" + bytes(54), after=120)
CLOSE = new(6, b"\x18\0" + bytes(22))


def _said(command: bytes, version: bytes, **fields: Value) -> tuple[str, dict[str, Value]]:
    said: dict[str, Value] = {"smb.command": command, **{f"smb.{name}": value for name, value in fields.items()}}
    return "smb", said | ({"smb.version": version} if version else {})


_NAMES = (b"NT LM 0.12", b"SMB 2.002", b"SMB 2.???")

CONVERSATIONS = [
    Conversation(
        "1",
        "smb",
        (
            (TO_SERVER, REQUEST),
            (TO_CLIENT, session(b"", 0x82)),
            (TO_SERVER, session(b"", 0x85) + session(NEGOTIATE_1)),
            (TO_CLIENT, session(old(0x72, bytes(34), b"guid", answer=True))),
            (TO_SERVER, session(old(0x73, b"\xff" + bytes(25), b"NTLMSSP"))),
            (TO_CLIENT, session(b"", 0x85) + session(old(0x73, b"\xff" + bytes(5), b"Unix", answer=True))),
            (TO_SERVER, session(TREE_CONNECT_1)),
            (TO_SERVER, session(old(0x2F, b"\xff" + bytes(27), b"x" * 5000)) + session(b"", 0x85)),
            (TO_SERVER, session(old(0x71))),
        ),
        (
            _said(b"negotiate", b"1", dialects=_NAMES),
            _said(b"session_setup", b"1"),
            _said(b"tree_connect", b"1", share="\\\\files\\PÜB".encode()),
            _said(b"write", b"1"),
            _said(b"tree_disconnect", b"1"),
        ),
    ),
    Conversation(
        "3.1.1",
        "smb",
        (
            (TO_SERVER, session(NEGOTIATE_1)),
            (TO_CLIENT, chosen(0x2FF)),
            (TO_SERVER, session(negotiate(0x202, 0x300, 0x311) + b"contexts")),
            (TO_CLIENT, chosen(0x311)),
            (TO_SERVER, session(new(1, b"\x19\0" + bytes(22) + b"NTLMSSP"))),
            (TO_CLIENT, session(new(1, b"\x09\0\0\0\x48\0\0\0", answer=True))),
            (TO_SERVER, session(tree_connect("\\\\files\\pub"))),
            (TO_SERVER, session(CREATE + CLOSE)),
            (TO_SERVER, session(b"\xfdSMB" + bytes(60))),
            (TO_CLIENT, session(b"\xfdSMB" + bytes(60))),
        ),
        (
            _said(b"negotiate", b"1", dialects=_NAMES),
            _said(b"negotiate", b"", dialects=(b"2.0.2", b"3.0", b"3.1.1")),
            _said(b"session_setup", b"3.1.1"),
            _said(b"tree_connect", b"3.1.1", share=b"\\\\files\\pub"),
            _said(b"create", b"3.1.1"),
            _said(b"close", b"3.1.1"),
            _said(b"encrypted", b"3.1.1"),
        ),
    ),
]
