from __future__ import annotations

import ipaddress
import json
import socket
import time
from typing import Any

import jsonschema
import pytest
from hypothesis import given
from hypothesis import strategies as st

from fastpath import abi
from fastpath.word import Word
from slowpath.record import MAX_LINE, Record, model, names, schema
from slowpath.record.write import encode
from tests.unit.slowpath.record import sample

VALIDATOR = jsonschema.Draft202012Validator(schema(), format_checker=jsonschema.FormatChecker(("ipv4", "ipv6")))
OFFSET = 1_700_000_000_000_000_000


def valid(record: Record) -> Record:
    """The record as a reader sees it, after the schema had its say."""
    written: Record = json.loads(encode(record))
    VALIDATOR.validate(written)
    return written


def event(kind: abi.EventKind, word: Word, *, flags: int = 0, l4: int = 6, **state: Any) -> abi.Event:
    made = abi.Event(ns=5_000_000_000, kind=kind)
    for packed, field in (("10.0.0.1", "addr_a"), ("10.0.1.2", "addr_b")):
        mapped = ipaddress.IPv6Address(f"::ffff:{packed}").packed
        setattr(made.key, field, (abi.c_uint8 * 16)(*mapped))
    made.key.port_a, made.key.port_b, made.key.l4 = socket.htons(4242), socket.htons(443), l4
    made.session.verdict = word.pack()
    made.session.flags = flags
    made.session.id = 77
    made.session.first_ns = 3_000_000_000
    made.session.protocol = made.session.first_protocol = abi.Protocol.TLS
    for name, value in state.items():
        setattr(made.session, name, value)
    return made


def rule_name(revision: int, index: int) -> str:
    return f"r{revision}.{index}"


ALLOW = Word(abi.Verdict.ALLOW, abi.Scope.NONE, reason=abi.Reason.POLICY, rule=3, revision=9)


def test_schema_is_one() -> None:
    jsonschema.Draft202012Validator.check_schema(schema())


@pytest.mark.parametrize(
    ("field", "kind"),
    [("protocol", abi.Protocol), ("reason", abi.Reason), ("scope", abi.Scope), ("end", abi.End)],
)
def test_schema_has_the_names_of_the_abi(field: str, kind: type[abi.Protocol]) -> None:
    # A protocol that nobody looked for is unknown in a record.
    left_out = {"MAX", "NONE"} if field == "protocol" else {"MAX"}
    assert list(names(field)) == [member.name.lower() for member in kind if member.name not in left_out]


def test_verdict_record() -> None:
    record = valid(sample.record())
    assert record == {
        "v": 1,
        "ts": sample.T0 + 0.25,
        "event": "verdict",
        "session": 0,
        "flow": {"src": "10.0.0.1", "sport": 1024, "dst": "10.0.1.2", "dport": 50051, "l4": "tcp"},
        "first": "http2",
        "protocol": "grpc",
        "verdict": "deny",
        "enforced": True,
        "scope": "request",
        "reason": "no_rule",
        "rule": "rule_x",
        "revision": 7,
        "path": "inspector",
        "latency": 0.0012,
        "grpc": {"service": "lab.Admin", "method": "Wipe"},
    }


def test_end_record() -> None:
    record = valid(sample.end())
    assert record["packets"] == {"to_server": 12, "to_client": 10}
    assert record["bytes"] == {"to_server": 800, "to_client": 9000}
    assert record["held"] == {"to_server": 3, "to_client": 2}
    assert (record["duration"], record["end"]) == (1.234, "closed")


@pytest.mark.parametrize("verdict", list(abi.Verdict))
@pytest.mark.parametrize("monitor", [False, True])
def test_every_verdict_of_the_kernel_has_a_name_in_records(verdict: abi.Verdict, monitor: bool) -> None:
    word = Word(verdict, monitor=monitor, reason=abi.Reason.POLICY, rule=1, revision=1)
    record = valid(model.event_record(event(abi.EventKind.VERDICT, word), rule_name, OFFSET))
    assert record["verdict"] in names("verdict")
    assert record["enforced"] is not monitor


@pytest.mark.parametrize("reason", [reason for reason in abi.Reason if reason.name != "MAX"])
def test_every_reason_and_protocol_passes_the_schema(reason: abi.Reason) -> None:
    word = Word(abi.Verdict.DENY, reason=reason)
    protocol = reason % abi.Protocol.MAX
    made = event(abi.EventKind.VERDICT, word, protocol=protocol, first_protocol=protocol)
    assert valid(model.event_record(made, rule_name, OFFSET))["reason"] == reason.name.lower()


def test_event_of_a_verdict() -> None:
    record = valid(model.event_record(event(abi.EventKind.VERDICT, ALLOW), rule_name, OFFSET))
    assert record["ts"] == 1_700_000_005.0
    assert record["flow"] == {"src": "10.0.0.1", "sport": 4242, "dst": "10.0.1.2", "dport": 443, "l4": "tcp"}
    assert (record["rule"], record["revision"], record["session"]) == ("r9.2", 9, 77)
    assert (record["event"], record["path"], record["protocol"]) == ("verdict", "kernel", "tls")


