"""Commands of the daemons: what they change, and what they refuse."""

from __future__ import annotations

import ctypes
from typing import Any

import pytest
from scapy.layers.inet import IP
from scapy.layers.inet6 import IPv6
from scapy.layers.l2 import Ether

from bench.testrun import checksum
from fastpath import abi
from fastpath.abi import Action, End, EventKind, Op, Protocol, Reason, Scope, SessionFlag, Status, Verdict
from fastpath.config import Inspection
from fastpath.policy.model import Log, all_protocols
from fastpath.resets import resets
from fastpath.word import Word
from tests.bpf.harness import GATEWAY_MAC, ISN, PEER_ISN, SENDER_MAC, Flow, Kernel, judged, rule

pytestmark = pytest.mark.root

GET = b"GET / HTTP/1.1\r\nHost: a\r\n\r\n"
INSPECTED = rule("web", "inspect", tcp=80, files=True)
SIZE = ctypes.sizeof(abi.Command)
HEAD = bytes(abi.Limit.APPLY_OFFSET)


def held(kernel: Kernel, flow: Flow, *, frames: int = 1, **fields: Any) -> abi.Session:
    """A session with frames at the inspector."""
    kernel.policy(rule("web", "inspect", tcp=80, files=True, **fields))
    kernel.commands.heartbeat()
    kernel.open(flow)
    for n in range(frames):
        outcome = kernel.send(flow.data(b"x" * 10, n * 10))
        assert outcome.said == "redirect"
    return outcome.entry


def verdict(kernel: Kernel, flow: Flow, session: abi.Session, outcome: Verdict, **fields: Any) -> abi.Command:
    revision = session.verdict >> abi.Word.REVISION
    word = Word(outcome, Scope.CONNECTION, reason=Reason.RULE, rule=1, revision=revision)
    given = {"id": session.id, "revision": revision, "verdict": word.pack(), **fields}
    return kernel.command(Op.VERDICT, flow.key(6), **given)


def released(kernel: Kernel, flow: Flow, payload: bytes = b"x" * 10) -> str:
    """The inspector lets a frame go: out of the tap, and in again."""
    tap = kernel.send(flow.data(payload), "ms_tap", interface="far0")
    assert (tap.said, tap.mark) == ("redirect", kernel.config.mark.value)
    again = kernel.send(flow.data(payload), mark=tap.mark)
    assert again.mark == 0
    return again.said


# --- verdicts --------------------------------------------------------------------------------------------------------


def test_a_verdict_is_stored(kernel: Kernel, flow: Flow) -> None:
    session = held(kernel, flow)
    released(kernel, flow)
    answer = verdict(kernel, flow, session, Verdict.ALLOW, protocol=Protocol.GRPC, first_protocol=Protocol.HTTP2)
    assert answer.status == Status.OK
    outcome = kernel.send(flow.data(b"more", 10))
    entry = outcome.entry
    assert (outcome.said, judged(entry)) == ("pass", "allow rule 1")
    assert Word.unpack(entry.verdict).scope == Scope.CONNECTION
    assert (entry.protocol, entry.first_protocol) == (Protocol.GRPC, Protocol.HTTP2)
    assert entry.flags & SessionFlag.LOGGED
    assert outcome.stats["fast"] == 1


def test_a_verdict_without_a_protocol_keeps_it(kernel: Kernel, flow: Flow) -> None:
    session = held(kernel, flow)
    released(kernel, flow)
    verdict(kernel, flow, session, Verdict.ALLOW, protocol=Protocol.GRPC)
    verdict(kernel, flow, session, Verdict.DENY)
    outcome = kernel.send(flow.data(b"more", 10))
    assert (outcome.said, outcome.entry.protocol) == ("drop rule", Protocol.GRPC)


def test_counters_survive_a_verdict(kernel: Kernel, flow: Flow) -> None:
    session = held(kernel, flow, frames=3)
    before = kernel.counters.stats
    verdict(kernel, flow, session, Verdict.DENY)
    entry = kernel.session(flow.key(6))
    assert entry is not None
    assert (list(entry.packets), list(entry.bytes)) == (list(session.packets), list(session.bytes))
    assert kernel.counters.stats == before


