"""AMQP 0-9-1 (with RabbitMQ's extensions) and 1.0 (OASIS): login, and what the client uses by which name.

0-9-1: every method of the client is a unit, but its answers and acknowledgements. 1.0: SASL's init, open and attach
are; what goes over a link was decided when it was attached. Content is passed, and with it what a message's own
properties may say about its way: RabbitMQ's CC and BCC headers, the address of a message to 1.0's anonymous terminus
(its attach has no address). Of the server only the frames are looked at. Each unit says too what login and open said.
The older 0-8, 0-9 and 0-10 are refused.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import Enum, auto
from typing import Final

from parsers.base import TO_CLIENT, TO_SERVER, Field, ParseError, Said, Value
from parsers.stream import FOREVER, StreamParser


@dataclass(frozen=True, slots=True)
class Limits:
    """Bounds of one connection's parser."""

    # Of a frame that is read as a whole: a method's or a performative's. RabbitMQ's frames have 128 KiB at most, these
    # some hundred bytes and tables that nobody fills.
    method: int = 64 * 1024
    # Of one that is passed: RabbitMQ's largest negotiable message, 128 MiB.
    frame: int = 128 << 20


class _Layer(Enum):
    """What a direction's next bytes are."""

    HEADER = auto()
    CLASSIC = auto()  # frames of 0-9-1
    SASL = auto()
    LINKS = auto()  # frames of 1.0
    TLS = auto()


_HEADERS: Final = {
    b"AMQP\0\0\x09\1": _Layer.CLASSIC,
    b"AMQP\0\1\0\0": _Layer.LINKS,
    b"AMQP\2\1\0\0": _Layer.TLS,
    b"AMQP\3\1\0\0": _Layer.SASL,
}
_METHOD: Final = 1
_HEARTBEAT: Final = 8
_END: Final = 0xCE
_CONNECTION: Final = 10
_START_OK: Final = (10, 11)
_OPEN: Final = (10, 40)
# What a client sends: name, and which short texts follow 2 reserved bytes.
_METHODS: Final[dict[tuple[int, int], tuple[bytes, tuple[str, ...]]]] = {
    _START_OK: (b"connection.start-ok", ()),
    _OPEN: (b"connection.open", ()),
    (10, 50): (b"connection.close", ()),
    (10, 70): (b"connection.update-secret", ()),
    (20, 10): (b"channel.open", ()),
    (20, 20): (b"channel.flow", ()),
    (20, 40): (b"channel.close", ()),
    (30, 10): (b"access.request", ()),
    (40, 10): (b"exchange.declare", ("exchange",)),
    (40, 20): (b"exchange.delete", ("exchange",)),
    (40, 30): (b"exchange.bind", ("exchange", "source", "routing_key")),
    (40, 40): (b"exchange.unbind", ("exchange", "source", "routing_key")),
    (50, 10): (b"queue.declare", ("queue",)),
    (50, 20): (b"queue.bind", ("queue", "exchange", "routing_key")),
    (50, 30): (b"queue.purge", ("queue",)),
    (50, 40): (b"queue.delete", ("queue",)),
    (50, 50): (b"queue.unbind", ("queue", "exchange", "routing_key")),
    (60, 10): (b"basic.qos", ()),
    (60, 20): (b"basic.consume", ("queue",)),
    (60, 30): (b"basic.cancel", ()),
    (60, 40): (b"basic.publish", ("exchange", "routing_key")),
    (60, 70): (b"basic.get", ("queue",)),
    (60, 90): (b"basic.reject", ()),
    (60, 100): (b"basic.recover-async", ()),
    (60, 110): (b"basic.recover", ()),
    (60, 120): (b"basic.nack", ()),
    (85, 10): (b"confirm.select", ()),
    (90, 10): (b"tx.select", ()),
    (90, 20): (b"tx.commit", ()),
    (90, 30): (b"tx.rollback", ()),
}
# Answers and acknowledgements: secure-ok, tune-ok, close-ok, flow-ok, cancel-ok, ack.
_SILENT: Final = frozenset(((10, 21), (10, 31), (10, 51), (20, 21), (20, 41), (60, 31), (60, 80)))
_BEFORE_OPEN: Final = frozenset((_START_OK, (10, 21), (10, 31), _OPEN, (10, 50), (10, 51)))

