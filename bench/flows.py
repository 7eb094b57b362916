"""Flows out of a policy's rule set, and their packets through a program, each timed by itself."""

from __future__ import annotations

import itertools
import random
import struct
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from ipaddress import ip_address, ip_network

from bench import testrun
from bench.policies import Generated, Network, some_address
from bench.programs import FLOWS, Peers
from fastpath.libbpf import Program
from fastpath.policy.model import TCP, Policy, Rule

# A flow comes again as another when less than this is added to its source port, a multiple of it.
SHIFTS = 64
# The lab's own.
TAKEN = ip_network("10.77.0.0/16")
_ENDS = struct.Struct("=16s16sHH")


@dataclass(frozen=True, slots=True)
class Flow:
    """Packed addresses of one family; `sport` leaves room for `SHIFTS`."""

    source: bytes
    destination: bytes
    sport: int
    dport: int

    @property
    def sessions(self) -> frozenset[tuple[bytes, int]]:
        """Another flow has a session in common only if it has the same here, whatever is added to the ports."""
        return frozenset(((self.source, self.sport // SHIFTS), (self.destination, self.dport // SHIFTS)))

    @property
    def version(self) -> int:
        """Of IP."""
        return 4 if len(self.source) == 4 else 6

    @property
    def ends(self) -> bytes:
        """`struct ends` of minimal.c."""
        return _ENDS.pack(self.source.rjust(16, b"\0"), self.destination.rjust(16, b"\0"), self.sport, self.dport)

    def syn(self, shift: int) -> bytes:
        """Its first packet, from the IP header on."""
        return testrun.between(self.source, self.destination, (self.sport + shift, self.dport), testrun.SYN, seq=100)


def draw(generated: Generated, policy: Policy, count: int = FLOWS, seed: int = 1) -> list[Flow]:
    """Different TCP flows in random order: half between any two prefixes of the policy, most of which meet no rule, and
    half out of `from`, `to` and ports of a rule; in a third of the cases each, an end is its prefix's first or last.
    """
    choose = random.Random(seed)
    anyhow = generated.flows(choose, 2 * count)
    by_rule = _of_rules(choose, policy, generated)
    found: dict[frozenset[tuple[bytes, int]], Flow] = {}
    for source, destination, dport in itertools.chain.from_iterable(zip(anyhow, by_rule, strict=False)):
        ends = ip_address(source), ip_address(destination)
        if ends[0] == ends[1] or any(end in TAKEN for end in ends):
            continue
        sport = 1024 + SHIFTS * choose.randrange((65536 - 1024) // SHIFTS)
        flow = Flow(ends[0].packed, ends[1].packed, sport, dport)
        found.setdefault(flow.sessions, flow)
        if len(found) == count:
            return list(found.values())
    raise ValueError(f"no {count} different flows in this policy")


def _of_rules(choose: random.Random, policy: Policy, generated: Generated) -> Iterator[tuple[str, str, int]]:
    rules = [rule for rule in policy.rules if not rule.protocols or TCP in rule.protocols]

    def side(networks: Sequence[Network], version: int) -> str:
        return some_address(choose, choose.choice([n for n in networks if n.version == version]))

    while True:
        rule: Rule = choose.choice(rules)
        sides = [networks or generated.prefixes for networks in (rule.sources, rule.destinations)]
        version = choose.choice(sorted({n.version for n in sides[0]} & {n.version for n in sides[1]}))
        low, high = choose.choice(rule.ports_of(TCP))
        yield side(sides[0], version), side(sides[1], version), choose.randint(max(low, 1), high)


class Replay:
    """Flows, one packet of each at a time; at most `FLOWS`."""

    def __init__(self, bed: Peers, flows: Sequence[Flow]) -> None:
        self._bed = bed
        self._ends = {
            version: [flow.ends for flow in flows if flow.version == version]
            for version in sorted({flow.version for flow in flows})
        }

    def send(self, program: Program, frame: Callable[[int], testrun.Frame], shift: int = 0) -> list[int]:
        """The frame of each IP version for all flows of it. Nanoseconds of each packet but the last of its family,
        `replay` included.
        """
        self._bed.aim(program)
        costs: list[int] = []
        for version, ends in self._ends.items():
            made = frame(version)
            self._bed.deal(b"".join(ends), shift)
            self._bed.replay.run(made.data, repeat=len(ends), context=made.context)
            costs += (after - before for before, after in itertools.pairwise(self._bed.stamps(len(ends))))
        return costs
