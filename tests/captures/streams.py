"""Flows of the shared captures, put together: what a parser would be fed.

The captures lie in ``../shared/pcaps`` beside the project, or where MICROSEG_CAPTURES says; README there.
"""

from __future__ import annotations

import functools
import json
import os
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from ipaddress import ip_address
from pathlib import Path
from typing import Any

import pytest

from parsers.base import TCP, TO_CLIENT, TO_SERVER, UDP
from slowpath.core.fragments import Fragments
from slowpath.core.frame import ACK, SYN, FrameError, Packet, parse_frame
from slowpath.core.reassembly import Arrival, Stream
from slowpath.replay import open_capture, read_capture

ROOT = Path(__file__).parents[2]
CAPTURES = Path(os.environ.get("MICROSEG_CAPTURES", ROOT.parent / "shared" / "pcaps"))


@dataclass(slots=True)
class CapturedFlow:
    """Of a capture; `truth` is its line of truth.jsonl. `parts` are (direction, bytes in order), of UDP a datagram
    each, to the side that did not send the SYN, or the first packet. `whole`: it begins with its SYN and nothing in
    order is missing so far.
    """

    truth: dict[str, Any]
    parts: list[tuple[int, bytes]] = field(default_factory=list)
    whole: bool = False

    def __str__(self) -> str:
        return f"{self.truth['file']}:{self.truth['sport']}-{self.truth['dport']}"


def truths(folder: str = "public") -> list[dict[str, Any]]:
    """Lines of truth.jsonl; the test fails where the captures are missing."""
    path = CAPTURES / folder / "truth.jsonl"
    if not path.exists():
        pytest.fail(f"{path} is missing: captures are part of the tests (MICROSEG_CAPTURES says where they are)")
    return [json.loads(line) for line in path.read_text().splitlines()]


def flows(protocol: str, *, agree: bool = True) -> list[CapturedFlow]:
    """Of the public captures those whose first bytes are this protocol's."""
    wanted = [truth for truth in truths() if truth["truth"] == protocol and (truth["agree"] or not agree)]
    return [flow for truth in wanted for flow in flows_of(truth["file"]) if _is(flow, truth)]


def first_payloads(folders: Sequence[str] = ("public", "evasion")) -> Iterator[tuple[int, int, bytes]]:
    """(direction, protocol number, bytes) of what is said first in each flow, a packet's worth."""
    for folder in folders:
        for name in sorted({truth["file"] for truth in truths(folder)}):
            for flow in flows_of(name, folder):
                direction, data = next((direction, data) for direction, data in flow.parts if data)
                yield direction, TCP if flow.truth["l4"] == "tcp" else UDP, data[:1400]


def _is(flow: CapturedFlow, truth: dict[str, Any]) -> bool:
    ends = {(truth["src"], truth["sport"]), (truth["dst"], truth["dport"])}
    own = {(flow.truth["src"], flow.truth["sport"]), (flow.truth["dst"], flow.truth["dport"])}
    if ends != own or truth["l4"] != flow.truth["l4"]:
        return False
    flow.truth = truth
    return True


@functools.cache
def flows_of(name: str, folder: str = "public") -> list[CapturedFlow]:
    found: dict[tuple[Any, ...], CapturedFlow] = {}
    streams: dict[tuple[Any, ...], list[Stream | None]] = {}
    with open_capture(CAPTURES / folder / name) as stream:
        for packet in _packets(read_capture(stream)):
            ends = (packet.src, packet.sport), (packet.dst, packet.dport)
            key = (packet.l4, *sorted(ends))
            syn = packet.l4 == TCP and packet.tcp_flags & (SYN | ACK) == SYN
            if key not in found or (syn and not found[key].parts):
                found[key] = CapturedFlow(_line(name, packet), whole=syn)
                streams[key] = [None, None]
            flow = found[key]
            first = str(ip_address(packet.src)), packet.sport
            direction = TO_SERVER if _text(*first) == (flow.truth["src"], flow.truth["sport"]) else TO_CLIENT
            if packet.l4 != TCP:
                flow.parts.append((direction, bytes(packet.payload)))
                continue
            own = streams[key][direction]
            if own is None:
                own = streams[key][direction] = Stream(packet.seq + bool(packet.tcp_flags & SYN))
            if packet.payload:
                at = own.offset(packet.seq + bool(packet.tcp_flags & SYN))
                arrival, fresh = own.push(at, bytes(packet.payload))
                if arrival == Arrival.NEW and fresh:
                    flow.parts.append((direction, fresh))
    return [flow for flow in found.values() if any(data for _, data in flow.parts)]


def _line(name: str, packet: Packet) -> dict[str, Any]:
    src, sport = _text(str(ip_address(packet.src)), packet.sport)
    dst, dport = _text(str(ip_address(packet.dst)), packet.dport)
    l4 = "tcp" if packet.l4 == TCP else "udp"
    return {"file": name, "src": src, "sport": sport, "dst": dst, "dport": dport, "l4": l4}


def _text(address: str, port: int) -> tuple[str, int]:
    mapped = getattr(ip_address(address), "ipv4_mapped", None)
    return str(mapped or address), port


def _packets(frames: Iterator[tuple[float, bytes]]) -> Iterator[Packet]:
    fragments = Fragments()
    for stamp, frame in frames:
        try:
            packet = parse_frame(frame)
        except FrameError:
            continue
        whole = fragments.push(packet, stamp) if packet.fragment else packet
        if whole is not None and whole.l4 in {TCP, UDP}:
            yield whole
