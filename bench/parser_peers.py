"""Other readers of the same bytes as our parsers, each beside ours: h11, h2, the TLS layers of scapy and dpkt, hiredis,
PyMongo's bson, pika's frames, wsproto.

None of them does what ours do (those read both sides, say what rules ask for, and bear any segmentation): they show
what reading alone costs in Python, and what C makes of it.
"""

from __future__ import annotations

import struct
from collections.abc import Callable, Iterator, Mapping, Sequence

import bson
import dpkt.ssl
import h2.config
import h2.connection
import h2.events
import h2.settings
import h11
import hiredis
import pika.frame
from scapy.layers.tls.record import TLS
from wsproto.frame_protocol import FrameProtocol

from parsers.base import TO_CLIENT, TO_SERVER
from parsers.registry import PARSERS
from tests.data import recorded

# By what is read: how many of these a call reads, ours first, then theirs by name.
Work = Callable[[], int]
Peers = Mapping[str, tuple[Work, Mapping[str, Work]]]

COUNT = 200
_COMMAND = b"*3\r\n$3\r\nSET\r\n$8\r\nlab:%04d\r\n$5\r\nvalue\r\n"
_MASK = b"\1\2\3\4"


def peers(get: bytes, answer: bytes, calls: Sequence[bytes]) -> Peers:
    """`get` and `answer` are of HTTP/1, `calls` of gRPC on one connection."""
    hello = recorded("tls")["openssl 1.3"][0][1]
    commands = b"".join(_COMMAND % number for number in range(COUNT))
    text = b"what is said in a chat, %04d" % 7
    masked = bytes(byte ^ _MASK[at % 4] for at, byte in enumerate(text))
    frames = (b"\x81" + bytes((0x80 | len(text),)) + _MASK + masked) * COUNT
    mongodb = recorded("mongodb")["pymongo"]
    amqp = recorded("amqp")["pika at RabbitMQ"]
    return {
        "http requests": (
            lambda: _ours("http", [(TO_SERVER, get), (TO_CLIENT, answer)] * COUNT, COUNT),
            {"h11": lambda: _h11(get)},
        ),
        "grpc calls": (
            lambda: _ours("http2", [(TO_SERVER, call) for call in calls], len(calls)),
            {"h2": lambda: _h2(calls)},
        ),
        "tls hellos": (
            lambda: sum(_ours("tls", [(TO_SERVER, hello)], 1) for _ in range(20)),
            {"scapy": lambda: _scapy(hello), "dpkt": lambda: _dpkt(hello)},
        ),
        "redis commands": (
            lambda: _ours("redis", [(TO_SERVER, commands)], COUNT),
            {"hiredis": lambda: _hiredis(commands)},
        ),
        "mongodb commands": (
            lambda: _ours("mongodb", mongodb, len(list(_documents(mongodb)))),
            {"bson": lambda: len([bson.decode(document) for document in _documents(mongodb)])},
        ),
        "amqp frames": (lambda: _ours("amqp", amqp, _pika(amqp)), {"pika": lambda: _pika(amqp)}),
        "websocket messages": (
            lambda: _ours("websocket", [(TO_SERVER, frames)], COUNT),
            {"wsproto": lambda: _wsproto(frames)},
        ),
    }


def _ours(name: str, parts: Sequence[tuple[int, bytes]], count: int) -> int:
    """One connection."""
    parser = PARSERS[name]()
    for direction, data in parts:
        parser.feed(direction, data)
    return count


def _h11(get: bytes) -> int:
    connection = h11.Connection(h11.SERVER)
    for _ in range(COUNT):
        connection.receive_data(get)
        assert isinstance(connection.next_event(), h11.Request)
        assert isinstance(connection.next_event(), h11.EndOfMessage)
        connection.send(h11.Response(status_code=200, headers=[("Content-Length", "2")]))
        connection.send(h11.Data(data=b"ok"))
        connection.send(h11.EndOfMessage())
        connection.start_next_cycle()
    return COUNT


def _h2(calls: Sequence[bytes]) -> int:
    connection = h2.connection.H2Connection(h2.config.H2Configuration(client_side=False))
    most = {h2.settings.SettingCodes.MAX_CONCURRENT_STREAMS: len(calls) + 1}
    connection.local_settings = h2.settings.Settings(client=False, initial_values=most)
    events = [event for call in calls for event in connection.receive_data(call)]
    assert sum(isinstance(event, h2.events.StreamEnded) for event in events) == len(calls)
    return len(calls)


def _scapy(hello: bytes) -> int:
    for _ in range(5):
        assert TLS(hello).msg[0].ext
    return 5


def _dpkt(hello: bytes) -> int:
    for _ in range(20):
        assert dpkt.ssl.TLSHandshake(dpkt.ssl.TLSRecord(hello).data).data.extensions
    return 20


def _hiredis(commands: bytes) -> int:
    reader, count = hiredis.Reader(), 0
    reader.feed(commands)
    while reader.gets() is not False:
        count += 1
    assert count == COUNT
    return count


def _documents(parts: Sequence[tuple[int, bytes]]) -> Iterator[bytes]:
    """The command of each OP_MSG."""
    for direction, data in parts:
        if direction == TO_SERVER and struct.unpack_from("<i", data, 12)[0] == 2013:
            yield data[21 : 21 + struct.unpack_from("<i", data, 21)[0]]


def _pika(parts: Sequence[tuple[int, bytes]]) -> int:
    count = 0
    for _, data in parts:
        while data:
            size, frame = pika.frame.decode_frame(data)
            assert frame is not None
            data, count = data[size:], count + 1
    return count


def _wsproto(frames: bytes) -> int:
    protocol = FrameProtocol(client=False, extensions=[])
    protocol.receive_bytes(frames)
    return sum(frame.message_finished for frame in protocol.received_frames())
