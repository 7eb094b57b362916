"""What a policy means: the rules one by one, the first that matches decides.

bpf/lib/policy.h computes the same from sets of rules. A flow is seen with a mask of the
application protocols it may still be. A rule is *certain* when it matches whichever of them
it turns out to be, *open* when it depends on that:

* The first certain rule is the hit; behind it nothing is looked at.
* `inspect` without rule files asks to identify: open until the protocol is known, then passed over.
* When an open rule stands before the hit (or the default), and they don't all deny, the flow is
  UNDECIDED: the handshake passes, and the walk is repeated once the protocol is known.
"""

from __future__ import annotations

import ipaddress
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from fastpath.abi import Action, Reason, RuleFlag, Scope, Verdict
from fastpath.document import Network
from fastpath.policy.model import ICMP, ICMP6, TCP, UDP, Policy, Rule, all_protocols
from fastpath.policy.where import NOWHERE, Context
from fastpath.word import Word

_MAPPED = bytes(10) + b"\xff\xff"


@dataclass(frozen=True, slots=True)
class Walk:
    """Result of a walk. `rule` is a number of `Policy`; for UNDECIDED that of the first open rule. `flags` are that
    rule's `RuleFlag` bits, `hash` is 0 unless a rule was hit.
    """

    verdict: Verdict
    reason: Reason
    scope: Scope
    rule: int
    flags: int
    hash: int

    def word(self, revision: int) -> int:
        """The packed verdict word. ValueError when `revision` does not fit 24 bits."""
        return Word(
            verdict=self.verdict,
            scope=self.scope,
            monitor=bool(self.flags & RuleFlag.MONITOR),
            reset=bool(self.flags & RuleFlag.RESET),
            reason=self.reason,
            rule=self.rule,
            revision=revision,
        ).pack()


def evaluate(
    policy: Policy,
    src: bytes,
    dst: bytes,
    l4: int,
    dport: int = 0,
    *,
    possible: int = 0,
    context: Context = NOWHERE,
) -> Walk:
    """Judge a flow.

    `src` and `dst` are 16 bytes, IPv4 mapped (``::ffff:a.b.c.d``); `l4` the IP protocol number; `dport` the
    destination port of TCP and UDP, ``type << 8 | code`` of ICMP and ICMPv6, elsewhere ignored; `possible` a mask of
    ``1 << Protocol``, 0 = all that `l4` can carry; `context` where it comes from and goes to. ValueError for addresses
    of another length.
    """
    source, destination = _address(src), _address(dst)
    matching = (
        n
        for n, rule in enumerate(policy.rules)
        if matches(rule, source, destination, l4, dport) and (rule.where is None or rule.where.holds(context))
    )
    return decide(policy, matching, l4, possible, policy.default_of(context))


def matches(
    rule: Rule,
    source: ipaddress.IPv4Address | ipaddress.IPv6Address,
    destination: ipaddress.IPv4Address | ipaddress.IPv6Address,
    l4: int,
    dport: int,
) -> bool:
    """The conditions on addresses, protocol and port hold."""
    return (
        _within(source, rule.sources)
        and _within(destination, rule.destinations)
        and (not rule.protocols or l4 in rule.protocols)
        and (l4 not in {TCP, UDP, ICMP, ICMP6} or any(low <= dport <= high for low, high in rule.ports_of(l4)))
    )


def decide(policy: Policy, matching: Iterable[int], l4: int, possible: int = 0, default: int = 0) -> Walk:
    """The walk over rules that match in all but the application protocol, given by their indices in order; `default` is
    the number of what decides where none does.
    """
    possible = possible or all_protocols(l4)
    known = possible & (possible - 1) == 0
    hit = first_open = 0
    opinions: set[Action] = set()
    for number in matching:
        rule = policy.rules[number]
        if not rule.apps & possible:
            continue
        if not possible & ~rule.apps and not rule.identify:
            hit = number + 1
            break
        if known and rule.identify:
            continue
        first_open = first_open or number + 1
        opinions.add(rule.action)

    hit = hit or default
    decider = policy.decider(hit)
    if first_open and opinions | {decider.action} != {Action.DENY}:
        pending = policy.rules[first_open - 1]
        return Walk(Verdict.UNDECIDED, Reason.PENDING, Scope.NONE, first_open, pending.flags, 0)
    verdict = Verdict[decider.action.name]
    if not isinstance(decider, Rule):
        return Walk(verdict, Reason.DEFAULT, Scope.NONE, hit, decider.flags, 0)
    # ICMP and the like are one protocol from the start: nothing was learnt from payload.
    if known and l4 in {TCP, UDP}:
        return Walk(verdict, Reason.PROTOCOL, Scope.CONNECTION, hit, decider.flags, decider.hash)
    return Walk(verdict, Reason.POLICY, Scope.NONE, hit, decider.flags, decider.hash)


def _address(packed: bytes) -> ipaddress.IPv4Address | ipaddress.IPv6Address:
    if len(packed) != 16:
        raise ValueError(f"an address is 16 bytes, not {len(packed)}")
    return ipaddress.IPv4Address(packed[12:]) if packed.startswith(_MAPPED) else ipaddress.IPv6Address(packed)


def _within(address: ipaddress.IPv4Address | ipaddress.IPv6Address, networks: Sequence[Network]) -> bool:
    return not networks or any(address in network for network in networks)
