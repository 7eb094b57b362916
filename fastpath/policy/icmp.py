"""Types and codes of ICMP and ICMPv6, as policies name them; one number each, ``type << 8 | code``."""

from __future__ import annotations

import re

from fastpath.policy.model import ICMP, ICMP6, protocol_name

# RFC 792, 950, 1256, 8335; RFC 4443, 2710, 4861, 4620, 3810, 6275, 8335.
_TYPES = {
    ICMP: {
        "echo-reply": 0, "destination-unreachable": 3, "source-quench": 4, "redirect": 5, "echo-request": 8,
        "router-advertisement": 9, "router-solicitation": 10, "time-exceeded": 11, "parameter-problem": 12,
        "timestamp-request": 13, "timestamp-reply": 14, "information-request": 15, "information-reply": 16,
        "address-mask-request": 17, "address-mask-reply": 18, "extended-echo-request": 42, "extended-echo-reply": 43,
    },
    ICMP6: {
        "destination-unreachable": 1, "packet-too-big": 2, "time-exceeded": 3, "parameter-problem": 4,
        "echo-request": 128, "echo-reply": 129, "mld-query": 130, "mld-report": 131, "mld-done": 132,
        "router-solicitation": 133, "router-advertisement": 134, "neighbor-solicitation": 135,
        "neighbor-advertisement": 136, "redirect": 137, "node-information-query": 139, "node-information-reply": 140,
        "mld2-report": 143, "home-agent-request": 144, "home-agent-reply": 145, "mobile-prefix-solicitation": 146,
        "mobile-prefix-advertisement": 147, "extended-echo-request": 160, "extended-echo-reply": 161,
    },
}  # fmt: skip
_NAMES = {l4: {number: name for name, number in types.items()} for l4, types in _TYPES.items()}
_TYPE = re.compile(r"([0-9]{1,3}|[a-z][a-z0-9-]{0,63})(?:/([0-9]{1,3}))?")

ECHO = "echo-request"


def has_types(l4: int) -> bool:
    """The protocol is ICMP or ICMPv6."""
    return l4 in _TYPES


def read_type(text: str, l4: int) -> tuple[int, int]:
    """What ``8``, ``echo-request`` or ``3/4`` comes to over a protocol: first and last, a type with all of its codes
    where none is named. ValueError says what may stand there.
    """
    match = _TYPE.fullmatch(text)
    if not match:
        raise ValueError(f"{text[:64]!r} is not a type or a type and code, like echo-request or 3/4")
    name, code = match[1], match[2]
    if not name.isdigit() and name not in _TYPES[l4]:
        raise ValueError(f"{protocol_name(l4)} has no type {name!r}; it has {', '.join(_TYPES[l4])}, or a number")
    kind = int(name) if name.isdigit() else _TYPES[l4][name]
    if max(kind, int(code or 0)) > 255:
        raise ValueError(f"{text!r}: types and codes are within 0..255")
    return (kind << 8, kind << 8 | 255) if code is None else (kind << 8 | int(code),) * 2


def type_texts(l4: int, low: int, high: int) -> list[str]:
    """A range for people, type by type."""
    texts: list[str] = []
    for kind in range(low >> 8, (high >> 8) + 1):
        name = _NAMES[l4].get(kind, str(kind))
        first, last = max(low, kind << 8), min(high, kind << 8 | 255)
        whole = last - first == 255
        texts += [name] if whole else [f"{name}/{number & 255}" for number in range(first, last + 1)]
    return texts


def type_text(l4: int, number: int) -> str:
    """A type and code for people: ``echo-request``, ``destination-unreachable/4``; code 0 goes without saying."""
    return type_texts(l4, number, number)[0].removesuffix("/0")
