"""One input of the fuzzer to one parser, and what must hold whatever it is."""

from __future__ import annotations

import itertools
from collections.abc import Iterator
from dataclasses import replace

from parsers.base import OVERLAP, TCP, TO_CLIENT, TO_SERVER, UDP, Content, Event, ParseError, Parser, Switched
from parsers.registry import PARSERS, make_parser
from tests.contract.conversations import Conversation, conversations

# No parser keeps more of a connection.
MOST = 512 * 1024
# Of keyed fields.
KEYS = ("host", "cookie", "content-type", "x-key", "grpc-message")
_HEADER = 3
_DATAGRAMS = 2


def encode(conversation: Conversation) -> bytes:
    """A conversation as an input: of each part direction and transport in a byte, length in two, then its bytes."""
    over = _DATAGRAMS if conversation.l4 == UDP else 0
    return b"".join(
        bytes((direction | over,)) + len(data).to_bytes(2, "big") + data for direction, data in conversation.parts
    )


def seeds(name: str) -> list[bytes]:
    """Conversations of a parser."""
    return [encode(each) for each in conversations() if each.parser == name]


def _parts(data: bytes) -> Iterator[tuple[int, bytes]]:
    at = 0
    while at + _HEADER <= len(data):
        size = int.from_bytes(data[at + 1 : at + _HEADER], "big")
        yield data[at] & 1, data[at + _HEADER : at + _HEADER + size]
        at += _HEADER + size


def merged(events: list[Event]) -> list[Event]:
    """With the pieces of each body put together behind everything else: how it is divided is a matter of cuts."""
    bodies: list[Content] = []
    for event in events:
        if isinstance(event, Content):
            at = next(
                (at for at, body in enumerate(bodies) if body.head is event.head and body.field == event.field), None
            )
            if at is None:
                assert not event.before
                bodies.append(event)
            else:
                assert event.before == bodies[at].data[-OVERLAP:], "not what came before it"
                bodies[at] = replace(bodies[at], data=bodies[at].data + event.data)
    return [*(event for event in events if not isinstance(event, Content)), *bodies]


def everything(parser: type[Parser]) -> frozenset[str]:
    """All that is told on demand."""
    return frozenset(
        name
        for field in parser.fields
        if field.on_demand
        for name in ([f"{field.name}.{key}" for key in KEYS] if field.keyed else [field.name])
    )


def _fed(
    parser: Parser, parts: list[tuple[int, bytes]], asked: frozenset[str] = frozenset()
) -> tuple[list[Event], str]:
    """Events, those before an offence included, and what it is called."""
    parser.asked = asked
    events: list[Event] = []
    try:
        for direction, data in parts:
            events += parser.feed(direction, data)
            if events and isinstance(events[-1], Switched):
                # Which bytes came with it depends on how they were cut.
                return merged([*events[:-1], Switched(events[-1].protocol)]), ""
            assert parser.buffered <= MOST
            for unit in events[-1:]:
                dict(getattr(unit, "fields", {}))
            parser.pending(direction)
        for direction in (TO_SERVER, TO_CLIENT):
            events += parser.eof(direction)
    except ParseError as error:
        return merged([*events, *error.events]), error.code
    return merged(events), ""


def one_input(name: str, data: bytes) -> None:
    """Feed it; AssertionError, or whatever a parser should not raise."""
    parts = list(_parts(data))
    datagrams = make_parser(name, UDP)
    if datagrams is not None and (TCP not in PARSERS[name].transports or (data and data[0] & _DATAGRAMS)):
        _fed(datagrams, parts)
        return
    parser = PARSERS[name]
    whole = _fed(parser(), parts)
    halves = [
        (direction, piece)
        for direction, part in parts
        for piece in (part[: len(part) // 2], part[len(part) // 2 :])
    ]  # fmt: skip
    assert _fed(parser(), halves) == whole
    if asked := everything(parser):
        whole, cut = _fed(parser(), parts, asked), _fed(parser(), halves, asked)
        # How much of a body came before its offence depends on how it was cut.
        assert whole[1] == cut[1]
        assert whole == cut or whole[1]
    # Where bytes are missing, any answer will do, but an answer it has to be.
    for direction, part in itertools.islice(parts, 4):
        gapped = parser()
        try:
            gapped.feed(direction, part)
            gapped.gap(direction, 1 + len(part))
            gapped.feed(direction, part)
        except ParseError:
            pass
