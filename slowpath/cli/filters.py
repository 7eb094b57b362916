"""Filters of `inspect`: the same flag repeated is OR, different flags are AND, --not excludes."""

from __future__ import annotations

import argparse
import functools
import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from slowpath.record import Record, names

if TYPE_CHECKING:
    import ipaddress

Match = Callable[[Record], bool]

_L4 = ("tcp", "udp", "icmp", "icmp6")
_PLAIN = re.compile(r"[A-Za-z0-9_.:-]+")


@dataclass(frozen=True, slots=True)
class Filter:
    """One filter option as given."""

    flag: str
    negated: bool
    match: Match
    needle: bytes | None  # text that must stand in a matching line, for the cheap first look


def combine(filters: Sequence[Filter]) -> Match | None:
    """One predicate for all; None if there is none to ask."""
    if not filters:
        return None
    excluded = [each.match for each in filters if each.negated]
    wanted: dict[str, list[Match]] = {}
    for each in filters:
        if not each.negated:
            wanted.setdefault(each.flag, []).append(each.match)
    groups = list(wanted.values())

    def accept(record: Record) -> bool:
        return all(any(match(record) for match in group) for group in groups) and not any(
            match(record) for match in excluded
        )

    return accept


def needles(filters: Sequence[Filter]) -> list[list[bytes]]:
    """For each flag whose every value has one, the texts of which a matching line holds one."""
    groups: dict[str, list[bytes | None]] = {}
    for each in filters:
        if not each.negated:
            groups.setdefault(each.flag, []).append(each.needle)
    return [[needle for needle in group if needle] for group in groups.values() if None not in group]


