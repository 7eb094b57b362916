"""SMTP and FTP: servers of both greet with 220; the greeting's text tells, or else what the client says."""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Final

from parsers.identify.answers import ASK, LIKELY, MORE, NO, YES

_TEXT: Final = rb"[^\x00-\x08\x0a-\x1f\x7f]*"
# RFC 5321 §4.2, RFC 959 §4.2: three digits, then SP or "-" and text, or the line's end.
_REPLY = re.compile(rb"[1-5][0-9]{2}(?:[ -]" + _TEXT + rb")?\r?\n")
_REPLY_BEGUN = re.compile(rb"(?:[1-5](?:[0-9](?:[0-9](?:[ -]" + _TEXT + rb")?)?)?)\r?")
# What a server says first: it is ready, it is not, or nobody is let in.
_GREETINGS: Final = (b"220", b"120", b"421", b"530", b"554")
_VERB = re.compile(rb"[A-Za-z]{1,9}")
_ARGUMENT = re.compile(rb"(?: " + _TEXT + rb")?\r?\n")
_ARGUMENT_BEGUN = re.compile(rb"(?: " + _TEXT + rb")?\r?")
_LINE_MAX: Final = 1024


@dataclass(frozen=True, slots=True)
class _Tongue:
    """How one of the two is told from the other. `word` in a greeting: a word of its own, not a part of a name."""

    word: re.Pattern[bytes]
    only: frozenset[bytes]  # verbs that are its alone, whatever the server says
    verbs: frozenset[bytes]  # behind a greeting its alone
    later: frozenset[bytes]  # in the middle of a session

    def known(self, verb: bytes, *, whole: bool) -> bool:
        """The verb, or what it may become, can be one of these."""
        every = self.only | self.verbs | self.later | _SHARED
        return verb in every if whole else any(each.startswith(verb) for each in every)


_SHARED: Final = frozenset((b"QUIT", b"NOOP", b"HELP", b"STAT"))
_SMTP: Final = _Tongue(
    re.compile(rb"(?<![^\s(-])E?SMTP(?![^\s,;:)/])", re.IGNORECASE),
    frozenset((b"EHLO", b"HELO", b"LHLO")),
    frozenset((b"VRFY", b"EXPN", b"STARTTLS", b"RSET")),
    frozenset((b"MAIL", b"RCPT")),
)
_FTP: Final = _Tongue(
    re.compile(rb"(?<![^\s(-])[A-Za-z-]*FTPd?(?![^\s,;:)/])|FileZilla", re.IGNORECASE),
    frozenset(),
    frozenset((
        b"USER", b"PASS", b"ACCT", b"FEAT", b"SYST", b"OPTS", b"HOST", b"CLNT", b"AUTH", b"PBSZ", b"PROT", b"ADAT",
        b"REIN", b"LANG", b"CSID", b"SITE",
    )),
    # NNTP and POP3 have none of these with a reply in digits.
    frozenset((
        b"PASV", b"EPSV", b"PORT", b"EPRT", b"RETR", b"STOR", b"STOU", b"APPE", b"NLST", b"MLSD", b"MLST", b"MDTM",
        b"CWD", b"CDUP", b"PWD", b"MKD", b"RMD", b"RNFR", b"RNTO", b"DELE", b"ABOR", b"ALLO",
    )),
)  # fmt: skip


def smtp(to_server: bytes, to_client: bytes) -> int:
    """A greeting that says SMTP or ESMTP, and not FTP. Or EHLO, HELO or LHLO, and a reply of any kind; or a greeting
    that says neither, and VRFY and the like. MAIL and RCPT with a reply agree in shape.
    """
    return _dialogue(to_server, to_client, _SMTP, _FTP)


def ftp(to_server: bytes, to_client: bytes) -> int:
    """A greeting that says FTP, and not SMTP. Or one that says neither, and USER, AUTH and the like. A command of a
    transfer with a reply agrees in shape.
    """
    return _dialogue(to_server, to_client, _FTP, _SMTP)


def _dialogue(to_server: bytes, to_client: bytes, own: _Tongue, other: _Tongue) -> int:
    command, verb = _command(to_server, own)
    reply, text = _reply(to_client)
    if NO in {command, reply}:
        return NO
    greeting = text[:3] in _GREETINGS
    if greeting:
        says, denies = (tongue.word.search(text) is not None for tongue in (own, other))
        if says != denies:
            return YES if says else NO
    if MORE in {command, reply}:
        return MORE
    if ASK in {command, reply}:
        return ASK if greeting or reply == ASK else NO
    if verb in own.only or (greeting and verb in own.verbs):
        return YES
    return LIKELY if verb in own.later else NO


def _command(data: bytes, tongue: _Tongue) -> tuple[int, bytes]:
    """(answer, the verb in capitals) of a client's first line; ASK where it said nothing."""
    if not data:
        return ASK, b""
    found = _VERB.match(data)
    verb = found[0].upper() if found else b""
    rest = data[len(verb) : _LINE_MAX]
    if not verb or not tongue.known(verb, whole=bool(rest)):
        return NO, b""
    if _ARGUMENT.match(rest):
        return YES, verb
    return (MORE if _ARGUMENT_BEGUN.fullmatch(rest) and len(data) < _LINE_MAX else NO), b""


def _reply(data: bytes) -> tuple[int, bytes]:
    """(answer, the whole lines) of what a server said; ASK where it said nothing."""
    if not data:
        return ASK, b""
    head = data[:_LINE_MAX]
    if _REPLY.match(head):
        return YES, head[: head.rindex(b"\n")]
    return (MORE if _REPLY_BEGUN.fullmatch(head) and len(head) < _LINE_MAX else NO), b""
