from __future__ import annotations

from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from parsers.base import TO_CLIENT, TO_SERVER, Content, Event, ParseError, Request, Response, Switched, Upgraded
from parsers.http1 import Http1Parser, Limits

HOST = b"Host: a.example\r\n"
GET = b"GET /a?b HTTP/1.1\r\n" + HOST + b"\r\n"
POST = b"POST /p HTTP/1.1\r\n" + HOST + b"Content-Type: text/plain\r\nContent-Length: 5\r\n\r\nhello"
CHUNKED = (
    b"PUT /c HTTP/1.1\r\n" + HOST + b"Transfer-Encoding: chunked\r\n\r\n5;x=y\r\nGET /\r\n0\r\nTrailer: Host\r\n\r\n"
)
H2C = (
    b"GET /u HTTP/1.1\r\n" + HOST + b"Connection: Upgrade, HTTP2-Settings\r\nUpgrade: h2c\r\n"
    b"HTTP2-Settings: AAMAAABk\r\n\r\n"
)
SWITCH = b"HTTP/1.1 101 Switching Protocols\r\n\r\n"


def requests(data: bytes) -> list[tuple[bytes, bytes, bytes]]:
    return [(e.method, e.path, e.host) for e in Http1Parser().feed(TO_SERVER, data) if isinstance(e, Request)]


def refused(data: bytes, direction: int = TO_SERVER) -> str:
    with pytest.raises(ParseError) as error:
        Http1Parser().feed(direction, data)
    return error.value.code


def test_requests() -> None:
    assert requests(GET) == [(b"GET", b"/a?b", b"a.example")]
    assert requests(POST + CHUNKED + GET) == [
        (b"POST", b"/p", b"a.example"),
        (b"PUT", b"/c", b"a.example"),
        (b"GET", b"/a?b", b"a.example"),
    ]
    (post,) = Http1Parser().feed(TO_SERVER, POST)
    assert isinstance(post, Request)
    assert (post.content_type, post.stream, post.is_grpc) == (b"text/plain", 0, False)


def test_http_1_0_needs_no_host() -> None:
    assert requests(b"GET / HTTP/1.0\r\n\r\n") == [(b"GET", b"/", b"")]


def test_absolute_form() -> None:
    assert requests(b"GET http://a.example/x HTTP/1.1\r\n" + HOST + b"\r\n") == [(b"GET", b"/x", b"a.example")]
    assert requests(b"GET http://a.example HTTP/1.1\r\n" + HOST + b"\r\n") == [(b"GET", b"/", b"a.example")]
    assert refused(b"GET http://b.example/x HTTP/1.1\r\n" + HOST + b"\r\n") == "host_differs"


@pytest.mark.parametrize(
    ("data", "code"),
    [
        (b"GET / HTTP/1.1\r\n\r\n", "host_missing"),
        (b"GET / HTTP/1.1\r\n" + HOST + HOST + b"\r\n", "host_twice"),
        (b"GET / HTTP/1.1\r\nHost: a b\r\n\r\n", "host"),
        (b"GET / HTTP/1.1\r\nHost: a/b\r\n\r\n", "host"),
        (b"GET / HTTP/2.0\r\n" + HOST + b"\r\n", "version"),
        (b"POST / HTTP/1.1\r\n" + HOST + b"Transfer-Encoding: gzip, chunked\r\n\r\n", "transfer_encoding"),
        (b"POST / HTTP/1.1\r\n" + HOST + b"Transfer-Encoding: identity\r\n\r\n", "transfer_encoding"),
        (b"POST / HTTP/1.0\r\n" + HOST + b"Transfer-Encoding: chunked\r\n\r\n", "transfer_encoding"),
        (b"POST / HTTP/1.1\r\n" + HOST + b"Transfer-Encoding: chunked\r\nTransfer-Encoding: chunked\r\n\r\n", None),
        (b"POST / HTTP/1.1\r\n" + HOST + b"Content-Length: 5\r\nTransfer-Encoding: chunked\r\n\r\n", None),
        (b"POST / HTTP/1.1\r\n" + HOST + b"Content-Length: 5\r\nContent-Length: 5\r\n\r\n", None),
        (b"POST / HTTP/1.1\r\n" + HOST + b"Content-Length: +5\r\n\r\n", None),
        (b"POST / HTTP/1.1\r\n" + HOST + b"Content-Length: 0x5\r\n\r\n", None),
        (b"POST / HTTP/1.1\r\n" + HOST + b"Transfer-Encoding : chunked\r\n\r\n", None),
        (b"POST / HTTP/1.1\r\n" + HOST + b"Transfer-Encoding:\x0bchunked\r\n\r\n", None),
        (b"GET / HTTP/1.1\r\n" + HOST + b"X: a\r\n b\r\n\r\n", None),
        (b"GET / HTTP/1.1\r\n" + HOST + b"X: a\nY: b\r\n\r\n", None),
        (b"GET / HTTP/1.1\r\n" + HOST + b"X: a\0b\r\n\r\n", None),
        (b"GET / HTTP/1.1\n" + HOST + b"\r\n", None),
        (b"GET /\x01 HTTP/1.1\r\n" + HOST + b"\r\n", None),
        (b"GET /a b HTTP/1.1\r\n" + HOST + b"\r\n", None),
        (b"FROBNICATE / HTTP/1.1\r\n" + HOST + b"\r\n", "invalid_method"),
        (b"POST / HTTP/1.1\r\n" + HOST + b"Transfer-Encoding: chunked\r\n\r\n5\r\nhelloX", None),
        (b"POST / HTTP/1.1\r\n" + HOST + b"Transfer-Encoding: chunked\r\n\r\nzz\r\n", None),
        (POST.replace(b"Content-Type", b"Upgrade: x\r\nConnection: upgrade\r\nX"), "upgrade_with_body"),
        (H2C.replace(b"HTTP2-Settings: AAMAAABk\r\n", b""), "http2_settings"),
        (H2C.replace(b"AAMAAABk", b"A!"), "http2_settings"),
    ],
)
def test_malformed(data: bytes, code: str | None) -> None:
    """`None`: llhttp's own refusals, whose names are its own."""
    found = refused(data)
    assert code is None or found == code


