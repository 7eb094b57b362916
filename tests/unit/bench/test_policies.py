"""The generator gives what it claims: what is measured with its policies is only as good as they are."""

from __future__ import annotations

import random
from ipaddress import ip_address, ip_network
from pathlib import Path
from typing import Any

import pytest
import yaml

from bench.policies import Generated, Network, Shape, Sizes, generate
from fastpath.policy.read import load_policy

SIZES = Sizes(rules=600, prefixes=400, groups=20)


@pytest.fixture(scope="module", params=list(Shape))
def shape(request: pytest.FixtureRequest) -> Shape:
    return request.param


@pytest.fixture(scope="module")
def generated(shape: Shape) -> Generated:
    return generate(SIZES, shape)


@pytest.fixture(scope="module")
def document(generated: Generated) -> dict[str, Any]:
    return yaml.load(generated.text, yaml.CSafeLoader)


def test_sizes(generated: Generated, document: dict[str, Any]) -> None:
    assert (len(document["rules"]), len(document["groups"])) == (SIZES.rules, SIZES.groups)
    assert len(set(generated.prefixes)) == len(generated.prefixes) == SIZES.prefixes
    assert {network.version for network in generated.prefixes} == {4, 6}


@pytest.mark.parametrize("rules", [10, 30, 100, 600])
def test_every_policy_is_valid(shape: Shape, rules: int, tmp_path: Path) -> None:
    file = tmp_path / "policy.yaml"
    for seed in range(10 if rules < 100 else 2):
        file.write_text(generate(Sizes.of(rules), shape, seed).text)
        assert len(load_policy(file, lambda _: None).rules) == rules


def test_the_same_seed_gives_the_same_text(generated: Generated, shape: Shape) -> None:
    assert generate(SIZES, shape) == generated
    assert generate(SIZES, shape, seed=2).text != generated.text


def test_nested_prefixes(generated: Generated, shape: Shape) -> None:
    depths = [depth(network, set(generated.prefixes)) for network in generated.prefixes]
    share = sum(map(bool, depths)) / len(depths)
    if shape == Shape.FLAT:
        assert share == 0
    else:
        assert share >= 0.3
        assert max(depths) >= 2


def depth(network: Network, all_: set[Network]) -> int:
    """How many of the others it lies within."""
    return sum(network.supernet(new_prefix=length) in all_ for length in range(network.prefixlen))


def test_members_of_groups(document: dict[str, Any], shape: Shape) -> None:
    members = [member for group in document["groups"].values() for member in group["include"]]
    prefixes = [ip_network(member) for member in members if not member.startswith("g")]
    assert len(set(prefixes)) == SIZES.prefixes
    assert any(prefixes.count(one) > 1 for one in prefixes)
    assert len(prefixes) / SIZES.prefixes > (3 if shape == Shape.HEAVY else 1.1)
    assert any("exclude" in group for group in document["groups"].values())
    includes_others = sum(member.startswith("g") for member in members)
    assert (includes_others > 0) is (shape != Shape.FLAT)


def test_flows_lie_in_prefixes(generated: Generated) -> None:
    flows = list(generated.flows(random.Random(1), 100))
    assert flows == list(generated.flows(random.Random(1), 100))
    for source, destination, port in flows:
        ends = ip_address(source), ip_address(destination)
        assert ends[0].version == ends[1].version
        assert all(any(end in network for network in generated.prefixes) for end in ends)
        assert 0 < port < 65536
