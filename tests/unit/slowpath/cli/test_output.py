from __future__ import annotations

import json
import time
from collections.abc import Iterator

import pytest
from hypothesis import given
from hypothesis import strategies as st

from slowpath.cli.output import WIDTH, formatter
from slowpath.record import Record
from slowpath.record.write import encode
from tests.unit.slowpath.record import sample

NOW = sample.T0 + 60.0


@pytest.fixture(autouse=True)
def zone(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    monkeypatch.setenv("TZ", "EST5")
    time.tzset()
    yield
    monkeypatch.undo()
    time.tzset()


def show(record: Record, name: str = "compact", *, colour: bool = False, utc: bool = True, now: float = NOW) -> str:
    return formatter(name, colour=colour, utc=utc, now=now)(encode(record)[:-1], record)


def test_compact() -> None:
    assert show(sample.record()) == (
        "22:13:20.250 deny    grpc   10.0.0.1:1024 > 10.0.1.2:50051 rule_x no_rule inspector /lab.Admin/Wipe\n"
    )
    assert show(sample.end(1)) == (
        "22:13:21.500 allow   grpc   10.0.0.1:1025 > 10.0.1.2:50051 rule_x rule inspector "
        "closed 1.234s 12/10 pkts 800/9000 B\n"
    )


@pytest.mark.parametrize(
    ("now", "start"),
    [(NOW, "22:13:20.250 "), (NOW + 86400, "11-14 22:13:20.250 "), (NOW + 86400 * 365, "2023-11-14 22:13:20.250 ")],
)
def test_compact_names_the_day_if_it_is_another(now: float, start: str) -> None:
    assert show(sample.record(), now=now).startswith(start)


def test_local_time() -> None:
    assert show(sample.record(), utc=False).startswith("17:13:20.250 ")
    assert "time: 2023-11-14T17:13:20.250-05:00\n" in show(sample.record(), "dict", utc=False)
    assert show(sample.record(ts=1700000000.002)).startswith("22:13:20.002 ")


def test_monitor_is_starred() -> None:
    assert " deny*   grpc " in show(sample.record(enforced=False))


def test_http_finding() -> None:
    record = sample.record(protocol="http", http={"method": "GET", "host": "shop.lab", "path": "/cart?id=1 2"})
    del record["grpc"]
    assert show(record).endswith(" inspector GET shop.lab/cart?id=1\\x202\n")


def test_long_addresses_leave_room_for_rule_and_reason() -> None:
    address = "2001:db8:1111:2222:3333:4444:5555:666{}"
    flow = {"src": address.format(6), "sport": 60001, "dst": address.format(7), "dport": 50051, "l4": "tcp"}
    line = show(sample.record(flow=flow))
    assert len(line) <= WIDTH + 1
    assert "rule_x no_rule" in line
    assert "5:6666]:60001" in line
    assert address.format(7) in show(sample.record(flow=flow), "table")


def test_colour_only_around_the_verdict() -> None:
    assert "22:13:20.250 \x1b[31mdeny\x1b[0m    grpc" in show(sample.record(), colour=True)
    assert "  \x1b[31mdeny\x1b[0m " in show(sample.record(), "table", colour=True)
    assert "\x1b" not in show(sample.record(), "dict", colour=True)


def test_dict() -> None:
    text = show(sample.record(31), "dict")
    assert text.startswith("time: 2023-11-14T22:13:51.250Z\nv: 1\n")
    assert "\nflow.src: 10.0.0.1\n" in text
    assert "\nsession: 0x1f\n" in text
    assert "\nenforced: true\n" in text
    assert text.endswith("\ngrpc.method: Wipe\n------------\n")


def test_table_is_aligned_with_one_header() -> None:
    table = formatter("table", colour=False, utc=True, now=NOW)
    lines = "".join(table(b"", record) for record in (sample.record(1), sample.end(2), sample.record(3))).splitlines()
    assert lines[0].split() == (
        [
            "TIME",
            "EVENT",
            "VERDICT",
            "PROTOCOL",
            "SOURCE",
            "DESTINATION",
            "L4",
            "RULE",
            "REASON",
            "PATH",
            "SESSION",
            "DETAIL",
        ]
    )
    assert len(lines) == 4
    for name, cell in (("DESTINATION", "10.0.1.2:50051"), ("RULE", "rule_x"), ("PATH", "inspector")):
        assert {line.index(cell) for line in lines[1:]} == {lines[0].index(name)}


def test_json_is_the_line_in_ascii() -> None:
    line = encode(sample.record())
    assert formatter("json", colour=True, utc=False, now=NOW)(line[:-1], sample.record()).encode() == line
    foreign = json.dumps({**sample.record(), "rule": "sch\u00f6n\u202e"}, ensure_ascii=False).encode()
    text = formatter("json", colour=True, utc=False, now=NOW)(foreign, json.loads(foreign))
    assert text.isascii()
    assert json.loads(text)["rule"] == "sch\u00f6n\u202e"


NASTY = [
    "\x1b[2J",
    "\x1b]0;x\x07",
    "a\nb",
    "a\rb",
    "\u202eevil",
    "\u200b",
    "\u2028",
    "\x9b31m",
    "\ud800",
    "\u05d0",
    "\x00",
]


@pytest.mark.parametrize("name", ["compact", "table", "dict"])
@pytest.mark.parametrize("nasty", NASTY, ids=ascii)
@pytest.mark.parametrize("colour", [False, True])
def test_nothing_from_traffic_drives_the_terminal(name: str, nasty: str, colour: bool) -> None:
    clean = show(sample.record(http={"method": "x", "path": "x", "host": "x"}), name, colour=colour)
    record = sample.record(
        rule=nasty,
        protocol=nasty,
        reason=nasty,
        path=nasty,
        verdict=nasty,
        event=nasty,
        http={"method": nasty, "path": nasty, "host": nasty, nasty: nasty},
        grpc={"service": nasty, "method": nasty},
        flow={"src": nasty, "sport": nasty, "dst": nasty, "dport": nasty, "l4": nasty, nasty: nasty},
    )
    text = show(record, name, colour=colour)
    assert text.isascii()
    assert all(character.isprintable() or character == "\n" for character in text)
    if name != "dict":
        assert text.count("\n") == clean.count("\n")


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | st.text(),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(), inner, max_size=3),
    max_leaves=8,
)
FIELDS = st.sampled_from(
    ["event", "verdict", "protocol", "rule", "reason", "path", "session", "http", "grpc", "packets", "bytes",
     "duration", "end", "enforced"]
)  # fmt: skip


@given(
    st.dictionaries(FIELDS, JSON),
    st.dictionaries(st.sampled_from(["src", "sport", "dst", "dport", "l4"]), JSON),
    st.floats(0, 253402300799),
)
def test_any_record_that_the_reader_lets_through_can_be_shown(fields: Record, flow: Record, ts: float) -> None:
    record = {"v": 1, "ts": ts, "flow": flow, **fields}
    for name in ("compact", "table", "dict", "json"):
        text = show(record, name)
        assert text.isascii()
        assert text.endswith("\n")
    assert len(show(record)) <= WIDTH + 1
    assert show(record).count("\n") == 1
