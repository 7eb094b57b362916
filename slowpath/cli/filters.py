"""Filters of `inspect`, asked of records of the inspection log."""

from __future__ import annotations

import argparse
import functools
import re
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, NamedTuple

from fastpath import filters as options
from fastpath.filters import L4_NAMES, Filter, Flag, read_choice, read_network, read_pattern, read_ports, read_session
from slowpath.record import Record, names

if TYPE_CHECKING:
    import ipaddress

Match = Callable[[Record], bool]

_PLAIN = re.compile(r"[A-Za-z0-9_.:-]+")


class Test(NamedTuple):
    """What a filter asks of a record."""

    match: Match
    needle: bytes | None  # text that must stand in a matching line, for the cheap first look


def combine(filters: Sequence[Filter[Test]]) -> Match | None:
    """One predicate for all; None if there is none to ask."""
    if not filters:
        return None
    groups = [[test.match for test in group] for group in options.wanted(filters)]
    excluded = [test.match for test in options.excluded(filters)]

    def accept(record: Record) -> bool:
        return all(any(match(record) for match in group) for group in groups) and not any(
            match(record) for match in excluded
        )

    return accept


def needles(filters: Sequence[Filter[Test]]) -> list[list[bytes]]:
    """For each flag whose every value has one, the texts of which a matching line holds one."""
    groups = [[test.needle for test in group] for group in options.wanted(filters)]
    return [[needle for needle in group if needle] for group in groups if None not in group]


def add_filters(parser: argparse.ArgumentParser) -> None:
    """Declare the filter options, as `fastpath.filters.add_filters` says."""
    options.add_filters(
        parser,
        (
            Flag("--verdict", functools.partial(_choice, "verdict"), "VERDICT", "allow, deny or inspect"),
            Flag("--event", functools.partial(_choice, "event"), "EVENT", "verdict or end"),
            Flag("--reason", functools.partial(_choice, "reason"), "REASON", "why, for example no_rule"),
            Flag("--severity", _severity, "LEVEL", "of the rule that matched: this or a higher one"),
            Flag("--protocol", _protocol, "NAME", "application protocol, or tcp, udp, icmp, icmp6"),
            Flag("--from-ip", functools.partial(_ip, ("src",)), "ADDR", "source address or CIDR prefix"),
            Flag("--to-ip", functools.partial(_ip, ("dst",)), "ADDR", "destination address or CIDR prefix"),
            Flag("--ip", functools.partial(_ip, ("src", "dst")), "ADDR", "either of them"),
            Flag("--port", _port, "PORT", "either port, N or N-M (TCP, UDP)"),
            Flag("--rule", _rule, "ID", "policy rule, rule file or rule in it; * matches anything"),
            Flag("--session", _session, "ID", "session id, 0x1f or 31"),
        ),
    )


def _needle(value: str) -> bytes | None:
    return f'"{value}"'.encode() if _PLAIN.fullmatch(value) else None


def _choice(field: str, value: str) -> Test:
    read_choice(value, names(field))
    return Test(lambda record: record.get(field) == value, _needle(value))


def _severity(value: str) -> Test:
    levels = names("severity")
    read_choice(value, levels)
    wanted = levels[levels.index(value) :]
    return Test(lambda record: record.get("severity") in wanted, b'"severity"')


def _protocol(value: str) -> Test:
    read_choice(value, (*names("protocol"), *(name for name in L4_NAMES if name not in names("protocol"))))
    if value in L4_NAMES:
        return Test(lambda record: value in (record.get("protocol"), record["flow"].get("l4")), _needle(value))
    return Test(lambda record: record.get("protocol") == value, _needle(value))


def _rule(value: str) -> Test:
    accept = read_pattern(value)

    def match(record: Record) -> bool:
        found = (record.get(field) for field in ("rule", "rule_file", "l7_rule"))
        return any(isinstance(name, str) and accept(name) for name in found)

    return Test(match, None if "*" in value else _needle(value))


def _session(value: str) -> Test:
    number = read_session(value)
    return Test(lambda record: record.get("session") == number, None)


def _port(value: str) -> Test:
    low, high = read_ports(value)

    def match(record: Record) -> bool:
        flow = record["flow"]
        if flow.get("l4") in ("icmp", "icmp6"):  # an echo id stands there
            return False
        ports = (flow.get("sport"), flow.get("dport"))
        return any(isinstance(port, int) and low <= port <= high for port in ports)

    return Test(match, None)


def _ip(fields: Sequence[str], value: str) -> Test:
    network = read_network(value)

    def match(record: Record) -> bool:
        flow = record["flow"]
        return any((address := _parsed(str(flow.get(field)))) is not None and address in network for field in fields)

    return Test(match, None)


@functools.lru_cache(maxsize=65536)
def _parsed(text: str) -> ipaddress.IPv4Address | ipaddress.IPv6Address | None:
    import ipaddress  # noqa: PLC0415

    try:
        address = ipaddress.ip_address(text)
    except ValueError:
        return None
    return getattr(address, "ipv4_mapped", None) or address