@pytest.mark.parametrize(
    ("fields", "status"),
    [
        ({"id": 1}, Status.STALE_ID),
        ({"revision": 0xFFFFFF}, Status.STALE_REVISION),
        ({"revision": 0}, Status.STALE_REVISION),
    ],
)
def test_a_stale_verdict_is_refused(kernel: Kernel, flow: Flow, fields: dict[str, int], status: Status) -> None:
    session = held(kernel, flow)
    answer = verdict(kernel, flow, session, Verdict.ALLOW, **fields)
    assert answer.status == status
    assert kernel.session(flow.key(6)).verdict == session.verdict  # type: ignore[union-attr]


def test_a_verdict_of_the_revision_before_is_refused(kernel: Kernel, flow: Flow) -> None:
    session = held(kernel, flow)
    revision = kernel.policy(INSPECTED, rule("other", "deny", tcp=81))
    answer = verdict(kernel, flow, session, Verdict.ALLOW)
    assert (answer.status, answer.revision) == (Status.STALE_REVISION, revision)
    # Nor one under the new, before the kernel has judged the session under it.
    answer = verdict(kernel, flow, session, Verdict.ALLOW, revision=revision)
    assert answer.status == Status.STALE_REVISION
    kernel.send(flow.data(b"x", 10))
    assert verdict(kernel, flow, session, Verdict.DENY, revision=revision).status == Status.OK


def test_a_verdict_for_a_connection_that_was_replaced_is_refused(kernel: Kernel, flow: Flow) -> None:
    session = held(kernel, flow)
    kernel.send(flow.segment("R", PEER_ISN + 1, back=True))
    assert kernel.send(flow.segment("S", 99999)).said == "pass"
    assert verdict(kernel, flow, session, Verdict.ALLOW).status == Status.STALE_ID


def test_commands_for_nobody(kernel: Kernel, flow: Flow) -> None:
    kernel.policy()
    for op in (Op.VERDICT, Op.DELETE, Op.DISCARD):
        assert kernel.command(op, flow.key(6), id=1).status == Status.NO_SESSION
    assert kernel.commands.judge(flow.key(6), 1, 0).status == Status.NO_SESSION


# --- judge -----------------------------------------------------------------------------------------------------------


def test_judge_stamps_the_rule_and_leaves_the_flow_with_the_inspector(kernel: Kernel, flow: Flow) -> None:
    kernel.policy(
        rule("what", "inspect", tcp=80), rule("grpc", "inspect", tcp=80, app="grpc", files=True, down_allow=True)
    )
    kernel.commands.heartbeat()
    kernel.open(flow)
    session = kernel.send(flow.data(b"\xde\xad\xbe\xef")).entry
    assert judged(session) == "inspect pending 1"
    answer = kernel.commands.judge(flow.key(6), session.id, 1 << Protocol.GRPC)
    word = Word.unpack(answer.verdict)
    assert (answer.status, word.verdict, word.reason, word.rule) == (Status.OK, Verdict.INSPECT, Reason.PROTOCOL, 2)
    assert answer.rule_flags & abi.RuleFlag.FILES
    entry = kernel.session(flow.key(6))
    assert judged(entry) == "inspect pending 2"
    assert entry is not None
    assert (entry.protocol, entry.first_protocol) == (Protocol.GRPC, Protocol.GRPC)
    assert entry.flags & SessionFlag.LOGGED
    # Whatever the walk says, only a verdict ends it.
    answer = kernel.commands.judge(flow.key(6), session.id, 1 << Protocol.TLS)
    assert Word.unpack(answer.verdict).verdict == Verdict.DENY
    assert judged(kernel.session(flow.key(6))) == "inspect pending 0"


def test_judge_by_the_clients_side(kernel: Kernel, version: int) -> None:
    kernel.policy(rule("web", "inspect", tcp=80, files=True))
    kernel.commands.heartbeat()
    for client, server in (("", ""), (Flow(version).ip()[1].dst, Flow(version).ip()[1].src)):
        flow = Flow(version, client=client, server=server)
        session = kernel.open(flow)
        answer = kernel.commands.judge(flow.key(6), session.id, 0)
        assert Word.unpack(answer.verdict).rule == 1


