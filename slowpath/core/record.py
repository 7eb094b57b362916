"""Records as the inspector writes them: JSON-ready, texts bounded, bytes never raw."""

from __future__ import annotations

import ipaddress
from typing import Any, Final

from fastpath.abi import Protocol, Reason, Scope, Verdict
from parsers.base import Request
from slowpath.core.model import Judgement

VERSION: Final = 1
_L4: Final = {1: "icmp", 6: "tcp", 17: "udp", 58: "icmpv6"}
_MAPPED: Final = bytes(10) + b"\xff\xff"


def address(packed: bytes) -> str:
    """Text of a 16-byte address, IPv4 unmapped."""
    if packed.startswith(_MAPPED):
        return str(ipaddress.IPv4Address(packed[12:]))
    return str(ipaddress.IPv6Address(packed))


def flow_fields(key: bytes, server_is_a: bool, vlan: tuple[int, ...]) -> dict[str, Any]:
    """`flow` of a record, client first."""
    a, b = (
        (address(key[:16]), int.from_bytes(key[32:34], "big")),
        (address(key[16:32]), int.from_bytes(key[34:36], "big")),
    )
    client, server = (b, a) if server_is_a else (a, b)
    fields: dict[str, Any] = {
        "src": client[0],
        "sport": client[1],
        "dst": server[0],
        "dport": server[1],
        "l4": _L4.get(key[36], str(key[36])),
    }
    if vlan:
        fields["vlan"] = list(vlan)
    return fields


def text(value: bytes, limit: int) -> str:
    r"""Bytes of the wire as text: UTF-8, what is none as \xNN."""
    return value[:limit].decode("utf-8", "backslashreplace")


def request_fields(request: Request, limit: int) -> dict[str, Any]:
    """What the parser found."""
    found: dict[str, Any] = {
        "http": {
            "method": text(request.method, 64),
            "path": text(request.path, limit),
            "host": text(request.host, 256),
        }
    }
    if request.is_grpc:
        service, method = request.grpc
        found["grpc"] = {"service": text(service, limit), "method": text(method, limit)}
    return found


def verdict_record(
    *,
    now: float,
    session: int,
    flow: dict[str, Any],
    first: Protocol,
    protocol: Protocol,
    verdict: Verdict,
    scope: Scope,
    reason: Reason,
    judgement: Judgement,
) -> dict[str, Any]:
    """One verdict."""
    return {
        "v": VERSION,
        "ts": now,
        "event": "verdict",
        "session": session,
        "flow": flow,
        "first": first.name.lower(),
        "protocol": protocol.name.lower(),
        "verdict": verdict.name.lower(),
        "enforced": not judgement.monitor,
        "scope": scope.name.lower(),
        "reason": reason.name.lower(),
        "rule": judgement.rule,
        "revision": judgement.revision,
        "path": "inspector",
    }
