"""DNS messages over UDP (a datagram each) and TCP (two bytes of length before each, RFC 1035 §4.2.2, RFC 7766).

Read are queries, notifications (RFC 1996), updates (RFC 2136) and their responses, zone transfers (RFC 5936, RFC 1995),
OPT (RFC 6891) with client subnet (RFC 7871), and multicast DNS as far as it is the same (RFC 6762: the top bit of
a class is no part of it). Other operations have no layout in common, and two questions have no meaning in common
(RFC 9619): refused, as `parsers.identify` does.

All that is counted is checked in `feed`, with `parsers.dnsdata`; what a unit says is decoded when it is asked for.

Bytes behind the last counted record are refused. BIND 9.18, Unbound 1.17, NSD 4.6 and dnsmasq 2.90 pass over them,
Knot 3.2 and dnspython refuse; nobody sends them (none is in the captures), and bytes that no server reads and no
rule sees would be a way out for whoever wants one.

A transfer's messages need no question of their own (RFC 5936 §2.2.2), nor does the answer to what a server cannot
read: they are told with the question of the query that has their id.
"""

from __future__ import annotations

import struct
from collections.abc import Callable, ItemsView, Iterator, Mapping
from dataclasses import dataclass
from functools import lru_cache
from typing import Final

from parsers import dnsdata
from parsers.base import TCP, TO_CLIENT, TO_SERVER, UDP, Event, Field, Kind, ParseError, Parser, Unit, Value
from parsers.dnsdata import AXFR, INTERNET, IXFR, LABEL_MAX, LAYOUTS, NAME_MAX, OPT, SOA, TSIG, Names


@dataclass(frozen=True, slots=True)
class Limits:
    """Bounds of one connection's parser, for each direction. A message has 65,535 bytes at most by its grammar."""

    # Queries that wait for a response, and the bytes of their questions; beyond, the oldest is forgotten, and what
    # answers it is unasked. Clients that pipeline have some hundreds open at once.
    outstanding: int = 1024
    outstanding_bytes: int = 48 * 1024


_FIELDS: Final = (
    Field("dns.qname", "the name asked for, or an update's zone, without final dot", folded=True),
    Field("dns.qtype", "the type asked for: A, or TYPE65280 if it has no name"),
    Field("dns.qclass", "the class asked for: IN, or CLASS5 if it has no name"),
    Field("dns.opcode", "QUERY, NOTIFY or UPDATE"),
    Field("dns.rcode", "of a response: NOERROR, or RCODE3841 if it has no name"),
    Field(
        "dns.answer",
        "of a response: each record's data in its answer section as master files write it, names without final dot",
        Kind.LIST,
        folded=True,
    ),
    Field("dns.unasked", "of a response: 1 if no query was seen that it answers as the first, else 0", Kind.NUMBER),
    Field("dns.udp_size", "with EDNS: the greatest datagram its sender takes", Kind.NUMBER),
    Field("dns.dnssec_ok", "with EDNS: 1 if signatures are asked for, else 0", Kind.NUMBER),
    Field("dns.client_subnet", "with EDNS: whom the query is for, as 192.0.2.0/24"),
)

_HEADER: Final = struct.Struct(">HHHHHH")
_RECORD: Final = struct.Struct(">HHIH")
_PREFIX: Final = 2

_RESPONSE: Final = 0x8000
_OPERATION: Final = 0x7800
_QUERY: Final = 0
_UPDATE: Final = 5 << 11
_OPERATIONS: Final = {_QUERY: b"QUERY", 4 << 11: b"NOTIFY", _UPDATE: b"UPDATE"}
_CLASSES: Final = {1: b"IN", 3: b"CH", 4: b"HS", 254: b"NONE", 255: b"ANY"}
_NONE: Final = 254
_ANY: Final = 255
_CODES: Final = {
    0: b"NOERROR", 1: b"FORMERR", 2: b"SERVFAIL", 3: b"NXDOMAIN", 4: b"NOTIMP", 5: b"REFUSED", 6: b"YXDOMAIN",
    7: b"YXRRSET", 8: b"NXRRSET", 9: b"NOTAUTH", 10: b"NOTZONE", 11: b"DSOTYPENI", 16: b"BADVERS", 17: b"BADKEY",
    18: b"BADTIME", 19: b"BADMODE", 20: b"BADNAME", 21: b"BADALG", 22: b"BADTRUNC", 23: b"BADCOOKIE",
}  # fmt: skip
# Multicast DNS: "answer me alone" in a question (RFC 6762 §5.4), "these are all" in a record (§10.2).
_MULTICAST_BIT: Final = 0x8000
_CLIENT_SUBNET: Final = 8
_ADDRESS_BITS: Final = {1: 32, 2: 128}