def test_judge_refuses_another_session(kernel: Kernel, flow: Flow) -> None:
    session = held(kernel, flow)
    assert kernel.commands.judge(flow.key(6), session.id + 1, 0).status == Status.STALE_ID


def test_walk_without_a_mask_means_all_the_protocol_can_carry(kernel: Kernel) -> None:
    kernel.policy(rule("dns", "allow", udp=53, app="dns"))
    address = bytes(15) + b"\1"
    for possible in (0, all_protocols(17)):
        answer = kernel.commands.walk(address, address, 17, 53, possible)
        assert Word.unpack(answer.verdict).verdict == Verdict.UNDECIDED


# --- hand-over -------------------------------------------------------------------------------------------------------


def test_without_frames_on_their_way_the_flow_goes_straight(kernel: Kernel, flow: Flow) -> None:
    session = held(kernel, flow)
    assert released(kernel, flow) == "pass"
    before = kernel.counters.stats["offloaded"]
    verdict(kernel, flow, session, Verdict.ALLOW)
    assert judged(kernel.session(flow.key(6))) == "allow rule 1"
    assert kernel.counters.stats["offloaded"] == before + 1


def test_drain_flips_when_all_held_frames_came_back(kernel: Kernel, flow: Flow) -> None:
    kernel.settings(inspection=Inspection(timeout=60, drain=10))
    session = held(kernel, flow, frames=2)
    verdict(kernel, flow, session, Verdict.ALLOW)
    assert judged(kernel.session(flow.key(6))) == "drain rule 1"
    # As long as one is out, the next go after it.
    outcome = kernel.send(flow.data(b"y" * 10, 20))
    assert (outcome.said, judged(outcome.entry)) == ("redirect", "drain rule 1")
    for _ in range(3):
        assert released(kernel, flow) == "pass"
    outcome = kernel.send(flow.data(b"z", 30))
    assert (outcome.said, judged(outcome.entry)) == ("pass", "allow rule 1")
    assert (outcome.stats["drains"], outcome.stats["fast"]) == (1, 1)
    assert "drain_limit" not in outcome.stats
    assert (list(outcome.entry.held), list(outcome.entry.released)) == ([3, 0], [3, 0])


def test_the_other_direction_does_not_wait(kernel: Kernel, flow: Flow) -> None:
    kernel.settings(inspection=Inspection(timeout=60, drain=10))
    session = held(kernel, flow)
    verdict(kernel, flow, session, Verdict.ALLOW)
    outcome = kernel.send(flow.data(b"answer", back=True))
    assert (outcome.said, judged(outcome.entry)) == ("pass", "drain rule 1")


def test_bare_acknowledgments_overtake_held_frames(kernel: Kernel, flow: Flow) -> None:
    kernel.settings(inspection=Inspection(timeout=60, drain=10))
    session = held(kernel, flow)
    assert kernel.send(flow.data(b"", 10, flags="A")).said == "pass"
    # What ends the connection does not.
    assert kernel.send(flow.data(b"", 10, flags="FA")).said == "redirect"
    verdict(kernel, flow, session, Verdict.ALLOW)
    assert kernel.send(flow.data(b"", 11, flags="A")).said == "pass"
    assert kernel.send(flow.data(b"", 10, flags="FA")).said == "redirect"


def test_drain_is_bounded_in_time(kernel: Kernel, flow: Flow) -> None:
    kernel.settings(inspection=Inspection(timeout=60, drain=0.01))
    session = held(kernel, flow, frames=2)
    verdict(kernel, flow, session, Verdict.ALLOW)
    kernel.tick(0.02)
    outcome = kernel.send(flow.data(b"z", 30))
    assert (outcome.said, judged(outcome.entry)) == ("pass", "allow rule 1")
    assert (outcome.stats["drains"], outcome.stats["drain_limit"]) == (1, 1)
    assert list(outcome.entry.held) == list(outcome.entry.released)


