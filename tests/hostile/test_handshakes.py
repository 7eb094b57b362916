"""Out-of-order handshakes, as a capture has them and as an attacker sends them: whatever came first, a request is read
where the server reads it, or not let through.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator

import pytest

from slowpath.core.frame import ACK, FIN, RST, SYN, Packet
from slowpath.record import Record
from tests.hostile.attack import Watched, no_admin, through
from tests.unit.slowpath.core.wire import Connection

RULES = no_admin("http")
GET = b"GET /ok HTTP/1.1\r\nHost: a.example\r\n\r\n"
ADMIN = b"GET /admin HTTP/1.1\r\nHost: a.example\r\n\r\n"
OK = b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok"


Frames = Iterator[Packet]


def _syn(c: Connection, data: bytes = b"") -> Packet:
    return c.segment(0, data, at=0, flags=SYN)


def _syn_ack(c: Connection, data: bytes = b"") -> Packet:
    return c.segment(1, data, at=0, flags=SYN | ACK)


def plain(c: Connection, data: bytes) -> Frames:
    yield from (_syn(c), _syn_ack(c), c.client(flags=ACK), c.client(data), c.server(OK))


def answer_first(c: Connection, data: bytes) -> Frames:
    yield from (_syn_ack(c), _syn(c), c.client(flags=ACK), c.client(data), c.server(OK))


def data_before_the_answer(c: Connection, data: bytes) -> Frames:
    yield from (_syn(c), c.client(data), _syn_ack(c), c.server(OK))


def data_first(c: Connection, data: bytes) -> Frames:
    yield from (c.client(data), _syn(c), _syn_ack(c), c.client(data, at=0), c.server(OK))


def half_before_the_answer(c: Connection, data: bytes) -> Frames:
    yield from (_syn(c), c.client(data[:9]), _syn_ack(c), c.client(data[9:]), c.server(OK))


def second_half_ahead(c: Connection, data: bytes) -> Frames:
    yield from (_syn(c), c.client(data[9:], at=9), _syn_ack(c), c.client(data[:9], at=0), c.server(OK))


def data_on_syn(c: Connection, data: bytes) -> Frames:
    """TCP Fast Open (RFC 7413), taken."""
    yield _syn(c, data)
    c.sent[0] += len(data)
    yield from (_syn_ack(c), c.client(flags=ACK), c.server(OK))


def data_on_syn_in_part(c: Connection, data: bytes) -> Frames:
    yield _syn(c, data[:9])
    c.sent[0] += 9
    yield from (_syn_ack(c), c.client(data[9:]), c.server(OK))


def data_on_syn_sent_again(c: Connection, data: bytes) -> Frames:
    """Not taken by the server: the client sends it again."""
    yield from (_syn(c, data), _syn_ack(c), c.client(data), c.server(OK))


def data_on_syn_ack(c: Connection, data: bytes) -> Frames:
    yield from (_syn(c), _syn_ack(c, b""), c.client(data), c.segment(1, OK, at=0, flags=SYN | ACK))


def acknowledgment_lost(c: Connection, data: bytes) -> Frames:
    yield from (_syn(c), _syn_ack(c), _syn_ack(c), c.client(data), c.server(OK))


def syn_twice(c: Connection, data: bytes) -> Frames:
    yield from (_syn(c), _syn(c), _syn_ack(c), _syn(c), c.client(data), _syn_ack(c), c.server(OK))


def syn_again_with_another_number(c: Connection, data: bytes) -> Frames:
    yield _syn(c)
    c.isn = (c.isn[0] + 70_000, c.isn[1])
    yield from (_syn(c), _syn_ack(c), c.client(data), c.server(OK))


def reset_and_again(c: Connection, data: bytes) -> Frames:
    yield from (_syn(c), c.segment(1, flags=RST | ACK))
    c.isn = (c.isn[0] - 9_000, 77)
    yield from (_syn(c), _syn_ack(c), c.client(data), c.server(OK))


def closed_and_again(c: Connection, data: bytes) -> Frames:
    yield from plain(c, GET)
    yield from (c.client(flags=ACK | FIN), c.server(flags=ACK | FIN), c.client(flags=ACK))
    c.isn, c.sent = (123, 456), [0, 0]
    yield from plain(c, data)


def simultaneous(c: Connection, data: bytes) -> Frames:
    """RFC 9293 figure 7: both send a SYN, and both answer."""
    yield from (_syn(c), c.segment(1, at=0, flags=SYN))
    yield from (c.segment(0, at=0, flags=SYN | ACK), _syn_ack(c), c.client(data), c.server(OK))


def answer_to_another(c: Connection, data: bytes) -> Frames:
    """A SYN-ACK that acknowledges what was not sent, before the right one."""
    wrong = Connection(isn=(c.isn[0] + 5_000, 99))
    yield from (_syn(c), _syn_ack(wrong), _syn_ack(c), c.client(data), c.server(OK))


HANDSHAKES: dict[str, Callable[[Connection, bytes], Frames]] = {
    each.__name__.replace("_", " "): each
    for each in (
        plain, answer_first, data_before_the_answer, data_first, half_before_the_answer, second_half_ahead, data_on_syn,
        data_on_syn_in_part, data_on_syn_sent_again, data_on_syn_ack, acknowledgment_lost, syn_twice,
        syn_again_with_another_number, reset_and_again, closed_and_again, simultaneous, answer_to_another,
    )
}  # fmt: skip


def replayed(frames: Callable[[Connection, bytes], Frames], data: bytes) -> tuple[Watched, list[Record]]:
    c = Connection()
    replay = Watched(c, RULES, "http")
    packets = [bytes(packet.frame) for packet in frames(c, data)]
    return replay, list(replay.run((n / 1000, frame) for n, frame in enumerate(packets)))


@pytest.mark.parametrize("name", HANDSHAKES)
def test_what_is_denied_is_not_let_through(name: str) -> None:
    replay, records = replayed(HANDSHAKES[name], ADMIN)
    assert records[-1]["verdict"] == "deny"
    assert ADMIN not in through(replay)
    assert not [record for record in records if record["verdict"] == "allow" and record["http"]["path"] != "/ok"]


# Which side is the client, or where its bytes begin, is not known then.
UNREAD = {"data first": "midstream", "simultaneous": "no_rule"}


@pytest.mark.parametrize("name", HANDSHAKES)
def test_what_is_allowed_is_read(name: str) -> None:
    replay, records = replayed(HANDSHAKES[name], GET)
    if name in UNREAD:
        assert (records[0]["verdict"], records[0]["reason"]) == ("deny", UNREAD[name])
        assert through(replay) == b""
    else:
        assert {(record["verdict"], record["http"]["path"]) for record in records} == {("allow", "/ok")}
        assert through(replay) == GET


@pytest.mark.parametrize("other", [ADMIN, GET[:9] + b"X" * 9, b"\0" + GET])
def test_other_bytes_than_came_with_the_syn_are_refused(other: bytes) -> None:
    """A server that takes no data on a SYN reads the second ones, and one that does the first."""

    def frames(c: Connection, data: bytes) -> Frames:
        yield from (_syn(c, data), _syn_ack(c), c.client(other, at=0), c.server(OK))

    replay, records = replayed(frames, GET)
    assert [record["reason"] for record in records] == ["rule", "overlap_conflict"]
    assert other not in through(replay)


def test_bytes_before_the_first_are_not_read() -> None:
    """The window does not reach there: no server takes them."""

    def frames(c: Connection, data: bytes) -> Frames:
        yield from (_syn(c), _syn_ack(c), c.client(b"X" * 20, at=-20), c.client(data), c.server(OK))

    for data, verdict in ((GET, "allow"), (ADMIN, "deny")):
        _, records = replayed(frames, data)
        assert [record["verdict"] for record in records] == [verdict]
