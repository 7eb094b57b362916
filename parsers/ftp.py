"""FTP's control connection (RFC 959, 2228, 2389, 4217): every command is a unit.

Of the server only replies are read (section 4.2), and of these which command they answer: behind AUTH the client waits
for it, since 234 means that TLS follows; plain commands behind AUTH are refused. So is a second user behind a login:
whose the commands behind it are is the server's choice. Passwords are not kept. Data connections are connections of
their own: which ones come is said by PORT, EPRT, PASV, EPSV and their replies, and is not looked at here.
"""

from __future__ import annotations

import re
from collections import deque
from dataclasses import dataclass
from typing import Final

from parsers.base import TO_CLIENT, TO_SERVER, Field, ParseError, Said, Value
from parsers.stream import StreamParser


@dataclass(frozen=True, slots=True)
class Limits:
    """Bounds of one connection's parser."""

    # A command with a path: PATH_MAX and its verb; pyftpdlib takes 2 KiB, vsftpd and ProFTPD 4.
    command: int = 4096 + 128
    reply: int = 8192
    # Commands that wait for their reply; clients rarely have more than one.
    unanswered: int = 1024


# Telnet's interrupt and synch that go before ABOR (section 4.1.3, "FTP service commands").
_TELNET: Final = re.compile(rb"(?:\xff[\xf2-\xf4])+")
_COMMAND: Final = re.compile(rb"([A-Za-z]{1,16})(?: (.*))?", re.DOTALL)
_REPLY: Final = re.compile(rb"[1-6][0-9][0-9](?:[ -].*)?", re.DOTALL)
_SECRETS: Final = frozenset((b"PASS", b"ACCT", b"ADAT"))
_LOGINS: Final = frozenset((b"USER", b"PASS", b"ACCT"))
# RFC 2228: with a protected channel commands are wrapped.
_WRAPPED: Final = frozenset((b"MIC", b"CONF", b"ENC"))


class FtpParser(StreamParser):
    """One control connection; see `parsers.base.Parser`."""

    name = "ftp"
    fields = (
        Field("ftp.command", "the command's verb", folded=True),
        Field("ftp.argument", "what follows the verb; missing when nothing does, and behind PASS, ACCT and ADAT"),
        Field("ftp.user", "name of the last USER, also of the commands behind it"),
    )

    def __init__(self, limits: Limits | None = None) -> None:
        super().__init__()
        self.limits = limits or Limits()
        self._unanswered: deque[bytes] = deque((b"",))  # the greeting
        self._code = b""  # of a reply of several lines
        self._user: bytes | None = None
        self._logged = False

    def _read(self, direction: int, data: bytes, at: int) -> int:
        if direction == TO_CLIENT:
            return self._reply(data, at)
        if self._unanswered and self._unanswered[-1] == b"AUTH":
            # RFC 4217 section 4.2: nothing but a handshake follows 234, and a refusal comes before the next command.
            if data[at] != 0x16:
                raise ParseError("behind_auth")
            return self._hold(direction)
        end = self._line(direction, data, at, self.limits.command)
        if end:
            self._command(data[at : end - 2])
        return end

    def _command(self, line: bytes) -> None:
        telnet = _TELNET.match(line)
        match = _COMMAND.fullmatch(line, telnet.end() if telnet else 0)
        if match is None:
            raise ParseError("command")
        verb, argument = match[1].upper(), match[2]
        if verb in _WRAPPED:
            raise ParseError("protected")
        said: dict[str, Value] = {"ftp.command": match[1]}
        if verb == b"USER":
            self._login(argument or b"")
        if argument and verb not in _SECRETS:
            said["ftp.argument"] = argument
        if self._user is not None:
            said["ftp.user"] = self._user
        self._unanswered.append(verb)
        if len(self._unanswered) > self.limits.unanswered:
            raise ParseError("unanswered")
        self._events.append(Said(self.name, said))

    def _login(self, user: bytes) -> None:
        # Servers that refuse another user (vsftpd) go on with the one before, others take it.
        if self._user is not None and user != self._user and (self._logged or self._unanswered):
            raise ParseError("second_user")
        self._user = user

    def _reply(self, data: bytes, at: int) -> int:
        end = self._line(TO_CLIENT, data, at, self.limits.reply)
        if not end:
            return 0
        line = data[at : end - 2]
        if self._code:
            # Any lines up to the same code with a space.
            if line[:4] != self._code + b" " and line != self._code:
                return end
        elif not _REPLY.fullmatch(line):
            raise ParseError("reply")
        elif line[3:4] == b"-":
            self._code = line[:3]
            return end
        self._code = b""
        self._answered(line[:3])
        return end

    def _answered(self, code: bytes) -> None:
        if code[:1] == b"1":
            return  # another one follows
        if not self._unanswered:
            # A transfer that ABOR ends has two, and a server that shuts down says so at any time.
            if code in {b"226", b"225", b"426", b"421"}:
                return
            raise ParseError("unasked_reply")
        verb = self._unanswered.popleft()
        if verb in _LOGINS and code in {b"230", b"232"}:
            self._logged = True
        elif verb == b"REIN" and code == b"220":
            self._user, self._logged = None, False
        elif verb == b"AUTH":
            if code == b"234":
                self._switch("tls")
            self._release(TO_SERVER)
