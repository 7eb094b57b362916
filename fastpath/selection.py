"""Sessions by column: filter, group and sort a million of them in seconds, without an object for each.

A batch of the table is taken apart as far as somebody asks: `Batch.src` is the clients' addresses of all its
sessions. A `Test` answers one boolean for each.
"""

from __future__ import annotations

import ctypes
import functools
import ipaddress
import socket
from array import array
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from fastpath import abi
from fastpath.filters import (
    L4_NAMES,
    Filter,
    Flag,
    excluded,
    read_choice,
    read_network,
    read_pattern,
    read_ports,
    read_session,
    wanted,
)
from fastpath.libbpf import Map
from fastpath.policy.names import Names, read_names

L4 = {1: "icmp", 6: "tcp", 17: "udp", 58: "icmp6"}
_NUMBERS = {name: number for number, name in L4.items()}
_PINGS = (1, 58)  # an echo id stands where others have ports
_MAPPED = 0xFFFF  # of IPv4, above its 32 bits

_KEY = ctypes.sizeof(abi.Key)
_VALUE = ctypes.sizeof(abi.Session)


def l4_name(number: int) -> str:
    """tcp, udp, icmp, icmp6, else the number as text."""
    return L4.get(number) or str(number)


def address(number: int) -> str:
    """Text of an address, 128 bits; mapped IPv4 prints as IPv4."""
    if number >> 32 == _MAPPED:
        return socket.inet_ntop(socket.AF_INET, (number & 0xFFFFFFFF).to_bytes(4, "big"))
    return socket.inet_ntop(socket.AF_INET6, number.to_bytes(16, "big"))


class RuleNames:
    """Ids of rules, as verdict words number them."""

    def __init__(self, run_dir: Path) -> None:
        self._run_dir = run_dir
        self._revisions: dict[int, Names | None] = {}
        self._ids: dict[int, str] = {}

    def of(self, part: int) -> str:
        """Of a word's part from `abi.Word.RULE` on; the number where the revision is forgotten."""
        if part not in self._ids:
            revision, rule = part >> 24, part & 0xFFFFFF
            if revision not in self._revisions:
                self._revisions[revision] = read_names(self._run_dir, revision)
            known = self._revisions[revision]
            self._ids[part] = known.rule(rule).id if known else str(rule)
        return self._ids[part]


