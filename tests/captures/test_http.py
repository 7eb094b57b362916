"""Public captures of HTTP: asking for everything finds fault with nothing that is read without."""

from __future__ import annotations

from collections import Counter

import pytest

from parsers.base import Content, Event, ParseError, Parser, Said, Switched, Upgraded
from parsers.http1 import Http1Parser
from parsers.http2 import Http2Parser
from tests.captures.streams import CapturedFlow, flows
from tests.fuzz.target import everything

PARSERS: dict[str, type[Parser]] = {"http": Http1Parser, "http2": Http2Parser}


def read(flow: CapturedFlow, protocol: str, asked: frozenset[str]) -> tuple[list[Event], str]:
    parser, events = PARSERS[protocol](), list[Event]()
    parser.asked = asked
    try:
        for direction, data in flow.parts:
            events += parser.feed(direction, data)
            if events and isinstance(events[-1], Switched | Upgraded):
                break
    except ParseError as error:
        return [*events, *error.events], error.code
    return events, ""


def server_says_http(flow: CapturedFlow, protocol: str) -> bool:
    """Some servers answer in HTTP/0.9, in lower case, or in what was made up for a test of reassembly."""
    said = b"".join(data for direction, data in flow.parts if direction == 1)
    return protocol == "http2" or not said or said.startswith(b"HTTP/1.")


@pytest.mark.parametrize("protocol", PARSERS)
def test_everything(protocol: str) -> None:
    found: Counter[str] = Counter()
    for flow in flows(protocol, agree=False):
        plain, wrong = read(flow, protocol, frozenset())
        if wrong or not flow.whole or not server_says_http(flow, protocol):
            continue
        events, error = read(flow, protocol, everything(PARSERS[protocol]))
        assert not error, f"{flow}: {error}"
        assert len([e for e in events if not isinstance(e, Said | Content)]) == len(plain)
        found["flows"] += 1
        found["responses"] += sum(isinstance(event, Said) for event in events)
        found["bytes"] += sum(len(event.data) for event in events if isinstance(event, Content))
    assert found == EXPECTED[protocol]


EXPECTED = {
    "http": {"flows": 38, "responses": 50, "bytes": 1732891},
    "http2": {"flows": 2, "responses": 7, "bytes": 410873},
}
