from __future__ import annotations

import argparse
import json
from typing import Any

import pytest

from slowpath.cli.filters import add_filters, combine, needles
from slowpath.record import Record, read
from slowpath.record.write import encode
from tests.unit.slowpath.record import sample


def flow(src: str, sport: int, dst: str, dport: int, l4: str = "tcp") -> Record:
    return {"src": src, "sport": sport, "dst": dst, "dport": dport, "l4": l4}


RECORDS = {
    "grpc": sample.record(1, flow=flow("10.0.0.1", 4242, "10.0.1.2", 50051)),
    "http": sample.record(
        2, flow=flow("10.0.0.9", 4243, "10.0.1.2", 80), protocol="http", verdict="allow", reason="rule", rule="web",
        rule_file="shop", l7_rule="read-only", severity="medium",
    ),
    "dns": sample.record(
        3, flow=flow("2001:db8::1", 5353, "2001:db8::53", 53, "udp"), protocol="dns", verdict="allow", reason="policy",
        rule="names",
    ),
    "ping": sample.record(
        4, flow=flow("10.0.0.1", 80, "10.0.1.9", 80, "icmp"), protocol="icmp", reason="default", rule="default"
    ),
    "end": sample.end(1, flow=flow("10.0.0.1", 4242, "10.0.1.2", 50051)),
}  # fmt: skip


def parse(*argv: str) -> Any:
    parser = argparse.ArgumentParser(exit_on_error=False)
    add_filters(parser)
    return parser.parse_args(argv)


CASES = [
    ("", "grpc http dns ping end"),
    ("--verdict deny", "grpc ping"),
    ("--verdict deny --verdict allow", "grpc http dns ping end"),
    ("--verdict inspect", ""),
    ("--verdict deny --protocol grpc", "grpc"),
    ("--verdict allow --protocol grpc", "end"),
    ("--protocol http --protocol dns", "http dns"),
    ("--protocol udp", "dns"),
    ("--severity low", "http"),
    ("--severity medium --not --verdict deny", "http"),
    ("--severity high", ""),
    ("--protocol icmp", "ping"),
    ("--protocol tcp --protocol dns", "grpc http dns end"),
    ("--event end", "end"),
    ("--reason rule", "http end"),
    ("--reason no_rule --reason default", "grpc ping"),
    ("--from-ip 10.0.0.1", "grpc ping end"),
    ("--from-ip 10.0.0.0/29", "grpc ping end"),
    ("--from-ip 10.0.0.1/24", "grpc http ping end"),
    ("--to-ip 10.0.0.1", ""),
    ("--to-ip 10.0.1.9 --to-ip 2001:db8::/32", "dns ping"),
    ("--ip 10.0.1.2", "grpc http end"),
    ("--ip ::ffff:10.0.1.2", "grpc http end"),
    ("--ip ::ffff:10.0.0.0/112", "grpc http ping end"),
    ("--ip 2001:DB8:0::53", "dns"),
    ("--ip 0.0.0.0/0", "grpc http ping end"),
    ("--ip ::/0", "dns"),
    ("--from-ip 10.0.0.1 --to-ip 10.0.1.2", "grpc end"),
    ("--port 80", "http"),
    ("--port 50-90", "http dns"),
    ("--port 4242", "grpc end"),
    ("--rule web", "http"),
    ("--rule shop", "http"),
    ("--rule read-only", "http"),
    ("--rule read*", "http"),
    ("--rule *e*", "grpc http dns ping end"),
    ("--rule **", "grpc http dns ping end"),
    ("--rule we", ""),
    ("--rule default", "ping"),
    ("--session 2", "http"),
    ("--session 0x3 --session 0x4", "dns ping"),
    ("--not --verdict deny", "http dns end"),
    ("--not --verdict deny --not --event end", "http dns"),
    ("--verdict allow --not --protocol dns", "http end"),
    ("--not --protocol dns --protocol dns", ""),
    ("--ip 10.0.0.0/8 --not --port 80 --not --event end", "grpc ping"),
    ("--not --not --verdict deny", "http dns end"),
]


@pytest.mark.parametrize(("argv", "expected"), CASES)
def test_semantics(argv: str, expected: str) -> None:
    filters = parse(*argv.split()).filters
    accept = combine(filters)
    assert [name for name, record in RECORDS.items() if accept is None or accept(record)] == expected.split()


@pytest.mark.parametrize(("argv", "expected"), CASES)
def test_needles_select_the_same(argv: str, expected: str) -> None:
    filters = parse(*argv.split()).filters
    for spell in (encode, lambda record: json.dumps(record, indent=None).encode()):
        sieve = read.Sieve(combine(filters), needles=needles(filters))
        assert [name for name, record in RECORDS.items() if sieve.take(spell(record).strip())] == expected.split()


@pytest.mark.parametrize(
    ("argv", "message"),
    [
        ("--verdict drop", "'drop' is not one of allow, deny, inspect"),
        ("--event start", "verdict, end"),
        ("--reason nope", "no_rule"),
        ("--protocol htpp", "http, http2, grpc.*tcp, udp"),
        ("--ip 10.0.0.256", "legal are"),
        ("--ip 10.0.0.0/33", "legal are"),
        ("--ip host.example", "legal are"),
        ("--port 65536", "0..65535"),
        ("--port 90-80", "N-M"),
        ("--port http", "N-M"),
        ("--port -", "N-M"),
        ("--port ²", "N-M"),
        ("--session xyz", "0x1f"),
        ("--session 12ab", "0x1f"),
    ],
)
def test_bad_values_list_the_legal_ones(argv: str, message: str) -> None:
    with pytest.raises(argparse.ArgumentError, match=message):
        parse(*argv.split())


def test_not_without_a_filter_is_seen() -> None:
    assert parse("--verdict", "deny", "--not").negate
    assert not parse("--not", "--verdict", "deny").negate


def test_damaged_records_do_not_disturb_the_filters() -> None:
    damaged: Record = {"v": 1, "ts": 1, "flow": {"src": 5, "sport": "x", "dst": "nowhere", "l4": []}, "rule": 7}
    for argv, _ in CASES:
        accept = combine(parse(*argv.split()).filters)
        if accept is not None:
            accept(damaged)