_SASL_INIT: Final = 0x41
_PERFORMATIVE_OPEN: Final = 0x10
_ATTACH: Final = 0x12
_READ: Final = {
    (_Layer.SASL, _SASL_INIT): b"sasl.init",
    (_Layer.LINKS, _PERFORMATIVE_OPEN): b"open",
    (_Layer.LINKS, _ATTACH): b"attach",
}
_KNOWN: Final = {_Layer.SASL: range(0x40, 0x45), _Layer.LINKS: range(0x10, 0x19)}
_TERMINI: Final = frozenset((0x28, 0x29))
_DEEP: Final = 8


class _Reader:
    """Walks what a frame says; what is not there is a ParseError."""

    __slots__ = ("at", "data", "end")

    def __init__(self, data: bytes, at: int, end: int) -> None:
        self.data = data
        self.at = at
        self.end = end

    def number(self, size: int) -> int:
        return int.from_bytes(self.take(size), "big")

    def take(self, size: int) -> bytes:
        at = self.at
        self.at += size
        if self.at > self.end:
            raise ParseError("frame")
        return self.data[at : self.at]

    def short(self) -> bytes:
        """A short text of 0-9-1."""
        return self.take(self.number(1))

    def long(self) -> bytes:
        """A long text of 0-9-1, or a table unread."""
        return self.take(self.number(4))

    def code(self) -> int:
        """A descriptor of 1.0. Their symbolic forms are not in use."""
        if self.number(1):
            raise ParseError("descriptor")
        form = self.number(1)
        if form not in {0x44, 0x53, 0x80}:
            raise ParseError("descriptor")
        return self.number({0x44: 0, 0x53: 1, 0x80: 8}[form])

    def items(self) -> tuple[_Reader, int]:
        """A list of 1.0: what is inside, and how many."""
        form = self.number(1)
        if form == 0x45:
            return _Reader(self.data, self.at, self.at), 0
        if form not in {0xC0, 0xD0}:
            raise ParseError("list")
        wide = 1 if form == 0xC0 else 4
        size = self.number(wide)
        at = self.at
        self.take(size)
        inner = _Reader(self.data, at, self.at)
        return inner, inner.number(wide)

    def value(self, deep: int = 0) -> bytes:
        """Any value of 1.0 (part 1, section 1.2): its bytes without their length."""
        form = self.number(1)
        if form == 0:
            if deep > _DEEP:
                raise ParseError("nested")
            self.value(deep + 1)
            return self.value(deep + 1)
        kind = form >> 4
        if 4 <= kind <= 9:
            return self.take((0, 1, 2, 4, 8, 16)[kind - 4])
        if kind < 0xA:
            raise ParseError("value")
        return self.take(self.number(4 if kind & 1 else 1))

    def text(self) -> bytes | None:
        """A string, symbol or binary; None: null."""
        form = self.data[self.at] if self.at < self.end else 0
        if form not in {0x40, 0xA0, 0xA1, 0xA3, 0xB0, 0xB1, 0xB3}:
            raise ParseError("text")
        value = self.value()
        return None if form == 0x40 else value


