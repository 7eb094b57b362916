"""Responses as they are told where somebody asks for them; where nobody does, see test_http1.py."""

from __future__ import annotations

import gzip

import pytest

from parsers.base import TO_CLIENT, TO_SERVER, Content, ParseError, Response, Said, Unit, Upgraded
from parsers.http1 import Http1Parser, Limits

GET = b"GET / HTTP/1.1\r\nHost: a\r\n\r\n"
HEAD = b"HEAD / HTTP/1.1\r\nHost: a\r\n\r\n"
ASKED = frozenset(("http.status", "http.response_body"))


def asked(requests: bytes = GET, names: frozenset[str] = ASKED, limits: Limits | None = None) -> Http1Parser:
    parser = Http1Parser(limits)
    parser.asked = names
    parser.feed(TO_SERVER, requests)
    return parser


def told(parser: Http1Parser, *parts: bytes) -> list[int | bytes]:
    """Statuses and bodies, these in pieces."""
    found: list[int | bytes] = []
    for event in [event for part in parts for event in parser.feed(TO_CLIENT, part)]:
        if isinstance(event, Content):
            found.append(event.data)
        elif isinstance(event, Said):
            assert event.direction == TO_CLIENT
            status = event.fields["http.status"]
            assert isinstance(status, int)
            found.append(status)
    return found


def test_framing() -> None:
    ok = b"HTTP/1.1 200 OK\r\n"
    sized, chunked = ok + b"Content-Length: 2\r\n\r\n", ok + b"Transfer-Encoding: chunked\r\n\r\n"
    assert told(asked(HEAD + GET), sized + sized + b"ab") == [200, 200, b"ab"]
    assert told(asked(HEAD + GET), chunked + chunked + b"2\r\nab\r\n0\r\n\r\n") == [200, 200, b"ab"]
    assert told(asked(GET * 2), b"HTTP/1.1 204 No\r\nContent-Length: 2\r\n\r\n" + sized + b"ab") == [204, 200, b"ab"]
    assert told(asked(), b"HTTP/1.1 100\r\n\r\nHTTP/1.1 102 x\r\n\r\n" + sized + b"ab") == [100, 102, 200, b"ab"]
    assert told(asked(), ok + b"Content-Length: 1\r\nContent-Length: 1\r\n\r\nb") == [200, b"b"]
    assert told(asked(GET * 2), sized + b"a", b"b" + sized + b"cd") == [200, b"a", b"b", 200, b"cd"]
    assert told(asked(), ok + b"\r\nHTTP/1.1 200 OK\r\n\r\n", b"x") == [200, b"HTTP/1.1 200 OK\r\n\r\n", b"x"]
    assert told(asked(), ok + b"Transfer-Encoding: x\r\n\r\n2\r\n") == [200], "not a coding that is undone"
    gzipped = gzip.compress(b"ab")
    assert told(asked(), ok + b"Transfer-Encoding: gzip, chunked\r\n\r\n%x\r\n" % len(gzipped) + gzipped) == [
        200,
        b"ab",
    ]


@pytest.mark.parametrize(
    "answer",
    [
        b"SSH-2.0-x\r\n",
        b"HTTP/2 200\r\n\r\n",
        b"HTTP/1.1 20 OK\r\n\r\n",
        b"HTTP/1.1 099 OK\r\n\r\n",
        b"HTTP/1.1 200 OK\r\nA : b\r\n\r\n",
        b"HTTP/1.1 200 OK\r\nA: b\r\n c\r\n\r\n",
        b"HTTP/1.1 200 OK\r\nA: b\nB: c\r\n\r\n",
        b"HTTP/1.1 200 OK\r\nA\r\n\r\n",
        b"HTTP/1.1 200 OK\r\nA: \0\r\n\r\n",
        b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\nTransfer-Encoding: chunked\r\n\r\n",
        b"HTTP/1.0 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n",
        b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked, chunked\r\n\r\n",
        b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked, gzip\r\n\r\n",
        b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\nContent-Length: 3\r\n\r\n",
        b"HTTP/1.1 200 OK\r\nContent-Length: 2, 3\r\n\r\n",
        b"HTTP/1.1 200 OK\r\nContent-Length: +2\r\n\r\n",
        b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n2 x\r\n",
        b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n2\r\nabc",
        b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n" + b"0" * 16 + b"1\r\n",
        b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n" + b";" * 2000,
        b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n" + b"a" * 70_000,
        b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\nHTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n",
        b"HTTP/1.1 200 OK\r\nA: " + b"a" * 70_000,
    ],
)
def test_what_is_no_response(answer: bytes) -> None:
    for parts in ([answer], [answer[at : at + 1] for at in range(len(answer))][:5000]):
        if sum(map(len, parts)) < len(answer):
            continue
        with pytest.raises(ParseError) as error:
            told(asked(), *parts)
        assert error.value.code == "response"
    # Nobody asked: it is nothing that matters.
    told(asked(names=frozenset()), answer)


