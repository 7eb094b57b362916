"""The product's names for what the oracle says in words."""

from __future__ import annotations

import json
from ipaddress import ip_address
from pathlib import Path
from typing import Any

from fastpath.abi import Protocol, Reason, RuleFlag, Scope, Verdict
from fastpath.policy.describe import rule_id
from fastpath.policy.model import Policy
from fastpath.policy.read import load_policy
from fastpath.policy.where import Context
from fastpath.word import Word
from tests.oracle.documents import ZONES
from tests.oracle.meaning import Answer, Packet


def load(document: Any, folder: Path) -> Policy:
    """The document as a file, read; all JSON is YAML. Every rule file exists."""
    file = folder / "policy.yaml"
    file.write_text(json.dumps(document))
    return load_policy(file, lambda name: f"digest of {name}", ZONES)


def flow(packet: Packet) -> tuple[bytes, bytes, int, int, int]:
    """Source and destination of 16 bytes, protocol, port, and mask of what it may be, as the walks take them."""
    src, dst = (mapped(address) for address in (packet.src, packet.dst))
    return src, dst, packet.proto, packet.dport or 0, sum(1 << Protocol[app.upper()] for app in packet.apps)


def context(packet: Packet) -> Context:
    """Where it comes from and goes to, as the walks take it."""
    return Context(packet.from_zone, packet.to_zone, packet.vlan or 0)


def mapped(text: str) -> bytes:
    """16 bytes, IPv4 mapped."""
    address = ip_address(text)
    return (bytes(10) + b"\xff\xff" if address.version == 4 else b"") + address.packed


def answer(policy: Policy, word: int, flags: int) -> Answer:
    """A verdict word and a rule's flags."""
    said = Word.unpack(word)
    names = frozenset(flag.name.lower() for flag in RuleFlag if flags & flag)
    assert (said.monitor, said.reset) == ("monitor" in names, "reset" in names)
    return Answer(
        Verdict(said.verdict).name.lower(),
        Reason(said.reason).name.lower(),
        Scope(said.scope).name.lower(),
        rule_id(policy, said.rule),
        names,
    )
