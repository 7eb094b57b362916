"""Segments that belong to no state or window of their session: counted by kind, without effect, dropped if strict."""

from __future__ import annotations

from dataclasses import dataclass

import pytest
from scapy.layers.inet import TCP
from scapy.packet import Packet

from fastpath import abi
from tests.bpf.harness import ISN, PEER_ISN, Flow, Kernel, judged, rule, states
from tests.bpf.test_fragments import piece

pytestmark = pytest.mark.root

ALLOW = rule("web", "allow", tcp=80)
HTTP = rule("web", "allow", tcp=80, app="http")
WINDOW = 8192  # what scapy announces, without a scale
CLIENT, SERVER = ISN + 1, PEER_ISN + 1


@dataclass(frozen=True)
class Stray:
    """A segment of an open connection that changes nothing."""

    flags: str
    seq: int
    ack: int
    kind: str
    payload: bytes = b""
    back: bool = False
    passes: bool = False  # also under strict_tcp

    def packet(self, flow: Flow) -> Packet:
        return flow.segment(self.flags, self.seq, self.ack, self.payload, back=self.back)


STRAYS = {
    "beyond the window": Stray("A", CLIENT + WINDOW + 1, SERVER, "tcp_sequence", b"x"),
    "half the space away": Stray("A", CLIENT + (1 << 31), SERVER, "tcp_sequence", b"x"),
    "long past": Stray("A", CLIENT - 65536, SERVER, "tcp_sequence", b"x"),
    "acknowledges what was not sent": Stray("A", CLIENT, SERVER + 1, "tcp_ack", b"x"),
    "acknowledges what is long past": Stray("A", CLIENT, SERVER - 65536, "tcp_ack", b"x"),
    "of the server, beyond the window": Stray("A", SERVER + WINDOW + 1, CLIENT, "tcp_sequence", b"x", back=True),
    "of the server, acknowledges what was not sent": Stray("A", SERVER, CLIENT + 9, "tcp_ack", b"x", back=True),
    "reset beyond the window": Stray("R", CLIENT + WINDOW + 1, 0, "tcp_reset"),
    "reset of the past": Stray("RA", SERVER - 1, CLIENT, "tcp_reset", back=True),
    "SYN in the midst": Stray("S", CLIENT + 100, 0, "tcp_syn", passes=True),
    "SYN in the midst, with data": Stray("S", CLIENT + 100, 0, "tcp_syn", b"x"),
    "SYN of the server": Stray("S", SERVER, 0, "tcp_syn", back=True, passes=True),
    "another SYN and ACK": Stray("SA", SERVER + 50, CLIENT, "tcp_syn", back=True),
    "FIN beyond the window": Stray("FA", CLIENT + WINDOW + 1, SERVER, "tcp_sequence"),
}


def counted(stats: object) -> dict[str, int]:
    assert isinstance(stats, dict)
    return {name: number for name, number in stats.items() if name.startswith("tcp_")}


@pytest.mark.parametrize("strict", [False, True], ids=["lenient", "strict"])
@pytest.mark.parametrize("name", STRAYS)
def test_a_stray_changes_nothing(kernel: Kernel, flow: Flow, name: str, strict: bool) -> None:
    kernel.settings(strict_tcp=strict)
    kernel.policy(ALLOW)
    before = kernel.open(flow)
    kernel.tick()
    stray = STRAYS[name]
    outcome = kernel.send(stray.packet(flow))
    assert counted(outcome.stats) == {stray.kind: 1}
    assert outcome.said == (f"drop {stray.kind}" if strict and not stray.passes else "pass")
    after = outcome.entry
    # Only the SYN is remembered: its answer would tell that the connection is gone.
    after.syn = before.syn
    assert bytes(after) == bytes(before)
    # And the connection goes on.
    assert counted(kernel.send(flow.data(b"hello")).stats) == {}


@pytest.mark.parametrize("name", [name for name, stray in STRAYS.items() if stray.payload])
def test_a_stray_is_no_evidence(kernel: Kernel, flow: Flow, name: str) -> None:
    """While a byte could decide, none passes unjudged, and none that the receiver ignores decides."""
    kernel.policy(HTTP)
    kernel.commands.heartbeat()
    kernel.open(flow)
    stray = STRAYS[name]
    outcome = kernel.send(stray.packet(flow))
    assert (outcome.said, judged(outcome.entry)) == (f"drop {stray.kind}", "undecided pending 1")
    assert judged(kernel.send(flow.data(b"GET / HTTP/1.1\r\n\r\n")).entry) == "allow protocol 1"


