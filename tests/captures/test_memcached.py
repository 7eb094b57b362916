"""Public captures of Memcached: there is one, of one command."""

from __future__ import annotations

from parsers.base import Said
from parsers.memcached import MemcachedParser
from tests.captures.streams import flows


def test_what_it_says() -> None:
    (flow,) = flows("memcached", agree=False)
    parser = MemcachedParser()
    events = [event for direction, data in flow.parts for event in parser.feed(direction, data)]
    assert events == [Said("memcached", {"memcached.command": b"stats"})]
