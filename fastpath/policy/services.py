"""Named services: IP protocols with their destination ports, or types and codes."""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import dataclass

from fastpath.document import Node
from fastpath.policy.fields import Fields, definitions, is_name, some
from fastpath.policy.icmp import has_types, read_type
from fastpath.policy.model import ICMP, ICMP6, TCP, UDP, merged, protocol_number

MAX_SERVICES = 10_000

_PORTS = re.compile(r"([0-9]{1,5})(?:-([0-9]{1,5}))?")

Ranges = tuple[tuple[int, int], ...]


@dataclass(frozen=True, slots=True)
class Product:
    """Every port of `ports` (inclusive ranges; () = any) over every protocol of `protocols`; of ICMP and ICMPv6 in
    place of them `icmp_types` and `icmp6_types`, as in `Rule`.
    """

    protocols: tuple[int, ...]
    ports: Ranges = ()
    icmp_types: Ranges = ()
    icmp6_types: Ranges = ()

    def ranges(self, l4: int) -> Ranges:
        """What it has of one of its protocols."""
        return {ICMP: self.icmp_types, ICMP6: self.icmp6_types}.get(l4, self.ports)


@dataclass(frozen=True, slots=True)
class Traffic:
    """As the fields of the same names in `Rule`."""

    protocols: tuple[int, ...] = ()
    ports: Ranges = ()
    udp_ports: Ranges | None = None
    icmp_types: Ranges = ()
    icmp6_types: Ranges = ()


class Services:
    """All services of a policy. Problems are reported at the definitions' nodes.

    `complete` is False when a file could not be read: then an unknown name may be its.
    """

    def __init__(self, nodes: Iterable[Node], *, complete: bool) -> None:
        self._complete = complete
        self._traffic: dict[tuple[str, ...], Traffic] = {}
        self._services = {
            name: some(node, product, empty="a service without protocols")
            for name, node in definitions(nodes, MAX_SERVICES).items()
        }

    def changed(self, earlier: Services) -> set[str]:
        """Names of services that came, went, or are others than in `earlier`."""
        return {
            name
            for name in self._services.keys() | earlier._services.keys()
            if self._services.get(name) != earlier._services.get(name)
        }

    def name(self, node: Node) -> str:
        """The name of a service that is there."""
        name = node.text(max_length=128)
        if name not in self._services and (self._complete or not is_name(name)):
            raise node.fail(f"there is no service {name[:40]!r}")
        return name

    def traffic(self, names: tuple[str, ...]) -> Traffic:
        """What services come to together, those whose definitions have problems left out."""
        made = self._traffic.get(names)
        if made is None:
            products = (each for name in names for each in self._services.get(name, ()))
            made = self._traffic[names] = traffic(products)
        return made


def traffic(products: Iterable[Product]) -> Traffic:
    """All products together, exactly."""
    ports: dict[int, list[tuple[int, int]]] = {}
    for each in products:
        for l4 in each.protocols:
            ports.setdefault(l4, []).extend(each.ranges(l4) or [(0, 65535)])
    tcp, udp, *types = (_any_or(merged(ports.get(l4, ()))) for l4 in (TCP, UDP, ICMP, ICMP6))
    if TCP not in ports or tcp == udp:
        return Traffic(tuple(sorted(ports)), udp, None, *types)
    return Traffic(tuple(sorted(ports)), tcp, udp if UDP in ports else None, *types)


def protocols_and_ports(fields: Fields) -> Product:
    """Fields `proto`, `ports` and `types`."""
    protocols = fields.some("proto", _proto)
    types = fields.some("types", lambda node: _types(node, protocols)) if carry_types(protocols) else ()
    found = Product(
        protocols,
        fields.some("ports", _ports),
        *(tuple(each[l4] for each in types if l4 in each) for l4 in (ICMP, ICMP6)),
    )
    # A broken `proto` was reported already; what hangs on it would only repeat that.
    if protocols or "proto" not in fields:
        if "ports" in fields and not carry_ports(protocols):
            fields.report("ports", "needs `proto: tcp`, `udp` or both, and no other")
        if "types" in fields and not carry_types(protocols):
            fields.report("types", "needs `proto: icmp`, `icmp6` or both, and no other")
    return found


def carry_ports(protocols: tuple[int, ...]) -> bool:
    """Protocols are named, and each of them has ports."""
    return bool(protocols) and not set(protocols) - {TCP, UDP}


def carry_types(protocols: tuple[int, ...]) -> bool:
    """The same of types and codes."""
    return bool(protocols) and all(map(has_types, protocols))


def product(node: Node) -> Product:
    """One of a service."""
    return protocols_and_ports(Fields(node.mapping(required=("proto",), optional=("ports", "types"))))


def _any_or(ranges: list[tuple[int, int]]) -> Ranges:
    return () if ranges == [(0, 65535)] else tuple(ranges)


def _proto(node: Node) -> int:
    try:
        return protocol_number(node.text(max_length=64))
    except ValueError as error:
        raise node.fail(str(error)) from None


def _types(node: Node, protocols: tuple[int, ...]) -> dict[int, tuple[int, int]]:
    """By protocol."""
    text = node.text(max_length=64)
    try:
        return {l4: read_type(text, l4) for l4 in protocols}
    except ValueError as error:
        raise node.fail(str(error)) from None


def _ports(node: Node) -> tuple[int, int]:
    text = node.text(max_length=64)
    match = _PORTS.fullmatch(text)
    if not match:
        raise node.fail(f"{text!r} is not a port or a range of ports, like 80 or 8080-8090")
    low, high = int(match[1]), int(match[2] or match[1])
    if max(low, high) > 65535:
        raise node.fail(f"port {max(low, high)} is not within 0..65535")
    if low > high:
        raise node.fail(f"the range is upside down; write {high}-{low}")
    return low, high
