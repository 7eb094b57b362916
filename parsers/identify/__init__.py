"""What the first bytes of a flow are: match, no match, or need more.

Content only; ports are never evidence. Each check looks at one side's bytes from its very first, or at both sides', and
decides as early as its grammar allows; bpf/lib/identify.h holds a part of the same. But for HTTP/1's request line and
the lines of text protocols, none looks at more than the first 1,100 bytes. The grammars exclude each other once
complete; while two could still match, the answer is need more. Who asks sets the bound after which it is unknown
(`slowpath.core.model.Limits`).

A module a family; `DIALOGUES` are the protocols whose one side is not enough: Redis and Memcached share commands, SMTP
and FTP their greeting.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import IntEnum
from typing import Final

from parsers.identify.answers import ASK, LIKELY, MORE, NO, YES, Check, Dialogue
from parsers.identify.brokers import amqp, kafka, mqtt
from parsers.identify.databases import mongodb, mysql_server, postgres_client
from parsers.identify.dns import dns_message, dns_query_header, dns_tcp
from parsers.identify.encrypted import quic, ssh, tls_client, tls_server
from parsers.identify.greetings import ftp, smtp
from parsers.identify.http import H2_PREFACE, http2_client, http2_server, http_request, http_response
from parsers.identify.stores import memcached, memcached_udp, redis
from parsers.identify.windows import rdp, smb_client, smb_server

TCP: Final = 6
UDP: Final = 17


class Confidence(IntEnum):
    """How much a match is worth. Only what is SURE may be a reason to allow; LIKELY is a name for records, and the flow
    is `unknown` to policy and rules.
    """

    LIKELY = 1  # both sides agree in shape, as others' might: the beginning is missing, or says nothing of itself
    SURE = 2  # a whole grammar fits, and no other's does


@dataclass(frozen=True, slots=True)
class Match:
    """The flow is this protocol, by its name in design.md. `malformed`: a header beyond doubt, and a body that
    its grammar forbids (the kernel says need more, the inspector calls it a parse error).
    """

    protocol: str
    malformed: bool = False
    confidence: Confidence = Confidence.SURE


@dataclass(frozen=True, slots=True)
class NoMatch:
    """No byte that follows can make it one of the known protocols."""


@dataclass(frozen=True, slots=True)
class NeedMore:
    """Too short to tell. `asked`: the client's bytes are whole in these protocols, whose servers' answers tell."""

    asked: tuple[str, ...] = ()


Answer = Match | NoMatch | NeedMore

NO_MATCH: Final = NoMatch()
NEED_MORE: Final = NeedMore()

_TO_SERVER: Final[dict[str, Check]] = {
    "http": http_request,
    "http2": http2_client,
    "tls": tls_client,
    "ssh": ssh,
    "postgres": postgres_client,
    "mongodb": mongodb,
    "dns": dns_tcp,
    "kafka": kafka,
    "amqp": amqp,
    "smb": smb_client,
}
_TO_CLIENT: Final[dict[str, Check]] = {
    "http": http_response,
    "tls": tls_server,
    "ssh": ssh,
    "mysql": mysql_server,
    "mongodb": lambda data: mongodb(data, server=True),
    "dns": dns_tcp,
    "amqp": amqp,
    "smb": smb_server,
}
DIALOGUES: Final[dict[str, Dialogue]] = {
    "redis": redis,
    "memcached": memcached,
    "mqtt": mqtt,
    "smtp": smtp,
    "ftp": ftp,
    "rdp": rdp,
}
SUPPORTED: Final = frozenset((*_TO_SERVER, *_TO_CLIENT, *DIALOGUES, "quic"))
_MATCHES: Final = {name: Match(name) for name in SUPPORTED}

# By the first byte, which rules most of them out: nothing that follows makes a match of what it forbids.
_FIRST: Final = [bytes((byte,)) for byte in range(256)]
_CLIENT_BY_FIRST: Final = [
    {name: check for name, check in _TO_SERVER.items() if check(first) != NO} for first in _FIRST
]
_SERVER_BY_FIRST: Final = [
    {name: check for name, check in _TO_CLIENT.items() if check(first) != NO} for first in _FIRST
]
_ASKED_BY_FIRST: Final = [
    {name: check for name, check in DIALOGUES.items() if check(first, b"") != NO} for first in _FIRST
]
_GREETED_BY_FIRST: Final = [
    {name: check for name, check in DIALOGUES.items() if check(b"", first) != NO} for first in _FIRST
]


def identify(to_server: bytes, to_client: bytes, l4: int = TCP) -> Answer:
    """What the flow is, from the first bytes of either side (each from its beginning); of UDP from a datagram."""
    if l4 == UDP:
        return _datagram(to_server, to_client)
    if l4 != TCP or not (to_server or to_client):
        return NEED_MORE if l4 == TCP else NO_MATCH
    dialogues: dict[str, Dialogue] = {}
    client: dict[str, Check] = {}
    server: dict[str, Check] = {}
    if to_server:
        client = _CLIENT_BY_FIRST[to_server[0]]
        dialogues = _ASKED_BY_FIRST[to_server[0]]
    if to_client:
        server = _SERVER_BY_FIRST[to_client[0]]
        greeted = _GREETED_BY_FIRST[to_client[0]]
        dialogues = {**dialogues, **greeted} if dialogues else greeted
        if not to_server:
            # Servers may speak first; the client's preface decides.
            server = {**server, "http2": http2_server}
    both = {}
    for name, dialogue in dialogues.items():
        both[name] = dialogue(to_server, to_client)
    states = list(both.values())
    matches = [name for name, state in both.items() if state == YES] if YES in states else []
    settled = False
    for checks, data in ((client, to_server), (server, to_client)):
        side = list(both.values())
        for name, check in checks.items():
            state = check(data)
            side.append(state)
            if state == YES and name not in matches:
                matches.append(name)
        # What the other side may still become does not matter; what this side may become does.
        settled = settled or (YES in side and MORE not in side)
        states += side
    if len(matches) > 1:
        return NO_MATCH
    if matches:
        return _MATCHES[matches[0]] if settled else NEED_MORE
    if MORE in states:
        return NEED_MORE
    if ASK in states:
        return NeedMore(tuple(name for name in ("redis", "memcached") if both.get(name) == ASK))
    if LIKELY not in states:
        return NO_MATCH
    likely = [name for name, state in both.items() if state == LIKELY]
    return Match(likely[0], confidence=Confidence.LIKELY) if len(likely) == 1 else NO_MATCH


def _datagram(to_server: bytes, to_client: bytes) -> Answer:
    if to_server and dns_message(to_server, whole=True) == YES:
        return _MATCHES["dns"]
    if to_client and dns_message(to_client, whole=True) == YES:
        return _MATCHES["dns"]
    if dns_query_header(to_server):
        return Match("dns", malformed=True)
    if quic(to_server) == YES:
        return _MATCHES["quic"]
    if YES in {memcached_udp(to_server), memcached_udp(to_client, reply=True)}:
        return _MATCHES["memcached"]
    return NO_MATCH


__all__ = [
    "H2_PREFACE", "NEED_MORE", "NO_MATCH", "SUPPORTED", "TCP", "UDP", "Answer", "Confidence", "Match", "NeedMore",
    "NoMatch", "identify",
]  # fmt: skip
