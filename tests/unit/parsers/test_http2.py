from __future__ import annotations

from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from parsers.base import (
    TO_CLIENT,
    TO_SERVER,
    Event,
    GoAway,
    ParseError,
    Preface,
    Request,
    Response,
    Settings,
    StreamReset,
)
from parsers.http2 import Http2Parser, Limits
from tests.unit.slowpath.core.h2 import (
    END_HEADERS,
    END_STREAM,
    PADDED,
    PREFACE,
    PRIORITY,
    SETTINGS_ACK,
    START,
    Sender,
    frame,
    settings,
)

HEAD = ((":method", "GET"), (":scheme", "http"), (":path", "/x"), (":authority", "a"))


def started(limits: Limits | None = None) -> Http2Parser:
    parser = Http2Parser(limits)
    parser.feed(TO_SERVER, START)
    parser.feed(TO_CLIENT, settings())
    return parser


def refused(data: bytes, parser: Http2Parser | None = None, direction: int = TO_SERVER) -> str:
    with pytest.raises(ParseError) as error:
        (parser or started()).feed(direction, data)
    return error.value.code


def test_preface_and_settings() -> None:
    parser = Http2Parser()
    assert parser.feed(TO_SERVER, START) == [Preface(), Settings(TO_SERVER, ((3, 100),))]
    assert parser.feed(TO_CLIENT, settings((4, 65535)) + SETTINGS_ACK) == [Settings(TO_CLIENT, ((4, 65535),))]


def test_request() -> None:
    (request,) = started().feed(TO_SERVER, Sender().request(1, "/a?b", "POST"))
    assert request == Request(b"POST", b"/a?b", b"a.example", b"", 1, b"http")


def test_grpc() -> None:
    (request,) = started().feed(TO_SERVER, Sender().call(1, "/pkg.Service/Method"))
    assert isinstance(request, Request)
    assert request.is_grpc
    assert request.grpc == (b"pkg.Service", b"Method")


def test_responses_and_trailers() -> None:
    parser, sender = started(), Sender()
    events = parser.feed(TO_CLIENT, sender.response(1, 200) + frame(0, 0, 1, b"body"))
    events += parser.feed(TO_CLIENT, frame(1, END_HEADERS | END_STREAM, 1, sender.block(("grpc-status", "7"))))
    assert events == [Response(200, 1), Response(0, 1, b"7")]
    assert refused(frame(1, END_HEADERS, 3, sender.block((":status", "abc"))), parser, TO_CLIENT) == "status"


def test_request_trailers_are_no_request() -> None:
    parser, sender = started(), Sender()
    parser.feed(TO_SERVER, frame(1, END_HEADERS, 1, sender.block(*HEAD)))
    assert parser.feed(TO_SERVER, frame(1, END_HEADERS | END_STREAM, 1, sender.block(("x", "y")))) == []
    assert refused(frame(1, END_HEADERS, 1, sender.block((":path", "/admin"))), parser) == "trailers"


def test_hpack_tables_of_both_sides_are_apart() -> None:
    parser, client, server = started(), Sender(), Sender()
    for stream in (1, 3, 5):
        (request,) = parser.feed(TO_SERVER, client.request(stream, "/same/path", "GET", ("x-long", "value" * 9)))
        assert isinstance(request, Request)
        assert request.path == b"/same/path"
        assert parser.feed(TO_CLIENT, server.response(stream, 404)) == [Response(404, stream)]


def test_continuation_and_padding() -> None:
    block = Sender().block(*HEAD)
    priority = (0).to_bytes(4, "big") + b"\x10"
    padded = bytes((4,)) + priority + block[:3] + bytes(4)
    data = frame(1, PADDED | PRIORITY, 1, padded) + frame(9, 0, 1, block[3:5]) + frame(9, END_HEADERS, 1, block[5:])
    parser = started()
    assert parser.feed(TO_SERVER, data[:-1]) == []
    assert parser.pending(TO_SERVER)
    (request,) = parser.feed(TO_SERVER, data[-1:])
    assert isinstance(request, Request)
    assert request.path == b"/x"
    assert not parser.pending(TO_SERVER)


