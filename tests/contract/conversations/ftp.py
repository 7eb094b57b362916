"""FTP: ftplib at pyftpdlib."""

from __future__ import annotations

from parsers.base import TO_CLIENT, TO_SERVER, Value
from tests.contract.conversations import Conversation

GREETING = b"220 pyftpdlib 2.0.1 ready.\r\n"
FEATURES = b"211-Features supported:\r\n EPRT\r\n 211 no end\r\n UTF8\r\n211 End FEAT.\r\n"


def _said(command: bytes, argument: bytes = b"", user: bytes = b"") -> tuple[str, dict[str, Value]]:
    said: dict[str, Value] = {"ftp.command": command}
    if argument:
        said["ftp.argument"] = argument
    if user:
        said["ftp.user"] = user
    return "ftp", said


CONVERSATIONS = [
    Conversation(
        "login and a file",
        "ftp",
        (
            (TO_CLIENT, GREETING),
            (TO_SERVER, b"USER joe\r\n"),
            (TO_CLIENT, b"331 Username ok, send password.\r\n"),
            (TO_SERVER, b"PASS secret\r\n"),
            (TO_CLIENT, b"230-Welcome\r\n230 Login successful.\r\n"),
            (TO_SERVER, b"feat\r\n"),
            (TO_CLIENT, FEATURES),
            (TO_SERVER, b"PASV\r\n"),
            (TO_CLIENT, b"227 Entering passive mode (127,0,0,1,180,93).\r\n"),
            (TO_SERVER, b"STOR a b.txt\r\n"),
            (TO_CLIENT, b"125 Data connection already open. Transfer starting.\r\n226 Transfer complete.\r\n"),
            (TO_SERVER, b"\xff\xf4\xff\xf2ABOR\r\n"),
            (TO_CLIENT, b"225 ABOR command successful\r\n"),
            (TO_SERVER, b"QUIT\r\n"),
            (TO_CLIENT, b"221 Goodbye.\r\n"),
        ),
        (
            _said(b"USER", b"joe", b"joe"),
            _said(b"PASS", user=b"joe"),
            _said(b"feat", user=b"joe"),
            _said(b"PASV", user=b"joe"),
            _said(b"STOR", b"a b.txt", b"joe"),
            _said(b"ABOR", user=b"joe"),
            _said(b"QUIT", user=b"joe"),
        ),
    ),
    Conversation(
        "TLS refused and taken",
        "ftp",
        (
            (TO_CLIENT, GREETING),
            (TO_SERVER, b"AUTH GSSAPI\r\n"),
            (TO_CLIENT, b"504 no\r\n"),
            (TO_SERVER, b"AUTH TLS\r\n"),
            (TO_CLIENT, b"234 AUTH TLS successful.\r\n"),
        ),
        (_said(b"AUTH", b"GSSAPI"), _said(b"AUTH", b"TLS")),
    ),
]
