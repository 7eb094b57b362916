"""SMTP (RFC 5321) with its extensions for pipelining (2920), chunks (3030), TLS (3207) and authentication (4954).

Every command is a unit. Of the server only replies are read, and of these which command they answer: that says whether
what follows DATA is a message, what follows AUTH a secret and what follows STARTTLS another protocol. Until then what
the client sends behind these commands waits; plain text behind STARTTLS is refused at once, since a server that reads
it after its handshake takes it for authenticated (CVE-2011-0411). Messages and secrets are passed without being kept.
What servers disagree on is refused: line ends other than CR LF, also in a message ("SMTP smuggling", CVE-2023-51764),
a second MAIL before the first one's transaction is over, commands that exchange the roles, LMTP's LHLO.
"""

from __future__ import annotations

import re
from collections import deque
from dataclasses import dataclass
from enum import Enum, auto
from typing import Final

from parsers.base import TO_SERVER, Field, ParseError, Said, Value
from parsers.stream import StreamParser


@dataclass(frozen=True, slots=True)
class Limits:
    """Bounds of one connection's parser."""

    # RFC 5321 section 4.5.3.1.4 says 512 bytes; RFC 4954 section 4 makes that 12,288 with an initial response.
    command: int = 12288
    # 512 bytes in section 4.5.3.1.5; real greetings and refusals are longer.
    reply: int = 4096
    # Commands that wait for their reply: a window of 64 KiB full of RCPT TO.
    unanswered: int = 4096
    # What BDAT may announce; servers take 10 to 150 MB.
    chunk: int = 1 << 32


class _Mode(Enum):
    """What the client's next bytes are."""

    COMMAND = auto()
    CONTENT = auto()
    SECRET = auto()
    UNKNOWN = auto()  # until the server has answered


_END: Final = b"\r\n.\r\n"
_COMMAND: Final = re.compile(rb"([A-Za-z][A-Za-z0-9-]{0,31})(?: (.*))?")
# RFC 5321 section 4.1.2; many clients put a space behind the colon, and some leave the brackets away.
_PATH: Final = re.compile(
    rb"(?:FROM|TO): ?"
    rb"(?:<(?:@[^:<>\"\x00-\x20]*+:)?((?:\"(?:[^\"\\]|\\.)*+\"|[^\"<>\x00-\x20])*+)>|([^\"<>\x00-\x20]++))"
    rb"(?: +[A-Z0-9][A-Z0-9-]*+(?:=[^ =\x00-\x1f]++)?)*+ *",
    re.IGNORECASE,
)
_CHUNK: Final = re.compile(rb"([0-9]{1,20})( LAST)? *", re.IGNORECASE)
_REPLY: Final = re.compile(rb"[2-5][0-9][0-9](?:[ -].*)?", re.DOTALL)
_BARE: Final = re.compile(rb"(?<!\r)\n|\r\.")
_SWAP: Final = frozenset((b"TURN", b"ATRN"))
_LAST: Final = b"BDAT LAST"
_HELLO: Final = frozenset((b"EHLO", b"HELO"))


