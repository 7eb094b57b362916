"""Policies of any size from a seed: groups that share members, nested prefixes, rules between them.

``python -m bench.policies --rules 100000 > policy.yaml`` writes one. The same seed and sizes give the same text.
"""

from __future__ import annotations

import argparse
import enum
import itertools
import os
import random
import re
import sys
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass
from ipaddress import IPv4Address, IPv4Network, IPv6Address, IPv6Network, ip_network
from pathlib import Path

from fastpath.policy.model import Policy
from fastpath.policy.read import load_policy

Network = IPv4Network | IPv6Network

# What the benches of the policy take; BENCH_RULES is the largest of a trial.
COUNTS = tuple(n for n in (10, 1_000, 10_000, 100_000) if n <= int(os.environ.get("BENCH_RULES", "100000")))

# Rules at a time share a block of priorities, so that the order of the file is not that of the rules.
PRIORITIES = 200
V6_SHARE = 0.2
NESTED_SHARE = 0.35
PORTS = (
    22, 25, 53, 80, 88, 110, 111, 123, 135, 139, 143, 161, 389, 443, 445, 465, 514, 587, 636, 853, 873, 993, 995,
    1433, 1521, 1883, 2049, 2181, 2379, 3000, 3128, 3268, 3306, 3389, 4222, 5000, 5044, 5060, 5432, 5671, 5672, 5900,
    5985, 6379, 6443, 7000, 7474, 8000, 8080, 8086, 8200, 8443, 8500, 8883, 9000, 9042, 9092, 9200, 9418, 11211, 27017,
)  # fmt: skip
RANGES = ((1024, 65535), (30000, 32767), (49152, 65535), (8000, 8099), (135, 139), (60000, 61000))


class Shape(enum.StrEnum):
    """How prefixes lie to one another, and how much groups have in common."""

    FLAT = "flat"  # no prefix within another
    NESTED = "nested"  # a third of them lies within others, to three levels
    HEAVY = "heavy"  # nested, and each is a member of four groups, which include one another