def test_drain_is_bounded_in_packets(kernel: Kernel, flow: Flow) -> None:
    kernel.settings(inspection=Inspection(timeout=60, drain=10))
    session = held(kernel, flow)
    verdict(kernel, flow, session, Verdict.ALLOW)
    said = [kernel.send(flow.data(b"z", 30)).said for _ in range(abi.Limit.DRAIN_PACKETS + 1)]
    assert said == ["redirect"] * abi.Limit.DRAIN_PACKETS + ["pass"]


def test_discarded_frames_count_as_released(kernel: Kernel, flow: Flow) -> None:
    session = held(kernel, flow, frames=3)
    answer = kernel.command(Op.DISCARD, flow.key(6), id=session.id, direction=0, count=3)
    assert answer.status == Status.OK
    entry = kernel.session(flow.key(6))
    assert entry is not None
    assert (list(entry.held), list(entry.released)) == ([3, 0], [3, 0])
    assert kernel.command(Op.DISCARD, flow.key(6), id=session.id + 1, count=3).status == Status.STALE_ID
    # None of them may come out of the tap any more.
    assert kernel.send(flow.data(b"x"), "ms_tap").said == "drop tap"


def test_released_into_a_denied_session(kernel: Kernel, flow: Flow) -> None:
    session = held(kernel, flow, frames=2)
    verdict(kernel, flow, session, Verdict.DENY)
    assert released(kernel, flow) == "drop rule"


def test_released_frames_are_counted_once(kernel: Kernel, flow: Flow) -> None:
    held(kernel, flow)
    tap = kernel.send(flow.data(b"x" * 10), "ms_tap")
    again = kernel.send(flow.data(b"x" * 10), mark=tap.mark)
    assert "fast" not in again.stats
    assert again.stats["released"] == 1
    assert list(again.entry.packets) == [3, 1]


# --- the tap is not a door -------------------------------------------------------------------------------------------


def test_the_tap_takes_only_what_was_held(kernel: Kernel, flow: Flow) -> None:
    held(kernel, flow)
    assert kernel.send(flow.data(b"x", back=True), "ms_tap").said == "drop tap"
    assert kernel.send(Flow(flow.version, sport=5).data(b"x"), "ms_tap").said == "drop tap"
    assert kernel.send(bytes(14) + bytes(60), "ms_tap").said == "drop tap"
    assert released(kernel, flow) == "pass"
    assert kernel.send(flow.data(b"x"), "ms_tap").said == "drop tap"


def test_a_forged_mark_is_no_verdict(kernel: Kernel, flow: Flow) -> None:
    kernel.policy(rule("no", "deny", tcp=81))
    mark = kernel.config.mark.value
    assert kernel.send(Flow(flow.version, dport=81).segment("S"), mark=mark).said == "drop tap"
    kernel.send(Flow(flow.version, dport=81).segment("S"))
    outcome = kernel.send(Flow(flow.version, dport=81).segment("S"), mark=mark)
    assert (outcome.said, outcome.mark) == ("drop policy", 0)


def test_other_bits_of_the_mark_stay(kernel: Kernel, flow: Flow) -> None:
    kernel.policy(rule("web", "allow", tcp=80))
    kernel.send(flow.segment("S"))
    assert kernel.send(flow.segment("S"), mark=0x12345).mark == 0x12345
    assert kernel.send(flow.segment("S"), mark=kernel.config.mark.value | 5).mark == 5


@pytest.mark.parametrize("frame", [bytes(60), bytes(Flow(4).segment("S")), b"\xff" * 60])
def test_nothing_enters_through_the_wall(kernel: Kernel, frame: bytes) -> None:
    assert kernel.send(frame, "ms_wall").said == "drop"


def test_frames_for_all_are_not_held(kernel: Kernel, flow: Flow) -> None:
    # Back from the inspector they would count as meant for the gateway, whoever they were sent to.
    held(kernel, flow)
    packet = flow.data(b"x", 10)
    packet.dst = "ff:ff:ff:ff:ff:ff"
    assert kernel.send(packet).said == "drop tap"