def test_error_has_place_and_what_came_before() -> None:
    parser = Http1Parser()
    parser.feed(TO_SERVER, GET)
    with pytest.raises(ParseError) as error:
        parser.feed(TO_SERVER, GET + b"GET / HTTP/1.1\r\n\r\n")
    assert error.value.offset == len(GET)
    assert [event.path for event in error.value.events if isinstance(event, Request)] == [b"/a?b"]


def test_pending_and_its_end() -> None:
    parser = Http1Parser()
    parser.feed(TO_SERVER, GET[:9])
    assert parser.pending(TO_SERVER)
    parser.feed(TO_SERVER, GET[9:])
    assert not parser.pending(TO_SERVER)
    parser.feed(TO_SERVER, POST[:-2])
    assert not parser.pending(TO_SERVER), "a body decides nothing"
    parser.feed(TO_SERVER, POST[-2:] + b"\r\n")
    assert not parser.pending(TO_SERVER)


@pytest.mark.parametrize("filler", [b"x" * 1000, b"X-Long: " + b"y" * 990 + b"\r\n"])
def test_head_is_bounded(filler: bytes) -> None:
    parser = Http1Parser(Limits(head=8000))
    parser.feed(TO_SERVER, b"GET /")
    if filler.startswith(b"X-"):
        parser.feed(TO_SERVER, b" HTTP/1.1\r\n" + HOST)

    def flood() -> None:
        for _ in range(12):
            parser.feed(TO_SERVER, filler)
            assert parser.buffered <= 10_000

    with pytest.raises(ParseError, match="head_too_long"):
        flood()


def test_header_count_is_bounded() -> None:
    assert refused(b"GET / HTTP/1.1\r\n" + HOST + b"X: y\r\n" * 300 + b"\r\n") == "too_many_headers"


def test_unanswered_requests_are_bounded() -> None:
    parser = Http1Parser(Limits(unanswered=3))
    with pytest.raises(ParseError, match="unanswered"):
        parser.feed(TO_SERVER, GET * 4)


def test_responses() -> None:
    parser = Http1Parser()
    parser.feed(TO_SERVER, GET * 5 + GET.replace(b"GET", b"HEAD"))
    answers = (
        b"HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 200 OK\r\nContent-Length: 4\r\n\r\nHTTP"
        b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nabc\r\n0\r\nT: x\r\n\r\n"
        b"HTTP/1.1 204 No\r\n\r\nHTTP/1.1 304 Not\r\nContent-Length: 9\r\n\r\n"
        b"HTTP/1.1 404 X\r\nContent-Length: 0\r\n\r\n"
        b"HTTP/1.1 200 OK\r\nContent-Length: 99\r\n\r\n"
    )
    events: list[Event] = []
    for at in range(0, len(answers), 7):
        events += parser.feed(TO_CLIENT, answers[at : at + 7])
    assert [e.status for e in events if isinstance(e, Response)] == [100, 200, 200, 204, 304, 404, 200]


