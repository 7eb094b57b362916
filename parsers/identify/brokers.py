"""Kafka, AMQP and MQTT: the client speaks first and says which it is."""

from __future__ import annotations

from typing import Final

from parsers.identify.answers import ALNUM, ASK, LIKELY, MORE, NO, UPPER, YES, fixed

# The requests that clients begin with, or send all day long: the first version of each with compact fields, and the
# highest in Kafka 4.1 (https://kafka.apache.org/protocol).
_KAFKA: Final = {
    0: (9, 13),  # Produce
    1: (12, 18),  # Fetch
    2: (6, 11),  # ListOffsets
    3: (9, 13),  # Metadata
    8: (8, 10),  # OffsetCommit
    9: (6, 10),  # OffsetFetch
    10: (3, 6),  # FindCoordinator
    11: (6, 9),  # JoinGroup
    12: (4, 4),  # Heartbeat
    13: (4, 5),  # LeaveGroup
    14: (4, 5),  # SyncGroup
    17: (99, 1),  # SaslHandshake
    18: (3, 5),  # ApiVersions
}
# So many versions more are taken for versions to come.
_KAFKA_TO_COME: Final = 4
# Their bodies leave no doubt, whatever the client calls itself.
_KAFKA_STRICT: Final = frozenset((3, 17, 18))
# Below 17 * 65,536, so that it is no DNS message's length.
_KAFKA_MAX: Final = 0x00110000
_KAFKA_CLIENT_ID: Final = 255
# How much of a request's body is looked at.
_KAFKA_BODY: Final = 64
_NAME: Final = ALNUM | frozenset(b"._-")
_CONTROL: Final = frozenset(range(0x20)) | {0x7F}


def kafka(data: bytes) -> int:
    """Length (32 bit, 10..1,114,111), api key and version of `_KAFKA`, correlation id below 2^30 (a letter there is
    PostgreSQL's first parameter), client id (-1, or 1..255 bytes of text, inside the length; none of 0 but in front of
    a strict body), and a body that begins as that request does (`_kafka_body`), as far as the length or 64 bytes.
    """
    size = int.from_bytes(data[:4].ljust(4, b"\0"), "big")
    if size >= _KAFKA_MAX or (len(data) >= 4 and size < 10):
        return NO
    if any(data[4:5]) or (len(data) > 5 and data[5] not in _KAFKA):
        return NO
    if any(data[6:7]) or (len(data) > 7 and data[7] > _KAFKA[data[5]][1] + _KAFKA_TO_COME) or data[8:9] >= b"\x40":
        return NO
    if len(data) < 14:
        return MORE
    length = int.from_bytes(data[12:14], "big", signed=True)
    end = 14 + max(length, 0)
    if not -1 <= length <= _KAFKA_CLIENT_ID or end > 4 + size or not _CONTROL.isdisjoint(data[14:end]):
        return NO
    if not length and data[5] not in _KAFKA_STRICT:
        return NO
    looked_at = min(4 + size, end + _KAFKA_BODY)
    if len(data) < looked_at:
        return MORE
    api, version = data[5], data[7]
    compact = version >= _KAFKA[api][0]
    if compact:
        # No tagged fields are defined for a request's header.
        if data[end:looked_at][:1] != b"\0":
            return NO
        end += 1
    return YES if _kafka_body(api, version, _KafkaFields(data[end:looked_at], compact=compact)) else NO


class _KafkaFields:
    """A request's body, field by field. What lies behind what is looked at is taken to be right."""

    def __init__(self, data: bytes, *, compact: bool) -> None:
        self.data = data
        self.compact = compact

    def number(self, size: int) -> int:
        taken, self.data = self.data[:size], self.data[size:]
        return int.from_bytes(taken, "big", signed=True)

    def length(self, size: int) -> int:
        """Of a string (16 bit) or an array (32 bit); -1 is null."""
        if not self.compact:
            return self.number(size)
        value = shift = 0
        while self.data and shift < 28:
            byte, self.data = self.data[0], self.data[1:]
            value |= (byte & 0x7F) << shift
            if byte < 0x80:
                break
            shift += 7
        return value - 1

    def text(self, allowed: frozenset[int] = _NAME, *, most: int = 249) -> bool:
        """A string of 1..`most` bytes, all of them allowed ones."""
        length = self.length(2)
        taken, self.data = self.data[:length], self.data[length:]
        return 1 <= length <= most and allowed.issuperset(taken)


_GROUP: Final = frozenset(range(0x20, 0x100)) - {0x7F}
_MECHANISM: Final = UPPER | frozenset(b"0123456789-_")


def _kafka_body(api: int, version: int, fields: _KafkaFields) -> bool:
    if api == 18:
        # Versions without fields; librdkafka sends an empty list with them.
        return (fields.text() and fields.text()) if fields.compact else fields.data in {b"", bytes(4)}
    if api == 17:
        return fields.text(_MECHANISM, most=20) and not fields.data
    if api == 3:
        topics = fields.length(4)
        if topics < 1:
            # Of every topic, or of none; behind it are flags and a tag count.
            return topics >= -1 and len(fields.data) <= 8 and not any(byte > 1 for byte in fields.data)
        if version >= 10:
            fields.number(16)
        return fields.text()
    if api == 0:
        return _kafka_produce(version, fields)
    if api in {1, 2}:
        # A broker that fetches has its own number here; a client has -1, and later versions of Fetch nothing.
        if not (api == 1 and version >= 15) and fields.number(4) < -1:
            return False
        return api == 2 or (0 <= fields.number(4) < 1 << 24 and 0 <= fields.number(4) < 1 << 30)
    # A group, or some key; later versions ask for several.
    if api == 10 and version >= 4 and not 0 <= fields.number(1) <= 2:
        return False
    if ((api == 10 and version >= 4) or (api == 9 and version >= 8)) and fields.length(4) < 1:
        return False
    return fields.text(_GROUP, most=1024)