class Batch:
    """Some sessions, by column."""

    def __init__(self, count: int, keys: bytes | memoryview, values: bytes | memoryview, rules: RuleNames) -> None:
        self.count = count
        self.keys = bytes(keys)
        self.values = bytes(values)
        self.rules = rules

    def key(self, n: int) -> bytes:
        """Packed key of a session."""
        return self.keys[n * _KEY : (n + 1) * _KEY]

    def session(self, n: int) -> abi.Session:
        """A session of its own."""
        return abi.Session.from_buffer_copy(self.values, n * _VALUE)

    def numbers(self, field: Any, item: int = 0) -> list[int]:
        """Column of a 64-bit field of `abi.Session`; `item` of an array."""
        return memoryview(self.values).cast("Q")[field.offset // 8 + item :: _VALUE // 8].tolist()

    @functools.cached_property
    def words(self) -> list[int]:
        """Verdict words."""
        return self.numbers(abi.Session.verdict)

    @functools.cached_property
    def l4(self) -> bytes:
        """IP protocol numbers."""
        return self.keys[abi.Key.l4.offset :: _KEY]

    @functools.cached_property
    def flags(self) -> bytes:
        """Masks of `abi.SessionFlag`."""
        return self.values[abi.Session.flags.offset :: _VALUE]

    @functools.cached_property
    def protocols(self) -> bytes:
        """Application protocols."""
        return self.values[abi.Session.protocol.offset :: _VALUE]

    @functools.cached_property
    def vlans(self) -> list[int]:
        """Outer VLAN tags, 0 where there is none."""
        return memoryview(self.values).cast("H")[abi.Session.vlan.offset // 2 :: _VALUE // 2].tolist()

    @functools.cached_property
    def zones(self) -> list[tuple[int, int]]:
        """`abi.Zone` of the server, and of the client."""
        at = abi.Session.zones.offset
        return list(zip(self.values[at::_VALUE], self.values[at + 1 :: _VALUE], strict=True))

    @functools.cached_property
    def rule_hashes(self) -> list[int]:
        """Of the rules that judged."""
        return memoryview(self.values).cast("I")[abi.Session.rule_hash.offset // 4 :: _VALUE // 4].tolist()

    @functools.cached_property
    def reversed(self) -> list[bool]:
        """The key's first end is the server."""
        return [bool(each & abi.SessionFlag.SERVER_IS_A) for each in self.flags]

    @functools.cached_property
    def _ends(self) -> tuple[list[int], list[int]]:
        whole = range(0, self.count * _KEY, _KEY)
        a = [int.from_bytes(self.keys[at : at + 16], "big") for at in whole]
        b = [int.from_bytes(self.keys[at + 16 : at + 32], "big") for at in whole]
        return a, b

    @functools.cached_property
    def _ports(self) -> tuple[Sequence[int], Sequence[int]]:
        halves = array("H", self.keys)
        halves.byteswap()
        step = _KEY // 2
        return halves[abi.Key.port_a.offset // 2 :: step], halves[abi.Key.port_b.offset // 2 :: step]

    def _side(self, ends: tuple[Sequence[int], Sequence[int]], server: bool) -> list[int]:
        return [a if turned is server else b for a, b, turned in zip(*ends, self.reversed, strict=True)]

    @functools.cached_property
    def src(self) -> list[int]:
        """Clients' addresses, 128 bits."""
        return self._side(self._ends, server=False)

    @functools.cached_property
    def dst(self) -> list[int]:
        """Servers' addresses."""
        return self._side(self._ends, server=True)

    @functools.cached_property
    def sport(self) -> list[int]:
        """Clients' ports."""
        return self._side(self._ports, server=False)

    @functools.cached_property
    def dport(self) -> list[int]:
        """Servers' ports."""
        return self._side(self._ports, server=True)

    @functools.cached_property
    def states(self) -> list[tuple[int, int] | None]:
        """TCP states of client and server."""
        at = abi.Session.tcp.offset
        both = zip(self.values[at::_VALUE], self.values[at + 1 :: _VALUE], self.l4, strict=True)
        return [(client, server) if l4 == socket.IPPROTO_TCP else None for client, server, l4 in both]

    def both(self, field: Any) -> list[int]:
        """Column of a 64-bit field that each direction has, summed."""
        return [there + back for there, back in zip(self.numbers(field), self.numbers(field, item=1), strict=True)]


Test = Callable[[Batch], Sequence[bool]]


@dataclass(frozen=True, slots=True)
class Column:
    """What sessions can be grouped or sorted by: the values of a batch, and a value's text."""

    values: Callable[[Batch], Sequence[Any]]
    text: Callable[[Any], str] = str


def _bits(shift: int, mask: int) -> Callable[[Batch], Sequence[int]]:
    return lambda batch: [word >> shift & mask for word in batch.words]


def _name(kind: type[abi.Verdict | abi.Reason | abi.Protocol | abi.Tcp]) -> Callable[[int], str]:
    names = {int(member): member.name.lower() for member in kind if member.name != "MAX"}
    return lambda value: names.get(value, str(value))


def _states(value: tuple[int, int] | None) -> str:
    return "/".join(map(_name(abi.Tcp), value)) if value else "-"


def _rules(batch: Batch) -> list[str]:
    return [batch.rules.of(word >> abi.Word.RULE) for word in batch.words]


GROUPS = {
    "verdict": Column(_bits(0, 0xF), _name(abi.Verdict)),
    "reason": Column(_bits(abi.Word.REASON, 0xFF), _name(abi.Reason)),
    "rule": Column(_rules),
    "protocol": Column(lambda batch: batch.protocols, _name(abi.Protocol)),
    "l4": Column(lambda batch: batch.l4, l4_name),
    "state": Column(lambda batch: batch.states, _states),
    "src": Column(lambda batch: batch.src, address),
    "dst": Column(lambda batch: batch.dst, address),
    "dport": Column(lambda batch: batch.dport),
}
# Longer ago is a smaller number: the youngest comes first.
ORDERS = GROUPS | {
    "sport": Column(lambda batch: batch.sport),
    "age": Column(lambda batch: [-ns for ns in batch.numbers(abi.Session.first_ns)]),
    "idle": Column(lambda batch: [-jiffies for jiffies in batch.numbers(abi.Session.last_jiffies)]),
    "packets": Column(lambda batch: batch.both(abi.Session.packets)),
    "bytes": Column(lambda batch: batch.both(abi.Session.bytes)),
    "session": Column(lambda batch: batch.numbers(abi.Session.id)),
}


def batches(table: Map, rules: RuleNames) -> Iterator[Batch]:
    """The whole table."""
    for count, keys, values in table.batches():
        yield Batch(count, keys, values, rules)


def select(filters: Iterable[Filter[Test]]) -> Callable[[Batch], Sequence[int]]:
    """For a batch, the positions of its sessions that match."""
    filters = list(filters)
    groups, refused = wanted(filters), excluded(filters)

    def positions(batch: Batch) -> Sequence[int]:
        if not filters:
            return range(batch.count)
        marks: list[Iterable[bool]] = [_either([test(batch) for test in group]) for group in groups]
        marks += [[not mark for mark in test(batch)] for test in refused]
        return [n for n, all_of in enumerate(zip(*marks, strict=True)) if all(all_of)]

    return positions


def _either(marks: Sequence[Sequence[bool]]) -> Iterable[bool]:
    return marks[0] if len(marks) == 1 else map(any, zip(*marks, strict=True))


def flags() -> tuple[Flag[Test], ...]:
    """The filter options: those of `inspect` that make sense for a session, and its own."""
    return (
        Flag("--verdict", _named("verdict", abi.Verdict), "VERDICT", "allow, deny, inspect, undecided or drain"),
        Flag("--reason", _named("reason", abi.Reason), "REASON", "why, for example policy"),
        Flag("--protocol", _protocol, "NAME", "application protocol, or tcp, udp, icmp, icmp6"),
        Flag("--l4", _l4, "NAME", "tcp, udp, icmp, icmp6 or an IP protocol number"),
        Flag("--state", _state, "STATE", "TCP state of either end, for example established"),
        Flag("--from-ip", _ip(source=True), "ADDR", "client's address or CIDR prefix"),
        Flag("--to-ip", _ip(destination=True), "ADDR", "server's address or CIDR prefix"),
        Flag("--ip", _ip(source=True, destination=True), "ADDR", "either of them"),
        Flag("--port", _port, "PORT", "either port, N or N-M (TCP, UDP)"),
        Flag("--rule", _rule, "ID", "policy rule; * matches anything"),
        Flag("--session", _session, "ID", "session id, 0x1f or 31"),
    )


def _legal(kind: type[abi.Verdict | abi.Reason | abi.Protocol | abi.Tcp]) -> dict[str, int]:
    return {member.name.lower(): int(member) for member in kind if member.name != "MAX"}


def _equal(column: Column, value: int) -> Test:
    return lambda batch: [each == value for each in column.values(batch)]


def _named(field: str, kind: type[abi.Verdict | abi.Reason]) -> Callable[[str], Test]:
    legal = _legal(kind)
    return lambda value: _equal(GROUPS[field], legal[read_choice(value, tuple(legal))])


def _protocol(value: str) -> Test:
    legal = _legal(abi.Protocol)
    read_choice(value, (*legal, *(name for name in L4_NAMES if name not in legal)))
    tests = []
    if value in legal:
        tests.append(_equal(GROUPS["protocol"], legal[value]))
    if value in L4_NAMES:
        tests.append(_equal(GROUPS["l4"], _NUMBERS[value]))
    return lambda batch: list(_either([test(batch) for test in tests]))


def _l4(value: str) -> Test:
    if value.isascii() and value.isdigit() and len(value) <= 3 and int(value) <= 255:
        return _equal(GROUPS["l4"], int(value))
    if value not in L4_NAMES:
        raise ValueError(f"{value!r} is not one of {', '.join(L4_NAMES)}, 0..255")
    return _equal(GROUPS["l4"], _NUMBERS[value])


def _state(value: str) -> Test:
    legal = _legal(abi.Tcp)
    state = legal[read_choice(value, tuple(legal))]
    return lambda batch: [states is not None and state in states for states in batch.states]


def _ip(*, source: bool = False, destination: bool = False) -> Callable[[str], Test]:
    def make(value: str) -> Test:
        network = read_network(value)
        shift = network.max_prefixlen - network.prefixlen
        first = int(network.network_address)
        v4 = isinstance(network, ipaddress.IPv4Network)
        prefix = (_MAPPED << 32 | first if v4 else first) >> shift

        def inside(column: Sequence[int]) -> list[bool]:
            # A prefix of IPv6 that is shorter than the mapped one holds no IPv4 all the same.
            return [each >> shift == prefix and (v4 or each >> 32 != _MAPPED) for each in column]

        def test(batch: Batch) -> Sequence[bool]:
            columns = [column for column, asked in (("src", source), ("dst", destination)) if asked]
            return list(_either([inside(getattr(batch, column)) for column in columns]))

        return test

    return make


def _port(value: str) -> Test:
    low, high = read_ports(value)

    def test(batch: Batch) -> Sequence[bool]:
        ends = zip(batch.sport, batch.dport, batch.l4, strict=True)
        return [(low <= one <= high or low <= other <= high) and l4 not in _PINGS for one, other, l4 in ends]

    return test


def _rule(value: str) -> Test:
    accept = read_pattern(value)
    return lambda batch: [accept(name) for name in _rules(batch)]


def _session(value: str) -> Test:
    number = read_session(value)
    return lambda batch: [each == number for each in batch.numbers(abi.Session.id)]
