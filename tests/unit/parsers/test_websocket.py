from __future__ import annotations

import os

import pytest

from parsers.base import TO_CLIENT, TO_SERVER, ParseError
from parsers.websocket import Limits, WebSocketParser
from tests.contract.conversations.websocket import KEY, frame, reply
from tests.unit.parsers.streams import fed, flooded, refused, said


@pytest.mark.parametrize(
    ("direction", "data", "code"),
    [
        (TO_SERVER, reply(1, b"a"), "not_masked"),
        (TO_CLIENT, frame(1, b"a"), "masked"),
        (TO_SERVER, frame(9, b"a")[:1] + b"\x01", "not_masked"),
        (TO_SERVER, frame(3), "opcode"),
        (TO_SERVER, frame(11), "opcode"),
        (TO_SERVER, frame(1, rsv=2), "reserved_bit"),
        (TO_SERVER, frame(1, rsv=1), "reserved_bit"),
        (TO_SERVER, frame(9, rsv=4), "reserved_bit"),
        (TO_SERVER, frame(9, fin=False), "control_frame"),
        (TO_SERVER, frame(9, bytes(126)), "control_frame"),
        (TO_SERVER, frame(0), "continuation"),
        (TO_SERVER, frame(8, b"\x03"), "close_code"),
        (TO_SERVER, frame(8, b"\x03\xed"), "close_code"),  # 1005
        (TO_CLIENT, reply(8, b"\x03\xe7"), "close_code"),  # 999
        (TO_CLIENT, reply(8, b"\x03\xf7"), "close_code"),  # 1015
        (TO_CLIENT, reply(8, b"\x13\x88"), "close_code"),  # 5000
        (TO_CLIENT, b"\x81\x7e\0\x7d", "length"),
        (TO_CLIENT, b"\x81\x7f\0\0\0\0\0\0\xff\xff", "length"),
        (TO_CLIENT, b"\x81\x7f\xff\xff\xff\xff\xff\xff\xff\xff", "message_too_long"),
        (TO_CLIENT, b"\x82\x7f\0\0\0\1\0\0\0\1", "message_too_long"),
    ],
)
def test_refused(direction: int, data: bytes, code: str) -> None:
    assert refused(WebSocketParser(), (direction, data)) == (code, 0)


def test_a_message_in_another() -> None:
    begun = frame(1, b"a", fin=False)
    assert refused(WebSocketParser(), (TO_SERVER, begun), (TO_SERVER, frame(2))) == ("continuation", len(begun))


def test_compression_is_said_by_the_first_frame() -> None:
    assert refused(WebSocketParser(), (TO_SERVER, frame(1, fin=False) + frame(0, rsv=4)))[0] == "reserved_bit"


@pytest.mark.parametrize("code", [1000, 1003, 1007, 1014, 3000, 4999])
def test_close_codes(code: int) -> None:
    parser = WebSocketParser()
    close = code.to_bytes(2, "big") + b"why"
    assert fed(parser, (TO_SERVER, frame(8, close)), (TO_CLIENT, reply(8, close))) == []
    assert parser.buffered == 0
    assert refused(parser, (TO_SERVER, frame(1, b"a")))[0] == "after_close"


@pytest.mark.parametrize("size", [0, 1, 125, 126, 4095, 4096, 4097, 65535, 65536, 70001])
@pytest.mark.parametrize("direction", [TO_SERVER, TO_CLIENT])
def test_sizes(size: int, direction: int) -> None:
    payload = os.urandom(size)
    made = frame if direction == TO_SERVER else reply
    parser = WebSocketParser()
    data = made(1, payload) + made(2, payload)
    assert said(fed(parser, *[(direction, data[at : at + 997]) for at in range(0, len(data), 997)])) == [
        {"websocket.kind": b"text", "websocket.size": size, "websocket.text": payload[:4096]},
        {"websocket.kind": b"binary", "websocket.size": size},
    ]
    assert parser.buffered == 0


def test_text_of_many_frames_with_keys_of_their_own() -> None:
    frames = [frame(1, b"x" * 4095, fin=False), *[frame(0, b"yz", key=bytes([n] * 4), fin=False) for n in range(9)]]
    (unit,) = said(fed(WebSocketParser(), (TO_SERVER, b"".join(frames) + frame(0, b"!"))))
    assert unit["websocket.text"] == b"x" * 4095 + b"y"
    assert unit["websocket.size"] == 4095 + 18 + 1


def test_pending_from_the_first_byte_to_the_last() -> None:
    parser = WebSocketParser()
    data = frame(2, bytes(100_000))
    assert not parser.pending(TO_SERVER)
    for at in range(0, len(data) - 1, 10_000):
        assert fed(parser, (TO_SERVER, data[at : min(at + 10_000, len(data) - 1)])) == []
        assert parser.pending(TO_SERVER)
        assert parser.buffered == 0
    assert not parser.pending(TO_CLIENT)
    assert len(fed(parser, (TO_SERVER, data[-1:]))) == 1
    assert not parser.pending(TO_SERVER)


def test_pending_between_fragments_and_not_in_a_ping() -> None:
    parser = WebSocketParser()
    fed(parser, (TO_SERVER, frame(9, b"abc")[:-1]))
    assert not parser.pending(TO_SERVER)
    fed(parser, (TO_SERVER, frame(9, b"abc")[-1:] + frame(2, b"a", fin=False) + frame(9)))
    assert parser.pending(TO_SERVER)


def test_memory_is_bounded() -> None:
    parser = WebSocketParser()
    fed(parser, (TO_SERVER, b"\x81\xff\0\0\0\1\0\0\0\0" + KEY))
    assert flooded(parser, bytes(65536), times=100) == ("", 4096)
    assert flooded(WebSocketParser(), frame(1, b"a" * 5000, fin=False) + frame(9))[0] == "continuation"
    parser = WebSocketParser()
    fed(parser, (TO_SERVER, frame(1, fin=False)))
    assert flooded(parser, frame(0, b"a" * 5000, fin=False)) == ("", 4096)


def test_a_message_of_many_frames_is_bounded() -> None:
    parser = WebSocketParser(Limits(message=1000))
    fed(parser, (TO_SERVER, frame(2, bytes(600), fin=False)))
    assert refused(parser, (TO_SERVER, frame(0, bytes(401)))) == ("message_too_long", 608)


def test_gap_in_what_is_not_kept() -> None:
    parser = WebSocketParser()
    data = frame(2, bytes(1000))
    fed(parser, (TO_SERVER, data[:500]))
    assert len(parser.gap(TO_SERVER, len(data) - 500)) == 1
    assert len(fed(parser, (TO_SERVER, data))) == 1


@pytest.mark.parametrize("cut", [0, 1, 8, 20])
def test_gap_in_what_is(cut: int) -> None:
    parser = WebSocketParser()
    fed(parser, (TO_SERVER, frame(1, bytes(100))[:cut]))
    with pytest.raises(ParseError, match=f"gap at byte {cut}"):
        parser.gap(TO_SERVER, 1)
