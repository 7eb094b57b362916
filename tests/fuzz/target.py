"""One input of the fuzzer to one parser, and what must hold whatever it is."""

from __future__ import annotations

import itertools
from collections.abc import Iterator

from parsers.base import TCP, UDP, Event, ParseError, Parser, Switched
from parsers.registry import PARSERS, make_parser
from tests.contract.conversations import Conversation, conversations

# No parser keeps more of a connection.
MOST = 512 * 1024
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


def _fed(parser: Parser, parts: list[tuple[int, bytes]]) -> tuple[list[Event], str]:
    """Events, those before an offence included, and what it is called."""
    events: list[Event] = []
    try:
        for direction, data in parts:
            events += parser.feed(direction, data)
            if events and isinstance(events[-1], Switched):
                # Which bytes came with it depends on how they were cut.
                return [*events[:-1], Switched(events[-1].protocol)], ""
            assert parser.buffered <= MOST
            for unit in events[-1:]:
                dict(getattr(unit, "fields", {}))
            parser.pending(direction)
    except ParseError as error:
        return [*events, *error.events], error.code
    return events, ""


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
    # Where bytes are missing, any answer will do, but an answer it has to be.
    for direction, part in itertools.islice(parts, 4):
        gapped = parser()
        try:
            gapped.feed(direction, part)
            gapped.gap(direction, 1 + len(part))
            gapped.feed(direction, part)
        except ParseError:
            pass