class FilterAction(argparse.Action):
    """Appends a Filter made by `make` to ``namespace.filters``."""

    def __init__(self, *args: Any, make: Callable[[str], tuple[Match, bytes | None]], **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self._make = make

    def __call__(
        self,
        parser: argparse.ArgumentParser,
        namespace: argparse.Namespace,
        values: object,
        option_string: str | None = None,
    ) -> None:
        """Called by argparse for every occurrence."""
        del parser, option_string
        try:
            match, needle = self._make(str(values))
        except ValueError as error:
            raise argparse.ArgumentError(self, str(error)) from None
        filters = [*(namespace.filters or ()), Filter(self.dest, namespace.negate, match, needle)]
        namespace.filters = filters
        namespace.negate = False


def add_filters(parser: argparse.ArgumentParser) -> None:
    """Declare the filter options. They leave `filters` and `negate` in the namespace; `negate`
    still true afterwards means a --not with no filter behind it.
    """
    group = parser.add_argument_group(
        "filters", "The same flag repeated is OR, different flags are AND; --not excludes what the next filter matches."
    )

    def add(flag: str, make: Callable[[str], tuple[Match, bytes | None]], metavar: str, text: str) -> None:
        group.add_argument(
            flag, action=FilterAction, make=make, metavar=metavar, help=text, dest=flag, default=argparse.SUPPRESS
        )

    add("--verdict", functools.partial(_choice, "verdict"), "VERDICT", "allow, deny or inspect")
    add("--event", functools.partial(_choice, "event"), "EVENT", "verdict or end")
    add("--reason", functools.partial(_choice, "reason"), "REASON", "why, for example no_rule")
    add("--protocol", _protocol, "NAME", "application protocol, or tcp, udp, icmp, icmp6")
    add("--from-ip", functools.partial(_ip, ("src",)), "ADDR", "source address or CIDR prefix")
    add("--to-ip", functools.partial(_ip, ("dst",)), "ADDR", "destination address or CIDR prefix")
    add("--ip", functools.partial(_ip, ("src", "dst")), "ADDR", "either of them")
    add("--port", _port, "PORT", "either port, N or N-M (TCP, UDP)")
    add("--rule", _rule, "ID", "policy rule, rule file or rule in it; * matches anything")
    add("--session", _session, "ID", "session id, 0x1f or 31")
    group.add_argument("--not", dest="negate", action="store_true", help="exclude what the next filter matches")
    parser.set_defaults(filters=[], negate=False)


def _legal(value: str, legal: Sequence[str]) -> str:
    if value not in legal:
        raise ValueError(f"{value!r} is not one of {', '.join(legal)}")
    return value


def _needle(value: str) -> bytes | None:
    return f'"{value}"'.encode() if _PLAIN.fullmatch(value) else None


def _choice(field: str, value: str) -> tuple[Match, bytes | None]:
    _legal(value, names(field))
    return (lambda record: record.get(field) == value), _needle(value)


def _protocol(value: str) -> tuple[Match, bytes | None]:
    _legal(value, (*names("protocol"), *(name for name in _L4 if name not in names("protocol"))))
    if value in _L4:
        return (lambda record: value in (record.get("protocol"), record["flow"].get("l4"))), _needle(value)
    return (lambda record: record.get("protocol") == value), _needle(value)


def _rule(value: str) -> tuple[Match, bytes | None]:
    fields = ("rule", "rule_file", "l7_rule")
    if not value:
        raise ValueError("must not be empty")
    if "*" not in value:
        return (lambda record: any(record.get(field) == value for field in fields)), _needle(value)
    # Not fnmatch: brackets may stand in an id. Runs of stars would make the expression slow.
    pattern = re.compile(".*".join(map(re.escape, re.split(r"\*+", value))), re.DOTALL)

    def match(record: Record) -> bool:
        return any(isinstance(name := record.get(field), str) and pattern.fullmatch(name) for field in fields)

    return match, None


def _session(value: str) -> tuple[Match, bytes | None]:
    try:
        number = int(value, 0)
    except ValueError:
        raise ValueError(f"{value!r} is no session id; legal are 0x1f and 31") from None
    return (lambda record: record.get("session") == number), None


def _port(value: str) -> tuple[Match, bytes | None]:
    first, _, last = value.partition("-")
    legal = "a port is 0..65535, a range N-M"
    if not all(part.isascii() and part.isdigit() and len(part) <= 5 for part in (first, last or first)):
        raise ValueError(f"{value!r} is no port; {legal}")
    low, high = int(first), int(last or first)
    if not low <= high <= 65535:
        raise ValueError(f"{value!r} is no port; {legal}")

    def match(record: Record) -> bool:
        flow = record["flow"]
        if flow.get("l4") in ("icmp", "icmp6"):  # an echo id stands there
            return False
        ports = (flow.get("sport"), flow.get("dport"))
        return any(isinstance(port, int) and low <= port <= high for port in ports)

    return match, None


def _ip(fields: Sequence[str], value: str) -> tuple[Match, bytes | None]:
    import ipaddress  # noqa: PLC0415  # 5 ms of the start that most calls need not pay

    try:
        network = ipaddress.ip_network(value, strict=False)
    except ValueError:
        raise ValueError(
            f"{value!r} is no address; legal are 10.0.0.1, 10.0.0.0/8, 2001:db8::1, 2001:db8::/32"
        ) from None
    mapped = network.network_address.ipv4_mapped if isinstance(network, ipaddress.IPv6Network) else None
    if mapped is not None and network.prefixlen >= 96:
        network = ipaddress.IPv4Network((mapped, network.prefixlen - 96), strict=False)

    def match(record: Record) -> bool:
        flow = record["flow"]
        return any((address := _parsed(str(flow.get(field)))) is not None and address in network for field in fields)

    return match, None


@functools.lru_cache(maxsize=65536)
def _parsed(text: str) -> ipaddress.IPv4Address | ipaddress.IPv6Address | None:
    import ipaddress  # noqa: PLC0415

    try:
        address = ipaddress.ip_address(text)
    except ValueError:
        return None
    return getattr(address, "ipv4_mapped", None) or address