@pytest.mark.parametrize(
    ("data", "code"),
    [
        (frame(1, PADDED | END_HEADERS, 1, b"\x09abc"), "padding"),
        (frame(1, PADDED | END_HEADERS, 1, b""), "padding"),
        (frame(1, 0, 1, b"") + frame(0, 0, 1, b""), "continuation"),
        (frame(1, 0, 1, b"") + frame(9, 0, 3, b""), "continuation"),
        (frame(9, END_HEADERS, 1, b""), "continuation"),
        (frame(1, END_HEADERS, 0, b"\x82"), "stream_zero"),
        (frame(0, 0, 0, b""), "stream_zero"),
        (frame(4, 0, 1, b""), "stream_not_zero"),
        (frame(6, 0, 1, bytes(8)), "stream_not_zero"),
        (frame(6, 0, 0, bytes(7)), "frame_size"),
        (frame(8, 0, 0, bytes(3)), "frame_size"),
        (frame(3, 0, 1, bytes(5)), "frame_size"),
        (frame(4, 0, 0, bytes(5)), "frame_size"),
        (frame(4, 1, 0, bytes(6)), "frame_size"),
        (frame(7, 0, 0, bytes(4)), "frame_size"),
        (frame(0, 0, 1, bytes(16385)), "frame_size"),
        (settings((5, 100)), "setting"),
        (frame(5, END_HEADERS, 1, bytes(4)), "client_push"),
        (frame(1, END_HEADERS, 2, Sender().block(*HEAD)), "stream_even"),
        (frame(1, END_HEADERS, 1, b"\xff\xff\xff\xff\xff\xff"), "hpack"),
        (frame(1, END_HEADERS, 1, b"\xc0"), "hpack"),
        (frame(1, END_HEADERS, 1, Sender().block(*HEAD[:3], (":path", "/y"))), "pseudo_header"),
        (frame(1, END_HEADERS, 1, Sender().block(HEAD[0], ("x", "y"), *HEAD[1:])), "pseudo_header"),
        (frame(1, END_HEADERS, 1, Sender().block(*HEAD[1:])), "pseudo_header"),
        (frame(1, END_HEADERS, 1, Sender().block(*HEAD, (":other", "y"))), "pseudo_header"),
        (frame(1, END_HEADERS, 1, Sender().block(*HEAD[:2], HEAD[3])), "pseudo_header"),
        (frame(1, END_HEADERS, 1, Sender().block(*HEAD[:2], (":path", "x"), HEAD[3])), "path"),
        (frame(1, END_HEADERS, 1, Sender().block(*HEAD, ("X-Upper", "y"))), "header_name"),
        (frame(1, END_HEADERS, 1, Sender().block(*HEAD, ("connection", "close"))), "connection_header"),
        (frame(1, END_HEADERS, 1, Sender().block(*HEAD, ("x", "a\r\nb"))), "header_value"),
        (frame(1, END_HEADERS, 1, Sender().block(*HEAD, ("host", "b"))), "host_differs"),
        (frame(1, END_HEADERS, 1, Sender().block(*HEAD[:3], (":authority", "a/b"))), "host"),
    ],
)
def test_malformed(data: bytes, code: str) -> None:
    assert refused(data).startswith(code)


def test_settings_must_be_first_on_both_sides() -> None:
    assert refused(PREFACE + SETTINGS_ACK, Http2Parser()) == "settings_first"
    assert refused(PREFACE + Sender().request(1), Http2Parser()) == "settings_first"
    assert refused(Sender().response(1), Http2Parser(), TO_CLIENT) == "settings_first"