@dataclass(frozen=True, slots=True)
class Sizes:
    """What a policy has."""

    rules: int = 100_000
    prefixes: int = 50_000
    groups: int = 1_000

    @classmethod
    def of(cls, rules: int) -> Sizes:
        """The usual number of prefixes and groups for that many rules."""
        return cls(rules, max(8, rules // 2), max(4, rules // 100))


@dataclass(frozen=True)
class Generated:
    """A policy's text, and the prefixes in it, of which flows can be drawn."""

    text: str
    prefixes: tuple[Network, ...]

    def flows(self, choose: random.Random, count: int) -> Iterator[tuple[str, str, int]]:
        """Source, destination and TCP port; both addresses lie in prefixes of the policy, and in one family."""
        families = [[n for n in self.prefixes if n.version == version] for version in (4, 6)]
        for _ in range(count):
            family = choose.choices(families, weights=list(map(len, families)))[0]
            source, destination = (some_address(choose, choose.choice(family)) for _ in range(2))
            yield source, destination, choose.choice(PORTS)


def some_address(choose: random.Random, network: Network) -> str:
    """One of a prefix, its first or last in a third of the cases each."""
    last = network.num_addresses - 1
    offset = choose.choice((0, last, choose.randint(0, last)))
    kind = IPv4Address if network.version == 4 else IPv6Address
    return str(kind(int(network.network_address) + offset))


def generate(sizes: Sizes | None = None, shape: Shape = Shape.NESTED, seed: int = 1) -> Generated:
    """A policy as its file's text."""
    sizes = sizes or Sizes()
    choose = random.Random(f"{seed} {shape} {sizes}")
    prefixes = _prefixes(choose, sizes.prefixes, 0 if shape == Shape.FLAT else NESTED_SHARE)
    lines = ["default: deny", "groups:", *_groups(choose, prefixes, sizes.groups, shape), "services:"]
    services = list(_services())
    lines += [f"  {name}: {what}" for name, what in services]
    lines.append("rules:")
    lines += _rules(choose, prefixes, sizes, [name for name, _ in services])
    return Generated("\n".join(lines) + "\n", tuple(prefixes))


def allowing(text: str) -> str:
    """A generated policy in which every rule and the default allow: behind the walk, all packets go the same way."""
    return text.replace("action: deny", "action: allow").replace("default: deny", "default: allow")


def changed(text: str, number: int) -> str:
    """The policy with the opposite action of its rule `r{number}`."""
    before, line, behind = re.split(rf"(?m)^(.*\{{id: r{number},.*)$", text)
    opposite = "action: deny" if "action: allow" in line else "action: allow"
    return before + re.sub("action: [a-z]+", opposite, line) + behind


def load(text: str) -> Policy:
    """The policy of a text."""
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "policy.yaml"
        path.write_text(text)
        return load_policy(path, lambda _: None)


def _prefixes(choose: random.Random, count: int, nested: float) -> list[Network]:
    """Different prefixes of both families; a share of them within others, the rest disjoint."""
    inner = int(count * nested)
    v6 = int((count - inner) * V6_SHARE)
    found: dict[Network, int] = {}
    # Blocks of a /16 and of a /48 keep those of the first level apart.
    v4_blocks = (f"{a}.{b}" for a in (10, *range(100, 120), *range(20, 60)) for b in range(256))
    while len(found) < count - inner - v6:
        block = next(v4_blocks)
        third = 0
        while third < 256 and len(found) < count - inner - v6:
            length = choose.choice((20, 22, 24, 24, 24, 26, 28, 32))
            step = max(1, 1 << (24 - length)) if length < 24 else 1
            third = -(-third // step) * step
            if third > 255:
                break
            found[ip_network(f"{block}.{third}.0/{length}")] = 0
            third += step + choose.choice((0, 0, 1, 2))
    for n in range(v6):
        found[ip_network(f"fd00:{n >> 12:x}:{n & 0xFFF:x}::/{choose.choice((48, 56, 64, 64, 128))}")] = 0
    outer = [n for n in found if n.prefixlen + 2 <= n.max_prefixlen]
    while len(found) < count:
        around = choose.choice(outer)
        length = min(around.max_prefixlen, around.prefixlen + choose.choice((1, 2, 4, 8)))
        shift = around.max_prefixlen - length
        start = int(around.network_address) + (choose.getrandbits(length - around.prefixlen) << shift)
        within = ip_network((start, length))
        if within not in found and found[around] < 3:
            found[within] = found[around] + 1
            if length + 2 <= within.max_prefixlen:
                outer.append(within)
    members = list(found)
    choose.shuffle(members)
    return members


def _groups(choose: random.Random, prefixes: list[Network], count: int, shape: Shape) -> Iterator[str]:
    """Each has members of its own, of both families, and shares others; some include or exclude what is in groups
    before them.
    """
    copies = 4 if shape == Shape.HEAVY else 1
    shared = 0.15
    size = max(1, len(prefixes) // count)
    pools = [choose.sample(prefixes, len(prefixes)) for _ in range(copies)]
    for n in range(count):
        own: list[Network] = list(
            dict.fromkeys(itertools.chain.from_iterable(pool[n * size : (n + 1) * size] for pool in pools))
        )
        own += [p for p in choose.sample(prefixes, max(1, int(size * shared))) if p not in own]
        # Both families in each, behind what may be excluded: two sides without a common one are an error.
        for version in {4, 6} - {p.version for p in own[1:]}:
            own.append(choose.choice([p for p in prefixes if p.version == version]))
        nested = n > 2 and choose.random() < (0.5 if shape == Shape.HEAVY else 0.1)
        include: list[object] = [*own, f"g{choose.randrange(n)}"] if nested and shape != Shape.FLAT else [*own]
        listed = ", ".join(f'"{member}"' for member in include)
        yield f"  g{n}:"
        yield f"    include: [{listed}]"
        if n % 20 == 7 and len(own) > 3:
            yield f'    exclude: ["{own[0]}"]'


def _services() -> Iterator[tuple[str, str]]:
    for port in PORTS:
        yield f"tcp-{port}", f"{{proto: tcp, ports: {port}}}"
    for port in PORTS[::5]:
        yield f"udp-{port}", f"{{proto: udp, ports: {port}}}"
    for low, high in RANGES:
        yield f"tcp-{low}-{high}", f"{{proto: tcp, ports: {low}-{high}}}"
    yield "ping", "{proto: [icmp, icmp6]}"


def _rules(choose: random.Random, prefixes: list[Network], sizes: Sizes, services: list[str]) -> Iterator[str]:
    def side(anyone: float) -> str | None:
        kind = choose.random()
        if kind < anyone:
            return None
        if kind < 0.12:
            return f'"{choose.choice(prefixes)}"'
        names = [f"g{choose.randrange(sizes.groups)}" for _ in range(1 if kind < 0.85 else 2)]
        return names[0] if len(names) == 1 else f"[{', '.join(names)}]"

    for n in range(sizes.rules):
        source, destination = side(0.02), side(0.01)
        if source is destination is None:
            destination = "g0"
        if source and destination and source[0] == destination[0] == '"' and (":" in source) != (":" in destination):
            destination = f"g{choose.randrange(sizes.groups)}"  # prefixes of two families never meet
        fields = [f"id: r{n}"]
        if n % 3 == 0:
            fields.append(f"priority: {1000 + choose.randrange(PRIORITIES)}")
        if source:
            fields.append(f"from: {source}")
        if destination:
            fields.append(f"to: {destination}")
        kind = choose.random()
        if kind < 0.04:
            fields += ["proto: tcp", f"ports: {choose.randrange(1, 65536)}"]
        elif kind < 0.97:
            fields.append(f"service: {choose.choice(services)}")
        if kind < 0.02:
            fields.append("app: [tls, http]")
        fields.append(f"action: {'deny' if choose.random() < 0.15 else 'allow'}")
        yield f"  - {{{', '.join(fields)}}}"


def main() -> None:
    """Write one to the standard output."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rules", type=int, default=100_000)
    parser.add_argument("--shape", type=Shape, choices=list(Shape), default=Shape.NESTED)
    parser.add_argument("--seed", type=int, default=1)
    wanted = parser.parse_args()
    sys.stdout.write(generate(Sizes.of(wanted.rules), wanted.shape, wanted.seed).text)


if __name__ == "__main__":
    main()
