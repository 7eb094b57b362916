"""What is taken for observed traffic: live sessions, ended ones out of the inspection log, or flows that are given."""

from __future__ import annotations

import ctypes
import ipaddress
import itertools
import json
import os
from collections.abc import Collection, Iterable
from pathlib import Path
from typing import Any, BinaryIO

from fastpath import abi
from fastpath.abi import Protocol, Reason, SessionFlag, Verdict
from fastpath.lines import read_lines
from fastpath.policy.model import TCP, protocol_number
from fastpath.policy.observed import DENIED, MIDSTREAM, OUTSIDE, REASONS, UNANSWERED, Amount, Observed
from fastpath.selection import Batch

# Of records.
MAX_LINE = 1 << 20
VERSION = 1

_KEY = ctypes.sizeof(abi.Key)
_VALUE = ctypes.sizeof(abi.Session)
_PORT_A, _PORT_B = abi.Key.port_a.offset, abi.Key.port_b.offset
_OUTSIDE = frozenset((Reason.HOST, Reason.FAILSAFE))
_PROTOCOLS = {member.name.lower(): member for member in Protocol if member not in {Protocol.NONE, Protocol.MAX}}
_END = b'"event":"end"'  # as the log is written; spares the others the parser
_BOUND = 1 << 48  # of a counter: the sum of all lines fits 64 bits


class Intake:
    """Sorts sessions into `observed`, which come to `amount`, and `left_out`, by why; `include` names what is not."""

    def __init__(self, include: Collection[str] = ()) -> None:
        self.observed = Observed()
        self._include = frozenset(include)
        # Sessions, packets, bytes, inspected; None: observed.
        self._sums: dict[str | None, list[int]] = {}

    @property
    def amount(self) -> Amount:
        """Of all that is observed."""
        return Amount(*self._sums.get(None, ()))

    @property
    def left_out(self) -> dict[str, Amount]:
        """By why, in the order of `REASONS`."""
        return {why: Amount(*self._sums[why]) for why in REASONS if why in self._sums}

    def take(
        self, src: bytes, dst: bytes, l4: int, dport: int, *, app: int, packets: tuple[int, int], octets: int,
        reason: int, denied: bool, midstream: bool, inspected: bool,
    ) -> None:  # fmt: skip
        """A session; 16-byte addresses, IPv4 mapped, the client's first. `packets` to server and client; `denied`: and
        dropped; `reason` is a `Reason`, `app` a `Protocol`.
        """
        why = None
        if reason in _OUTSIDE:
            why = OUTSIDE
        elif denied:
            why = DENIED
        elif midstream:
            why = MIDSTREAM
        elif l4 == TCP and (packets[0] < 2 or not packets[1]):
            why = UNANSWERED
        if why is None or why in self._include:
            self.accept(src, dst, l4, dport, app=app, packets=sum(packets), octets=octets, inspected=inspected)
        else:
            self._add(why, sum(packets), octets, inspected)

    def accept(
        self, src: bytes, dst: bytes, l4: int, dport: int, *, app: int, packets: int = 0, octets: int = 0,
        inspected: bool = False,
    ) -> None:  # fmt: skip
        """A session that is observed, whatever it is."""
        self.observed.add(src, dst, l4, dport, app=app, packets=packets, octets=octets, inspected=inspected)
        self._add(None, packets, octets, inspected)

    def _add(self, why: str | None, packets: int, octets: int, inspected: bool) -> None:
        sums = self._sums.setdefault(why, [0, 0, 0, 0])
        sums[0] += 1
        sums[1] += packets
        sums[2] += octets
        sums[3] += inspected