# --- the inspector's life --------------------------------------------------------------------------------------------


@pytest.mark.parametrize("beats", [False, True], ids=["never", "not any more"])
@pytest.mark.parametrize(
    ("fields", "exceptions", "said", "outcome"),
    [
        ({}, {}, "drop inspector_down", "deny inspector_down 1"),
        ({"down_allow": True}, {}, "pass", "allow inspector_down 1"),
        ({}, {"inspector_down": Action.ALLOW}, "pass", "allow inspector_down 1"),
        ({"monitor": True}, {}, "pass inspector_down", "deny inspector_down 1"),
    ],
)
def test_inspector_down(
    kernel: Kernel,
    flow: Flow,
    beats: bool,
    fields: dict[str, bool],
    exceptions: dict[str, Action],
    said: str,
    outcome: str,
) -> None:
    kernel.settings(exceptions=exceptions, inspection=Inspection(timeout=0.01))
    kernel.policy(rule("web", "inspect", tcp=80, files=True, log=Log.DENY, **fields))
    if beats:
        kernel.commands.heartbeat()
        kernel.tick(0.02)
    kernel.open(flow)
    got = kernel.send(flow.data(GET))
    assert (got.said, judged(got.entry)) == (said, outcome)
    kinds = [event.kind for event in kernel.events()]
    assert kinds == ([EventKind.VERDICT] if outcome.startswith("deny") else [])


def test_the_handshake_passes_without_an_inspector(kernel: Kernel, flow: Flow) -> None:
    kernel.policy(INSPECTED)
    kernel.open(flow)


def test_a_heartbeat_brings_it_back(kernel: Kernel, flow: Flow) -> None:
    kernel.policy(INSPECTED)
    kernel.beat(61)
    other = Flow(flow.version, 40001)
    for each in (flow, other):
        kernel.open(each)
    assert kernel.send(flow.data(b"x")).said == "drop inspector_down"
    kernel.commands.heartbeat()
    assert kernel.send(other.data(b"x")).said == "redirect"


# --- delete, and what is no command ----------------------------------------------------------------------------------


def test_delete(kernel: Kernel, flow: Flow) -> None:
    kernel.policy(rule("web", "allow", tcp=80, log=Log.ALL))
    session = kernel.open(flow)
    kernel.events()
    before = kernel.counters.stats["deletes"]
    assert kernel.commands.delete([(flow.key(6), session.id, session.last_jiffies)], End.REMOVED) == 1
    assert kernel.live() == []
    assert kernel.counters.stats["deletes"] == before + 1
    (event,) = kernel.events()
    assert (event.kind, event.end, event.session.id) == (EventKind.END, End.REMOVED, session.id)


def test_delete_refuses_a_session_that_was_used_meanwhile(kernel: Kernel, flow: Flow) -> None:
    kernel.policy(rule("web", "allow", tcp=80))
    session = kernel.open(flow)
    kernel.tick()
    kernel.send(flow.data(b"x"))
    answer = kernel.command(Op.DELETE, flow.key(6), id=session.id, last_jiffies=session.last_jiffies)
    assert answer.status == Status.USED
    answer = kernel.command(Op.DELETE, flow.key(6), id=session.id + 1, last_jiffies=session.last_jiffies)
    assert answer.status == Status.STALE_ID
    assert len(kernel.live()) == 1


# --- close -----------------------------------------------------------------------------------------------------------


def closed(kernel: Kernel, flow: Flow) -> abi.Session:
    """An established connection that the operator closes; its session before that."""
    session = kernel.open(flow)
    kernel.events()
    assert kernel.command(Op.CLOSE, flow.key(6), id=session.id).status == Status.OK
    return session