def test_wrong_preface() -> None:
    assert refused(b"PRI * HTTP/2.0\r\n\r\nXX", Http2Parser()) == "preface"


def test_error_has_its_place_and_what_came_before() -> None:
    sender = Sender()
    good = sender.request(1)
    with pytest.raises(ParseError) as error:
        started().feed(TO_SERVER, good + frame(9, 0, 1))
    assert error.value.offset == len(START) + len(good)
    assert len(error.value.events) == 1
    assert str(error.value) == f"continuation at byte {len(START) + len(good)}"


def test_servers_settings_bind_the_client() -> None:
    parser = started()
    parser.feed(TO_CLIENT, settings((5, 20000)))
    assert parser.feed(TO_SERVER, frame(0, 0, 1, bytes(20000))) == []
    assert refused(frame(0, 0, 1, bytes(20001)), parser) == "frame_size"


def test_table_size_beyond_what_was_allowed() -> None:
    update = b"\x3f\xe1\x5f"  # dynamic table size update to 12,288
    assert refused(frame(1, END_HEADERS, 1, update + Sender().block(*HEAD))).startswith("hpack")
    parser = started()
    parser.feed(TO_CLIENT, settings((1, 16384)))
    (request,) = parser.feed(TO_SERVER, frame(1, END_HEADERS, 1, update + Sender().block(*HEAD)))
    assert isinstance(request, Request)


@pytest.mark.parametrize(
    ("data", "code"),
    [
        (frame(1, 0, 1, b"") + frame(9, 0, 1, b"") * 100, "continuation_flood"),
        (frame(1, 0, 1, b"x" * 16384) + frame(9, 0, 1, b"x" * 16384) * 4, "block_size"),
        (frame(3, 0, 1, bytes(4)) * 300, "rapid_reset"),
        (settings() * 200, "control_flood"),
        (frame(6, 0, 0, bytes(8)) * 200, "control_flood"),
        (frame(2, 0, 1, bytes(5)) * 2000, "priority_flood"),
        (frame(0, 0, 1, b"") * 200, "empty_flood"),
    ],
)
def test_floods(data: bytes, code: str) -> None:
    parser = started()

    def flood() -> None:
        for at in range(0, len(data), 1000):
            parser.feed(TO_SERVER, data[at : at + 1000])
            assert parser.buffered < 100_000

    with pytest.raises(ParseError, match=code):
        flood()


def test_header_bomb() -> None:
    sender = Sender()
    block = sender.block(*HEAD, ("x", "y" * 3000))
    parser = started()
    parser.feed(TO_SERVER, frame(1, END_HEADERS, 1, block))
    bomb = sender.block(*HEAD) + sender.block(("x", "y" * 3000)) * 100
    assert refused(frame(1, END_HEADERS, 3, bomb), parser) == "header_list"


def test_bodies_are_walked_not_kept() -> None:
    parser = started()
    parser.feed(TO_SERVER, Sender().request(1))
    body = frame(0, 0, 1, bytes(16384))
    for at in range(0, len(body), 1000):
        parser.feed(TO_SERVER, body[at : at + 1000])
        assert parser.buffered <= 9
    assert not parser.pending(TO_SERVER)
    assert parser.feed(TO_SERVER, frame(3, 0, 1, (8).to_bytes(4, "big"))) == [StreamReset(TO_SERVER, 1, 8)]


def test_goaway_push_unknown_frames() -> None:
    parser = started()
    assert parser.feed(TO_CLIENT, frame(7, 0, 0, bytes(4) + (2).to_bytes(4, "big"))) == [GoAway(TO_CLIENT, 2)]
    assert parser.feed(TO_CLIENT, frame(5, END_HEADERS, 1, bytes(4) + Sender().block(*HEAD))) == []
    assert parser.feed(TO_SERVER, frame(0xEE, 0xFF, 77, b"whatever")) == []


