"""`microseg-fastpath sessions`: what the kernel holds now."""

from __future__ import annotations

import ipaddress
import json
import socket
import sys
from collections.abc import Iterator
from itertools import islice
from typing import Any

from fastpath import abi
from fastpath.commands import Commands
from fastpath.config import Config
from fastpath.exit import ExitStatus
from fastpath.gateway import open_map, pins_of
from fastpath.policy.names import Names, read_names
from fastpath.statistics import sessions
from fastpath.word import Word

L4 = {1: "icmp", 6: "tcp", 17: "udp", 58: "icmp6"}


def show(config: Config, *, as_json: bool, limit: int) -> int:
    """Print the table, at most `limit` sessions (0: all)."""
    table = open_map(config, "sessions")
    now = Commands(pins_of(config)).clocks()
    names: dict[int, Names | None] = {}
    rows: Iterator[dict[str, Any]] = (_row(key, session, now.ns, config, names) for key, session in sessions(table))
    if limit:
        rows = islice(rows, limit)
    if as_json:
        for row in rows:
            sys.stdout.write(json.dumps(row) + "\n")
    else:
        _table(rows)
    return ExitStatus.OK


def _row(
    key: bytes, session: abi.Session, now: int, config: Config, names: dict[int, Names | None]
) -> dict[str, Any]:  # fmt: skip
    flow = abi.Key.from_buffer_copy(key)
    a = (_address(bytes(flow.addr_a)), socket.ntohs(flow.port_a))
    b = (_address(bytes(flow.addr_b)), socket.ntohs(flow.port_b))
    client, server = (b, a) if session.flags & abi.SessionFlag.SERVER_IS_A else (a, b)
    word = Word.unpack(session.verdict)
    if word.revision not in names:
        names[word.revision] = read_names(config.run_dir, word.revision)
    known = names[word.revision]
    return {
        "session": session.id,
        "src": client[0],
        "sport": client[1],
        "dst": server[0],
        "dport": server[1],
        "l4": L4.get(flow.l4, str(flow.l4)),
        "protocol": abi.Protocol(session.protocol).name.lower(),
        "verdict": word.verdict.name.lower(),
        "scope": word.scope.name.lower(),
        "reason": word.reason.name.lower(),
        "rule": known.rule(word.rule).id if known else str(word.rule),
        "revision": word.revision,
        "tcp": [abi.Tcp(state).name.lower() for state in session.tcp] if flow.l4 == socket.IPPROTO_TCP else None,
        "packets": list(session.packets),
        "bytes": list(session.bytes),
        "held": list(session.held),
        "age": round((now - session.first_ns) / 1e9, 3),
    }


def _table(rows: Iterator[dict[str, Any]]) -> None:
    line = "{:<5} {:<46} {:<46} {:<9} {:<9} {:<12} {:<16} {:>9} {:>12} {:>8}\n"
    sys.stdout.write(
        line.format("L4", "CLIENT", "SERVER", "PROTOCOL", "VERDICT", "REASON", "RULE", "PACKETS", "BYTES", "AGE")
    )
    for row in rows:
        sys.stdout.write(
            line.format(
                row["l4"],
                f"{row['src']} {row['sport']}",
                f"{row['dst']} {row['dport']}",
                row["protocol"],
                row["verdict"],
                row["reason"],
                row["rule"][:16],
                sum(row["packets"]),
                sum(row["bytes"]),
                f"{row['age']:.1f}s",
            )
        )


def _address(packed: bytes) -> str:
    address = ipaddress.IPv6Address(packed)
    return str(address.ipv4_mapped or address)