def test_bodies_end_with_the_connection() -> None:
    names = frozenset(("grpc.status", "grpc.message_size"))
    call = b"POST /a.B/C HTTP/1.0\r\nContent-Type: application/grpc-web\r\nContent-Length: 0\r\n\r\n"
    head = b"HTTP/1.0 200 OK\r\nContent-Type: application/grpc-web\r\n\r\n"
    parser = asked(call, names)
    parser.feed(TO_CLIENT, head + b"\0\0\0\0\1x")
    (unit,) = parser.eof(TO_CLIENT)
    assert isinstance(unit, Unit)
    assert unit.fields["grpc.status"] == 2, "it had none"
    parser = asked(call, names)
    parser.feed(TO_CLIENT, head + b"\0\0\0\0\1x\x80\0\0\0\0")
    assert parser.eof(TO_CLIENT) == []
    parser = asked(call, names)
    parser.feed(TO_CLIENT, head + b"\0\0\0\0\2x")
    with pytest.raises(ParseError, match="grpc_message"):
        parser.eof(TO_CLIENT)


@pytest.mark.parametrize(
    ("kind", "status", "expected"),
    [(b"application/grpc-web", b"200", 2), (b"text/html", b"404", 12), (b"text/html", b"503", 14)],
)
def test_a_call_without_status(kind: bytes, status: bytes, expected: int) -> None:
    parser = asked(
        b"POST /a.B/C HTTP/1.1\r\nHost: a\r\nContent-Type: application/grpc-web\r\n\r\n", frozenset(("grpc.status",))
    )
    *_, last = parser.feed(
        TO_CLIENT, b"HTTP/1.1 %b x\r\nContent-Type: %b\r\nContent-Length: 0\r\n\r\n" % (status, kind)
    )
    assert isinstance(last, Said)
    assert last.fields["grpc.status"] == expected
    assert last.fields["grpc.service"] == b"a.B"


def test_an_upgrade_is_told_and_then_done() -> None:
    parser = asked(b"GET / HTTP/1.1\r\nHost: a\r\nConnection: upgrade\r\nUpgrade: websocket\r\n\r\n")
    response, unit, upgraded = parser.feed(TO_CLIENT, b"HTTP/1.1 101 x\r\n\r\nrest")
    assert response == Response(101)
    assert isinstance(unit, Said)
    assert unit.fields["http.status"] == 101
    assert isinstance(upgraded, Upgraded)
    assert upgraded.to_client == b"rest"


def test_a_head_is_held_where_it_is_asked_for() -> None:
    parser = asked()
    assert not parser.pending(TO_CLIENT)
    parser.feed(TO_CLIENT, b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n")
    assert parser.pending(TO_CLIENT)
    parser.feed(TO_CLIENT, b"\r\na")
    assert not parser.pending(TO_CLIENT)


def test_what_is_remembered_is_bounded() -> None:
    target = b"GET /" + b"a" * 4000 + b" HTTP/1.1\r\nHost: a\r\n\r\n"
    parser = Http1Parser()
    parser.asked = ASKED
    with pytest.raises(ParseError, match="unanswered"):
        [parser.feed(TO_SERVER, target) for _ in range(1000)]
    assert parser.buffered < 2 << 20


def test_a_large_body_that_is_not_asked_for_takes_no_memory() -> None:
    parser = asked(names=frozenset(("http.status",)))
    parser.feed(TO_CLIENT, b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n40000000\r\n")
    chunk = bytes(1 << 20)
    for _ in range(64):
        assert parser.feed(TO_CLIENT, chunk) == []
        assert parser.buffered < 4096


def test_before_is_the_end_of_what_came_before() -> None:
    parser = asked()
    parser.feed(TO_CLIENT, b"HTTP/1.1 200 OK\r\nContent-Length: 200000\r\n\r\n")
    body = bytes(range(250)) * 800
    pieces = [event for at in range(0, 200_000, 70_000) for event in parser.feed(TO_CLIENT, body[at : at + 70_000])]
    assert all(isinstance(piece, Content) and len(piece.data) <= 65536 for piece in pieces)
    at = 0
    for piece in pieces:
        assert isinstance(piece, Content)
        assert piece.before == body[max(0, at - 512) : at]
        at += len(piece.data)
    assert at == 200_000