def test_h2c_upgrade() -> None:
    parser = Http1Parser()
    (request,) = parser.feed(TO_SERVER, H2C)
    assert isinstance(request, Request)
    assert request.upgrade == b"h2c"
    assert not parser.blocked
    parser.feed(TO_SERVER, b"PRI * HT")
    assert parser.blocked
    response, upgraded = parser.feed(TO_CLIENT, SWITCH + b"rest")
    assert response == Response(101)
    assert upgraded == Upgraded(b"h2c", request, b"\0\3\0\0\0\x64", b"PRI * HT", b"rest")
    for direction in (TO_SERVER, TO_CLIENT):
        with pytest.raises(ParseError, match="after_upgrade"):
            parser.feed(direction, b"x")


UPLOAD = H2C.replace(b"GET /u", b"POST /u").removesuffix(b"\r\n")


@pytest.mark.parametrize(
    "body",
    [
        b"Content-Length: 5\r\n\r\nhello",
        b"Transfer-Encoding: chunked\r\n\r\n2\r\nhe\r\n3;x\r\nllo\r\n0\r\nX-T: 1\r\n\r\n",
    ],
)
@pytest.mark.parametrize("cut", [0, 1, 30])
def test_an_offer_of_h2c_with_a_body(body: bytes, cut: int) -> None:
    """As Java's client does with its first request."""
    parts = UPLOAD + body[:cut], body[cut:]
    for answer in (b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n", b"HTTP/1.1 101 Go\r\n\r\n"):
        parser = Http1Parser()
        parser.asked = frozenset(("http.body",))
        events = [event for part in parts for event in parser.feed(TO_SERVER, part)]
        assert b"".join(event.data for event in events if isinstance(event, Content)) == b"hello"
        assert not parser.blocked
        assert parser.feed(TO_SERVER, GET) == []
        assert parser.blocked
        *_, last = parser.feed(TO_CLIENT, answer)
        if b"101" in answer:
            assert isinstance(last, Upgraded)
            assert last.to_server == GET
        else:
            assert isinstance(last, Request)
            assert last.path == b"/a?b"


def test_an_answer_before_the_body_is_whole() -> None:
    parser = Http1Parser()
    parser.feed(TO_SERVER, UPLOAD + b"Content-Length: 5\r\n\r\nhe")
    parser.feed(TO_CLIENT, b"HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 413 No\r\nContent-Length: 0\r\n\r\n")
    (request,) = parser.feed(TO_SERVER, b"llo" + GET)
    assert isinstance(request, Request)
    parser = Http1Parser()
    parser.feed(TO_SERVER, UPLOAD + b"Content-Length: 5\r\n\r\nhe")
    with pytest.raises(ParseError, match="upgrade_with_body"):
        parser.feed(TO_CLIENT, b"HTTP/1.1 101 Go\r\n\r\n")


@pytest.mark.parametrize("size", [1, 1000])
@pytest.mark.parametrize(
    "hidden",
    [b"PRI * HTTP/2.0\r\n", b"GET /\r\n", b"xGET http://a/ HTTP/1.1\r\n", b"PUT  /", b"GET " + b"a" * 40],
)
def test_a_body_with_an_offer_has_no_other_reading(hidden: bytes, size: int) -> None:
    """Some servers go on in HTTP/2 at once, or drop a part of the body and read on in the middle."""
    chunk = b"Transfer-Encoding: chunked\r\n\r\n%x\r\n" % len(hidden)
    extension = b"Transfer-Encoding: chunked\r\n\r\n1;" + hidden
    for body in (b"Content-Length: 100\r\n\r\n" + hidden, chunk + hidden, extension):
        parser = Http1Parser()
        parts = [body[at : at + size] for at in range(0, len(body), size)]
        parser.feed(TO_SERVER, UPLOAD)
        with pytest.raises(ParseError, match="upgrade_with_body"):
            [parser.feed(TO_SERVER, part) for part in parts]
    parser = Http1Parser()
    parser.feed(TO_SERVER, UPLOAD + b"Content-Length: 20\r\n\r\nTARGET 5, OUTPUT it: ")
    assert parser.feed(TO_SERVER, GET) == []


def test_chunks_with_an_offer_that_lie() -> None:
    assert refused(UPLOAD + b"Transfer-Encoding: chunked\r\n\r\nzz\r\n") == "invalid_chunk_size"


def test_declined_upgrade_reads_on() -> None:
    parser = Http1Parser()
    parser.feed(TO_SERVER, H2C + GET)
    events = parser.feed(TO_CLIENT, b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n")
    assert [type(event) for event in events] == [Response, Request]
    assert not parser.blocked


def test_interim_answer_does_not_decline() -> None:
    parser = Http1Parser()
    parser.feed(TO_SERVER, H2C + GET)
    assert parser.feed(TO_CLIENT, b"HTTP/1.1 103 Early Hints\r\n\r\n") == [Response(103)]
    assert parser.blocked


def test_answers_to_earlier_requests_do_not_decline() -> None:
    parser = Http1Parser()
    parser.feed(TO_SERVER, GET + H2C + GET)
    parser.feed(TO_CLIENT, b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n")
    assert parser.blocked


def test_bytes_behind_an_offer_are_bounded() -> None:
    parser = Http1Parser(Limits(behind_upgrade=1000))
    parser.feed(TO_SERVER, H2C)
    for _ in range(10):
        parser.feed(TO_SERVER, b"x" * 100)
    assert parser.buffered == 1000
    with pytest.raises(ParseError, match="behind_upgrade"):
        parser.feed(TO_SERVER, b"x")


def test_several_offers_have_no_name() -> None:
    (request,) = Http1Parser().feed(TO_SERVER, H2C.replace(b"Upgrade: h2c", b"Upgrade: foo, h2c"))
    assert isinstance(request, Request)
    assert request.upgrade == b"foo, h2c"
    (request,) = Http1Parser().feed(TO_SERVER, H2C.replace(b"Upgrade: h2c", b"Upgrade: "))
    assert isinstance(request, Request)
    assert request.upgrade in {b"", b"unnamed"}


def test_unasked_switch() -> None:
    parser = Http1Parser()
    parser.feed(TO_SERVER, GET)
    with pytest.raises(ParseError, match="unasked_switch"):
        parser.feed(TO_CLIENT, SWITCH)


def test_connect() -> None:
    parser = Http1Parser()
    (request,) = parser.feed(TO_SERVER, b"CONNECT db:3306 HTTP/1.1\r\nHost: db:3306\r\n\r\n")
    assert isinstance(request, Request)
    assert (request.method, request.host, request.upgrade) == (b"CONNECT", b"db:3306", b"connect")
    assert parser.feed(TO_CLIENT, b"HTTP/1.1 200 OK\r\n\r\nx") == [
        Response(200, tunnel=True),
        Switched("", b"", b"x"),
    ]


def test_answers_that_are_no_http_do_not_matter_without_an_offer() -> None:
    parser = Http1Parser()
    parser.feed(TO_SERVER, GET)
    assert parser.feed(TO_CLIENT, b"\x15\x03\x03\x00\x02\x02\x28") == []
    parser = Http1Parser()
    parser.feed(TO_SERVER, H2C)
    with pytest.raises(ParseError, match="response"):
        parser.feed(TO_CLIENT, b"\x15\x03\x03\x00\x02\x02\x28")


def test_gap() -> None:
    with pytest.raises(ParseError, match="gap"):
        Http1Parser().gap(TO_SERVER, 1)
    assert Http1Parser().eof(TO_SERVER) == []


@given(st.lists(st.integers(1, len(GET + POST + CHUNKED + H2C)), max_size=20))
def test_pieces_change_nothing(cuts: list[int]) -> None:
    data = GET + POST + CHUNKED + H2C
    parser = Http1Parser()
    edges = sorted({0, *cuts, len(data)})
    found: list[Event] = []
    for low, high in pairwise(edges):
        found += parser.feed(TO_SERVER, data[low:high])
    assert found == Http1Parser().feed(TO_SERVER, data)
    assert len(found) == 4


@given(st.lists(st.tuples(st.booleans(), st.binary(max_size=80)), max_size=20))
def test_noise(pieces: list[tuple[bool, bytes]]) -> None:
    parser = Http1Parser()
    try:
        for to_client, data in pieces:
            parser.feed(int(to_client), data)
            assert parser.buffered < 200_000
    except ParseError as error:
        assert error.code  # noqa: PT017


def test_a_long_target_of_a_head_without_fields() -> None:
    assert refused(b"GET /" + b"a" * 70_000 + b" HTTP/1.0\r\n\r\n") == "head_too_long"