class SmtpParser(StreamParser):
    """One connection; see `parsers.base.Parser`."""

    name = "smtp"
    fields = (
        Field("smtp.command", "the command's verb", folded=True),
        Field("smtp.helo", "name that the client gives in EHLO or HELO", folded=True),
        Field("smtp.sender", "envelope sender of MAIL, and of the RCPT that follow; empty for bounces", folded=True),
        Field("smtp.recipient", "envelope recipient of RCPT", folded=True),
    )

    def __init__(self, limits: Limits | None = None) -> None:
        super().__init__()
        self.limits = limits or Limits()
        self._mode = _Mode.COMMAND
        self._unanswered: deque[bytes] = deque((b"",))  # the greeting
        self._sender: bytes | None = None  # of the transaction
        self._tail = b""  # of a message: what its end may begin with
        self._code = b""  # of a reply that goes on

    def pending(self, direction: int) -> bool:
        """A command is incomplete."""
        return self._mode == _Mode.COMMAND and super().pending(direction)

    def _read(self, direction: int, data: bytes, at: int) -> int:
        if direction != TO_SERVER:
            return self._reply(data, at)
        if self._mode == _Mode.UNKNOWN:
            # RFC 3207 section 4: nothing but a handshake follows.
            if self._unanswered[-1] == b"STARTTLS" and data[at] != 0x16:
                raise ParseError("behind_starttls")
            return self._hold(direction)
        if self._mode == _Mode.CONTENT:
            return self._content(data, at)
        end = self._line(direction, data, at, self.limits.command)
        if end:
            if self._mode == _Mode.SECRET:
                self._expect(b"AUTH", _Mode.UNKNOWN)
            else:
                self._command(data[at : end - 2])
        return end

    def _command(self, line: bytes) -> None:
        match = _COMMAND.fullmatch(line)
        if match is None:
            raise ParseError("command")
        verb, argument = match[1].upper(), match[2]
        said: dict[str, Value] = {"smtp.command": match[1]}
        mode = _Mode.COMMAND
        if verb in _HELLO:
            said["smtp.helo"] = (argument or b"").strip(b" ")
        elif verb == b"MAIL":
            if self._sender is not None:
                raise ParseError("nested_mail")
            said["smtp.sender"] = self._sender = _path(b"FROM", argument)
        elif verb == b"RCPT":
            if self._sender is not None:
                said["smtp.sender"] = self._sender
            said["smtp.recipient"] = _path(b"TO", argument)
        elif verb == b"RSET" and not argument:
            self._sender = None
        elif verb == b"BDAT":
            verb = self._chunk(argument)
        elif verb in {b"DATA", b"AUTH", b"STARTTLS"}:
            mode = _Mode.UNKNOWN
        elif verb in _SWAP or verb == b"LHLO":
            raise ParseError(verb.decode().lower())
        self._expect(verb, mode)
        self._events.append(Said(self.name, said))

    def _expect(self, verb: bytes, mode: _Mode) -> None:
        self._unanswered.append(verb)
        if len(self._unanswered) > self.limits.unanswered:
            raise ParseError("unanswered")
        self._mode = mode

    def _chunk(self, argument: bytes | None) -> bytes:
        match = _CHUNK.fullmatch(argument or b"")
        if match is None or int(match[1]) > self.limits.chunk:
            raise ParseError("chunk")
        # Servers read a chunk that they refuse, RFC 3030 section 2.
        self._skip[TO_SERVER] = int(match[1])
        return _LAST if match[2] else b"BDAT"

    def _content(self, data: bytes, at: int) -> int:
        tail = self._tail
        text = tail + data[at:]
        end = text.find(_END)
        text = text[: end + len(_END)] if end >= 0 else text
        if text.count(b"\n") != text.count(b"\r\n") or b"\r." in text:
            bare = _BARE.search(text)
            if bare:
                code = "bare_lf" if bare[0] == b"\n" else "bare_cr"
                raise ParseError(code, bare.start() - len(tail))
        if end >= 0:
            self._sender = None
            self._expect(b"", _Mode.COMMAND)
        else:
            self._tail = next((_END[:size] for size in (4, 3, 2, 1) if text.endswith(_END[:size])), b"")
        return at + len(text) - len(tail)

    def _reply(self, data: bytes, at: int) -> int:
        end = self._line(1 - TO_SERVER, data, at, self.limits.reply)
        if not end:
            return 0
        line = data[at : end - 2]
        code = line[:3]
        if not _REPLY.fullmatch(line) or (self._code and code != self._code):
            raise ParseError("reply")
        self._code = code if line[3:4] == b"-" else b""
        if not self._code:
            self._answered(code)
        return end

    def _answered(self, code: bytes) -> None:
        if not self._unanswered:
            # Section 3.8: a server that shuts down says so at any time.
            if code != b"421":
                raise ParseError("unasked_reply")
            return
        verb = self._unanswered.popleft()
        done = code[:1] == b"2"
        if (verb == b"MAIL" and code >= b"4") or (verb in _HELLO and done) or (verb == _LAST and done):
            self._sender = None
        if code[:1] == b"3" and code != {b"DATA": b"354", b"AUTH": b"334"}.get(verb):
            raise ParseError("reply")
        if verb == b"STARTTLS" and code == b"220":
            self._switch("tls")
        elif verb in {b"STARTTLS", b"DATA", b"AUTH"}:
            self._mode = _Mode.COMMAND
            if code == b"354":
                self._mode, self._tail = _Mode.CONTENT, _END[:2]
            elif code == b"334":
                self._mode = _Mode.SECRET
            elif verb == b"DATA" and done:
                raise ParseError("reply")
            self._release(TO_SERVER)


def _path(word: bytes, argument: bytes | None) -> bytes:
    """The mailbox, without a source route: servers ignore it (RFC 5321 appendix C)."""
    match = _PATH.fullmatch(argument or b"")
    if match is None or (argument or b"")[: len(word)].upper() != word:
        raise ParseError("path")
    return match[1] if match[1] is not None else match[2]
