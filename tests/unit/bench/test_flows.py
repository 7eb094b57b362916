"""What the benches do with generated policies."""

from __future__ import annotations

import itertools
import random
from dataclasses import replace
from ipaddress import ip_address

from bench.flows import SHIFTS, draw
from bench.policies import Shape, Sizes, allowing, changed, generate, load
from fastpath.abi import Action
from fastpath.policy.evaluate import evaluate
from fastpath.policy.model import TCP


def test_one_rule_changes() -> None:
    text = generate(Sizes.of(30)).text
    before, after = (load(each).rules for each in (text, changed(text, 1)))
    bare = [[replace(rule, line=0, file="") for rule in rules] for rules in (before, after)]
    (old, new), *others = [(a, b) for a, b in zip(*bare, strict=True) if a != b]
    assert (old.id, {old.action, new.action}, others) == ("r1", {Action.ALLOW, Action.DENY}, [])


def test_all_are_allowed() -> None:
    policy = load(allowing(generate(Sizes.of(200)).text))
    assert {each.action for each in (policy.default, *policy.rules)} == {Action.ALLOW}


def test_flows_are_different_sessions_and_every_other_one_meets_a_rule() -> None:
    generated = generate(Sizes.of(200))
    policy = load(generated.text)
    flows = draw(generated, policy, 400)
    sessions = {
        frozenset(((flow.source, flow.sport + shift), (flow.destination, flow.dport)))
        for flow, shift in itertools.product(flows, (0, SHIFTS - 1))
    }
    assert len(sessions) == 2 * len(flows) == 800
    assert {flow.version for flow in flows} == {4, 6}
    met = [
        evaluate(policy, *(_mapped(end) for end in (flow.source, flow.destination)), TCP, flow.dport).rule
        for flow in flows
    ]
    assert sum(map(bool, met)) >= 200
    assert draw(generated, policy, 400) == flows != draw(generated, policy, 400, seed=2)


def _mapped(packed: bytes) -> bytes:
    return packed.rjust(16, b"\0") if len(packed) == 16 else bytes(10) + b"\xff\xff" + packed


def test_flows_avoid_the_labs_own_addresses() -> None:
    generated = generate(Sizes.of(20_000), Shape.FLAT)
    taken = [n for n in generated.prefixes if str(n).startswith("10.77.")]
    assert taken
    few = replace(generated, prefixes=(*taken, *random.Random(1).sample(generated.prefixes, 100)))
    flows = draw(few, load(generate(Sizes.of(200)).text), 300)
    assert not [
        flow
        for flow in flows
        for end in (flow.source, flow.destination)
        if end[:2] == ip_address("10.77.0.0").packed[:2]
    ]