@pytest.mark.parametrize("log", [Log.NONE, Log.ALL])
@pytest.mark.parametrize("monitor", [False, True])
def test_a_closed_connection_carries_nothing_more(kernel: Kernel, flow: Flow, log: Log, monitor: bool) -> None:
    kernel.policy(rule("web", "allow", tcp=80, log=log, monitor=monitor))
    session = closed(kernel, flow)
    assert judged(kernel.session(flow.key(6))) == "deny closed 1"
    (event,) = kernel.events()
    assert (event.kind, event.end, event.session.id) == (EventKind.END, End.REMOVED, session.id)
    for back in (False, True):
        outcome = kernel.send(flow.data(b"more", back=back))
        # Answered with a reset.
        assert (outcome.said, outcome.stats["resets"]) == ("redirect closed", 1)
    assert kernel.send(flow.segment("R", ISN + 1)).said == "drop closed"
    assert outcome.entry.id == session.id
    # Its end was told.
    assert kernel.events() == []


def test_the_resets_of_a_closed_connection_get_out(kernel: Kernel, flow: Flow) -> None:
    kernel.policy(rule("web", "allow", tcp=80, log=Log.ALL))
    session = closed(kernel, flow)
    kernel.events()
    for packet, _ in resets(flow.key(6), session):
        # The kernel fills in the sum of a raw packet's header (ip(7), IP_HDRINCL).
        if flow.version == 4:
            packet = packet[:10] + checksum(packet[:10] + packet[12:20]) + packet[12:]
        frame = Ether(src=SENDER_MAC, dst=GATEWAY_MAC) / (IP if flow.version == 4 else IPv6)(packet)
        assert kernel.send(frame, "ms_egress", interface="seg1").said == "pass"
        # Forwarded ones are not the gateway's.
        far = kernel.namespace.ifindex["far0"]
        assert kernel.send(frame, "ms_egress", interface="seg1", came_from=far).said == "drop closed"
        assert kernel.send(frame).said == "drop closed"
    assert kernel.send(flow.data(b"x"), "ms_egress", interface="seg1").said == "drop closed"
    assert kernel.events() == []


@pytest.mark.parametrize("back", [False, True], ids=["by the client", "by the server"])
def test_a_new_syn_opens_a_closed_connection_anew(kernel: Kernel, flow: Flow, back: bool) -> None:
    kernel.policy(rule("web", "allow"))
    session = closed(kernel, flow)
    outcome = kernel.send(flow.segment("S", ISN, back=back))
    assert (outcome.said, judged(outcome.entry)) == ("pass", "allow policy 1")
    assert outcome.entry.id != session.id


def test_a_closed_connection_stays_closed_under_another_policy(kernel: Kernel, flow: Flow) -> None:
    kernel.policy(rule("web", "allow", tcp=80))
    closed(kernel, flow)
    revision = kernel.policy(rule("other", "deny", tcp=81), rule("web", "allow", tcp=80))
    outcome = kernel.send(flow.data(b"x"))
    assert outcome.said == "redirect closed"
    assert Word.unpack(outcome.entry.verdict).revision == revision


def test_the_inspector_opens_no_closed_connection(kernel: Kernel, flow: Flow) -> None:
    kernel.policy(rule("web", "allow", tcp=80))
    session = closed(kernel, flow)
    word = Word(abi.Verdict.ALLOW, revision=kernel.revisions.revision).pack()
    fields = {"id": session.id, "revision": kernel.revisions.revision, "verdict": word}
    assert kernel.command(Op.VERDICT, flow.key(6), **fields).status == Status.NO_SESSION
    assert kernel.commands.judge(flow.key(6), session.id, 0).status == Status.NO_SESSION
    assert judged(kernel.session(flow.key(6))) == "deny closed 1"
    # Nor is it closed twice.
    assert kernel.command(Op.CLOSE, flow.key(6), id=session.id).status == Status.NO_SESSION


def test_a_closed_connection_expires(kernel: Kernel, flow: Flow) -> None:
    kernel.settings(timeouts={"closing": 0.01})
    kernel.policy(rule("web", "allow", tcp=80))
    session = closed(kernel, flow)
    kernel.tick(0.02)
    assert kernel.send(flow.data(b"x")).entry.id != session.id