def test_server_flag_swaps_the_ends() -> None:
    made = event(abi.EventKind.VERDICT, ALLOW, flags=abi.SessionFlag.SERVER_IS_A)
    flow = valid(model.event_record(made, rule_name, OFFSET))["flow"]
    assert (flow["src"], flow["sport"], flow["dst"], flow["dport"]) == ("10.0.1.2", 443, "10.0.0.1", 4242)


def test_event_of_an_end() -> None:
    made = event(
        abi.EventKind.END,
        ALLOW,
        packets=(abi.c_uint64 * 2)(5, 4),
        bytes=(abi.c_uint64 * 2)(500, 400),
        held=(abi.c_uint32 * 2)(1, 0),
    )
    made.end = abi.End.TIMEOUT
    record = valid(model.event_record(made, rule_name, OFFSET))
    assert (record["event"], record["end"], record["duration"]) == ("end", "timeout", 2.0)
    assert (record["packets"]["to_client"], record["bytes"]["to_server"], record["held"]["to_server"]) == (4, 500, 1)
    assert record["path"] == "inspector"


def test_redirect_is_the_kernels_decision() -> None:
    word = Word(abi.Verdict.INSPECT, reason=abi.Reason.POLICY, rule=1, revision=1)
    made = event(abi.EventKind.VERDICT, word, held=(abi.c_uint32 * 2)(1, 0))
    assert model.event_record(made, rule_name, OFFSET)["path"] == "kernel"
    assert model.event_record(made, rule_name, OFFSET, path="proxy")["path"] == "proxy"


def test_dropped_packet_without_a_session() -> None:
    made = abi.Event(ns=1, kind=abi.EventKind.DROP, reason=abi.Reason.BAD_HEADER)
    record = valid(model.event_record(made, rule_name, OFFSET))
    assert (record["verdict"], record["reason"], record["rule"], record["session"]) == (
        "deny",
        "bad_header",
        "default",
        0,
    )


@pytest.mark.parametrize(("l4", "name"), [(6, "tcp"), (17, "udp"), (1, "icmp"), (58, "icmp6"), (132, "132"), (0, "0")])
def test_l4(l4: int, name: str) -> None:
    made = event(abi.EventKind.VERDICT, ALLOW, l4=l4)
    assert valid(model.event_record(made, rule_name, OFFSET))["flow"]["l4"] == name


@pytest.mark.parametrize(
    ("tags", "shown"), [((0, 0), None), ((7, 0), [7]), ((7, 8), [7, 8]), ((0xE007, 0), [7]), ((0xE000, 0), None)]
)
def test_vlan_only_when_tagged(tags: tuple[int, int], shown: list[int] | None) -> None:
    made = event(abi.EventKind.VERDICT, ALLOW, vlan=(abi.c_uint16 * 2)(*tags))
    assert valid(model.event_record(made, rule_name, OFFSET))["flow"].get("vlan") == shown


@pytest.mark.parametrize("text", ["::", "2001:db8::1", "10.0.0.1", "::1", "fe80::1"])
def test_address(text: str) -> None:
    packed = ipaddress.ip_address(text)
    raw = packed.packed if packed.version == 6 else ipaddress.IPv6Address(f"::ffff:{text}").packed
    assert model.address(raw) == text


def test_unknown_numbers_are_refused() -> None:
    for change in ({"protocol": 200}, {"first_protocol": 200}, {"verdict": 9}):
        with pytest.raises(ValueError, match=r"9|200"):
            model.event_record(event(abi.EventKind.VERDICT, ALLOW, **change), rule_name, OFFSET)
    made = event(abi.EventKind.END, ALLOW)
    with pytest.raises(ValueError, match="no way to end"):
        model.event_record(made, rule_name, OFFSET)


@given(st.text(), st.text(st.characters(), min_size=1), st.integers(0, 2**64 - 1))
def test_any_text_survives(path: str, host: str, session: int) -> None:
    findings = model.Findings(
        fields={"http.method": "GET", "http.path": path, "http.host": host}, rule_file="web", l7_rule="x"
    )
    record = {**sample.record(session=session)}
    model._add_findings(record, findings)
    line = encode(record)
    assert line.count(b"\n") == 1
    assert line[:-1].isascii()
    assert line[:-1].decode().isprintable()
    assert valid(record)["http"] == {"method": "GET", "path": path, "host": host}


def test_long_text_is_cut() -> None:
    wide = "\U0001f600" * 100_000
    record = sample.record()
    findings = model.Findings(
        fields=dict.fromkeys(("http.method", "http.path", "http.host"), wide), rule_file=wide, l7_rule=wide
    )
    model._add_findings(record, findings)
    assert len(encode(record)) < MAX_LINE / 4
    assert len(valid(record)["http"]["path"]) == model.MAX_TEXT


def test_clock_offset() -> None:
    assert abs(time.monotonic_ns() + model.clock_offset() - time.time_ns()) < 50_000_000


@pytest.mark.parametrize(
    "change",
    [{"extra": 1}, {"v": 2}, {"verdict": "drop"}, {"ts": "now"}, {"flow": {}}, {"end": "closed"}, {"session": -1}],
)
def test_schema_refuses(change: dict[str, Any]) -> None:
    assert not VALIDATOR.is_valid(sample.record(**change))
