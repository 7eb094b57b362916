"""MQTT 3.1, 3.1.1 and 5 (OASIS): what the client connects as, publishes and subscribes to.

Read: CONNECT, the head of PUBLISH, SUBSCRIBE and UNSUBSCRIBE of the client; each says too what CONNECT said. A
PUBLISH is told with its head, its payload is passed. Topic aliases of MQTT 5 are resolved. All other packets, and all
of the broker's, are framed: their type must be one that this side sends. A filter of a shared subscription
(``$share/group/filter``) stays as sent. Over WebSocket, MQTT is not looked for.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Final

from parsers.base import TO_CLIENT, TO_SERVER, Field, Kind, ParseError, Said, Value
from parsers.stream import StreamParser


@dataclass(frozen=True, slots=True)
class Limits:
    """Bounds of one connection's parser."""

    # Bytes of a packet that is read as a whole, and of a PUBLISH's head. One string has 64 KiB at most.
    packet: int = 72 * 1024
    # Topics behind aliases: brokers allow 5 (HiveMQ) or 10 (Mosquitto), at most 65,535.
    aliases: int = 1024
    # And their bytes.
    alias_bytes: int = 64 * 1024


CONNECT: Final = 1
CONNACK: Final = 2
PUBLISH: Final = 3
PUBREL: Final = 6
SUBSCRIBE: Final = 8
UNSUBSCRIBE: Final = 10
PINGREQ: Final = 12
PINGRESP: Final = 13
DISCONNECT: Final = 14
AUTH: Final = 15

_SENDS: Final = (frozenset((1, 3, 4, 5, 6, 7, 8, 10, 12, 14, 15)), frozenset((2, 3, 4, 5, 6, 7, 9, 11, 13, 14, 15)))
_EMPTY: Final = frozenset((PINGREQ, PINGRESP))
_COMMANDS: Final = {SUBSCRIBE: b"subscribe", UNSUBSCRIBE: b"unsubscribe"}
# Name and level; Mosquitto's bridges set the level's highest bit.
_VERSIONS: Final = {
    (b"MQIsdp", 3): b"3.1",
    (b"MQTT", 4): b"3.1.1",
    (b"MQTT", 5): b"5",
    (b"MQIsdp", 0x83): b"3.1",
    (b"MQTT", 0x84): b"3.1.1",
}
_TOPIC_ALIAS: Final = 0x23
# MQTT 5 section 2.2.2.2. A number: as many bytes. "s": a string or binary, "p": two strings, "v": a variable number.
_PROPERTIES: Final[dict[int, int | str]] = {
    **dict.fromkeys((0x01, 0x17, 0x19, 0x24, 0x25, 0x28, 0x29, 0x2A), 1),
    **dict.fromkeys((0x13, 0x21, 0x22, _TOPIC_ALIAS), 2),
    **dict.fromkeys((0x02, 0x11, 0x18, 0x27), 4),
    **dict.fromkeys((0x03, 0x08, 0x09, 0x12, 0x15, 0x16, 0x1A, 0x1C, 0x1F), "s"),
    0x0B: "v",
    0x26: "p",
}
# A wildcard is alone in its level, and # in the last (3.1.1 section 4.7.1).
_FILTER: Final = re.compile(rb"(?:(?:\+|[^+#/]*+)/)*+(?:\+|#|[^+#/]*+)", re.DOTALL)


class _Reader:
    """Walks what a packet says; what is not there is a ParseError."""

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
            raise ParseError("packet")
        return self.data[at : self.at]

    def text(self) -> bytes:
        """UTF-8 without NUL (section 1.5.4 of MQTT 5)."""
        text = self.take(self.number(2))
        try:
            text.decode()
        except UnicodeDecodeError:
            raise ParseError("utf8") from None
        if b"\0" in text:
            raise ParseError("utf8")
        return text

    def topic(self) -> bytes:
        """To publish to."""
        topic = self.text()
        if b"+" in topic or b"#" in topic:
            raise ParseError("wildcard")
        return topic

    def properties(self) -> int:
        """The topic alias among them, or 0 without one."""
        size = _variable(self.data, self.at, self.end)
        if size is None:
            raise ParseError("packet")
        self.at, length = size
        end = self.at + length
        if end > self.end:
            raise ParseError("properties")
        inner = _Reader(self.data, self.at, end)
        self.at = end
        alias = 0
        while inner.at < end:
            name = inner.number(1)
            form = _PROPERTIES.get(name)
            if name == _TOPIC_ALIAS:
                if alias:
                    raise ParseError("topic_alias")
                alias = inner.number(2)
                if not alias:
                    raise ParseError("topic_alias")
            elif isinstance(form, int):
                inner.take(form)
            elif form == "v":
                found = _variable(inner.data, inner.at, end)
                if found is None:
                    raise ParseError("properties")
                inner.at = found[0]
            elif form is None:
                raise ParseError("properties")
            else:
                for _ in form.replace("p", "ss"):
                    inner.take(inner.number(2))
        return alias


