"""SMTP: smtplib and Postfix as clients, aiosmtpd as server."""

from __future__ import annotations

from parsers.base import TO_CLIENT, TO_SERVER, Value
from tests.contract.conversations import Conversation

GREETING = b"220 mail.lab Python SMTP 1.4.6\r\n"
HELLO = b"250-mail.lab\r\n250-SIZE 33554432\r\n250-8BITMIME\r\n250-AUTH LOGIN PLAIN\r\n250-STARTTLS\r\n250 HELP\r\n"
MESSAGE = b"Subject: x\r\n\r\n..dot\r\nMAIL FROM:<not@a.command>\r\n.\r\n"


def said(command: bytes, **fields: bytes) -> tuple[str, dict[str, Value]]:
    return "smtp", {"smtp.command": command, **{f"smtp.{name}": value for name, value in fields.items()}}


_QUIT = said(b"QUIT")

CONVERSATIONS = [
    Conversation(
        "login and a message",
        "smtp",
        (
            (TO_CLIENT, GREETING),
            (TO_SERVER, b"ehlo me.lab\r\n"),
            (TO_CLIENT, HELLO),
            (TO_SERVER, b"AUTH LOGIN dXNlcg==\r\n"),
            (TO_CLIENT, b"334 UGFzc3dvcmQA\r\n"),
            (TO_SERVER, b"c2VjcmV0\r\n"),
            (TO_CLIENT, b"235 2.7.0 Authentication successful\r\n"),
            (TO_SERVER, b"mail FROM:<a@lab.example> size=74\r\n"),
            (TO_CLIENT, b"250 OK\r\n"),
            (TO_SERVER, b"rcpt TO:<b@lab.example>\r\n"),
            (TO_CLIENT, b"250 OK\r\n"),
            (TO_SERVER, b"data\r\n"),
            (TO_CLIENT, b"354 End data with <CR><LF>.<CR><LF>\r\n"),
            (TO_SERVER, MESSAGE),
            (TO_CLIENT, b"250 OK\r\n"),
            (TO_SERVER, b"QUIT\r\n"),
            (TO_CLIENT, b"221 Bye\r\n"),
        ),
        (
            said(b"ehlo", helo=b"me.lab"),
            said(b"AUTH"),
            said(b"mail", sender=b"a@lab.example"),
            said(b"rcpt", sender=b"a@lab.example", recipient=b"b@lab.example"),
            said(b"data"),
            _QUIT,
        ),
    ),
    Conversation(
        "pipelined, and chunks",
        "smtp",
        (
            (TO_CLIENT, GREETING),
            (TO_SERVER, b"EHLO relay.lab\r\n"),
            (TO_CLIENT, HELLO),
            (TO_SERVER, b"MAIL FROM:<>\r\nRCPT TO:<b@lab.example>\r\nRCPT TO:<c@lab.example>\r\nDATA\r\n"),
            (TO_CLIENT, b"250 OK\r\n250 OK\r\n550 no\r\n354 go\r\n"),
            (TO_SERVER, b".\r\n"),
            (TO_CLIENT, b"250 OK\r\n"),
            (TO_SERVER, b"MAIL FROM:<d@lab.example>\r\nRCPT TO:<e@lab.example>\r\nBDAT 9\r\nQUIT\r\n.\r\n"),
            (TO_SERVER, b"BDAT 3 LAST\r\n\r\r\nQUIT\r\n"),
            (TO_CLIENT, b"250 OK\r\n250 OK\r\n250 OK\r\n250 OK\r\n221 Bye\r\n"),
        ),
        (
            said(b"EHLO", helo=b"relay.lab"),
            said(b"MAIL", sender=b""),
            said(b"RCPT", sender=b"", recipient=b"b@lab.example"),
            said(b"RCPT", sender=b"", recipient=b"c@lab.example"),
            said(b"DATA"),
            said(b"MAIL", sender=b"d@lab.example"),
            said(b"RCPT", sender=b"d@lab.example", recipient=b"e@lab.example"),
            said(b"BDAT"),
            said(b"BDAT"),
            _QUIT,
        ),
    ),
    Conversation(
        "DATA refused",
        "smtp",
        (
            (TO_SERVER, b"HELO me\r\nDATA\r\n"),
            (TO_CLIENT, b"220 hi\r\n250 hi\r\n503 no\r\n"),
            (TO_SERVER, b"QUIT\r\n"),
        ),
        (said(b"HELO", helo=b"me"), said(b"DATA"), _QUIT),
    ),
    Conversation(
        "STARTTLS",
        "smtp",
        (
            (TO_CLIENT, GREETING),
            (TO_SERVER, b"EHLO me.lab\r\n"),
            (TO_CLIENT, HELLO),
            (TO_SERVER, b"STARTTLS\r\n"),
            (TO_CLIENT, b"220 Ready to start TLS\r\n"),
        ),
        (said(b"EHLO", helo=b"me.lab"), said(b"STARTTLS")),
    ),
]
