"""Policy to the contents of the maps that bpf/lib/policy.h walks.

Source address, destination address and (protocol, port) each lead to a *class*, and each
class to the set of the rules whose condition it meets. Equal sets are stored once; class 0 is
the empty one. Sets are ints here, bit n for the rule with index n.

The kernel's loop is bounded: MS_POLICY_WORDS + MS_POLICY_CANDIDATES = 320 steps. It spends one
on each of at most 64 words of the intersection, one on each *candidate* it passes (a rule that
depends on the application protocol, see `Rule.candidate`), and one on the rule that ends the
walk: any other rule ends it where it is met. So 320 - 64 - 1 = 255 candidates may meet in one
(source, destination, protocol and port), and `compile_policy` refuses a policy where more do,
or where that takes too long to tell.
"""

from __future__ import annotations

import itertools
import sys
from array import array
from collections.abc import Iterable, Iterator, Mapping, Sequence
from ctypes import c_uint8, sizeof
from dataclasses import dataclass
from functools import cached_property

from fastpath import abi
from fastpath.document import InvalidDocumentError, Network, Problem
from fastpath.policy.evaluate import Walk, decide
from fastpath.policy.model import TCP, UDP, Policy, Rule, is_mapped, merged, protocol_name

WORDS = int(abi.Limit.POLICY_WORDS)
STEPS = abi.Limit.POLICY_WORDS + abi.Limit.POLICY_CANDIDATES
MAX_CANDIDATES = STEPS - WORDS - 1
LIMIT = abi.Limit.POLICY_WORDS * 64
# Intersections tried to find out whether more meet, a few seconds' worth.
MAX_WORK = 5_000_000

# Where each protocol's entries begin in the port table; MS_PORT_* in policy.h.
PORT_BASE = {TCP: 0, UDP: 65536}
PORT_OTHER = 131072
PORT_ENTRIES = PORT_OTHER + 256

SOURCE = 0
DESTINATION = 1

_WORD_MASK = (1 << 64) - 1
# (address as a 128-bit number, prefix length), IPv4 mapped.
_Mapped = tuple[int, int]
_ROOT6: _Mapped = (0, 0)
_ROOT4: _Mapped = (0xFFFF << 32, 96)


class PolicyTooLargeError(InvalidDocumentError):
    """The policy does not fit the kernel's tables; the message has the numbers."""


@dataclass(frozen=True, slots=True)
class Prefix:
    """One entry of the address trie: `length` bits of `address` (128-bit number, IPv4 mapped)."""

    side: int
    address: int
    length: int
    number: int  # its class

    @property
    def key(self) -> bytes:
        """As `ms_prefix`."""
        packed = (c_uint8 * 16)(*self.address.to_bytes(16, "big"))
        return bytes(abi.Prefix(prefixlen=32 + self.length, side=self.side, addr=packed))


@dataclass(frozen=True, slots=True)
class Sizes:
    """Entries of each map, and what its values take in bytes (the kernel's own overhead comes on top)."""

    rules: int
    prefixes: int
    sets: int
    value_bytes: int

    def __str__(self) -> str:
        return f"{self.rules} rules, {self.prefixes} prefixes, {self.sets} sets of rules, {self.value_bytes >> 10} KiB"


