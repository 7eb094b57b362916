"""CPU time of a session's first packet through the lab against the number of rules, and a plot: bench/first_packet.svg.

SYNs of 2,000 flows out of the rule set a round, each a new session everywhere (bench/openings.py): plain forwarding,
ours, nftables with the rules in a line and with a verdict map of destinations, and iptables (Debian's, nftables
underneath); groups are sets and ipsets, and all track connections (bench/translate.py). All exist at once and take
turns. Everything is allowed, so every packet goes the whole way. The peers end at 10,000 rules: more load for minutes.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import ExitStack, closing
from pathlib import Path

from bench import translate
from bench.flows import draw
from bench.forwarders import inside
from bench.gateway import Gateway
from bench.openings import Openings
from bench.plot import Line, Plot
from bench.policies import COUNTS, Sizes, allowing, generate, load
from bench.results import Result
from bench.rounds import interleaved
from fastpath.policy.model import Policy
from tests.lab.namespaces import Lab

PACKETS = 2_000
PEERS_END = 10_000
LOADING = 600  # seconds
PLOT = Path(__file__).with_name("first_packet.svg")
LINES = {
    "ours": Line("#0b6", above=False),
    "nftables": Line("#c50", above=False),
    "nftables_maps": Line("#888"),
    "iptables": Line("#05c"),
}


def nftables(lab: Lab, policy: Policy) -> None:
    """Rules in a line, groups as sets."""
    inside(lab, "nft", "-f", "-", stdin=translate.linear(policy), timeout=LOADING)


def nftables_maps(lab: Lab, policy: Policy) -> None:
    """By destination to a chain."""
    inside(lab, "nft", "-f", "-", stdin=translate.dispatched(policy), timeout=LOADING)


def iptables(lab: Lab, policy: Policy) -> None:
    """Rules in a line, groups as ipsets."""
    inside(lab, "ipset", "restore", stdin=translate.ipsets(policy), timeout=LOADING)
    for tool, version in (("iptables-restore", 4), ("ip6tables-restore", 6)):
        inside(lab, tool, stdin=translate.iptables(policy, version), timeout=LOADING)


PEERS: dict[str, Callable[[Lab, Policy], None]] = {
    "nftables": nftables,
    "nftables_maps": nftables_maps,
    "iptables": iptables,
}


def bench() -> Iterator[Result]:
    """Nanoseconds a packet; floors of the rounds."""
    with ExitStack() as stack:
        subjects: dict[str, Callable[[], float]] = {}
        for count in COUNTS:
            generated = generate(Sizes.of(count))
            text = allowing(generated.text)
            policy = load(text)
            flows = draw(generated, policy, PACKETS)

            def add(name: str, lab: Lab, count: int = count, flows=flows) -> None:
                subjects[f"{name}.{count}"] = stack.enter_context(closing(Openings(lab, flows))).cpu

            for name in ("plain", "plain_again"):
                add(name, stack.enter_context(Lab()))
            lab = stack.enter_context(Lab())
            stack.enter_context(Gateway(lab, text, inspector=False))
            add("ours", lab)
            for name, enter in PEERS.items() if count <= PEERS_END else ():
                lab = stack.enter_context(Lab())
                enter(lab, policy)
                add(name, lab)
        floors = {name: min(values) for name, values in interleaved(subjects).items()}
    above: dict[str, dict[int, float]] = {name: {} for name in LINES}
    for count in COUNTS:
        plain = floors[f"plain.{count}"]
        for name in ("plain_again", *LINES):
            if (cost := floors.get(f"{name}.{count}")) is not None:
                yield Result(f"first_packet_lab.{name}.{count}", "ns", cost, plain)
                if name in above:
                    above[name][count] = max(cost - plain, 1) / 1000
    plot = Plot("rules", "µs of CPU of a first packet, above plain forwarding", COUNTS, logarithmic=True)
    PLOT.write_text(plot.draw(above, LINES))
