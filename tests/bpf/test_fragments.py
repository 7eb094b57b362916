"""Fragments: later ones follow an allowed first one, everything else takes the `fragment` exception."""

from __future__ import annotations

import pytest
from scapy.layers.inet import TCP, UDP
from scapy.layers.inet6 import IPv6ExtHdrDestOpt, IPv6ExtHdrFragment
from scapy.packet import Packet, Raw

from fastpath.abi import Action, Op, Pressure, Reason, Scope, Verdict
from fastpath.word import Word
from tests.bpf.harness import Flow, Kernel, judged, rule, sk_buff
from tests.bpf.test_malformed import summed

pytestmark = pytest.mark.root

ALLOW = rule("udp", "allow", udp=80)
# The whole datagram is 8 + 24 bytes: 16 in the first fragment, 16 in the second.
PAYLOAD = bytes(range(24))


def piece(flow: Flow, offset: int, data: bytes, *, more: bool, number: int = 77, l4: int = 17, back: bool = False) -> Packet:  # fmt: skip  # noqa: E501
    """A fragment with `data` at `offset` bytes, a multiple of 8."""
    if flow.version == 4:
        return flow.ip(back=back, id=number, flags="MF" if more else 0, frag=offset // 8, proto=l4) / Raw(data)
    head = IPv6ExtHdrFragment(offset=offset // 8, m=int(more), id=number, nh=l4)
    return flow.ip(back=back) / head / Raw(data)


def datagram(flow: Flow) -> bytes:
    return bytes(flow.datagram(PAYLOAD)[UDP])


def first(flow: Flow, number: int = 77) -> Packet:
    return piece(flow, 0, datagram(flow)[:16], more=True, number=number)


def later(flow: Flow, offset: int = 16, number: int = 77, **fields: bool) -> Packet:
    return piece(flow, offset, datagram(flow)[16:], more=False, number=number, **fields)


def test_later_fragments_follow_an_allowed_first_one(kernel: Kernel, flow: Flow) -> None:
    kernel.policy(ALLOW)
    assert kernel.send(first(flow)).said == "pass"
    outcome = kernel.send(later(flow))
    assert (outcome.said, outcome.stats["fragments"]) == ("pass", 1)
    # The first alone has ports, so it alone is the session's.
    ((key, session),) = kernel.live()
    assert key == flow.key(17)
    assert list(session.packets) == [1, 0]


def test_in_an_established_session_too(kernel: Kernel, flow: Flow) -> None:
    kernel.policy(ALLOW)
    kernel.send(flow.datagram(b"x"))
    assert kernel.send(first(flow)).said == "pass"
    assert kernel.send(later(flow)).said == "pass"


@pytest.mark.parametrize(
    ("name", "fields", "reason"),
    [
        ("other id", {"number": 78}, "fragment"),
        ("overlapping", {"offset": 8}, "fragment_overlap"),
        ("the other direction", {"back": True}, "fragment"),
    ],
)
def test_what_does_not_follow_the_first(
    kernel: Kernel, flow: Flow, name: str, fields: dict[str, bool], reason: str
) -> None:
    kernel.policy(ALLOW)
    kernel.send(first(flow))
    assert kernel.send(later(flow, **fields)).said == f"drop {reason}"


def test_before_the_first(kernel: Kernel, flow: Flow) -> None:
    kernel.policy(ALLOW)
    assert kernel.send(later(flow)).said == "drop fragment"
    assert kernel.send(first(flow)).said == "pass"
    assert kernel.send(later(flow)).said == "pass"


def test_other_protocol_than_the_first(kernel: Kernel) -> None:
    # IPv4 reassembles by protocol too (RFC 791 3.2); IPv6 does not (RFC 8200 4.5).
    flow = Flow(4)
    kernel.policy(ALLOW)
    kernel.send(first(flow))
    assert kernel.send(piece(flow, 24, bytes(16), more=False, l4=6)).said == "drop fragment"


def test_ipv6_options_behind_the_fragment_header(kernel: Kernel) -> None:
    flow = Flow(6)
    kernel.policy(ALLOW)
    whole = bytes(IPv6ExtHdrDestOpt() / UDP(sport=40000, dport=80) / Raw(PAYLOAD))
    # scapy knows the next header only inside a whole packet.
    whole = b"\x11" + whole[1:]
    assert kernel.send(piece(flow, 0, whole[:24], more=True, l4=60)).said == "pass"
    # What belongs to the first ends behind its options.
    assert kernel.send(piece(flow, 16, whole[16:24], more=True, l4=60)).said == "drop fragment_overlap"
    # Its later fragments name the header that the first began with, not UDP.
    assert kernel.send(piece(flow, 24, whole[24:], more=False, l4=60)).said == "pass"


def test_first_fragments_of_a_denied_flow(kernel: Kernel, flow: Flow) -> None:
    kernel.policy(rule("udp", "deny", udp=80), default="allow")
    assert kernel.send(first(flow)).said == "drop policy"
    # They have the reason of their session.
    assert kernel.send(later(flow)).said == "drop policy"
    # Nor does a denied first fragment reset anybody.
    kernel.policy(rule("tcp", "deny", tcp=80, reset=True))
    syn = bytes(flow.segment("S")[TCP]) + bytes(4)
    assert kernel.send(piece(flow, 0, syn, more=True, l4=6)).said == "drop policy"


@pytest.mark.parametrize("length", [8, 16])
def test_tiny_first_fragments(kernel: Kernel, flow: Flow, length: int) -> None:
    """RFC 1858 3: a first fragment that ends inside the TCP header hides its flags."""
    kernel.policy(default="allow")
    syn = bytes(flow.segment("S")[TCP])
    assert kernel.send(piece(flow, 0, syn[:length], more=True, l4=6)).said == "drop fragment_tiny"
    assert kernel.live() == []


def test_tcp_options_cut_off(kernel: Kernel, flow: Flow) -> None:
    kernel.policy(default="allow")
    head = bytearray(bytes(flow.segment("S")[TCP])) + bytes(4)
    head[12] = 0x70
    assert kernel.send(piece(flow, 0, bytes(head), more=True, l4=6)).said == "drop fragment_tiny"


def test_the_bare_tcp_header_over_again(kernel: Kernel, flow: Flow) -> None:
    """RFC 3128: a second fragment at offset 8 would rewrite the flags behind the ports."""
    kernel.policy(default="allow")
    head = bytes(flow.segment("S")[TCP]) + bytes(4)
    assert kernel.send(piece(flow, 0, head, more=True, l4=6)).said == "pass"
    assert kernel.send(piece(flow, 8, bytes(16), more=False, l4=6)).said == "drop fragment_tiny"


def test_what_needs_the_whole_payload_is_not_taken_in_pieces(kernel: Kernel, flow: Flow) -> None:
    kernel.policy(rule("dns", "allow", udp=80, app="dns"))
    kernel.commands.heartbeat()
    assert kernel.send(first(flow)).said == "drop fragment"
    assert kernel.send(later(flow)).said == "drop fragment"


def test_a_first_fragment_is_forgotten_in_time(kernel: Kernel, flow: Flow) -> None:
    kernel.settings(timeouts={"fragment": 0.01})
    kernel.policy(ALLOW)
    kernel.send(first(flow))
    kernel.tick(0.02)
    assert kernel.send(later(flow)).said == "drop fragment"


def test_the_exception_can_allow(kernel: Kernel, flow: Flow) -> None:
    kernel.settings(exceptions={"fragment": Action.ALLOW})
    kernel.policy(ALLOW)
    assert kernel.send(later(flow)).said == "pass"


def test_monitor_mode_drops_no_fragment(kernel: Kernel, flow: Flow) -> None:
    kernel.policy(monitor=True)
    assert kernel.send(first(flow)).said == "pass default"
    assert kernel.send(later(flow, number=78)).said == "pass fragment"


def test_nor_does_a_rule_in_monitor_mode(kernel: Kernel, flow: Flow) -> None:
    kernel.policy(rule("udp", "deny", udp=80, monitor=True))
    assert kernel.send(first(flow)).said == "pass policy"
    assert kernel.send(later(flow)).said == "pass policy"


def test_an_atomic_fragment_is_none(kernel: Kernel) -> None:
    """RFC 6946: it is processed apart from any others of the same identification."""
    kernel.policy(ALLOW)
    flow = Flow(6)
    atomic = flow.ip() / IPv6ExtHdrFragment(offset=0, m=0, id=77) / UDP(sport=40000, dport=80) / Raw(PAYLOAD)
    outcome = kernel.send(atomic)
    assert (outcome.said, judged(outcome.session)) == ("pass", "allow policy 1")
    # Behind its end, so that only the want of a first one speaks against it.
    assert kernel.send(later(flow, offset=32)).said == "drop fragment"


def test_dont_fragment_alone_is_no_fragment(kernel: Kernel) -> None:
    kernel.policy(ALLOW)
    assert "fragments" not in kernel.send(Flow(4).datagram(PAYLOAD, flags="DF")).stats


# --- holes -----------------------------------------------------------------------------------------------------------

DATA = bytes(range(256)) * 8


def parts(flow: Flow, *places: tuple[int, int], end: int = 0, number: int = 77) -> list[Packet]:
    """Later fragments with the bytes [from, to) of one datagram; that which ends at `end` is its last."""
    return [piece(flow, a, DATA[a:b], more=b != end, number=number) for a, b in places]


def sent(kernel: Kernel, flow: Flow, *places: tuple[int, int], end: int = 0) -> list[str]:
    """What became of each, behind a first of 16 bytes."""
    kernel.policy(ALLOW)
    assert kernel.send(first(flow)).said == "pass"
    return [kernel.send(packet).said for packet in parts(flow, *places, end=end)]


OVERLAP = "drop fragment_overlap"


@pytest.mark.parametrize(
    ("places", "end", "said"),
    [
        pytest.param([(16, 48), (48, 64), (64, 80)], 80, ["pass"] * 3, id="in order"),
        pytest.param([(64, 80), (48, 64), (16, 48)], 80, ["pass"] * 3, id="backwards"),
        pytest.param([(48, 64), (16, 48), (64, 77)], 77, ["pass"] * 3, id="mixed"),
        pytest.param([(16, 48), (16, 48), (48, 64)], 64, ["pass", OVERLAP, "pass"], id="a repetition"),
        pytest.param([(16, 48), (24, 40), (48, 64)], 64, ["pass", OVERLAP, "pass"], id="inside another"),
        pytest.param([(16, 48), (40, 64), (48, 64)], 64, ["pass", OVERLAP, OVERLAP], id="into another"),
        pytest.param([(32, 48), (16, 40), (16, 32)], 64, ["pass", OVERLAP, OVERLAP], id="into the next"),
        pytest.param([(32, 48), (16, 64), (16, 32)], 64, ["pass", OVERLAP, OVERLAP], id="around another"),
        pytest.param([(8, 32), (16, 32)], 32, [OVERLAP, OVERLAP], id="into the first"),
        pytest.param([(48, 64), (64, 80), (16, 48)], 64, ["pass", OVERLAP, "pass"], id="behind the last"),
        pytest.param([(64, 80), (16, 48), (48, 64)], 48, ["pass", OVERLAP, OVERLAP], id="a last one before others"),
        pytest.param([(32, 40), (48, 56), (64, 72), (80, 88)], 0, ["pass"] * 3 + ["drop fragment_limit"], id="wild"),
    ],
)
def test_a_fragment_fills_a_hole(
    kernel: Kernel, flow: Flow, places: list[tuple[int, int]], end: int, said: list[str]
) -> None:
    """RFC 5722: one overlap, and nothing more of its datagram goes on. A mere repetition does not."""
    assert sent(kernel, flow, *places, end=end) == said


def test_endless_fragments(kernel: Kernel, flow: Flow) -> None:
    places = [(16 + 8 * n, 24 + 8 * n) for n in range(70)]
    assert sent(kernel, flow, *places) == ["pass"] * 64 + ["drop fragment_limit"] * 6


def test_to_the_very_end(kernel: Kernel, flow: Flow) -> None:
    kernel.policy(ALLOW)
    kernel.send(first(flow))
    assert kernel.send(piece(flow, 65528, bytes(7), more=False)).said == "pass"
    assert kernel.send(piece(flow, 65528, bytes(8), more=False)).said == "drop fragment_length"


def test_a_repeated_first_keeps_what_came_behind_it(kernel: Kernel, flow: Flow) -> None:
    assert sent(kernel, flow, (16, 48)) == ["pass"]
    assert kernel.send(first(flow)).said == "pass"
    (again,) = parts(flow, (24, 56))
    assert kernel.send(again).said == OVERLAP
    # Of a refused datagram it goes no further either.
    assert kernel.send(first(flow)).said == OVERLAP


def test_another_first_of_the_same_datagram(kernel: Kernel, flow: Flow) -> None:
    """Its ports would be others than those that the later fragments were let through for."""
    kernel.policy(ALLOW, rule("too", "allow", udp=81))
    kernel.send(first(flow))
    assert kernel.send(first(Flow(flow.version, dport=81))).said == OVERLAP
    assert kernel.send(later(flow)).said == OVERLAP


def test_a_whole_datagram_leaves_its_identification(kernel: Kernel, flow: Flow) -> None:
    assert sent(kernel, flow, (16, 32), end=32) == ["pass"]
    other = Flow(flow.version, dport=81)
    kernel.policy(default="allow")
    assert kernel.send(first(other)).said == "pass"
    assert kernel.send(later(other)).said == "pass"


def test_a_first_after_a_denied_one(kernel: Kernel, flow: Flow) -> None:
    kernel.policy(ALLOW, rule("no", "deny", udp=81))
    assert kernel.send(first(Flow(flow.version, dport=81))).said == "drop policy"
    assert kernel.send(later(flow)).said == "drop policy"
    assert kernel.send(first(flow)).said == "pass"
    assert kernel.send(later(flow)).said == "pass"


def test_fragments_end_with_their_session(kernel: Kernel, flow: Flow) -> None:
    kernel.policy(ALLOW)
    kernel.send(first(flow))
    old = kernel.session(flow.key(17))
    kernel.table.delete(flow.key(17))
    assert kernel.send(later(flow)).said == "drop fragment"
    # Another session on the same ports is not theirs.
    assert old
    assert kernel.send(flow.datagram(b"x")).entry.id != old.id
    assert kernel.send(later(flow)).said == "drop fragment"


def test_fragments_follow_the_verdict_of_their_session(kernel: Kernel, flow: Flow) -> None:
    revision = kernel.policy(ALLOW)
    kernel.send(first(flow))
    entry = kernel.session(flow.key(17))
    assert entry
    word = Word(Verdict.DENY, Scope.CONNECTION, Reason.RULE, rule=1, revision=revision)
    answer = kernel.command(Op.VERDICT, flow.key(17), id=entry.id, verdict=word.pack(), revision=revision)
    assert answer.status == 0
    verdict, reason, _ = judged(kernel.session(flow.key(17))).split()
    assert (verdict, kernel.send(later(flow)).said) == ("deny", f"drop {reason}")


def test_another_policy_ends_what_began_before(kernel: Kernel, flow: Flow) -> None:
    kernel.policy(ALLOW)
    kernel.send(first(flow))
    kernel.policy(ALLOW, rule("more", "deny", udp=81))
    assert kernel.send(later(flow)).said == "drop fragment"


def test_allowed_without_a_session(kernel: Kernel, flow: Flow) -> None:
    """A full table: the first goes on without one, and so do the others."""
    kernel.policy(ALLOW)
    kernel.revisions.press(Pressure.FULL)
    assert kernel.send(first(flow)).said == "pass"
    assert kernel.live() == []
    assert kernel.send(later(flow)).said == "pass"
    assert kernel.send(later(flow)).said == OVERLAP


def test_the_exception_allows_no_denied_datagram(kernel: Kernel, flow: Flow) -> None:
    kernel.settings(exceptions={"fragment": Action.ALLOW})
    kernel.policy(rule("no", "deny", udp=80))
    assert kernel.send(first(flow)).said == "drop policy"
    assert kernel.send(later(flow)).said == "drop policy"
    # But overlaps.
    kernel.policy(ALLOW)
    kernel.send(first(flow, 78))
    assert kernel.send(later(flow, offset=8, number=78)).said == "pass"


def test_state_is_bounded(kernel: Kernel, version: int) -> None:
    """Many first ones push each other out, and a datagram that was pushed out is dropped."""
    kernel.policy(default="allow")
    flow = Flow(version)
    head = bytes(first(flow))
    for number in range(20000):
        frame = bytearray(head)
        if version == 4:
            frame[18:20] = number.to_bytes(2, "big")
            frame = bytearray(summed(frame))
        else:
            frame[58:62] = number.to_bytes(4, "big")
        with kernel.namespace.inside():
            kernel.programs["ms_ingress"].run(bytes(frame), context=sk_buff(ifindex=kernel.namespace.ifindex["seg0"]))
    assert len(list(kernel.fragments.keys())) <= 8192
    assert kernel.send(later(flow, number=0)).said == "drop fragment"
    assert kernel.send(later(flow, number=19999)).said == "pass"
