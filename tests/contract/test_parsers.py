"""What holds of every parser (parsers/base.py), on well-formed conversations and on what is made of them."""

from __future__ import annotations

from collections.abc import Iterable, Iterator

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from parsers.base import TCP, TO_CLIENT, TO_SERVER, Content, Event, Kind, ParseError, Parser, Switched, Unit
from parsers.registry import PARSERS, field_of
from tests.contract.conversations import Conversation, conversations
from tests.fuzz.target import MOST, merged

ALL = list(conversations())
STREAMS = [each for each in ALL if each.l4 == TCP]


KINDS = {Kind.TEXT: bytes, Kind.NUMBER: int, Kind.LIST: tuple}

each_conversation = pytest.mark.parametrize("conversation", ALL, ids=str)
each_stream = pytest.mark.parametrize("conversation", STREAMS, ids=str)


def fed(parser: Parser, parts: Iterable[tuple[int, bytes]]) -> list[Event]:
    """Up to a switch: what comes behind it is another parser's, and whether it came already a matter of cuts."""
    events: list[Event] = []
    for direction, data in parts:
        for event in parser.feed(direction, data):
            if isinstance(event, Switched):
                return [*events, Switched(event.protocol)]
            events.append(event)
    return merged(events)


def units(events: Iterable[Event]) -> list[Unit]:
    return [event for event in events if isinstance(event, Unit)]


def by_byte(parts: Iterable[tuple[int, bytes]]) -> Iterator[tuple[int, bytes]]:
    return ((direction, bytes((byte,))) for direction, data in parts for byte in data)


def told(parser: Parser, parts: Iterable[tuple[int, bytes]]) -> list[Event] | ParseError:
    """All events, or how it ended."""
    try:
        return fed(parser, parts)
    except ParseError as error:
        return error


def test_every_parser_has_conversations() -> None:
    assert {each.parser for each in ALL} == set(PARSERS)


@pytest.mark.parametrize("parser", PARSERS.values(), ids=PARSERS)
def test_fields_are_described(parser: type[Parser]) -> None:
    names = [field.name for field in parser.fields]
    assert len(set(names)) == len(names)
    assert all(
        field.says and field.name == field.name.lower() and field.name.count(".") == 1 for field in parser.fields
    )


@each_conversation
def test_what_it_says(conversation: Conversation) -> None:
    parser = conversation.begin()
    found = units(fed(parser, conversation.parts))
    assert [(unit.protocol, dict(unit.fields)) for unit in found] == [(p, dict(f)) for p, f in conversation.units]
    for unit in found:
        for name, value in unit.fields.items():
            field = field_of(name)
            assert field in parser.fields
            assert type(value) is KINDS[field.kind], name
            assert name in parser.asked or not field.on_demand, name
        assert unit.later <= {field.name for field in parser.fields if field.once}
        assert not unit.later & unit.fields.keys()
    for direction in (TO_SERVER, TO_CLIENT):
        parser.eof(direction)


@each_conversation
def test_what_is_said_once_is_not_said_otherwise(conversation: Conversation) -> None:
    said: dict[str, object] = {}
    for unit in units(fed(conversation.begin(), conversation.parts)):
        for name, value in unit.fields.items():
            if field_of(name).once:
                assert said.setdefault(name, value) == value


@each_stream
def test_byte_by_byte_it_says_the_same_and_waits_for_the_last_byte(conversation: Conversation) -> None:
    parser = conversation.begin()
    events: list[Event] = []
    begun = [0, 0]
    for direction, byte in by_byte(conversation.parts):
        waiting = parser.pending(direction)
        fresh = parser.feed(direction, byte)
        # A unit of one byte cannot be waited for; the bytes behind the last unit are counted.
        for unit in units(fresh):
            if unit.direction == direction and begun[direction] and not isinstance(unit, Content):
                assert waiting, f"{dict(unit.fields)} came of a byte that would not have been held"
        begun[direction] = 0 if any(unit.direction == direction for unit in units(fresh)) else begun[direction] + 1
        events += fresh
        # Where more is asked for, requests are remembered until their response, and zlib keeps its window.
        more = 128 * 1024 if conversation.asked else 0
        assert parser.buffered <= sum(len(data) for _, data in conversation.parts) + more
    assert merged(events) == fed(conversation.begin(), conversation.parts)