class Message(Unit):
    """A query or a response. The wire form is kept, and read again for what is asked for."""

    __slots__ = ("_direction", "_opt", "_question", "_records", "_seen", "_unasked", "_wire")

    def __init__(self, direction: int, wire: bytes, question: bytes, places: tuple[int, int], unasked: int) -> None:
        self._direction = direction
        self._wire = wire
        self._question = question  # in wire form; b"" if it has none
        self._records, self._opt = places  # where the first one begins; where OPT's type is, or 0
        self._unasked = unasked
        self._seen: dict[str, Value | None] = {}

    def _key(self) -> tuple[int, bytes, bytes, int]:
        return self._direction, self._wire, self._question, self._unasked

    def __eq__(self, other: object) -> bool:
        return self._key() == other._key() if isinstance(other, Message) else NotImplemented

    def __hash__(self) -> int:
        return hash(self._key())

    def __repr__(self) -> str:
        return f"Message(direction={self._direction}, fields={dict(self.fields)})"

    @property
    def protocol(self) -> str:
        """Name of the protocol."""
        return "dns"

    @property
    def direction(self) -> int:
        """Where it goes. Over UDP a server may be the first that is seen: what it is its header says."""
        return self._direction

    @property
    def fields(self) -> Mapping[str, Value]:
        """What it says."""
        return _Fields(self)

    def said(self, name: str) -> Value | None:
        """One of the fields, None where it does not say it; read once."""
        seen = self._seen
        if name not in seen:
            read = _READ.get(name)
            seen[name] = read(self) if read else None
        return seen[name]

    def everything(self) -> dict[str, Value]:
        """All that it says, by name."""
        seen = self._seen
        for name, read in _READ.items():
            if name not in seen:
                seen[name] = read(self)
        return {name: value for name, value in seen.items() if value is not None}

    @property
    def is_response(self) -> bool:
        """It answers."""
        return self._wire[2] >= 0x80

    def qname(self) -> bytes | None:
        """Name of the question."""
        return _name_of(self._question) if self._question else None

    def qtype(self) -> bytes | None:
        """Type of the question."""
        return dnsdata.type_text(int.from_bytes(self._question[-4:-2], "big")) if self._question else None

    def qclass(self) -> bytes | None:
        """Class of the question."""
        if not self._question:
            return None
        number = int.from_bytes(self._question[-2:], "big")
        if number in {_MULTICAST_BIT | INTERNET, _MULTICAST_BIT | _ANY}:
            number ^= _MULTICAST_BIT
        return _CLASSES.get(number) or b"CLASS%d" % number

    def opcode(self) -> bytes:
        """What is asked for."""
        return _OPERATIONS[self._wire[2] << 8 & _OPERATION]

    def rcode(self) -> bytes | None:
        """Of a response how it went; the upper bits are EDNS'."""
        if not self.is_response:
            return None
        code = self._wire[3] & 15
        if self._opt:
            code |= self._wire[self._opt + 4] << 4
        return _CODES.get(code) or b"RCODE%d" % code

    def answer(self) -> tuple[bytes, ...] | None:
        """Of a response the data of its answer section."""
        if not self.is_response:
            return None
        wire, at = self._wire, self._records
        names = Names(wire)
        zone = self._question if self.opcode() == b"UPDATE" else b""
        texts: list[bytes] = []
        for _ in range(int.from_bytes(wire[6:8], "big")):
            at = names.skip(at)
            kind, group, _, size = _RECORD.unpack_from(wire, at)
            at += _RECORD.size
            layout = _layout(kind, group, zone) if size else None
            end = at + size
            texts.append(layout.text(names, at, end) if layout else dnsdata.unknown_text(wire[at:end]))
            at = end
        return tuple(texts)

    def unasked(self) -> int | None:
        """Of a response whether nobody asked."""
        return self._unasked if self.is_response else None

    def udp_size(self) -> int | None:
        """EDNS: the requestor's payload size."""
        return int.from_bytes(self._wire[self._opt + 2 : self._opt + 4], "big") if self._opt else None

    def dnssec_ok(self) -> int | None:
        """EDNS: DO."""
        return self._wire[self._opt + 6] >> 7 if self._opt else None

    def client_subnet(self) -> bytes | None:
        """EDNS: client subnet, of a family that is known."""
        if not self._opt:
            return None
        at = self._opt + _RECORD.size
        end = at + int.from_bytes(self._wire[at - 2 : at], "big")
        return next((_subnet(value) for code, value in _options(self._wire, at, end) if code == _CLIENT_SUBNET), None)


