"""Public captures of Redis: all are well-formed."""

from __future__ import annotations

from collections import Counter

import pytest

from parsers.base import Unit
from parsers.redis import RedisParser
from tests.captures.streams import flows

# zeek__redis__reply-off-on: CLIENT REPLY; zeek__pop3__redis-50-pings: AUTH and QUIT among them.
COMMANDS = {
    "nDPI__resp.pcap:51882-6379": {b"command": 1, b"ping": 1, b"set": 1, b"get": 1},
    "zeek__redis__pipelining-example.pcap:51122-6379": {b"ping": 3},
    "zeek__redis__reply-off-on-2conn.pcap:61211-6379": {b"ping": 2, b"client": 1},
    "zeek__redis__reply-off-on-2conn.pcap:61212-6379": {b"ping": 2, b"client": 1},
    "zeek__redis__bulk-loading.pcap:65480-6379": {b"set": 1000, b"echo": 1},
    "zeek__pop3__redis-50-pings.pcap:59954-6379": {b"ping": 50, b"client": 2, b"auth": 1, b"quit": 1},
}


def units(name: str) -> list[Unit]:
    (flow,) = (each for each in flows("redis", agree=False) if str(each) == name)
    parser = RedisParser()
    return [
        event for direction, data in flow.parts for event in parser.feed(direction, data) if isinstance(event, Unit)
    ]


@pytest.mark.parametrize("name", COMMANDS)
def test_commands(name: str) -> None:
    assert Counter(unit.fields["redis.command"] for unit in units(name)) == COMMANDS[name]


def test_no_other_captures() -> None:
    assert {str(flow) for flow in flows("redis", agree=False)} == COMMANDS.keys()


def test_keys() -> None:
    bulk = units("zeek__redis__bulk-loading.pcap:65480-6379")
    names = [(b"Key%d" % number,) for number in range(1000)]
    assert [unit.fields["redis.keys"] for unit in bulk if "redis.keys" in unit.fields] == names


def test_subcommands() -> None:
    said = [unit.fields.get("redis.subcommand") for unit in units("zeek__pop3__redis-50-pings.pcap:59954-6379")]
    assert said[:4] == [None, b"setinfo", b"setinfo", None]
