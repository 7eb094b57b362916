"""What tests of stream parsers share."""

from __future__ import annotations

from collections.abc import Iterable

import pytest

from parsers.base import TO_SERVER, Event, ParseError, Parser, Unit, Value

Part = tuple[int, bytes]


def fed(parser: Parser, *parts: Part) -> list[Event]:
    return [event for direction, data in parts for event in parser.feed(direction, data)]


def said(events: Iterable[Event]) -> list[dict[str, Value]]:
    return [dict(event.fields) for event in events if isinstance(event, Unit)]


def refused(parser: Parser, *parts: Part) -> tuple[str, int]:
    """Code and offset of the last part's error; those before it are fine."""
    fed(parser, *parts[:-1])
    with pytest.raises(ParseError) as error:
        parser.feed(*parts[-1])
    return error.value.code, error.value.offset


def flooded(parser: Parser, piece: bytes, direction: int = TO_SERVER, times: int = 1000) -> tuple[str, int]:
    """Of a flood: the error's code, and the most bytes that were kept."""
    most = 0
    try:
        for _ in range(times):
            parser.feed(direction, piece)
            most = max(most, parser.buffered)
    except ParseError as error:
        return error.code, most
    return "", most