_READ: Final[dict[str, Callable[[Message], Value | None]]] = {
    "dns.qname": Message.qname,
    "dns.qtype": Message.qtype,
    "dns.qclass": Message.qclass,
    "dns.opcode": Message.opcode,
    "dns.rcode": Message.rcode,
    "dns.answer": Message.answer,
    "dns.unasked": Message.unasked,
    "dns.udp_size": Message.udp_size,
    "dns.dnssec_ok": Message.dnssec_ok,
    "dns.client_subnet": Message.client_subnet,
}


@lru_cache(maxsize=1024)
def _name_of(question: bytes) -> bytes:
    """The name of a question; the answer has the same, and many clients ask for it."""
    return Names(question).text(0)[0]


class _Fields(Mapping[str, Value]):
    """Of a message; each is read when it is asked for, and once."""

    __slots__ = ("_message",)

    def __init__(self, message: Message) -> None:
        self._message = message

    def __getitem__(self, name: str) -> Value:
        value = self._message.said(name)
        if value is None:
            raise KeyError(name)
        return value

    def __contains__(self, name: object) -> bool:
        # Whether there is an answer is known without decoding it.
        if name == "dns.answer":
            return self._message.is_response
        return isinstance(name, str) and self._message.said(name) is not None

    def __iter__(self) -> Iterator[str]:
        return iter([name for name in _READ if name in self])

    def __len__(self) -> int:
        return sum(1 for _ in self)

    def items(self) -> ItemsView[str, Value]:
        """All at once: records have nearly every one."""
        return self._message.everything().items()

    def __repr__(self) -> str:
        return repr(dict(self))


class DnsParser(Parser):
    """One connection, or one flow of datagrams; see `parsers.base.Parser`."""

    name = "dns"
    fields = _FIELDS
    transports = (TCP, UDP)

    def __init__(self, limits: Limits | None = None, *, datagrams: bool = False) -> None:
        self.limits = limits or Limits()
        self._datagrams = datagrams
        self._offset = [0, 0]  # of what is buffered, or of the next datagram
        self._buffers = (bytearray(), bytearray())
        self._asked = (_Asked(self.limits), _Asked(self.limits))

    @property
    def buffered(self) -> int:
        """Bytes retained."""
        return sum(len(buffer) for buffer in self._buffers) + sum(asked.size for asked in self._asked)

    def pending(self, direction: int) -> bool:
        """A message is incomplete."""
        return bool(self._buffers[direction])

    def feed(self, direction: int, data: bytes) -> list[Event]:
        """Consume a datagram, or bytes of a stream."""
        if self._datagrams:
            offset = self._offset[direction]
            self._offset[direction] += len(data)
            try:
                return [self._message(direction, data)]
            except ParseError as error:
                raise ParseError(error.code, offset + error.offset) from None
        return self._feed_stream(direction, data)

    def _feed_stream(self, direction: int, data: bytes) -> list[Event]:
        buffer = self._buffers[direction]
        buffer += data
        events: list[Event] = []
        at = 0
        while len(buffer) - at >= _PREFIX:
            size = buffer[at] << 8 | buffer[at + 1]
            begin, end = at + _PREFIX, at + _PREFIX + size
            try:
                if size < _HEADER.size:
                    raise ParseError("length", -_PREFIX)
                if end > len(buffer):
                    break
                events.append(self._message(direction, bytes(buffer[begin:end])))
            except ParseError as error:
                raise ParseError(error.code, self._offset[direction] + begin + error.offset, events) from None
            at = end
        del buffer[:at]
        self._offset[direction] += at
        return events

    def gap(self, direction: int, size: int) -> list[Event]:
        """A datagram that is lost is no loss to the next; of a stream any byte may be a query's."""
        if self._datagrams:
            return []
        raise ParseError("gap", self._offset[direction] + len(self._buffers[direction]) + size)

    def _message(self, direction: int, wire: bytes) -> Message:
        places = _check(wire)
        question = wire[_HEADER.size : places[0]]
        if wire[2] < 0x80:
            self._asked[direction].note(wire[:2], _folded(question))
            return Message(direction, wire, question, places, 0)
        asked = self._asked[1 - direction].take(wire[:2], _folded(question))
        return Message(direction, wire, question or asked or b"", places, int(asked is None))