@dataclass(frozen=True)
class Tables:
    """Contents of the four policy maps of one slot.

    `ports` has `PORT_ENTRIES` classes: TCP by port, UDP by port, then the other IP protocols by number.
    """

    policy: Policy
    prefixes: tuple[Prefix, ...]
    ports: array[int]
    sets: tuple[int, ...]

    def rule_values(self) -> list[bytes]:
        """`ms_rule` of each rule in order. The map has the default's in front of them, as entry 0."""
        return [
            bytes(abi.Rule(apps=rule.apps, hash=rule.hash, action=rule.action, flags=rule.flags))
            for rule in self.policy.rules
        ]

    def set_values(self) -> list[bytes]:
        """`ms_rule_set` by class."""
        return [set_value(rules) for rules in self.sets]

    def port_values(self) -> bytes:
        """The port table, u32 in the machine's order."""
        return self.ports.tobytes()

    @property
    def sizes(self) -> Sizes:
        """A statement of sizes."""
        return Sizes(
            rules=len(self.policy.rules),
            prefixes=len(self.prefixes),
            sets=len(self.sets),
            value_bytes=len(self.policy.rules) * sizeof(abi.Rule)
            + len(self.prefixes) * 4
            + len(self.sets) * sizeof(abi.RuleSet)
            + len(self.ports) * self.ports.itemsize,
        )

    @cached_property
    def _trie(self) -> tuple[dict[int, dict[int, int]], ...]:
        """By side, by prefix length from the longest on: leading bits to class."""
        trie: tuple[dict[int, dict[int, int]], ...] = ({}, {})
        for prefix in sorted(self.prefixes, key=lambda entry: -entry.length):
            trie[prefix.side].setdefault(prefix.length, {})[prefix.address >> (128 - prefix.length)] = prefix.number
        return trie

    def walk(self, src: bytes, dst: bytes, l4: int, dport: int = 0, *, possible: int = 0) -> Walk:
        """Judge a flow as the kernel does, from the tables; parameters and result as of `evaluate`."""
        return decide(self.policy, _intersection(*self.meeting(src, dst, l4, dport)), l4, possible)

    def meeting(self, src: bytes, dst: bytes, l4: int, dport: int = 0) -> tuple[int, int, int]:
        """The sets of rules that a flow's source, its destination, and its protocol and port meet."""
        port = PORT_BASE[l4] + dport if l4 in PORT_BASE else PORT_OTHER + l4
        return (
            self.sets[self._class_of_address(SOURCE, src)],
            self.sets[self._class_of_address(DESTINATION, dst)],
            self.sets[self.ports[port]],
        )

    def _class_of_address(self, side: int, packed: bytes) -> int:
        if len(packed) != 16:
            raise ValueError(f"an address is 16 bytes, not {len(packed)}")
        address = int.from_bytes(packed, "big")
        for length, entries in self._trie[side].items():
            number = entries.get(address >> (128 - length))
            if number is not None:
                return number
        raise AssertionError("::/0 is always there")


def compile_policy(policy: Policy) -> Tables:
    """The tables of a policy. PolicyTooLargeError when they would not fit the kernel's."""
    if len(policy.rules) > LIMIT:
        message = f"{len(policy.rules)} rules; the kernel's tables hold {LIMIT}"
        raise PolicyTooLargeError([Problem(policy.file, 0, "rules", message)])
    sources = _address_sets(rule.sources for rule in policy.rules)
    destinations = _address_sets(rule.destinations for rule in policy.rules)
    ranges = _port_sets(policy)
    _check_bound(policy, sources, destinations, {rules for _, _, rules in ranges})

    classes: dict[int, int] = {0: 0}

    def class_of(rules: int) -> int:
        return classes.setdefault(rules, len(classes))

    prefixes = tuple(
        Prefix(side, address, length, class_of(rules))
        for side, found in ((SOURCE, sources), (DESTINATION, destinations))
        for (address, length), rules in found.items()
    )
    ports = array("I")
    assert ports.itemsize == 4
    for first, end, rules in ranges:
        ports.extend(array("I", (class_of(rules),)) * (end - first))
    return Tables(policy, prefixes, ports, tuple(classes))


def set_value(rules: int) -> bytes:
    """A set of rules as `ms_rule_set`: its summary, then its words, u64 in the machine's order."""
    words = array("Q", rules.to_bytes(WORDS * 8, "little"))
    if sys.byteorder == "big":
        words.byteswap()
    return array("Q", (_summary(rules),)).tobytes() + words.tobytes()


def _mapped(network: Network) -> _Mapped:
    address = int(network.network_address)
    if network.version == 4:
        return _ROOT4[0] | address, 96 + network.prefixlen
    if is_mapped(network):
        raise ValueError(f"{network} is IPv4-mapped")
    return address, network.prefixlen


def _address_sets(networks_of: Iterable[Sequence[Network]]) -> dict[_Mapped, int]:
    """The rules that each prefix satisfies, by prefix: those of its own, and of all that contain it in its family.

    Both families' roots are always there: a short IPv6 prefix never covers IPv4.
    """
    own: tuple[dict[_Mapped, int], dict[_Mapped, int]] = ({_ROOT4: 0}, {_ROOT6: 0})
    for index, networks in enumerate(networks_of):
        bit = 1 << index
        if not networks:
            own[0][_ROOT4] |= bit
            own[1][_ROOT6] |= bit
        for network in networks:
            prefix = _mapped(network)
            family = own[0] if network.version == 4 else own[1]
            family[prefix] = family.get(prefix, 0) | bit
    result: dict[_Mapped, int] = {}
    for family in own:
        around: list[tuple[int, int, int]] = []  # prefixes that contain the next one, outermost first
        for address, length in sorted(family):
            while around and address >> (128 - around[-1][1]) != around[-1][0] >> (128 - around[-1][1]):
                around.pop()
            rules = family[address, length] | (around[-1][2] if around else 0)
            around.append((address, length, rules))
            result[address, length] = rules
    return result


