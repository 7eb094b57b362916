"""A request split at every byte: each conversation of tests/contract, from frames. Whatever the cuts, the same is read
and decided, and of a denied unit no piece completes what got through.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator

import pytest

from fastpath.abi import Protocol
from parsers.base import TCP, TO_CLIENT, TO_SERVER, UDP, Content, Switched, Unit
from slowpath.core.fragments import MAX_PIECES
from slowpath.core.model import Judgement
from slowpath.record import Record
from slowpath.replay import InspectAll, Replay
from slowpath.rules.ruleset import RuleSet
from tests.contract.conversations import Conversation, conversations
from tests.hostile.attack import Quick, judged, rule_files, through, told, unit_by_unit, verdicts
from tests.unit.slowpath.core.wire import CLIENT, SERVER, allow, ip, udp_frame

UPGRADE = b"GET /chat HTTP/1.1\r\nHost: a.example\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\r\n"
SWITCH = b"HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\r\n"
STREAMS = [each for each in conversations() if each.l4 == TCP]
each_stream = pytest.mark.parametrize("conversation", STREAMS, ids=str)

Parts = tuple[tuple[int, bytes], ...]


def parts_of(conversation: Conversation) -> Parts:
    """From the connection's beginning on."""
    begun = ((TO_SERVER, UPGRADE), (TO_CLIENT, SWITCH)) if conversation.parser == "websocket" else ()
    return (*begun, *conversation.parts)


def last_unit(conversation: Conversation) -> tuple[Unit, int]:
    """The last unit that none before it is like, and where in its direction's stream it ends. Pieces of contents are
    what cuts make of them.
    """
    parser = conversation.begin()
    before = [0, 0]
    if conversation.parser == "websocket":
        before = [len(UPGRADE), len(SWITCH)]
    found: list[tuple[Unit, int]] = []
    for direction, data in conversation.parts:
        for byte in data:
            before[direction] += 1
            events = parser.feed(direction, bytes((byte,)))
            found += [(event, before[event.direction]) for event in events if isinstance(event, Unit)]
            if any(isinstance(event, Switched) for event in events):
                return found[-1]
    found = [(unit, end) for unit, end in found if not isinstance(unit, Content)]
    return next(
        (u, end) for n, (u, end) in reversed([*enumerate(found)]) if all(v.fields != u.fields for v, _ in found[:n])
    )


def rules_of(conversation: Conversation, *denied: Unit) -> tuple[dict[Protocol, Judgement], RuleSet]:
    """Of all its protocols; where it goes over to TLS, that is allowed."""
    names = {conversation.parser} | {protocol for protocol, _ in conversation.units}
    if conversation.parser == "websocket":
        names.add("http")
    files = (unit_by_unit(name, *(unit.fields for unit in denied if unit.protocol == name)) for name in names)
    return {Protocol.TLS: allow()} | judged(*names), rule_files(*files)


def played(conversation: Conversation, parts: Iterable[tuple[int, bytes]], *denied: Unit, rest: float = 0.0) -> Quick:
    """The conversation, with so much time behind each part."""
    p = Quick(*rules_of(conversation, *denied))
    for direction, data in parts:
        p.feed(p.connection.segment(direction, data))
        if rest:
            p.wait(rest)
    p.wait(0.03)
    return p


def by_byte(parts: Parts) -> Iterator[tuple[int, bytes]]:
    return ((direction, bytes((byte,))) for direction, data in parts for byte in data)


def cut_in_two(parts: Parts, at: int) -> Iterator[tuple[int, bytes]]:
    for direction, data in parts:
        for piece in (data[:at], data[at:]):
            if piece:
                yield direction, piece


def places(parts: Parts) -> Iterator[int]:
    """Every place of the first 160 of a part and the last 8; of what is longer, a body or a certificate as a rule,
    every seventh and then every 29th. All places are cut at in segments of one byte.
    """
    longest = max(len(data) for _, data in parts)
    yield from range(1, min(160, longest))
    yield from range(160, min(1000, longest), 7)
    yield from range(1000, longest, 29)
    yield from range(-8, 0)


def stream(parts: Parts, side: int) -> bytes:
    return b"".join(data for direction, data in parts if direction == side)


@each_stream
def test_all_allowed_in_segments_of_one_byte(conversation: Conversation) -> None:
    parts = parts_of(conversation)
    whole, cut = played(conversation, parts), played(conversation, by_byte(parts), rest=0.0003)
    assert told(cut) == told(whole)
    assert verdicts(cut) == verdicts(whole)
    if whole.records[-1]["verdict"] == "allow":
        assert [through(cut, side) for side in (0, 1)] == [stream(parts, 0), stream(parts, 1)]


@each_stream
def test_one_denied_in_segments_of_one_byte(conversation: Conversation) -> None:
    parts = parts_of(conversation)
    unit, end = last_unit(conversation)
    whole, cut = played(conversation, parts, unit), played(conversation, by_byte(parts), unit, rest=0.0003)
    assert whole.records[-1]["verdict"] == "deny"
    assert told(cut) == told(whole)
    assert verdicts(cut) == verdicts(whole)
    got = through(cut, unit.direction)
    assert len(got) < end
    assert stream(parts, unit.direction).startswith(got)


@each_stream
def test_one_denied_cut_in_two_everywhere_with_time_between(conversation: Conversation) -> None:
    parts = parts_of(conversation)
    unit, end = last_unit(conversation)
    whole = played(conversation, parts, unit)
    for at in places(parts):
        cut = played(conversation, cut_in_two(parts, at), unit, rest=0.021)
        assert told(cut) == told(whole), at
        assert verdicts(cut) == verdicts(whole), at
        assert len(through(cut, unit.direction)) < end, at


def datagrams(conversation: Conversation, size: int) -> Iterator[tuple[float, bytes]]:
    """Frames of a conversation by datagram, in fragments of so many bytes; 0 for whole ones."""
    ends = (CLIENT, SERVER, 40000, 443), (SERVER, CLIENT, 443, 40000)
    for direction, data in conversation.parts:
        frame = udp_frame(*ends[direction], data)
        body = frame[34:]
        step = size or len(body)
        for at in range(0, len(body), step):
            more = 0x2000 if at + step < len(body) else 0
            yield 0.0, ip(*ends[direction][:2], UDP, body[at : at + step], fragment=at // 8 | more)


@pytest.mark.parametrize("size", [8, 24, 64])
@pytest.mark.parametrize("conversation", [each for each in conversations() if each.l4 == UDP], ids=str)
def test_datagrams_in_fragments(conversation: Conversation, size: int) -> None:
    rules = rule_files(unit_by_unit(conversation.parser))

    def records(step: int) -> list[Record]:
        found = Replay(rules, InspectAll(conversation.parser)).run(datagrams(conversation, step))
        return [record for record in found if record["verdict"] == "allow"]

    # More than 128 fragments are not put together: none of a datagram gets to the parser, or to the server.
    fits = all((len(data) + 8 + size - 1) // size <= MAX_PIECES for _, data in conversation.parts)
    assert records(size) == (records(0) if fits else [])
    assert records(0)