@pytest.mark.parametrize("seq", [CLIENT + 1, CLIENT + WINDOW - 1, CLIENT + WINDOW])
def test_a_reset_in_the_window_is_the_receivers_to_doubt(kernel: Kernel, flow: Flow, seq: int) -> None:
    """RFC 5961 3.2: it is answered with a challenge. If it was heeded after all, the session ends sooner."""
    kernel.settings(strict_tcp=True)
    kernel.policy(ALLOW)
    kernel.open(flow)
    outcome = kernel.send(flow.segment("R", seq))
    assert (outcome.said, counted(outcome.stats)) == ("pass", {})
    assert states(outcome.entry) == ("established", "established")
    assert outcome.entry.timeout == abi.Timeout.CLOSING
    challenge = kernel.send(flow.data(b"", back=True, flags="A"))
    assert (challenge.said, challenge.entry.timeout) == ("pass", abi.Timeout.ESTABLISHED)
    assert states(kernel.send(flow.segment("R", CLIENT)).entry) == ("closed", "closed")


def test_nothing_rides_on_a_reset_connection(kernel: Kernel, flow: Flow) -> None:
    kernel.policy(ALLOW)
    kernel.open(flow)
    kernel.send(flow.data(b"hello"))
    kernel.send(flow.segment("R", CLIENT + 5))
    assert kernel.send(flow.data(b"world", 5)).said == "drop closed"
    assert kernel.send(flow.data(b"world", got=5, back=True)).said == "drop closed"
    assert kernel.send(flow.data(b"", got=5, back=True, flags="A")).said == "pass"


def test_a_server_that_forgot_the_connection_begins_another(kernel: Kernel, flow: Flow) -> None:
    """The SYN passed without being judged, so its answer does not: the SYN comes again, and is."""
    kernel.policy(HTTP)
    kernel.commands.heartbeat()
    kernel.open(flow)
    assert judged(kernel.send(flow.data(b"GET / HTTP/1.1\r\n\r\n")).entry) == "allow protocol 1"
    syn = flow.segment("S", 777_777)
    assert kernel.send(syn).said == "pass"
    answer = kernel.send(flow.segment("SA", 31_337, 777_778, back=True))
    assert (answer.said, answer.session) == ("drop closed", None)
    again = kernel.send(syn)
    assert (again.said, judged(again.entry)) == ("pass", "undecided pending 1")


def test_a_challenge_keeps_the_connection(kernel: Kernel, flow: Flow) -> None:
    """RFC 5961 4.2: the server still has it, acknowledges it, and the client that has not resets it."""
    kernel.settings(strict_tcp=True)
    kernel.policy(ALLOW)
    kernel.open(flow)
    kernel.send(flow.segment("S", 777_777))
    assert kernel.send(flow.data(b"", back=True, flags="A")).said == "pass"
    assert states(kernel.send(flow.segment("R", CLIENT)).entry) == ("closed", "closed")
    new = kernel.send(flow.segment("S", 777_777))
    assert (new.said, states(new.entry)) == ("pass", ("syn_sent", "listen"))


def scaled(flow: Flow, client: int | None, server: int | None, window: int = 1000) -> list[Packet]:
    """A handshake with these window scale options, none for None."""
    packets = list(flow.handshake())
    for packet, scale in zip(packets, (client, server, None), strict=True):
        packet[TCP].window = window
        packet[TCP].options = [("MSS", 1460), *([] if scale is None else [("NOP", None), ("WScale", scale)])]
    return packets


@pytest.mark.parametrize(
    ("client", "server", "room"),
    [(7, 2, 1000 << 2), (2, 7, 1000 << 7), (0, 14, 1000 << 14), (7, None, 1000), (None, 7, 1000), (7, 200, 1000 << 14)],
)
def test_window_scale(kernel: Kernel, flow: Flow, client: int | None, server: int | None, room: int) -> None:
    """RFC 7323 2.2: in effect if both sides sent it, at most 14, and never for the window of a SYN."""
    kernel.policy(ALLOW)
    for packet in scaled(flow, client, server):
        opened = kernel.send(packet).entry
    assert opened.edge[0] == CLIENT + 1000
    update = flow.data(b"", back=True, flags="A")
    update[TCP].window = 1000
    kernel.send(update)
    for beyond, kind in ((0, {}), (1, {"tcp_sequence": 1})):
        probe = flow.data(b"x", room + beyond)
        assert counted(kernel.send(probe).stats) == kind