def test_gap_in_a_body_only() -> None:
    parser = started()
    parser.feed(TO_SERVER, frame(0, 0, 1, bytes(1000))[:500])
    assert parser.gap(TO_SERVER, 509) == []
    assert parser.feed(TO_SERVER, frame(6, 0, 0, bytes(8))) == []
    with pytest.raises(ParseError, match="gap"):
        parser.gap(TO_SERVER, 1)


def test_upgraded() -> None:
    request = Request(b"GET", b"/", b"a")
    parser = Http2Parser(upgraded=request, settings=b"\0\1\0\0\x40\0")
    assert parser.feed(TO_CLIENT, settings() + Sender().response(1)) == [Settings(TO_CLIENT, ()), Response(200, 1)]
    parser.feed(TO_SERVER, START)
    assert refused(frame(1, END_HEADERS, 1, Sender().block(*HEAD)), parser) == "trailers"
    with pytest.raises(ParseError):
        Http2Parser(upgraded=request, settings=b"\0\1\0")


def test_pending_only_where_a_request_could_begin() -> None:
    parser = Http2Parser()
    parser.feed(TO_SERVER, PREFACE[:5])
    assert parser.pending(TO_SERVER)
    parser.feed(TO_SERVER, START[5:])
    assert not parser.pending(TO_SERVER)
    parser.feed(TO_SERVER, frame(8, 0, 0, bytes(4))[:6])
    assert not parser.pending(TO_SERVER)
    assert not parser.blocked


def _conversation() -> bytes:
    sender = Sender()
    block = sender.block(*HEAD)
    split = frame(1, 0, 1, block[:2]) + frame(9, END_HEADERS, 1, block[2:])
    return (
        START
        + split
        + frame(0, 0, 1, bytes(300))
        + sender.request(3)
        + frame(6, 0, 0, bytes(8))
        + sender.call(5, "/a/b")
    )


@given(st.lists(st.integers(1, len(_conversation())), max_size=30))
def test_pieces_change_nothing(cuts: list[int]) -> None:
    data = _conversation()
    parser = Http2Parser()
    found: list[Event] = []
    for low, high in pairwise(sorted({0, *cuts, len(data)})):
        found += parser.feed(TO_SERVER, data[low:high])
    assert found == Http2Parser().feed(TO_SERVER, data)
    assert len([e for e in found if isinstance(e, Request)]) == 3


@given(st.binary(max_size=400), st.booleans())
def test_noise(noise: bytes, to_client: bool) -> None:
    for parser, direction in ((Http2Parser(), int(to_client)), (started(), int(to_client))):
        try:
            parser.feed(direction, noise)
        except ParseError as error:
            assert error.offset <= len(START) + len(noise)  # noqa: PT017


@pytest.mark.parametrize(
    ("direction", "value", "taken"), [(TO_CLIENT, 1, True), (TO_CLIENT, 0, False), (TO_SERVER, 1, False)]
)
def test_binary_metadata_of_grpc_goes_raw_to_who_takes_it(direction: int, value: int, taken: bool) -> None:
    parser = started()
    parser.feed(direction, settings((0xFE03, value)))
    sender = Sender()

    def call(stream: int, *headers: tuple[str, str]) -> bytes:
        return frame(1, END_HEADERS, stream, sender.block(*HEAD, *headers))

    if not taken:
        with pytest.raises(ParseError) as error:
            parser.feed(TO_SERVER, call(1, ("trace-bin", "\0\r\n ")))
        assert error.value.code == "header_value"
        return
    (request,) = parser.feed(TO_SERVER, call(1, ("trace-bin", "\0\r\n ")))
    assert isinstance(request, Request)
    for name, text in (("trace", "\0\r\n "), ("trace-bin", "a\r\n"), (":path-bin", "\0")):
        with pytest.raises(ParseError):
            parser.feed(TO_SERVER, call(3, (name, text)))
        parser = started()
        parser.feed(TO_CLIENT, settings((0xFE03, 1)))
        sender = Sender()