class MqttParser(StreamParser):
    """One connection; see `parsers.base.Parser`."""

    name = "mqtt"
    fields = (
        Field("mqtt.command", "connect, publish, subscribe or unsubscribe", folded=True),
        Field("mqtt.client", "client identifier of CONNECT, empty where the broker is to choose it", once=True),
        Field("mqtt.user", "user name of CONNECT", once=True),
        Field("mqtt.version", "3.1, 3.1.1 or 5", once=True),
        Field("mqtt.will", "topic of the message that CONNECT leaves behind"),
        Field("mqtt.topic", "topic that is published to"),
        Field("mqtt.topics", "filters that are subscribed to, or no more", Kind.LIST),
    )

    def __init__(self, limits: Limits | None = None) -> None:
        super().__init__()
        self.limits = limits or Limits()
        self._client: dict[str, Value] = {}
        self._begun = [False, False]
        self._version = 0
        self._aliases: dict[int, bytes] = {}
        self._alias_bytes = 0
        self._left = False

    @property
    def buffered(self) -> int:
        """Bytes retained, topics behind aliases included."""
        return super().buffered + self._alias_bytes

    def _read(self, direction: int, data: bytes, at: int) -> int:
        if self._left and direction == TO_SERVER:
            raise ParseError("after_disconnect")
        kind, flags = data[at] >> 4, data[at] & 15
        self._check(direction, kind, flags)
        header = _variable(data, at + 1, len(data))
        if header is None:
            return self._wait(direction, len(data) - at + 1)
        start, size = header
        if kind in _EMPTY and size:
            raise ParseError("packet")
        if direction == TO_CLIENT or kind not in {CONNECT, PUBLISH, SUBSCRIBE, UNSUBSCRIBE}:
            self._begun[direction] |= kind == CONNACK
            self._left = self._left or (direction == TO_SERVER and kind == DISCONNECT)
            self._skip[direction] = size
            return start
        if kind == PUBLISH:
            return self._publish(data, at, start, size, flags)
        if size > self.limits.packet:
            raise ParseError("packet_too_long")
        if len(data) < start + size:
            return self._wait(direction, start + size - at)
        reader = _Reader(data, start, start + size)
        if kind == CONNECT:
            self._connect(reader)
            self._begun[direction] = True
        else:
            self._subscribe(reader, kind)
        return start + size

    def _check(self, direction: int, kind: int, flags: int) -> None:
        """The first byte: may this side send this now, section 2.1."""
        if kind not in _SENDS[direction] or (kind == AUTH and direction == TO_SERVER and self._version < 5):
            raise ParseError("type")
        first = kind == CONNECT if direction == TO_SERVER else kind in {CONNACK, AUTH}
        # An AUTH of the broker may come before its CONNACK, and after it.
        if first == self._begun[direction] and kind != AUTH:
            raise ParseError("order")
        if kind == PUBLISH:
            if flags & 6 == 6:
                raise ParseError("flags")
        elif kind in {PUBREL, SUBSCRIBE, UNSUBSCRIBE}:
            # MQTT 3.1 repeats them with DUP.
            if flags != 2 and not (flags == 10 and self._version == 3):
                raise ParseError("flags")
        elif flags:
            raise ParseError("flags")

    def _connect(self, reader: _Reader) -> None:
        version = _VERSIONS.get((reader.text(), reader.number(1)))
        if version is None:
            raise ParseError("version")
        self._version = int(version[:1]) + (version == b"3.1.1")
        flags = reader.number(1)
        will, user, password = flags & 4, flags & 0x80, flags & 0x40
        if (
            (flags & 1 and self._version > 3)
            or flags & 0x18 == 0x18
            or (not will and flags & 0x38)
            or (self._version < 5 and password and not user)
        ):
            raise ParseError("connect_flags")
        reader.number(2)
        if self._version == 5:
            reader.properties()
        said: dict[str, Value] = {"mqtt.client": reader.text(), "mqtt.version": version}
        left: dict[str, Value] = {}
        if will:
            if self._version == 5:
                reader.properties()
            left["mqtt.will"] = reader.topic()
            reader.take(reader.number(2))
        if user:
            said["mqtt.user"] = reader.text()
        if password:
            reader.take(reader.number(2))
        if reader.at != reader.end:
            raise ParseError("packet")
        self._client = said
        self._tell(b"connect", left)

    def _publish(self, data: bytes, at: int, start: int, size: int, flags: int) -> int:
        """Up to its payload."""
        if size < 2:
            raise ParseError("packet")
        need = start + 2
        if len(data) < need:
            return self._wait(TO_SERVER, need - at)
        need += int.from_bytes(data[start : start + 2], "big") + 2 * bool(flags & 6)
        if need > start + size:
            raise ParseError("packet")
        if len(data) < need:
            return self._wait(TO_SERVER, need - at)
        if self._version == 5:
            found = _variable(data, need, min(len(data), start + size))
            if found is None:
                if len(data) >= start + size:
                    raise ParseError("packet")
                return self._wait(TO_SERVER, len(data) - at + 1)
            need = found[0] + found[1]
            if need > start + size:
                raise ParseError("properties")
        if need - at > self.limits.packet:
            raise ParseError("packet_too_long")
        if len(data) < need:
            return self._wait(TO_SERVER, need - at)
        reader = _Reader(data, start, need)
        topic = reader.topic()
        if flags & 6 and not reader.number(2):
            raise ParseError("packet_identifier")
        if self._version == 5:
            topic = self._resolved(topic, reader.properties())
        if not topic:
            raise ParseError("topic")
        self._skip[TO_SERVER] = size - (need - start)
        self._tell(b"publish", {"mqtt.topic": topic})
        return need

    def _resolved(self, topic: bytes, alias: int) -> bytes:
        """Section 3.3.2.3.4 of MQTT 5."""
        if not alias:
            return topic
        if not topic:
            known = self._aliases.get(alias)
            if known is None:
                raise ParseError("topic_alias")
            return known
        self._alias_bytes += len(topic) - len(self._aliases.get(alias, b""))
        self._aliases[alias] = topic
        if len(self._aliases) > self.limits.aliases or self._alias_bytes > self.limits.alias_bytes:
            raise ParseError("topic_aliases")
        return topic

    def _subscribe(self, reader: _Reader, kind: int) -> None:
        if not reader.number(2):
            raise ParseError("packet_identifier")
        if self._version == 5:
            reader.properties()
        topics: list[bytes] = []
        while reader.at < reader.end:
            topic = reader.text()
            if not topic or not _FILTER.fullmatch(topic):
                raise ParseError("filter")
            topics.append(topic)
            if kind == SUBSCRIBE:
                options = reader.number(1)
                if options & 3 == 3 or options & (0xC0 if self._version == 5 else 0xFC) or options & 0x30 == 0x30:
                    raise ParseError("options")
        if not topics:
            raise ParseError("packet")
        self._tell(_COMMANDS[kind], {"mqtt.topics": tuple(topics)})

    def _tell(self, command: bytes, said: dict[str, Value]) -> None:
        self._events.append(Said(self.name, {"mqtt.command": command, **self._client, **said}))


def _variable(data: bytes, at: int, end: int) -> tuple[int, int] | None:
    """(behind it, value) of a number of 1 to 4 bytes in its shortest form; None: it goes on behind `end`."""
    value = 0
    for place in range(4):
        if at + place >= end:
            return None
        byte = data[at + place]
        value |= (byte & 0x7F) << (7 * place)
        if byte < 0x80:
            if place and not byte:
                break
            return at + place + 1, value
    raise ParseError("length")
