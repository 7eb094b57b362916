"""Groups and services that a policy defines, by what they come to, so that other rules may go by the same names."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import TypeVar

from fastpath.document import Network, Node, Problems
from fastpath.policy.fields import definitions, some
from fastpath.policy.groups import MAX_GROUPS, Groups
from fastpath.policy.model import ICMP, ICMP6, TCP, UDP, merged
from fastpath.policy.read import read_roots
from fastpath.policy.services import MAX_SERVICES, product, traffic

# Inclusive, sorted, none touching the next; addresses are 128-bit numbers, IPv4 mapped.
Ranges = tuple[tuple[int, int], ...]

T = TypeVar("T")

_MAPPED = 0xFFFF << 32


@dataclass(frozen=True, slots=True)
class Defined:
    """Names by what they stand for: addresses; protocols with the ports (of ICMP types and codes) of each, () = all
    or none.
    """

    groups: Mapping[Ranges, str] = field(default_factory=dict)
    services: Mapping[tuple[tuple[int, Ranges], ...], str] = field(default_factory=dict)


def read_defined(path: Path) -> Defined:
    """Of a policy's file or folder. Of names for the same the first in the alphabet stands. InvalidDocumentError when
    the policy's groups or services have problems.
    """
    problems = Problems()
    files = [root.attempt(lambda root: root.mapping(optional=None)) or {} for root in read_roots(path, problems)]
    groups, services = ([fields[name] for fields in files if name in fields] for name in ("groups", "services"))
    resolved = Groups(groups, complete=True)
    found = Defined(
        _first((addresses(resolved.networks((name,))), name) for name in definitions(groups, MAX_GROUPS)),
        _first((_meaning(node), name) for name, node in definitions(services, MAX_SERVICES).items()),
    )
    problems.raise_if_any()
    return found


def addresses(networks: Iterable[Network]) -> Ranges:
    """The addresses of some networks."""
    return tuple(
        merged(
            (base + int(network.network_address), base + int(network.broadcast_address))
            for network in networks
            for base in (_MAPPED if network.version == 4 else 0,)
        )
    )


def _meaning(node: Node) -> tuple[tuple[int, Ranges], ...]:
    over = traffic(some(node, product))
    udp = over.ports if over.udp_ports is None else over.udp_ports
    ranges = {TCP: over.ports, UDP: udp, ICMP: over.icmp_types, ICMP6: over.icmp6_types}
    return tuple((l4, ranges.get(l4, ())) for l4 in over.protocols)


def _first(pairs: Iterable[tuple[T, str]]) -> dict[T, str]:
    names: dict[T, str] = {}
    for meaning, name in pairs:
        names[meaning] = min(name, names.get(meaning, name))
    return names