def _kafka_produce(version: int, fields: _KafkaFields) -> bool:
    if version >= 3:
        # Transactional id, mostly null.
        if fields.data[:1] == (b"\0" if fields.compact else b"\xff"):
            fields.length(2)
        elif not fields.text(_GROUP, most=1024):
            return False
        elif not fields.data:
            return True
    acknowledgements, timeout, topics = fields.number(2), fields.number(4), fields.length(4)
    if not -1 <= acknowledgements <= 1 or timeout < 0 or topics < 1:
        return False
    if version >= 13:
        return True  # topics by id
    return fields.text()


_AMQP: Final = tuple(
    b"AMQP" + version
    for version in (
        b"\0\0\x09\x01",  # 0-9-1
        b"\0\x01\0\0",  # 1.0
        b"\x02\x01\0\0",  # 1.0 over TLS
        b"\x03\x01\0\0",  # 1.0 with SASL
        b"\x01\x01\x00\x0a",  # 0-10
        b"\x01\x01\x00\x09",  # 0-9
        b"\x01\x01\x08\x00",  # 0-8
    )
)


def amqp(data: bytes) -> int:
    """The protocol header of 8 bytes (AMQP 0-9-1 §4.2.2, 1.0 §2.2), from a server that wants another version, too."""
    return max(fixed(data, header) for header in _AMQP)


def mqtt(to_server: bytes, to_client: bytes) -> int:
    """CONNECT (3.1.1 and 5 §3.1). Of a connection whose beginning is missing: a PINGREQ with its PINGRESP, or a PUBLISH
    with its PUBACK or PUBREC, which agree in shape.
    """
    if not to_server or (answer := _mqtt_connect(to_server)) == NO:
        answer = max(
            _mqtt_pair(to_server, to_client, b"\xc0\0", b"\xd0\0") if to_server else NO,
            _mqtt_publish(to_server, to_client),
            _mqtt_publish(to_client, to_server),
        )
    return answer


def _mqtt_connect(data: bytes) -> int:
    """`10`, remaining length, and `00 04 "MQTT"` level 4 or 5, or `00 06 "MQIsdp"` level 3 (the upper bit of the level
    is set by bridges); flags without bit 0, a will's only with a will, of level 3 and 4 a password only with a name.
    """
    if data[:1] != b"\x10":
        return NO
    at, room, answer = _mqtt_length(data)
    if answer != YES:
        return answer
    if not 12 <= room < 1 << 20:
        return NO
    name, levels = (b"\0\x06MQIsdp", (3,)) if data[at + 1 : at + 2] == b"\x06" else (b"\0\x04MQTT", (4, 5))
    answer = fixed(data[at:], name)
    if answer != YES:
        return answer
    at += len(name)
    if len(data) <= at:
        return MORE
    level = data[at] & 0x7F
    if level not in levels:
        return NO
    if len(data) <= at + 1:
        return MORE
    flags = data[at + 1]
    will, username, password = flags & 4, flags & 0x80, flags & 0x40
    if flags & 1 or (flags & 0x38 and not will) or flags & 0x18 == 0x18 or (password and not username and level < 5):
        return NO
    return YES


def _mqtt_length(data: bytes) -> tuple[int, int, int]:
    """(behind it, value, answer) of a packet's remaining length, 1-4 bytes."""
    value = 0
    for at in range(1, 5):
        if len(data) <= at:
            return at, 0, MORE
        value |= (data[at] & 0x7F) << 7 * (at - 1)
        if data[at] < 0x80:
            return at + 1, value, YES
    return 5, 0, NO


def _mqtt_pair(asks: bytes, answers: bytes, question: bytes, reply: bytes) -> int:
    answer = fixed(asks, question)
    if answer != YES:
        return answer
    answer = fixed(answers, reply)
    return LIKELY if answer == YES else ASK if answer == MORE else NO


def _mqtt_publish(data: bytes, peer: bytes) -> int:
    """A PUBLISH with an identifier: topic of printable bytes inside the packet, and the other side's `40 02` or `50 02`
    with the same identifier.
    """
    if data[:1] not in {b"\x32", b"\x33", b"\x34", b"\x35", b"\x3a", b"\x3b", b"\x3c", b"\x3d"}:
        return NO
    at, room, answer = _mqtt_length(data)
    if answer != YES:
        return answer
    if len(data) < at + 2:
        return MORE
    size = int.from_bytes(data[at : at + 2], "big")
    topic = data[at + 2 : at + 2 + size]
    if not 1 <= size <= room - 4 or not _CONTROL.isdisjoint(topic):
        return NO
    identifier = data[at + 2 + size : at + 4 + size]
    if len(identifier) < 2:
        return MORE
    reply = (b"\x40\x02" if data[0] & 6 == 2 else b"\x50\x02") + identifier
    return _mqtt_pair(b"", peer, b"", reply) if any(identifier) else NO
