from __future__ import annotations

import pytest

from parsers.base import TO_CLIENT, TO_SERVER, Event, ParseError, Unit, Value
from parsers.memcached import Limits, MemcachedParser
from tests.contract.conversations.memcached import binary


def said(events: list[Event]) -> list[tuple[Value, Value]]:
    units = [event for event in events if isinstance(event, Unit)]
    return [(unit.fields["memcached.command"], unit.fields.get("memcached.keys", ())) for unit in units]


@pytest.mark.parametrize(
    ("line", "keys"),
    [
        (b"get a", b"a"),
        (b"get  a   b ", b"a b"),
        (b"get a\tb", b""),
        (b"gets a b", b"a b"),
        (b"bget a", b"a"),
        (b"gat 10 a b", b"a b"),
        (b"gats 10 a", b"a"),
        (b"delete a 0 noreply", b"a"),
        (b"incr a 1", b"a"),
        (b"decr a 1 noreply", b"a"),
        (b"touch a 5", b"a"),
        (b"get", b""),
        (b"flush_all 10", b""),
        (b"version", b""),
        (b"verbosity 1", b""),
        (b"stats items", b""),
        (b"lru_crawler metadump all", b""),
        (b"nobodyknows a", b""),
        (b"mn", b""),
        (b"mg a s v", b"a"),
        (b"mg Zm9v s b v", b"foo"),
        (b"md Zm9v b", b"foo"),
        (b"ma Zm9v b", b"foo"),
        (b"me Zm9v b", b"foo"),
    ],
)
def test_lines(line: bytes, keys: bytes) -> None:
    expected = (b"a\tb",) if b"\t" in line else tuple(keys.split())
    for end in (b"\r\n", b"\n"):
        parser = MemcachedParser()
        assert said(parser.feed(TO_SERVER, line + end + b"version\r\n")) == [
            (line.split(b" ")[0], expected),
            (b"version", ()),
        ]
        assert not parser.pending(TO_SERVER)


@pytest.mark.parametrize("command", [b"set", b"add", b"replace", b"append", b"prepend", b"cas"])
@pytest.mark.parametrize("noreply", [b"", b" noreply"])
def test_values_are_not_commands(command: bytes, noreply: bytes) -> None:
    unique = b" 123" if command == b"cas" else b""
    data = command + b" a 4294967295 -1 11" + unique + noreply + b"\r\nflush_all\r\n\r\nget b\r\n"
    assert said(MemcachedParser().feed(TO_SERVER, data)) == [(command, (b"a",)), (b"get", (b"b",))]


def test_what_the_server_takes_for_no_storage_has_no_value() -> None:
    data = b"SET a 0 0 9\r\nflush_all\r\nset\tb 0 0 1\r\nversion\r\n"
    assert [command for command, _ in said(MemcachedParser().feed(TO_SERVER, data))] == [
        b"SET", b"flush_all", b"set\tb", b"version",
    ]  # fmt: skip


def test_a_value_is_not_kept_and_keeps_nobody_waiting() -> None:
    for head in (
        b"set a 0 0 100000000\r\n",
        binary(1, b"a", bytes(8))[:8] + b"\5\xf5\xe1\x09" + bytes(12) + bytes(8) + b"a",
    ):
        parser = MemcachedParser()
        for byte in head[:-1]:
            assert parser.feed(TO_SERVER, bytes((byte,))) == []
            assert parser.pending(TO_SERVER)
        assert said(parser.feed(TO_SERVER, head[-1:])) == [(b"set", (b"a",))]
        for _ in range(10):
            assert not parser.pending(TO_SERVER)
            assert parser.feed(TO_SERVER, b"get b\r\n" * 10_000) == []
            assert parser.buffered == 0
        parser.gap(TO_SERVER, 100_000_000 - 700_000)
        after = b"\r\nget c\r\n" if head[:1] == b"s" else binary(0, b"c")
        assert said(parser.feed(TO_SERVER, after)) == [(b"get", (b"c",))]


@pytest.mark.parametrize(
    ("operation", "command"),
    [
        (0x00, b"get"), (0x01, b"set"), (0x02, b"add"), (0x03, b"replace"), (0x04, b"delete"), (0x05, b"incr"),
        (0x06, b"decr"), (0x08, b"flush_all"), (0x09, b"get"), (0x0C, b"get"), (0x0D, b"get"), (0x0E, b"append"),
        (0x0F, b"prepend"), (0x11, b"set"), (0x12, b"add"), (0x13, b"replace"), (0x14, b"delete"), (0x15, b"incr"),
        (0x16, b"decr"), (0x18, b"flush_all"), (0x19, b"append"), (0x1A, b"prepend"), (0x1C, b"touch"), (0x1D, b"gat"),
        (0x1E, b"gat"), (0x23, b"gat"), (0x24, b"gat"), (0x30, b"rget"), (0x3C, b"rdecr"), (0x99, b"153"),
    ],
)  # fmt: skip
def test_operations(operation: int, command: bytes) -> None:
    data = binary(operation, b"k" * 20, b"x" * 20, b"v" * 500) + binary(7)
    assert said(MemcachedParser().feed(TO_SERVER, data)) == [(command, (b"k" * 20,)), (b"quit", ())]


