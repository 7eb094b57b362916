"""Traffic that was seen, by client, server, protocol and port: how much there was, and what it turned out to be."""

from __future__ import annotations

import itertools
from array import array
from collections import Counter
from collections.abc import Iterable, Iterator
from dataclasses import dataclass

from fastpath.policy.model import TCP, UDP

# As many as the largest policies have rules; somebody who tries all ports of all hosts finds more.
MAX_ENDPOINTS = 100_000
# Of a key: server, protocol and port.
_HEAD = 16 + 1 + 2

# Why a session is left out, and the sentence for it. The first three can be included.
DENIED = "denied"
MIDSTREAM = "midstream"
UNANSWERED = "unanswered"
OUTSIDE = "outside"
REASONS = {
    DENIED: "denied and dropped (--include denied)",
    MIDSTREAM: "TCP whose beginning was not seen: who is the server is a guess (--include midstream)",
    UNANSWERED: "TCP connections that never came about, as of a scan (--include unanswered)",
    OUTSIDE: "outside of the policy: the gateway's own traffic, failsafe ports",
}
INCLUDABLE = (DENIED, MIDSTREAM, UNANSWERED)


@dataclass(frozen=True, slots=True)
class Amount:
    """Sessions, and what they carried in both directions; `bytes` are IP bytes. `inspected`: sessions whose requests
    were judged.
    """

    sessions: int = 0
    packets: int = 0
    bytes: int = 0
    inspected: int = 0

    def __add__(self, other: Amount) -> Amount:
        return Amount(
            self.sessions + other.sessions,
            self.packets + other.packets,
            self.bytes + other.bytes,
            self.inspected + other.inspected,
        )

    def __sub__(self, other: Amount) -> Amount:
        return Amount(
            self.sessions - other.sessions,
            self.packets - other.packets,
            self.bytes - other.bytes,
            self.inspected - other.inspected,
        )


def total(amounts: Iterable[Amount]) -> Amount:
    """Their sum."""
    return sum(amounts, Amount())


@dataclass(frozen=True, slots=True)
class Endpoint:
    """A server's port, or protocol where there are no ports (`port` 0), and who used it. Addresses are 128-bit
    numbers, IPv4 mapped; `clients` are in order; `apps` is a mask of ``1 << Protocol``, bit 0 = was not told.
    """

    server: int
    l4: int
    port: int
    clients: list[int]
    apps: int
    amount: Amount


class Observed:
    """A million different flows take about 250 MB: one string and five numbers each."""

    def __init__(self) -> None:
        self._rows: dict[bytes, int] = {}
        self._apps = array("L")
        self._amounts = tuple(array("Q") for _ in range(4))

    def add(
        self, src: bytes, dst: bytes, l4: int, dport: int, *, app: int, packets: int, octets: int, inspected: bool
    ) -> None:
        """A session; 16-byte addresses, IPv4 mapped. `dport` counts for TCP and UDP only; `app` is a `Protocol`."""
        port = dport if l4 in {TCP, UDP} else 0
        # In the order in which endpoints are told: server, protocol, port, then client.
        key = b"%b%c%c%c%b" % (dst, l4, port >> 8, port & 0xFF, src)
        row = self._rows.setdefault(key, len(self._rows))
        sessions, all_packets, all_bytes, all_inspected = self._amounts
        if row == len(sessions):
            self._apps.append(0)
            for column in self._amounts:
                column.append(0)
        self._apps[row] |= 1 << app
        sessions[row] += 1
        all_packets[row] += packets
        all_bytes[row] += octets
        all_inspected[row] += inspected

    def endpoints(self) -> Iterator[Endpoint]:
        """By server, protocol, port: the MAX_ENDPOINTS that most sessions went to."""
        sessions = self._amounts[0]
        uses: Counter[bytes] = Counter()
        for key, row in self._rows.items():
            uses[key[:_HEAD]] += sessions[row]
        heads = sorted(uses, key=lambda head: (-uses[head], head))
        few = frozenset(heads[MAX_ENDPOINTS:])
        for head, keys in itertools.groupby(sorted(self._rows), key=lambda key: key[:_HEAD]):
            if head in few:
                continue
            flows = list(keys)
            rows = [self._rows[key] for key in flows]
            apps = 0
            for row in rows:
                apps |= self._apps[row]
            yield Endpoint(
                server=int.from_bytes(head[:16], "big"),
                l4=head[16],
                port=int.from_bytes(head[17:], "big"),
                clients=[int.from_bytes(key[_HEAD:], "big") for key in flows],
                apps=apps,
                amount=Amount(*(sum(map(column.__getitem__, rows)) for column in self._amounts)),
            )
