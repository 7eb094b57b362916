"""Filters and columns of sessions, over batches made here."""

from __future__ import annotations

import argparse
import socket
from ipaddress import IPv6Address, ip_address
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from fastpath import abi
from fastpath.abi import Protocol, Reason, SessionFlag, Tcp, Verdict
from fastpath.filters import add_filters
from fastpath.policy.model import Default, Policy, Rule
from fastpath.policy.names import write_names
from fastpath.selection import GROUPS, ORDERS, Batch, RuleNames, address, flags, select
from fastpath.word import Word

REVISION = 3


def entry(
    src: str, sport: int, dst: str, dport: int, *, l4: int = 6, server_is_a: bool = False, rule: int = 0,
    verdict: Verdict = Verdict.ALLOW, reason: Reason = Reason.POLICY, **fields: Any,
) -> tuple[bytes, abi.Session]:  # fmt: skip
    client, server = (mapped(src), socket.htons(sport)), (mapped(dst), socket.htons(dport))
    a, b = (server, client) if server_is_a else (client, server)
    key = abi.Key(port_a=a[1], port_b=b[1], l4=l4)
    key.addr_a[:], key.addr_b[:] = a[0], b[0]
    session = abi.Session(flags=SessionFlag.SERVER_IS_A if server_is_a else 0, **fields)
    session.verdict = Word(verdict, reason=reason, rule=rule, revision=REVISION).pack()
    return bytes(key), session


def mapped(text: str) -> bytes:
    found = ip_address(text)
    return found.packed if isinstance(found, IPv6Address) else bytes(10) + b"\xff\xff" + found.packed


def tcp(client: Tcp, server: Tcp) -> Any:
    return (abi.Session.tcp.size * abi.c_uint8)(client, server)


ENTRIES = {
    "web": entry(
        "10.0.0.1", 40000, "10.0.1.2", 80, rule=1, protocol=Protocol.HTTP, tcp=tcp(Tcp.ESTABLISHED, Tcp.ESTABLISHED),
        id=1,
    ),
    # The server's end comes first in the key.
    "half": entry("10.0.0.9", 41000, "10.0.0.2", 443, server_is_a=True, rule=1, tcp=tcp(Tcp.SYN_SENT, Tcp(0)), id=2),
    "dns": entry("2001:db8::1", 5353, "2001:db8::53", 53, l4=17, rule=2, protocol=Protocol.DNS, id=3),
    "denied": entry("10.0.0.1", 40001, "2.3.4.5", 22, verdict=Verdict.DENY, reason=Reason.DEFAULT, id=4),
    "ping": entry("10.0.0.1", 80, "10.0.1.9", 80, l4=1, protocol=Protocol.ICMP, rule=2, id=5),
    "gre": entry("fd00::1", 0, "fd00::2", 0, l4=47, rule=2, id=0x1F),
}  # fmt: skip


@pytest.fixture
def batch(tmp_path: Path) -> Batch:
    rules = (Rule("web", abi.Action.ALLOW), Rule("names", abi.Action.ALLOW))
    write_names(tmp_path, REVISION, Policy(rules, Default(abi.Action.DENY)))
    keys = b"".join(key for key, _ in ENTRIES.values())
    values = b"".join(bytes(session) for _, session in ENTRIES.values())
    return Batch(len(ENTRIES), keys, values, RuleNames(tmp_path))


def parse(argv: str) -> Any:
    parser = argparse.ArgumentParser(exit_on_error=False)
    add_filters(parser, flags())
    return parser.parse_args(argv.split())


@pytest.mark.parametrize(
    ("argv", "expected"),
    [
        ("", "web half dns denied ping gre"),
        ("--verdict deny", "denied"),
        ("--verdict deny --verdict allow", "web half dns denied ping gre"),
        ("--verdict inspect", ""),
        ("--reason default", "denied"),
        ("--protocol http --protocol dns", "web dns"),
        ("--protocol none", "half denied gre"),
        ("--protocol icmp", "ping"),
        ("--protocol tcp", "web half denied"),
        ("--l4 udp --l4 47", "dns gre"),
        ("--state established", "web"),
        ("--state syn_sent", "half"),
        ("--from-ip 10.0.0.1", "web denied ping"),
        ("--from-ip 10.0.0.2", ""),
        ("--to-ip 10.0.0.2", "half"),
        ("--to-ip 10.0.0.0/23", "web half ping"),
        ("--ip ::ffff:10.0.1.0/120", "web ping"),
        ("--ip 0.0.0.0/0", "web half denied ping"),
        ("--ip ::/0", "dns gre"),
        ("--ip 2001:db8::/32 --ip fd00::2", "dns gre"),
        ("--port 80", "web"),
        ("--port 41000", "half"),
        ("--port 40000-41000", "web half denied"),
        ("--port 0", "gre"),
        ("--rule web", "web half"),
        ("--rule *e*", "web half dns denied ping gre"),
        ("--rule na*", "dns ping gre"),
        ("--session 0x1f --session 2", "half gre"),
        ("--not --l4 tcp", "dns ping gre"),
        ("--rule web --not --state established", "half"),
        ("--ip 10.0.0.1 --not --port 22 --not --l4 icmp", "web"),
    ],
)
def test_filters(batch: Batch, argv: str, expected: str) -> None:
    names = list(ENTRIES)
    assert [names[n] for n in select(parse(argv).filters)(batch)] == expected.split()


@pytest.mark.parametrize(
    ("argv", "message"),
    [
        ("--verdict drop", "allow, deny, inspect"),
        ("--reason nope", "no_rule"),
        ("--protocol htpp", "tcp, udp"),
        ("--l4 sctp", "0..255"),
        ("--l4 256", "0..255"),
        ("--l4 ²", "0..255"),
        ("--state open", "established"),
        ("--ip 10.0.0.256", "legal are"),
        ("--port 90-80", "N-M"),
        ("--session xyz", "0x1f"),
    ],
)
def test_bad_values_list_the_legal_ones(argv: str, message: str) -> None:
    with pytest.raises(argparse.ArgumentError, match=message):
        parse(argv)


def texts(batch: Batch, name: str) -> list[str]:
    column = GROUPS[name]
    return [column.text(value) for value in column.values(batch)]


def test_columns(batch: Batch) -> None:
    assert texts(batch, "rule") == ["web", "web", "names", "default", "names", "names"]
    assert texts(batch, "l4") == ["tcp", "tcp", "udp", "tcp", "icmp", "47"]
    assert texts(batch, "src") == ["10.0.0.1", "10.0.0.9", "2001:db8::1", "10.0.0.1", "10.0.0.1", "fd00::1"]
    assert texts(batch, "dport") == ["80", "443", "53", "22", "80", "0"]
    assert texts(batch, "state")[0] == "established/established"
    assert texts(batch, "state")[2] == "-"
    assert [len(column.values(batch)) for column in ORDERS.values()] == [len(ENTRIES)] * len(ORDERS)
    assert batch.session(2).id == 3
    assert batch.key(2) == ENTRIES["dns"][0]


def test_a_rule_of_a_forgotten_revision_has_its_number(tmp_path: Path) -> None:
    assert RuleNames(tmp_path).of(7 << 24 | 5) == "5"


def test_addresses() -> None:
    for text in ("10.0.0.1", "2001:db8::1", "::", "255.255.255.255"):
        assert address(int.from_bytes(mapped(text), "big")) == text


def test_nothing_is_taken_apart_that_nobody_asked_for() -> None:
    """Not even the batch is looked at without a filter."""
    nothing: Any = SimpleNamespace(count=5)
    assert list(select([])(nothing)) == [0, 1, 2, 3, 4]