@pytest.mark.parametrize(
    ("operation", "command"),
    [(0x10, b"stats"), (0x20, b"sasl_list_mechs"), (0x21, b"sasl_auth"), (0x22, b"sasl_step"), (0x0B, b"version")],
)
def test_what_is_no_key(operation: int, command: bytes) -> None:
    data = binary(operation, b"" if command == b"version" else b"PLAIN", value=b"secret" if operation > 0x1F else b"")
    assert said(MemcachedParser().feed(TO_SERVER, data * 2)) == [(command, ())] * 2


@pytest.mark.parametrize(
    ("data", "code"),
    [
        (b"set a 0 0\r\n", "store"),
        (b"set a 0 0 1 2\r\n", "store"),
        (b"set a 0 0 1 noreply 3\r\n", "store"),
        (b"set a x 0 1\r\n", "store"),
        (b"set a 4294967296 0 1\r\n", "store"),
        (b"set a 0 +1 1\r\n", "store"),
        (b"set %s 0 0 1\r\n" % (b"k" * 251), "store"),
        (b"cas a 0 0 1\r\n", "store"),
        (b"cas a 0 0 1 x\r\n", "store"),
        (b"set a 0 0 -1\r\n", "value_size"),
        (b"set a 0 0 +1\r\n", "value_size"),
        (b"set a 0 0 4294967296\r\n", "value_size"),
        (b"set a 0 0 1\r\nab\r\n", "value_end"),
        (b"set a 0 0 1\r\na\n\n", "value_end"),
        (b"ms a\r\n", "value_size"),
        (b"ms a S3\r\n", "value_size"),
        (b"ms a T0\r\n", "value_size"),
        (b"mg\r\n", "meta"),
        (b"mg %s v\r\n" % (b"k" * 251), "meta"),
        (b"mg !!! b\r\n", "base64"),
        (b"mg Zm9 b\r\n", "base64"),
        (b" get a\r\n", "line"),
        (b"get a\0b\r\n", "line"),
        (b"get " + b"a" * 70000, "too_long"),
        (b"\x80" + bytes(3) + b"\1" + bytes(19), "length"),
        (b"\x80\0\0\5\0\0\0\0\0\0\0\4" + bytes(12), "length"),
        (b"\x80\1\0\1\0\0\0\0\xff\xff\xff\xff" + bytes(12), "length"),
        (binary(0, b"a") + b"version\r\n" + bytes(20), "magic"),
        (b"\x80" + b"\x81" * 0 + binary(0, b"a")[1:] + b"\x81" + bytes(23), "magic"),
    ],
)
def test_refused(data: bytes, code: str) -> None:
    with pytest.raises(ParseError) as caught:
        MemcachedParser().feed(TO_SERVER, data)
    assert caught.value.code == code


@pytest.mark.parametrize(
    ("data", "code"),
    [
        (b"", "frame"),
        (bytes(7), "frame"),
        (b"\0\7\0\0\0\2\0\0get a\r\n", "several_datagrams"),
        (b"\0\7\0\1\0\1\0\0get a\r\n", "several_datagrams"),
        (b"\0\7\0\0\0\0\0\0get a\r\n", "several_datagrams"),
        (b"\0\7\0\0\0\1\0\0get a", "incomplete"),
        (b"\0\7\0\0\0\1\0\0set a 0 0 9\r\nabc", "incomplete"),
        (b"\0\7\0\0\0\1\0\0" + binary(0, b"abc")[:-1], "incomplete"),
    ],
)
def test_refused_datagrams(data: bytes, code: str) -> None:
    with pytest.raises(ParseError) as caught:
        MemcachedParser(datagrams=True).feed(TO_SERVER, data)
    assert caught.value.code == code


def test_each_datagram_is_of_either_protocol() -> None:
    parser = MemcachedParser(datagrams=True)
    frame = b"\0\7\0\0\0\1\0\0"
    for _ in range(2):
        assert said(parser.feed(TO_SERVER, frame + binary(0, b"a"))) == [(b"get", (b"a",))]
        assert said(parser.feed(TO_SERVER, frame + b"get a\r\n")) == [(b"get", (b"a",))]
    assert parser.feed(TO_CLIENT, b"whatever") == []
    assert parser.gap(TO_SERVER, 1) == []
    assert not parser.pending(TO_SERVER)


def test_answers_are_not_looked_at() -> None:
    parser = MemcachedParser()
    assert parser.feed(TO_CLIENT, b"\0\xff" * 1000) == []
    parser.gap(TO_CLIENT, 1 << 40)
    with pytest.raises(ParseError, match="gap"):
        parser.gap(TO_SERVER, 1)


def test_limits_are_the_callers() -> None:
    with pytest.raises(ParseError, match="too_long"):
        MemcachedParser(Limits(line=10)).feed(TO_SERVER, b"get abcdefghij\r\n")
    with pytest.raises(ParseError, match="value_size"):
        MemcachedParser(Limits(value=10)).feed(TO_SERVER, b"set a 0 0 11\r\n")