class _Asked:
    """Queries of one direction that wait for a response."""

    # Of one id; a client that has more open cannot tell the responses apart.
    _SAME_ID = 8

    def __init__(self, limits: Limits) -> None:
        self._limits = limits
        self._questions: dict[bytes, list[bytes]] = {}  # by id
        self._count = 0
        self.size = 0

    def note(self, identity: bytes, question: bytes) -> None:
        """A query was sent; one that was sent twice may be answered twice."""
        same = self._questions.setdefault(identity, [])
        if len(same) == self._SAME_ID:
            self._forget(same.pop(0))
        same.append(question)
        self._count += 1
        self.size += len(identity) + len(question)
        while self._count > self._limits.outstanding or self.size > self._limits.outstanding_bytes:
            for forgotten in self._questions.pop(next(iter(self._questions))):
                self._forget(forgotten)

    def take(self, identity: bytes, question: bytes) -> bytes | None:
        """The question that is answered, None if nobody has asked it. A response without question answers the first."""
        same = self._questions.get(identity)
        if same is None or (question and question not in same):
            return None
        question = question or same[0]
        # The response to these comes in as many messages as it likes.
        if int.from_bytes(question[-4:-2], "big") not in {AXFR, IXFR}:
            same.remove(question)
            self._forget(question)
            if not same:
                del self._questions[identity]
        return question

    def _forget(self, question: bytes) -> None:
        self._count -= 1
        self.size -= 2 + len(question)


def _folded(question: bytes) -> bytes:
    """Resolvers vary the case of what they ask for; sizes of labels are no letters."""
    return question[:-4].lower() + question[-4:]


def _layout(kind: int, group: int, zone: bytes) -> dnsdata.Layout | None:
    """Of a record's data; `zone` is an update's question."""
    layout = LAYOUTS.get(kind)
    if layout is None or not layout.internet or group & ~_MULTICAST_BIT == INTERNET:
        return layout
    # What an update deletes has class NONE: it is data of its zone's class (RFC 2136 §2.5.4).
    return layout if group == _NONE and zone[-2:] == b"\0\1" else None


def _check(wire: bytes) -> tuple[int, int]:
    """Where records begin and where OPT's type is (or 0) in a message whose counts, names and data are in order."""
    try:
        _, flags, questions, *counts = _HEADER.unpack_from(wire)
        if flags & _OPERATION not in _OPERATIONS:
            raise ParseError("opcode", 2)
        if questions > 1:
            raise ParseError("questions", 4)
        at = records = _question(wire) if questions else _HEADER.size
        opt = 0
        if flags & _OPERATION == _UPDATE:
            _check_zone(wire, flags, questions, any(counts))
        if any(counts):
            at, opt = _check_records(wire, at, counts, update=flags & _OPERATION == _UPDATE)
    except (IndexError, struct.error):
        raise ParseError("short", len(wire)) from None
    if at != len(wire):
        raise ParseError("trailing", at)
    return records, opt