def port_spans(rule: Rule) -> list[tuple[int, int]]:
    """Entries of the port table that a rule meets, inclusive ranges in order, none touching the next."""
    if not rule.protocols:
        return [(0, PORT_ENTRIES - 1)]
    spans: list[tuple[int, int]] = []
    for l4 in rule.protocols:
        if l4 in PORT_BASE:
            spans += [(PORT_BASE[l4] + low, PORT_BASE[l4] + high) for low, high in rule.ports_of(l4)]
        else:
            spans.append((PORT_OTHER + l4, PORT_OTHER + l4))
    return merged(spans)


def _port_sets(policy: Policy) -> list[tuple[int, int, int]]:
    """The port table as (first entry, end, rules) without gaps; a sweep over the ranges' edges."""
    edges: dict[int, int] = dict.fromkeys([*range(PORT_OTHER, PORT_ENTRIES), *PORT_BASE.values()], 0)
    for index, rule in enumerate(policy.rules):
        bit = 1 << index
        # A set changes where a span begins and behind its end; a rule's own spans don't overlap.
        for first, last in port_spans(rule):
            for edge in (first, last + 1):
                edges[edge] = edges.get(edge, 0) ^ bit
    result: list[tuple[int, int, int]] = []
    order = sorted({*edges, PORT_ENTRIES})
    rules = 0
    for first, end in itertools.pairwise(order):
        rules ^= edges[first]
        result.append((first, end, rules))
    return result


def _check_bound(
    policy: Policy, sources: Mapping[_Mapped, int], destinations: Mapping[_Mapped, int], ports: Iterable[int]
) -> None:
    """Refuse a policy that some walk of the kernel could not finish."""
    candidates = sum(1 << index for index, rule in enumerate(policy.rules) if rule.candidate)
    crowds = _crowded({rules & candidates for rules in ports})
    # Candidates meet where the innermost of their prefixes are, so only those that a source's own
    # candidates name need be tried as destinations.
    named = [[destinations[_mapped(n)] for n in rule.destinations] for rule in policy.rules]
    anywhere = [destinations[_ROOT4], destinations[_ROOT6]]
    work = 0
    for by_source in _crowded({rules & candidates for rules in sources.values()}) if crowds else ():
        reached = {rules & by_source for index in bits(by_source) for rules in named[index] or anywhere}
        work += by_source.bit_count()
        for by_address in _crowded(reached):
            for crowd in crowds:
                if (crowd & by_address).bit_count() > MAX_CANDIDATES:
                    _refuse(policy, crowd & by_address)
            work += len(crowds)
            if work > MAX_WORK:
                message = (
                    f"{candidates.bit_count()} rules depend on the application protocol (`app`, or `inspect` without "
                    f"`rules`), and overlap so much that it cannot be told whether no more than {MAX_CANDIDATES} meet "
                    "for one source, destination and port: narrow some of them"
                )
                raise PolicyTooLargeError([Problem(policy.file, 0, "rules", message)])


def _crowded(sets: Iterable[int]) -> list[int]:
    """Those with more candidates than a walk can pass, the largest first: most likely to be refused."""
    return sorted((rules for rules in sets if rules.bit_count() > MAX_CANDIDATES), key=int.bit_count, reverse=True)


def _refuse(policy: Policy, crowd: int) -> None:
    index = list(bits(crowd))[MAX_CANDIDATES]
    rule = policy.rules[index]
    over = "/".join(map(protocol_name, rule.protocols)) or "any protocol"
    message = (
        f"{crowd.bit_count()} rules that depend on the application protocol (`app`, or `inspect` without `rules`) "
        f"meet for one source, destination and port over {over}; the kernel's walk holds {MAX_CANDIDATES}, "
        f"and {rule.id!r} is the next"
    )
    raise PolicyTooLargeError([Problem(rule.file or policy.file, rule.line, "rules", message)])


def _summary(rules: int) -> int:
    return sum(1 << index for index in range(WORDS) if rules >> (index * 64) & _WORD_MASK)


def bits(rules: int) -> Iterator[int]:
    """Indices of a set's rules, in order."""
    while rules:
        low = rules & -rules
        yield low.bit_length() - 1
        rules ^= low


def _intersection(*sets: int) -> Iterator[int]:
    """Rules of all sets in order, as far as the kernel's loop goes, counting its steps."""
    summary, rules = _WORD_MASK, (1 << LIMIT) - 1
    for members in sets:
        summary &= _summary(members)
        rules &= members
    steps = STEPS
    for index in bits(summary):
        steps -= 1
        for bit in bits(rules >> (index * 64) & _WORD_MASK):
            if steps <= 0:
                return
            steps -= 1
            yield index * 64 + bit
