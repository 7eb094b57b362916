"""Samples of rules: units in words, that a rule must match and must not match."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from fastpath.abi import Protocol
from fastpath.document import Node, Problems, compose
from parsers.base import Kind, Value
from parsers.registry import field_of
from slowpath.rules.conditions import MAX_TEXT
from slowpath.rules.fields import PROTOCOLS, Subject, is_keyed, known, protocols_of, wrong_key


@dataclass(frozen=True, slots=True)
class Sample:
    """A unit of a rule's `samples`, with its place."""

    subject: Subject
    line: int


def read_sample(node: Node, protocols: Sequence[Protocol]) -> Sample:
    """Of a rule of these protocols. Of HTTP what every request has is made up where the sample does not say it."""
    nodes = node.mapping(optional=("protocol", *known()), others=is_keyed)
    fields: dict[str, Value] = {}
    for name, value in nodes.items():
        if (wrong := wrong_key(name)) is not None:
            value.report(wrong)
        elif name != "protocol":
            fields[name] = _value(value, field_of(name).kind)
    call = any(name.startswith("grpc.") for name in fields)
    if "protocol" in nodes:
        protocol = nodes["protocol"].choice(Protocol, allowed=PROTOCOLS)
    else:
        fitting = [each for each in protocols if all(each in protocols_of(name) for name in fields)]
        protocol = Protocol.GRPC if call and Protocol.GRPC in fitting else (fitting or list(protocols))[0]
    for name in fields:
        if protocol not in protocols_of(name):
            nodes[name].report(f"{protocol.name.lower()} has no {name}")
    if protocol in protocols_of("http.path"):
        call = call or protocol == Protocol.GRPC
        path = b"/".join((b"", *_texts(fields, "grpc.service", "grpc.method"))) if call else b"/"
        fields = {"http.method": b"POST" if call else b"GET", "http.path": path, "http.host": b"", **fields}
    return Sample(Subject(protocol, fields), node.line)


def sample_of(text: str, protocols: Sequence[Protocol]) -> Sample:
    """One that stands in an argument. InvalidDocumentError."""
    problems = Problems()
    root = compose(text, "--sample", problems)
    sample = root.attempt(lambda node: read_sample(node, protocols)) if root is not None else None
    problems.raise_if_any()
    assert sample is not None
    return sample


def _value(node: Node, kind: Kind) -> Value:
    if kind == Kind.LIST:
        return tuple(node.collect(lambda item: item.text(max_length=MAX_TEXT).encode()))
    if kind == Kind.NUMBER:
        return node.integer(0, (1 << 64) - 1)
    return node.text(max_length=MAX_TEXT).encode()


def _texts(fields: Mapping[str, Value], *names: str) -> list[bytes]:
    return [value if isinstance(value := fields.get(name, b""), bytes) else b"" for name in names]