def test_other_sessions_are_deleted_when_closed(kernel: Kernel, flow: Flow) -> None:
    kernel.policy(rule("any", "allow"))
    for packet in (flow.datagram(b"x"), flow.echo()):
        session = kernel.send(packet).entry
        ((key, _),) = kernel.live()
        kernel.events()
        before = kernel.counters.stats["deletes"]
        assert kernel.command(Op.CLOSE, key, id=session.id + 1).status == Status.STALE_ID
        assert kernel.command(Op.CLOSE, key, id=session.id).status == Status.OK
        assert kernel.live() == []
        assert kernel.counters.stats["deletes"] == before + 1
        assert [(event.kind, event.end) for event in kernel.events()] == [(EventKind.END, End.REMOVED)]


# --- what is no command ----------------------------------------------------------------------------------------------


def test_now(kernel: Kernel) -> None:
    revision = kernel.policy()
    first, second = kernel.commands.clocks(), kernel.commands.clocks()
    assert first.revision == second.revision == revision
    assert 0 < first.ns < second.ns
    assert first.jiffies <= second.jiffies


@pytest.mark.parametrize("op", [0, Op.JUDGE, Op.WALK, 9, 99, 0xFFFFFFFF])
def test_what_is_no_command_of_apply(kernel: Kernel, flow: Flow, op: int) -> None:
    kernel.policy(rule("web", "allow", tcp=80))
    session = kernel.open(flow)
    assert kernel.command(op, flow.key(6), id=session.id).status == Status.BAD_OP
    assert bytes(kernel.session(flow.key(6)) or b"") == bytes(session)


@pytest.mark.parametrize("op", [0, Op.NOW, Op.VERDICT, Op.DELETE, 99])
def test_what_is_no_command_of_walk(kernel: Kernel, op: int) -> None:
    run = kernel.programs["ms_walk"].run(HEAD + bytes(abi.Command(op=op)))
    assert abi.Command.from_buffer_copy(run.frame, len(HEAD)).status == Status.BAD_OP


def test_a_truncated_command_is_left_alone(kernel: Kernel, flow: Flow) -> None:
    kernel.policy(rule("web", "allow", tcp=80))
    session = kernel.open(flow)
    whole = bytes(abi.Command(op=Op.HEARTBEAT))
    doomed = bytes(
        abi.Command(
            op=Op.DELETE, key=abi.Key.from_buffer_copy(flow.key(6)), id=session.id, last_jiffies=session.last_jiffies
        )
    )
    for length in (0, 1, SIZE // 2, SIZE - 1):
        data = HEAD + whole + doomed[:length]
        run = kernel.programs["ms_apply"].run(data)
        assert run.value == 0
        assert run.frame[len(HEAD) + SIZE :] == doomed[:length]
        assert kernel.programs["ms_walk"].run(HEAD + doomed[:length]).value == -1
    assert len(kernel.live()) == 1


def test_a_full_batch_in_order(kernel: Kernel, version: int) -> None:
    kernel.policy(rule("web", "allow", tcp=80))
    sessions = {port: kernel.open(Flow(version, port)) for port in range(1000, 1045)}
    doomed = [(Flow(version, port).key(6), each.id, each.last_jiffies) for port, each in sessions.items()]
    # A stale one among them stops none of the others.
    doomed[7] = (doomed[7][0], 1, doomed[7][2])
    assert kernel.commands.delete(doomed, End.TIMEOUT) == 44
    assert [key for key, _ in kernel.live()] == [doomed[7][0]]


# --- sessions, as the inspector looks them up ------------------------------------------------------------------------


def test_a_session_is_looked_up_into_the_same_place_again_and_again(kernel: Kernel, flow: Flow) -> None:
    session = abi.Session()
    lookup = kernel.pins.map("sessions").into(session)  # nobody else keeps that map open
    assert not lookup(flow.key(6))
    expected = held(kernel, flow)
    assert lookup(flow.key(6))
    assert bytes(session) == bytes(expected)
    assert not lookup(bytes(len(flow.key(6))))
    with pytest.raises(ValueError, match=rf"{SIZE} bytes for values of {ctypes.sizeof(session)}"):
        kernel.table.into(abi.Command())