def test_sequence_numbers_wrap(kernel: Kernel, flow: Flow) -> None:
    kernel.policy(ALLOW)
    start, peer = (1 << 32) - 3, (1 << 32) - 1
    for packet in (
        flow.segment("S", start),
        flow.segment("SA", peer, start + 1, back=True),
        flow.segment("A", start + 1, peer + 1),
        flow.segment("PA", start + 1, peer + 1, b"12345"),
        flow.segment("PA", peer + 1, start + 6, b"12345", back=True),
        flow.segment("FA", start + 6, peer + 6),
        flow.segment("FA", peer + 6, start + 7, back=True),
        flow.segment("A", start + 7, peer + 7),
    ):
        outcome = kernel.send(packet)
        assert (outcome.said, counted(outcome.stats)) == ("pass", {})
    assert states(outcome.entry) == ("time_wait", "closed")


def closed(kernel: Kernel, flow: Flow, timestamp: int | None = None) -> abi.Session:
    """The client closed first: it is in TIME-WAIT."""
    for packet in (
        *flow.handshake(),
        flow.segment("FA", CLIENT, SERVER),
        flow.segment("FA", SERVER, CLIENT + 1, back=True),
        flow.segment("A", CLIENT + 1, SERVER + 1),
    ):
        if timestamp is not None:
            packet[TCP].options = [("Timestamp", (timestamp, 0))]
        entry = kernel.send(packet).entry
    assert states(entry) == ("time_wait", "closed")
    return entry


@pytest.mark.parametrize(
    ("last", "seq", "timestamp", "anew"),
    [
        (None, SERVER + 2, None, True),
        (None, SERVER + 1, None, False),
        (None, SERVER - 5, 9, False),
        (100, SERVER - 5, 101, True),
        (100, SERVER - 5, 100, False),
        (100, SERVER - 5, None, False),
        (100, SERVER + 2, 99, True),
    ],
)
def test_time_wait_ends_for_no_old_duplicate(
    kernel: Kernel, flow: Flow, last: int | None, seq: int, timestamp: int | None, anew: bool
) -> None:
    """RFC 9293 3.6.1, RFC 6191 2: from the end that closed last, to the one that waits."""
    kernel.policy(rule("any", "allow"))
    old = closed(kernel, flow, last)
    syn = flow.segment("S", seq, back=True)
    if timestamp is not None:
        syn[TCP].options = [("Timestamp", (timestamp, 0))]
    outcome = kernel.send(syn)
    assert (outcome.entry.id != old.id, counted(outcome.stats)) == (anew, {} if anew else {"tcp_syn": 1})


def test_who_waits_may_open_anew_with_any_number(kernel: Kernel, flow: Flow) -> None:
    """Its peer has closed and remembers nothing."""
    kernel.policy(ALLOW)
    old = closed(kernel, flow)
    assert kernel.send(flow.segment("S", 5)).entry.id != old.id


def test_no_data_behind_the_fin(kernel: Kernel, flow: Flow) -> None:
    kernel.settings(strict_tcp=True)
    kernel.policy(ALLOW)
    kernel.open(flow)
    kernel.send(flow.segment("FA", CLIENT, SERVER))
    kernel.send(flow.segment("A", SERVER, CLIENT + 1, back=True))
    assert kernel.send(flow.segment("PA", CLIENT + 1, SERVER, b"more")).said == "drop tcp_fin"
    assert kernel.send(flow.segment("FA", CLIENT, SERVER)).said == "pass"
    assert kernel.send(flow.segment("PA", SERVER, CLIENT + 1, b"answer", back=True)).said == "pass"


@pytest.mark.parametrize("flags", ["PA", "FPA"])
def test_what_came_in_fragments_may_be_acknowledged(kernel: Kernel, flow: Flow, flags: str) -> None:
    kernel.settings(strict_tcp=True)
    kernel.policy(ALLOW)
    kernel.open(flow)
    whole = bytes(flow.segment(flags, CLIENT, SERVER, bytes(60)))[14 + (20 if flow.version == 4 else 40) :]
    for at, more in ((0, True), (40, True), (64, False)):
        data = whole[at : {0: 40, 40: 64, 64: 80}[at]]
        assert kernel.send(piece(flow, at, data, more=more, l4=6)).said == "pass"
    fin = flags == "FPA"
    outcome = kernel.send(flow.segment("A", SERVER, CLIENT + 60 + fin, back=True))
    assert (outcome.said, counted(outcome.stats)) == ("pass", {})
    assert outcome.entry.end[0] == CLIENT + 60 + fin
    assert states(outcome.entry) == (("fin_wait_2", "close_wait") if fin else ("established", "established"))