class AmqpParser(StreamParser):
    """One connection; see `parsers.base.Parser`."""

    name = "amqp"
    fields = (
        Field("amqp.method", "method of 0-9-1 as basic.publish, or sasl.init, open, attach of 1.0", folded=True),
        Field("amqp.mechanism", "mechanism of the login", once=True, folded=True),
        Field("amqp.user", "user of a login with PLAIN", once=True),
        Field("amqp.vhost", "virtual host that is opened, in 1.0 the host name of open", once=True),
        Field("amqp.exchange", "exchange that is declared, deleted, bound to or published to"),
        Field("amqp.source", "exchange that another one is bound to"),
        Field("amqp.routing_key", "routing key of a message or a binding"),
        Field("amqp.queue", "queue that is declared, bound, consumed, read, purged or deleted"),
        Field("amqp.address", "of 1.0: where a link to the server leads, where one from it begins"),
    )

    def __init__(self, limits: Limits | None = None) -> None:
        super().__init__()
        self.limits = limits or Limits()
        self._layers = [_Layer.HEADER, _Layer.HEADER]
        self._ends = [False, False]  # a frame's last byte comes next
        self._chosen = _Layer.HEADER  # the client's first
        self._secured = [False, False]  # a SASL layer came before
        self._said: dict[str, Value] = {}
        self._logged = False
        self._opened = False

    def _read(self, direction: int, data: bytes, at: int) -> int:
        layer = self._layers[direction]
        if layer == _Layer.CLASSIC:
            return self._classic(direction, data, at)
        if layer == _Layer.TLS:
            return self._hold(direction)
        if layer == _Layer.HEADER:
            return self._header(direction, data, at)
        return self._frame(direction, data, at)

    def _header(self, direction: int, data: bytes, at: int) -> int:
        secured = self._secured[direction]
        if direction == TO_CLIENT and not secured:
            if self._chosen == _Layer.HEADER:
                raise ParseError("order")
            if self._chosen == _Layer.CLASSIC and data[at : at + 1] != b"A":
                self._layers[TO_CLIENT] = _Layer.CLASSIC
                return self._classic(direction, data, at)
        header = data[at : at + 8]
        if len(header) < 8:
            return self._wait(direction, 8)
        if header[:4] != b"AMQP":
            raise ParseError("header")
        layer = _HEADERS.get(header)
        if secured:
            if layer != _Layer.LINKS or not self._logged:
                raise ParseError("version")
        elif direction == TO_SERVER:
            if layer is None:
                raise ParseError("version")
            self._chosen = layer
        elif layer != self._chosen or layer == _Layer.CLASSIC:
            # A server that does not know the version answers with one that it knows, and closes.
            self._skip[TO_CLIENT] = FOREVER
            return at + 8
        elif layer == _Layer.TLS:
            self._switch("tls")
        self._layers[direction] = layer
        return at + 8

    def _skipped(self, direction: int) -> None:
        """Only frames of 0-9-1 have an end of their own."""
        self._ends[direction] = self._layers[direction] == _Layer.CLASSIC

    def _classic(self, direction: int, data: bytes, at: int) -> int:
        if self._ends[direction]:
            if data[at] != _END:
                raise ParseError("frame_end")
            self._ends[direction] = False
            return at + 1
        if len(data) - at < 7:
            return self._wait(direction, 7)
        kind, channel, size = data[at], int.from_bytes(data[at + 1 : at + 3], "big"), _size(data, at + 3)
        if kind not in {_METHOD, 2, 3, _HEARTBEAT}:
            raise ParseError("frame_type")
        if direction == TO_SERVER and kind == _METHOD:
            if size > self.limits.method or size < 4:
                raise ParseError("frame_size")
            end = at + 7 + size
            if len(data) <= end:
                return self._wait(direction, size + 8)
            if data[end] != _END:
                raise ParseError("frame_end")
            self._method(channel, _Reader(data, at + 7, end))
            return end + 1
        if size > self.limits.frame or (kind == _HEARTBEAT and (size or channel)):
            raise ParseError("frame_size")
        if direction == TO_SERVER and not self._opened and kind != _HEARTBEAT:
            raise ParseError("order")
        self._skip[direction] = size
        if not size:
            self._skipped(direction)
        return at + 7

    def _method(self, channel: int, reader: _Reader) -> None:
        number = reader.number(2), reader.number(2)
        if (channel == 0) != (number[0] == _CONNECTION):
            raise ParseError("channel")
        name, texts = _METHODS.get(number, (b"", ()))
        if not name and number not in _SILENT:
            raise ParseError("method")
        if (
            (not self._logged and number != _START_OK)
            or (number == _START_OK and self._logged)
            or (number in {_OPEN, (10, 31)} and self._opened)
            or (not self._opened and number not in _BEFORE_OPEN)
        ):
            raise ParseError("order")
        if number in _SILENT:
            return
        said: dict[str, Value] = {}
        if number == _START_OK:
            reader.long()
            self._login(reader.short(), reader.long())
            reader.short()
        elif number == _OPEN:
            self._said["amqp.vhost"] = reader.short()
            self._opened = True
        elif texts:
            reader.number(2)
            said = {f"amqp.{text}": reader.short() for text in texts}
        self._tell(name, said)

    def _frame(self, direction: int, data: bytes, at: int) -> int:
        """Of 1.0 (part 2, section 2.3)."""
        layer = self._layers[direction]
        if len(data) - at < 8:
            return self._wait(direction, 8)
        if layer == _Layer.SASL and data[at : at + 4] == b"AMQP":
            # Both sides begin again behind the login.
            self._secured[direction] = True
            self._layers[direction] = _Layer.HEADER
            return self._header(direction, data, at)
        size, start = _size(data, at), 4 * data[at + 4]
        if data[at + 5] != (layer == _Layer.SASL):
            raise ParseError("frame_type")
        if not 8 <= start <= size or size > self.limits.frame:
            raise ParseError("frame_size")
        head = min(size, start + 11)
        if direction == TO_SERVER and size > start:
            if len(data) - at < head:
                return self._wait(direction, head)
            reader = _Reader(data, at + start, at + size)
            code = reader.code()
            if code not in _KNOWN[layer]:
                raise ParseError("performative")
            if (code == _PERFORMATIVE_OPEN) == self._opened and layer == _Layer.LINKS:
                raise ParseError("order")
            if (layer, code) in _READ:
                if size > self.limits.method:
                    raise ParseError("frame_size")
                if len(data) - at < size:
                    return self._wait(direction, size)
                self._performative(layer, code, reader)
                return at + size
        self._skip[direction] = size - 8
        return at + 8

    def _performative(self, layer: _Layer, code: int, reader: _Reader) -> None:
        inner, count = reader.items()
        said: dict[str, Value] = {}
        if code == _SASL_INIT:
            if self._logged:
                raise ParseError("order")
            mechanism = inner.text() if count else None
            if mechanism is None:
                raise ParseError("mechanism")
            self._login(mechanism, (inner.text() if count > 1 else None) or b"")
        elif code == _PERFORMATIVE_OPEN:
            self._opened = True
            if count:
                inner.text()
            host = inner.text() if count > 1 else None
            if host is not None:
                self._said["amqp.vhost"] = host
        else:
            address = _address(inner, count)
            if address is not None:
                said["amqp.address"] = address
        self._tell(_READ[layer, code], said)

    def _login(self, mechanism: bytes, response: bytes) -> None:
        self._logged = True
        self._said["amqp.mechanism"] = mechanism
        parts = response.split(b"\0")
        if mechanism.upper() == b"PLAIN" and len(parts) == 3:
            self._said["amqp.user"] = parts[1]

    def _tell(self, method: bytes, said: dict[str, Value]) -> None:
        later = frozenset[str]() if self._opened else frozenset(("amqp.vhost",))
        self._events.append(Said(self.name, {"amqp.method": method, **self._said, **said}, later=later))


def _size(data: bytes, at: int) -> int:
    return int.from_bytes(data[at : at + 4], "big")


def _address(link: _Reader, count: int) -> bytes | None:
    """Of an attach: its target's where the client sends, its source's where it receives. None: it names none."""
    if count < 3:
        raise ParseError("attach")
    link.value()
    link.value()
    role = link.number(1)
    if role == 0x56:
        role = 0x42 - link.number(1)
    if role not in {0x41, 0x42}:
        raise ParseError("attach")
    place = 5 if role == 0x41 else 6
    if count <= place:
        return None
    for _ in range(3, place):
        link.value()
    if link.data[link.at : min(link.at + 1, link.end)] == b"\x40" or link.code() not in _TERMINI:
        return None
    terminus, count = link.items()
    return terminus.text() if count else None
