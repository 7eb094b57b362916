"""From traffic that was seen to the rules that allow it.

A rule is a product: each of its clients may use each of its ports on each of its servers. Only what was seen as a
whole becomes one, so that the rules together allow what was seen and nothing else, unless `Widening` says so:

* All clients of a server's port are one set. Ports of a server with the same clients, protocol and application come
  together, then servers of which all this is the same; or servers first and then ports, whichever makes fewer rules.
* TCP and UDP come together where all else is the same, as do protocols without ports.
* The application protocol is a condition where all sessions of the port were told to be that one.

No port of a server is in two rules. These are not always the fewest rules there could be: to tell those is NP-hard.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable, Hashable, Iterable, Iterator
from dataclasses import dataclass, field

from fastpath.abi import Protocol
from fastpath.policy.defined import Ranges
from fastpath.policy.model import RECOGNISED, TCP, UDP, all_protocols, merged
from fastpath.policy.observed import Amount, Endpoint, Observed, total

# From here on operating systems choose ports by themselves (Linux's ip_local_port_range; RFC 6335 begins later).
EPHEMERAL = 32768
# A connection that ends as websocket began as http, and rules go by the beginning.
_APPS = frozenset(RECOGNISED) - {Protocol.UNKNOWN, Protocol.WEBSOCKET}


@dataclass(frozen=True, slots=True)
class Widening:
    """How far rules go beyond what was seen; by default not at all.

    `prefixes`, by IP version: (length, count), a prefix of that length with so many clients of a port, or more,
    is a client as a whole. `span`: so many ephemeral ports of a server over one protocol, or more, are all from the
    lowest to the highest.
    """

    prefixes: dict[int, tuple[int, int]] = field(default_factory=dict)
    span: int | None = None


@dataclass(frozen=True, slots=True)
class Suggested:
    """A rule that allows. `ports` is empty where there are none; `clients_seen` and `ports_seen` say of how many the
    ranges were made.
    """

    clients: Ranges
    servers: Ranges
    protocols: tuple[int, ...]
    ports: Ranges
    app: Protocol | None
    amount: Amount
    clients_seen: int
    ports_seen: int


@dataclass(frozen=True, slots=True)
class _Service:
    """Ports of a server: one, or a span."""

    server: int
    l4: int
    ports: tuple[int, int]
    ports_seen: int
    clients: Ranges
    app: Protocol | None
    amount: Amount


def suggest(observed: Observed, widening: Widening) -> list[Suggested]:
    """Rules that allow everything that was observed, those that explain most sessions (then bytes) first."""
    seen: dict[Ranges, set[int]] = {}
    buckets: dict[tuple[Ranges, int, Protocol | None], list[_Service]] = {}
    for service, each in _services(observed.endpoints(), widening):
        if widening.prefixes:
            seen.setdefault(service.clients, set()).update(each)
        buckets.setdefault((service.clients, service.l4, service.app), []).append(service)
    products: dict[tuple[Ranges, Ranges, Ranges, Protocol | None], list[tuple[int, list[_Service]]]] = {}
    for (clients, l4, app), services in buckets.items():
        for product in _products(services):
            servers = tuple(merged({(service.server, service.server) for service in product}))
            ports = tuple(merged({service.ports for service in product})) if l4 in {TCP, UDP} else ()
            products.setdefault((clients, servers, ports, app), []).append((l4, product))
    rules = [
        Suggested(
            clients=clients,
            servers=servers,
            protocols=tuple(sorted(l4 for l4, _ in parts)),
            ports=ports,
            app=app,
            amount=total(service.amount for _, product in parts for service in product),
            clients_seen=len(seen[clients]) if clients in seen else size(clients),
            ports_seen=_ports_seen(service for _, product in parts for service in product),
        )
        for (clients, servers, ports, app), parts in products.items()
    ]
    return sorted(
        rules,
        key=lambda rule: (-rule.amount.sessions, -rule.amount.bytes, rule.servers, rule.protocols, rule.ports),
    )


def _services(endpoints: Iterable[Endpoint], widening: Widening) -> Iterator[tuple[_Service, list[int]]]:
    """Each with its clients one by one."""
    for _, group in itertools.groupby(endpoints, key=lambda each: (each.server, each.l4)):
        singles = list(group)
        ephemeral = [each for each in singles if each.port >= EPHEMERAL]
        if widening.span is not None and len(ephemeral) >= widening.span:
            singles = [each for each in singles if each.port < EPHEMERAL]
            clients = sorted({client for each in ephemeral for client in each.clients})
            yield _service(ephemeral, clients, widening), clients
        for each in singles:
            yield _service([each], each.clients, widening), each.clients


def _service(endpoints: list[Endpoint], clients: list[int], widening: Widening) -> _Service:
    """Of one server and protocol; ports in order."""
    first, last = endpoints[0], endpoints[-1]
    masks = {each.apps for each in endpoints}
    return _Service(
        server=first.server,
        l4=first.l4,
        ports=(first.port, last.port),
        ports_seen=len(endpoints),
        clients=_widened(clients, first.server, widening),
        app=_app(masks.pop(), first.l4) if len(masks) == 1 else None,
        amount=total(each.amount for each in endpoints),
    )


def _app(mask: int, l4: int) -> Protocol | None:
    """The one that all sessions were told to be, if a rule can name it."""
    return next((app for app in _APPS if mask == 1 << app and all_protocols(l4) & mask), None)


def _widened(clients: list[int], server: int, widening: Widening) -> Ranges:
    """Addresses in order as ranges, with the prefixes that are taken whole."""
    version = 4 if server >> 32 == 0xFFFF else 6
    bits = 32 if version == 4 else 128
    length, count = widening.prefixes.get(version, (bits, 1))
    shift = bits - length
    ranges: list[tuple[int, int]] = []
    for prefix, group in itertools.groupby(clients, key=lambda client: client >> shift):
        members = list(group)
        if len(members) >= count:
            ranges.append((prefix << shift, (prefix + 1 << shift) - 1))
        else:
            ranges += [(member, member) for member in members]
    return tuple(merged(ranges))


def _products(services: list[_Service]) -> Iterator[list[_Service]]:
    """Services of the same clients, protocol and application, as products of servers and ports; the fewer of two."""
    by_server = _alike(services, lambda service: service.server, lambda service: service.ports)
    by_ports = _alike(services, lambda service: service.ports, lambda service: service.server)
    yield from by_server if len(by_server) <= len(by_ports) else by_ports


def _alike(
    services: list[_Service], one: Callable[[_Service], Hashable], other: Callable[[_Service], Hashable]
) -> list[list[_Service]]:
    """Those that agree in `one` together, and with them those that have the same of the `other`."""
    parts: dict[Hashable, list[_Service]] = {}
    for service in services:
        parts.setdefault(one(service), []).append(service)
    products: dict[frozenset[Hashable], list[_Service]] = {}
    for part in parts.values():
        products.setdefault(frozenset(map(other, part)), []).extend(part)
    return list(products.values())


def _ports_seen(services: Iterable[_Service]) -> int:
    """Of a span, the most that were seen at one server."""
    most: dict[tuple[int, int], int] = {}
    for service in services:
        most[service.ports] = max(most.get(service.ports, 0), service.ports_seen)
    return sum(most.values())


def size(ranges: Ranges) -> int:
    """How many they hold."""
    return sum(high - low + 1 for low, high in ranges)