@settings(max_examples=300, deadline=None)
@given(st.data())
def test_cut_anywhere_it_says_the_same(data: st.DataObject) -> None:
    conversation = data.draw(st.sampled_from(STREAMS))
    parts: list[tuple[int, bytes]] = []
    for direction, whole in conversation.parts:
        places = sorted(data.draw(st.lists(st.integers(0, len(whole)), max_size=4)))
        parts += [(direction, whole[low:high]) for low, high in zip([0, *places], [*places, len(whole)], strict=True)]
    assert fed(conversation.begin(), parts) == fed(conversation.begin(), conversation.parts)


@settings(max_examples=500, deadline=None)
@given(st.data())
def test_damaged_it_says_something_or_is_refused(data: st.DataObject) -> None:
    conversation = data.draw(st.sampled_from(ALL))
    parts = list(conversation.parts)
    for _ in range(data.draw(st.integers(1, 4))):
        number = data.draw(st.integers(0, len(parts) - 1))
        direction, whole = parts[number]
        low, high = sorted((data.draw(st.integers(0, len(whole))), data.draw(st.integers(0, len(whole)))))
        with_ = data.draw(st.one_of(st.binary(max_size=16), st.sampled_from((b"", b"\0\0\0\0", b"\xff\xff\xff\xff"))))
        parts[number] = direction, whole[:low] + with_ + whole[min(high, low + 8) :]
    whole_told = told(conversation.begin(), parts)
    if conversation.l4 == TCP:
        # Cuts change nothing here either: not the events before the offence, not what it is called.
        cut_told = told(conversation.begin(), by_byte(parts))
        if isinstance(whole_told, ParseError):
            assert isinstance(cut_told, ParseError)
            assert cut_told.code == whole_told.code
        else:
            assert cut_told == whole_told


@settings(max_examples=300, deadline=None)
@given(st.data())
def test_bytes_that_are_missing_are_told_of(data: st.DataObject) -> None:
    conversation = data.draw(st.sampled_from(STREAMS))
    parser = conversation.begin()
    number = data.draw(st.integers(0, len(conversation.parts) - 1))
    direction, whole = conversation.parts[number]
    low = data.draw(st.integers(0, len(whole) - 1))
    fed(parser, [*conversation.parts[:number], (direction, whole[:low])])
    size = data.draw(st.integers(1, len(whole) - low))
    try:
        parser.gap(direction, size)
        fed(parser, [(direction, whole[low + size :]), *conversation.parts[number + 1 :]])
    except ParseError:
        pass


@each_stream
@pytest.mark.parametrize("filler", [b"\0", b"a", b"\xff", b"\r\n", b"1", b" "], ids=repr)
def test_what_never_ends_takes_bounded_memory(conversation: Conversation, filler: bytes) -> None:
    for at in range(len(conversation.parts)):
        direction, whole = conversation.parts[at]
        for cut in {0, 1, 4, len(whole) // 2, len(whole) - 1, len(whole)}:
            parser = conversation.begin()
            chunk = filler * (65536 // len(filler))
            try:
                fed(parser, [*conversation.parts[:at], (direction, whole[:cut])])
                for _ in range(24):
                    parser.feed(direction, chunk)
                    assert parser.buffered <= MOST
            except ParseError:
                pass


@each_conversation
def test_the_other_way_round_is_refused_or_says_nothing_wrong(conversation: Conversation) -> None:
    parser = conversation.begin()
    told(parser, [(1 - direction, data) for direction, data in conversation.parts])
    assert parser.buffered <= MOST