def observe_sessions(batches: Iterable[Batch], intake: Intake, since: int) -> set[int]:
    """Take live sessions whose last packet came at `since` (jiffies) or later; the ids of all that there are."""
    ids: set[int] = set()
    for batch in batches:
        columns = zip(
            range(0, batch.count * _KEY, _KEY),
            batch.numbers(abi.Session.id),
            batch.numbers(abi.Session.last_jiffies),
            batch.words,
            batch.flags,
            batch.protocols,
            batch.l4,
            batch.numbers(abi.Session.packets),
            batch.numbers(abi.Session.packets, item=1),
            batch.both(abi.Session.bytes),
            strict=True,
        )
        keys = batch.keys
        for at, number, last, word, flags, app, l4, there, back, octets in columns:
            if number in ids:  # it moved while the table was read
                continue
            ids.add(number)
            if last < since:
                continue
            a, b = keys[at : at + 16], keys[at + 16 : at + 32]
            turned = flags & SessionFlag.SERVER_IS_A
            port = at + (_PORT_A if turned else _PORT_B)
            verdict = word & 0xF
            intake.take(
                b if turned else a,
                a if turned else b,
                l4,
                keys[port] << 8 | keys[port + 1],
                app=app,
                packets=(there, back),
                octets=octets,
                reason=word >> abi.Word.REASON & 0xFF,
                denied=verdict == Verdict.DENY and not word >> abi.Word.MONITOR & 1,
                midstream=bool(flags & SessionFlag.MIDSTREAM),
                inspected=verdict == Verdict.INSPECT or word >> abi.Word.SCOPE & 3 == abi.Scope.REQUEST,
            )
    return ids


def observe_records(files: Iterable[BinaryIO], intake: Intake, since: float, known: Collection[int]) -> int:
    """Take the sessions that ended since then (seconds since 1970 UTC) and are not `known`; how many lines were no
    records.
    """
    unreadable = 0
    for file in files:
        if os.fstat(file.fileno()).st_mtime < since:
            continue
        for line in read_lines(file, MAX_LINE):
            if _END not in line:
                continue
            try:
                record: Any = json.loads(line) if len(line) <= MAX_LINE else None
                if record["v"] != VERSION or record["event"] != "end":
                    continue
                if record["ts"] >= since and record["session"] not in known:
                    intake.take(*_flow(record["flow"]), **_life(record))
            except (ValueError, KeyError, TypeError, RecursionError, OverflowError):
                unreadable += 1
    return unreadable


def open_log(path: Path) -> list[BinaryIO]:
    """The inspection log and its rotated predecessors, ``path.1`` the newest of them; nothing where there is none.
    OSError.
    """
    # From the newest on: a rotation meanwhile moves files on ahead of us, so that none is missed.
    files: dict[tuple[int, int], BinaryIO] = {}
    for number in itertools.count():
        try:
            file = (path.with_name(f"{path.name}.{number}") if number else path).open("rb")
        except FileNotFoundError:
            if number:
                return list(files.values())
            continue
        status = os.fstat(file.fileno())
        files.setdefault((status.st_dev, status.st_ino), file)
    raise AssertionError


def _flow(flow: dict[str, Any]) -> tuple[bytes, bytes, int, int]:
    src, dst = (ipaddress.ip_address(flow[end]) for end in ("src", "dst"))
    port = flow["dport"]
    if src.version != dst.version or type(port) is not int or not 0 <= port <= 65535:
        raise ValueError
    return mapped(src), mapped(dst), protocol_number(flow["l4"]), port


def _life(record: dict[str, Any]) -> dict[str, Any]:
    counters = [record[name][way] for name in ("packets", "bytes") for way in ("to_server", "to_client")]
    if not all(type(each) is int and 0 <= each < _BOUND for each in counters):
        raise ValueError
    return {
        "app": _PROTOCOLS[record["protocol"]],
        "packets": (counters[0], counters[1]),
        "octets": counters[2] + counters[3],
        "reason": Reason[record["reason"].upper()],
        "denied": record["verdict"] == "deny" and record["enforced"],
        "midstream": record["reason"] == "midstream",
        "inspected": record["verdict"] == "inspect" or record["scope"] == "request",
    }


def mapped(address: ipaddress.IPv4Address | ipaddress.IPv6Address) -> bytes:
    """16 bytes, IPv4 mapped."""
    return address.packed if address.version == 6 else bytes(10) + b"\xff\xff" + address.packed
