"""Sets of addresses by number, and classes: which of them hold the addresses of a prefix, or of a range."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence

from fastpath.document import Network
from fastpath.policy.compiler.layout import ANYONE
from fastpath.policy.model import Networks, is_mapped

# Sets that a rule names on the side where it is not filed, each a candidate of its own; of more, one set is made.
MAX_TESTS = 4

# (address as a 128-bit number, prefix length), IPv4 mapped.
Prefix = tuple[int, int]
_ROOT6: Prefix = (0, 0)
_ROOT4: Prefix = (0xFFFF << 32, 96)


class Sets:
    """Sets of addresses by number, from 1 on."""

    def __init__(self) -> None:
        self.networks: dict[int, Networks] = {}
        self._numbers: dict[bytes, int] = {}  # by digest
        # By the id of what the policy keeps alive: thousands of rules name the same group.
        self._known: dict[int, tuple[int, ...]] = {}
        self._unions: dict[tuple[int, ...], int] = {}
        self._unions_of: defaultdict[int, list[int]] = defaultdict(list)

    def named(self, networks: Networks | tuple[Network, ...]) -> tuple[int, ...]:
        """The sets that a `from` or `to` names; `ANYONE` alone where it names none."""
        if not networks:
            return (ANYONE,)
        known = self._known.get(id(networks))
        if known is None:
            known = self._known[id(networks)] = tuple(dict.fromkeys(map(self._number, _parts(networks))))
        return known

    def known(self, networks: Networks | tuple[Network, ...]) -> tuple[int, ...] | None:
        """The same of other rules than those it was made for; None where a set is not there, or none to be tested."""
        if not networks:
            return (ANYONE,)
        named: dict[int, None] = {}
        for part in _parts(networks):
            number = self._numbers.get(part.digest)
            if number is None:
                return None
            named[number] = None
        return tuple(named) if len(named) <= MAX_TESTS or tuple(named) in self._unions else None

    def tested(self, named: tuple[int, ...]) -> tuple[int, ...]:
        """The same to be tested: not many."""
        if len(named) <= MAX_TESTS:
            return named
        if named not in self._unions:
            number = self._unions[named] = len(self._numbers) + len(self._unions) + 1
            for each in named:
                self._unions_of[each].append(number)
        return (self._unions[named],)

    def with_unions(self, members: Iterable[int]) -> set[int]:
        """Sets of a class, and those made of them."""
        every = set(members)
        return every.union(*(self._unions_of[each] for each in every if each in self._unions_of))

    def _number(self, networks: Networks) -> int:
        number = self._numbers.setdefault(networks.digest, len(self._numbers) + len(self._unions) + 1)
        self.networks.setdefault(number, networks)
        return number


def prefix_classes(networks_of: Mapping[int, Sequence[Network]]) -> dict[Prefix, tuple[int, ...]]:
    """The sets that hold each prefix: those that name it, and all that name one around it in its family.

    Both families' roots are always there: a short IPv6 prefix never holds IPv4.
    """
    own: tuple[dict[Prefix, list[int]], dict[Prefix, list[int]]] = ({_ROOT4: []}, {_ROOT6: []})
    for number, networks in networks_of.items():
        for network in networks:
            own[network.version == 6].setdefault(_mapped(network), []).append(number)
    result: dict[Prefix, tuple[int, ...]] = {}
    for family in own:
        around: list[tuple[int, int, tuple[int, ...]]] = []  # prefixes that hold the next one, outermost first
        for address, length in sorted(family):
            while around and address >> (128 - around[-1][1]) != around[-1][0] >> (128 - around[-1][1]):
                around.pop()
            members = tuple(family[address, length])
            if around:
                members = tuple(sorted({*members, *around[-1][2]}))
            around.append((address, length, members))
            result[address, length] = members
    return result


def class_ranges(classes: Mapping[Prefix, tuple[int, ...]], *, of_ipv4: bool) -> list[tuple[int, tuple[int, ...]]]:
    """Where ranges of a family's addresses begin, the first at 0, and their classes."""
    base, bits = (_ROOT4[0], 32) if of_ipv4 else (0, 128)
    starts: dict[int, tuple[int, ...]] = {}
    ends: list[tuple[int, tuple[int, ...]]] = []  # where the prefixes around the next one end, and their classes

    def close(until: int) -> None:
        while ends and ends[-1][0] <= until:
            end, _ = ends.pop()
            if ends:
                starts[end] = ends[-1][1]

    for address, length in sorted(key for key in classes if is_ipv4(key[0]) == of_ipv4):
        own = address - base
        close(own)
        starts[own] = classes[address, length]
        ends.append((own + (1 << 128 - length), classes[address, length]))
    close(1 << bits)
    starts.pop(1 << bits, None)
    found: list[tuple[int, tuple[int, ...]]] = []
    for start in sorted(starts):
        if not found or found[-1][1] != starts[start]:
            found.append((start, starts[start]))
    return found


def is_ipv4(address: int) -> bool:
    """Whether a number is an IPv4 address, mapped."""
    return address >> 32 == _ROOT4[0] >> 32


def _mapped(network: Network) -> Prefix:
    address = int(network.network_address)
    if network.version == 4:
        return _ROOT4[0] | address, 96 + network.prefixlen
    if is_mapped(network):
        raise ValueError(f"{network} is IPv4-mapped")
    return address, network.prefixlen


def _parts(networks: Networks | tuple[Network, ...]) -> tuple[Networks, ...]:
    return networks.parts if isinstance(networks, Networks) else (Networks(networks),)
