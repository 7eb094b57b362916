"""What is told of streams and their bodies where somebody asks for it."""

from __future__ import annotations

import pytest

from parsers.base import TO_CLIENT, TO_SERVER, Event, ParseError, Request, Unit
from parsers.http2 import Http2Parser, Limits
from tests.unit.parsers.test_http2 import HEAD, refused, started
from tests.unit.slowpath.core.h2 import END_HEADERS, END_STREAM, PADDED, Sender, frame, settings


def asked(*names: str, limits: Limits | None = None) -> Http2Parser:
    parser = started(limits)
    parser.asked = frozenset(names)
    return parser


def told(events: list[Event], name: str) -> list[object]:
    return [event.fields[name] for event in events if isinstance(event, Unit) and name in event.fields]


def test_calls_that_end_without_a_status() -> None:
    """grpc/doc/http-grpc-status-mapping.md: 200 is UNKNOWN, 503 UNAVAILABLE."""
    parser, sender, server = asked("grpc.status"), Sender(), Sender()
    for stream, status, expected in ((1, "200", 2), (3, "503", 14)):
        parser.feed(TO_SERVER, sender.call(stream, "/a.B/C"))
        head = server.block((":status", status), ("content-type", "application/grpc"))
        assert told(parser.feed(TO_CLIENT, frame(1, END_HEADERS, stream, head)), "grpc.status") == []
        assert told(parser.feed(TO_CLIENT, frame(0, END_STREAM, stream)), "grpc.status") == [expected]
    parser.feed(TO_SERVER, sender.call(5, "/a.B/C"))
    only = server.block((":status", "200"), ("content-type", "application/grpc"), ("grpc-status", "3"))
    assert told(parser.feed(TO_CLIENT, frame(1, END_HEADERS | END_STREAM, 5, only)), "grpc.status") == [3]
    assert parser.buffered == 0


def test_grpc_web_is_http2() -> None:
    parser = asked("grpc.message_size")
    request = Sender().request(1, "/a.B/C?d", "POST", ("content-type", "application/grpc-web+proto"))
    (unit,) = parser.feed(TO_SERVER, request[:4] + bytes((END_HEADERS,)) + request[5:])
    assert isinstance(unit, Request)
    assert unit.protocol == "http2"
    assert (unit.fields["grpc.service"], unit.fields["grpc.method"]) == (b"a.B", b"C")
    assert told(parser.feed(TO_SERVER, frame(0, END_STREAM, 1, b"\0\0\0\0\1x")), "grpc.message_size") == [1]


@pytest.mark.parametrize(
    ("data", "code"),
    [
        (frame(0, 0, 1, b"\2\0\0\0\0"), "grpc_message"),
        (frame(0, END_STREAM, 1, b"\0\0"), "grpc_message"),
        (frame(0, PADDED, 1, b"\5\0\0\0"), "padding"),
        (frame(0, PADDED, 1), "padding"),
    ],
)
def test_messages_that_are_none(data: bytes, code: str) -> None:
    for parts in ([data], [data[at : at + 1] for at in range(len(data))]):
        parser = asked("grpc.compressed")
        parser.feed(TO_SERVER, Sender().call(1, "/a.B/C")[: -9 - 5])
        with pytest.raises(ParseError, match=code):
            [parser.feed(TO_SERVER, part) for part in parts]
    parser = started()
    parser.feed(TO_SERVER, Sender().call(1, "/a.B/C")[: -9 - 5])
    if code != "padding":
        parser.feed(TO_SERVER, data)  # nobody asked


def test_responses_out_of_order() -> None:
    server = Sender()
    for early in (frame(0, 0, 1, b"x"), frame(1, END_HEADERS, 1, server.block(("x", "y")))):
        parser = asked("http.status")
        parser.feed(TO_SERVER, Sender().request(1))
        assert refused(early, parser, TO_CLIENT) in {"response", "trailers"}
    parser = asked("http.status")
    parser.feed(TO_SERVER, Sender().request(1))
    server = Sender()
    parser.feed(TO_CLIENT, server.response(1))
    assert refused(server.response(1), parser, TO_CLIENT) == "status"


def test_streams_that_are_remembered() -> None:
    limits = Limits(streams=3)
    parser, sender, server = asked("http.status", limits=limits), Sender(), Sender()
    for stream in range(1, 41, 2):
        parser.feed(TO_SERVER, sender.request(stream))
        if stream % 4 == 1:
            answer = server.response(stream, 200)
            assert told(parser.feed(TO_CLIENT, answer[:4] + b"\5" + answer[5:]), "http.status") == [200]
        else:
            parser.feed(TO_CLIENT, frame(3, 0, stream, bytes(4)))
        assert parser.buffered == 0
    for stream in (41, 43, 45):
        parser.feed(TO_SERVER, sender.request(stream))
    assert refused(sender.request(47), parser) == "streams"
    parser, sender = asked("http.target", "http.status"), Sender()
    with pytest.raises(ParseError, match="streams"):
        [parser.feed(TO_SERVER, sender.request(2 * number + 1, "/" + "a" * 8000)) for number in range(2000)]
    assert parser.buffered <= 9 << 20


def test_a_pushed_response_is_told() -> None:
    parser, server = asked("http.status", "http.response_body"), Sender()
    parser.feed(TO_SERVER, Sender().request(1))
    promise = frame(5, END_HEADERS, 1, (2).to_bytes(4, "big") + server.block(*HEAD))
    events = parser.feed(TO_CLIENT, promise + server.response(2) + frame(0, END_STREAM, 2, b"pushed"))
    assert told(events, "http.path") == [b"/x", b"/x"]
    assert told(events, "http.response_body") == [b"pushed"]


def test_the_answer_to_an_upgraded_request_is_told() -> None:
    parser = Http2Parser(upgraded=Request(b"GET", b"/u", b"a"))
    parser.asked = frozenset(("http.status",))
    events = parser.feed(TO_CLIENT, settings() + Sender().response(1, 404))
    (unit,) = [event for event in events if isinstance(event, Unit)]
    assert (unit.protocol, unit.fields["http.status"], unit.fields["http.path"]) == ("http2", 404, b"/u")


def test_missing_bytes_of_a_body_that_is_asked_for() -> None:
    sender = Sender()
    head = frame(1, END_HEADERS, 1, sender.block(*HEAD))
    for parser, missed in ((started(), True), (asked("http.body"), False)):
        parser.feed(TO_SERVER, head + frame(0, 0, 1, bytes(100))[:30])
        if missed:
            assert parser.gap(TO_SERVER, 20) == []
        else:
            with pytest.raises(ParseError, match="gap"):
                parser.gap(TO_SERVER, 20)