def _question(wire: bytes) -> int:
    """Behind it. There is nothing before its name that it could point to."""
    at = _HEADER.size
    while size := wire[at]:
        if size > LABEL_MAX:
            raise ParseError("pointer" if size >= 0xC0 else "label", at)
        at += size + 1
    if at + 1 - _HEADER.size > NAME_MAX:
        raise ParseError("name_long", _HEADER.size)
    at += 5
    if at > len(wire):
        raise ParseError("short", len(wire))
    return at


def _check_zone(wire: bytes, flags: int, questions: int, changes: bool) -> None:
    """An update has one zone; a response need not repeat it, unless it repeats the changes (RFC 2136 §2.3, §3.8)."""
    if not questions:
        if changes or not flags & _RESPONSE:
            raise ParseError("zone", 4)
        return
    end = _question(wire)
    kind, group = int.from_bytes(wire[end - 4 : end - 2], "big"), int.from_bytes(wire[end - 2 : end], "big")
    if kind != SOA or group in {_NONE, _ANY}:
        raise ParseError("zone", end - 4)


def _check_records(wire: bytes, at: int, counts: list[int], *, update: bool) -> tuple[int, int]:
    """(behind them, OPT)"""
    names = Names(wire)
    zone = wire[_HEADER.size : at] if update else b""
    whole = len(wire)
    opt = 0
    first_additional = counts[0] + counts[1]
    count = first_additional + counts[2]
    for number in range(count):
        owner = at
        at = names.skip(at)
        kind, group, _, size = _RECORD.unpack_from(wire, at)
        at += _RECORD.size
        end = at + size
        if end > whole:
            raise ParseError("short", whole)
        if kind == OPT:
            if number < first_additional or opt or wire[owner]:
                raise ParseError("opt", owner)
            opt = at - _RECORD.size
            _check_options(wire, at, end)
        elif kind == TSIG:
            # RFC 8945 §5.1: the last of all.
            if number != count - 1 or number < first_additional or group != _ANY:
                raise ParseError("tsig", owner)
            _check_signature(names, at, end)
        elif update and (group == _ANY or (group == _NONE and number < counts[0])):
            # RFC 2136 §2.4 and §2.5: "any such", without data.
            if size:
                raise ParseError("record_data", at)
        else:
            layout = _layout(kind, group, zone)
            if layout:
                layout.check(names, at, end)
        at = end
    return at, opt


def _check_signature(names: Names, at: int, end: int) -> None:
    """RFC 8945 §4.2: algorithm, time and fudge, MAC, original id and error, other data."""
    wire = names.wire
    at = names.skip(at) + 8
    at += 2 + int.from_bytes(wire[at : at + 2], "big") + 4
    at += 2 + int.from_bytes(wire[at : at + 2], "big")
    if at != end:
        raise ParseError("record_data", min(at, end))


def _check_options(wire: bytes, at: int, end: int) -> None:
    for code, value in _options(wire, at, end):
        if code == _CLIENT_SUBNET:
            _subnet(value)


def _options(wire: bytes, at: int, end: int) -> Iterator[tuple[int, bytes]]:
    """RFC 6891 §6.1.2."""
    while at < end:
        behind = at + 4 + int.from_bytes(wire[at + 2 : at + 4], "big")
        if behind > end:
            raise ParseError("option", at)
        yield int.from_bytes(wire[at : at + 2], "big"), wire[at + 4 : behind]
        at = behind


def _subnet(value: bytes) -> bytes | None:
    """RFC 7871 §6; None if its family is none of the two."""
    if len(value) < 4:
        raise ParseError("client_subnet")
    family, source, scope = int.from_bytes(value[:2], "big"), value[2], value[3]
    bits = _ADDRESS_BITS.get(family)
    if bits is None:
        return None
    address = value[4:]
    spare = -source % 8
    if source > bits or scope > bits or len(address) != (source + 7) // 8 or (spare and address[-1] & (1 << spare) - 1):
        raise ParseError("client_subnet")
    address += bytes(bits // 8 - len(address))
    return b"%b/%d" % (dnsdata.ipv4_text(address) if family == 1 else dnsdata.ipv6_text(address), source)


__all__ = ["TO_CLIENT", "TO_SERVER", "DnsParser", "Limits", "Message"]
