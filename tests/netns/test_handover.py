"""Verdicts go back into the session map: no counter update is lost, and no segment is put out of order."""

from __future__ import annotations

import contextlib
import hashlib
import itertools
import multiprocessing
import os
import signal
import socket
import threading
from collections.abc import Iterator

import pytest

from fastpath import abi
from fastpath.commands import Commands
from fastpath.config import load_config
from fastpath.gateway import pins_of
from fastpath.statistics import sessions
from fastpath.word import Word
from tests.lab import Lab, Namespace
from tests.lab.clients import V4, V6
from tests.lab.gateway import SLOWPATH, Gateway
from tests.netns import peers
from tests.netns.peers import Echo, dial, network_counter

pytestmark = pytest.mark.root

POLICY = """
default: {action: deny}
rules:
  - {id: flood, proto: udp, ports: 7000, action: allow}
  - {id: bulk, proto: tcp, ports: 7001, app: unknown, action: allow, log: all}
"""

FLOWS = 4
WRITES = 10_000
PACKETS = 50_000
DATAGRAM = bytes(64)
# IPv4 and UDP headers.
DATAGRAM_SIZE = 20 + 8 + len(DATAGRAM)


@pytest.fixture(scope="module")
def gateway() -> Iterator[Gateway]:
    with Lab() as lab, Gateway(lab, POLICY) as one:
        yield one


def flood(cpu: int, fds: list[int], go: object, stop: object, sent: object) -> None:
    """One CPU's share of the flood; counts what it sent for each flow."""
    os.sched_setaffinity(0, {cpu})
    sockets = [socket.socket(fileno=fd) for fd in fds]
    go.wait()
    while not stop.is_set():
        for index, sock in enumerate(sockets):
            for _ in range(16):
                try:
                    sock.send(DATAGRAM)
                except OSError:
                    continue
                sent[cpu * FLOWS + index] += 1


def received_and_dropped(lab: Lab) -> int:
    """Frames that the clients' interface of the gateway had no room for: they never met a program."""
    return int(lab.run(Namespace.GATEWAY, ["cat", "/sys/class/net/seg0/statistics/rx_dropped"]).stdout)


def test_verdicts_written_in_a_flood_lose_no_counter_update(gateway: Gateway) -> None:
    lab = gateway.lab
    pins = pins_of(load_config(gateway.config))
    commands = Commands(pins)
    with peers.datagrams(lab, 7000):
        clients = [peers.datagrams(lab, 0, Namespace.CLIENT) for _ in range(FLOWS)]
        for client in clients:
            client.connect((peers.mapped(V4), 7000))
            client.send(DATAGRAM)
        ports = [peers.port_of(client) for client in clients]
        peers.eventually(lambda: sum(session["sport"] in ports for session in gateway.sessions()) == FLOWS)
        table = pins.map("sessions")
        ours = [
            (key, session)
            for key, session in sessions(table)
            if {socket.ntohs(abi.Key.from_buffer_copy(key).port_a), socket.ntohs(abi.Key.from_buffer_copy(key).port_b)}
            & set(ports)
        ]
        context = multiprocessing.get_context("fork")
        go, stop, sent = context.Event(), context.Event(), context.Array("Q", 2 * FLOWS, lock=False)
        fds = [client.fileno() for client in clients]
        senders = [context.Process(target=flood, args=(cpu, fds, go, stop, sent)) for cpu in (0, 1)]
        dropped = received_and_dropped(lab)
        for sender in senders:
            sender.start()
        go.set()
        written = 0
        try:
            # Between two verdicts that both let the flow pass, so that every write changes the word.
            reasons = itertools.cycle((abi.Reason.RULE, abi.Reason.POLICY))
            while written < WRITES or sum(sent) < PACKETS:
                batch = []
                for reason in itertools.islice(reasons, 8):
                    for key, session in ours:
                        word = Word.unpack(session.verdict)
                        verdict = Word(word.verdict, word.scope, False, False, reason, word.rule, word.revision)
                        batch.append(
                            abi.Command(
                                op=abi.Op.VERDICT, key=abi.Key.from_buffer_copy(key), id=session.id,
                                verdict=verdict.pack(), revision=word.revision,
                            )
                        )  # fmt: skip
                assert {answer.status for answer in commands.apply(batch)} == {abi.Status.OK}
                written += len(batch)
        finally:
            stop.set()
            for sender in senders:
                sender.join()
        dropped = received_and_dropped(lab) - dropped
        for client in clients:
            client.close()
    after = [abi.Session.from_buffer_copy(table.lookup(key) or b"") for key, _ in ours]
    assert min(sum(sent[flow::FLOWS]) for flow in range(FLOWS)) > 100
    assert sum(session.packets[abi.Direction.SERVER] for session in after) == FLOWS + sum(sent) - dropped
    for session in after:
        assert session.bytes[abi.Direction.SERVER] == session.packets[abi.Direction.SERVER] * DATAGRAM_SIZE
    assert {session.id for session in after} == {session.id for _, session in ours}


def test_a_verdict_for_another_session_or_policy_is_refused(gateway: Gateway) -> None:
    pins = pins_of(load_config(gateway.config))
    commands = Commands(pins)
    with peers.datagrams(gateway.lab, 7000), peers.datagrams(gateway.lab, 0, Namespace.CLIENT) as client:
        client.sendto(DATAGRAM, (peers.mapped(V4), 7000))
        port = peers.port_of(client)
        row = peers.eventually(lambda: [row for row in gateway.sessions() if row["sport"] == port])[0]
        key = next(key for key, session in sessions(pins.map("sessions")) if session.id == row["session"])
        denied = Word(abi.Verdict.DENY, reason=abi.Reason.RULE, revision=row["revision"])

        def status(session: int, revision: int) -> int:
            command = abi.Command(
                op=abi.Op.VERDICT, key=abi.Key.from_buffer_copy(key), id=session, verdict=denied.pack(),
                revision=revision,
            )  # fmt: skip
            return int(commands.apply([command])[0].status)

        assert status(row["session"] + 1, row["revision"]) == abi.Status.STALE_ID
        assert status(row["session"], row["revision"] + 1) == abi.Status.STALE_REVISION
        assert peers.session_of(gateway, port)["verdict"] == "allow"
        assert status(row["session"], row["revision"]) == abi.Status.OK
        assert peers.session_of(gateway, port)["verdict"] == "deny"


# -- in order ---------------------------------------------------------------------------------------------------------

BULK = 400_000
TRANSFERS = 100


def serve_digest(sock: socket.socket) -> None:
    """Takes `BULK` bytes and answers with their digest and the same bytes."""
    content = peers.receive(sock, BULK)
    sock.sendall(hashlib.sha256(content).digest() + content)


def transfer(lab: Lab, host: str) -> None:
    """Send all at once, so that the verdict comes while segments are on their way through the tap."""
    content = (b"\x7f" + os.urandom(997) * (BULK // 997 + 1))[:BULK]
    with dial(lab, 7001, host) as client:
        sender = threading.Thread(target=client.sendall, args=(content,))
        sender.start()
        answer = peers.receive(client, 32 + BULK)
        sender.join()
    assert answer[:32] == hashlib.sha256(content).digest()
    assert peers.digest(answer[32:]) == peers.digest(content)


@contextlib.contextmanager
def one_cpu() -> Iterator[None]:
    """Frames enter the gateway on the sender's CPU (veth). On one, as from one receive queue of a network card."""
    before = os.sched_getaffinity(0)
    os.sched_setaffinity(0, {max(before)})
    try:
        yield
    finally:
        os.sched_setaffinity(0, before)


def test_a_hundred_hand_overs_in_the_middle_of_transfers(gateway: Gateway) -> None:
    lab = gateway.lab
    ends = (Namespace.SERVER, Namespace.CLIENT)
    before, queued = gateway.stats()["packets"], [network_counter(lab, end, "TCPOFOQueue") for end in ends]
    with one_cpu(), Echo(lab, 7001, serve_digest):
        for number in range(TRANSFERS):
            transfer(lab, V6 if number % 2 else V4)
    assert [network_counter(lab, end, "TCPOFOQueue") for end in ends] == queued
    after = gateway.stats()["packets"]
    assert after["offloaded"] - before["offloaded"] == TRANSFERS
    assert after["drains"] - before["drains"] == TRANSFERS
    assert after["drain_limit"] == before["drain_limit"]
    assert after["held"] - before["held"] == after["released"] - before["released"]
    transfers = [session for session in gateway.sessions() if session["dport"] == 7001]
    assert {session["verdict"] for session in transfers} == {"allow"}
    # Were only the first segment ever held, or all of them, nothing would be handed over in the middle.
    middle = [session for session in transfers if 1 < session["held"][0] < session["packets"][0] // 2]
    assert len(middle) > TRANSFERS // 2


def test_transfers_that_change_their_cpu_arrive_whole(gateway: Gateway) -> None:
    with Echo(gateway.lab, 7001, serve_digest):
        for number in range(20):
            transfer(gateway.lab, V6 if number % 2 else V4)


def test_a_hand_over_that_takes_too_long_is_cut_short_and_counted(gateway: Gateway) -> None:
    """The inspector stops with frames in its hands, after the verdict: the kernel waits for the bound, not for ever."""
    lab = gateway.lab
    pins = pins_of(load_config(gateway.config))
    commands = Commands(pins)
    inspector = gateway.children[SLOWPATH]
    before = gateway.stats()["packets"]
    with peers.pair(lab, 7001) as (client, server):
        client.sendall(b"G")
        assert peers.receive(server, 1) == b"G"
        os.kill(inspector.pid, signal.SIGSTOP)
        try:
            client.sendall(b"held for ever")
            row = peers.session_of(gateway, peers.port_of(client))
            assert row["verdict"] in {"inspect", "undecided"}
            key, session = next(pair for pair in sessions(pins.map("sessions")) if pair[1].id == row["session"])
            word = Word.unpack(session.verdict)
            allow = Word(abi.Verdict.ALLOW, abi.Scope.CONNECTION, reason=abi.Reason.RULE, rule=word.rule,
                         revision=word.revision)  # fmt: skip
            command = abi.Command(
                op=abi.Op.VERDICT, key=abi.Key.from_buffer_copy(key), id=session.id, verdict=allow.pack(),
                revision=word.revision,
            )  # fmt: skip
            assert commands.apply([command])[0].status == abi.Status.OK
            # Asked at once: the client's next retransmission may be behind the bound.
            draining = abi.Session.from_buffer_copy(pins.map("sessions").lookup(key) or b"")
            assert Word.unpack(draining.verdict).verdict == abi.Verdict.DRAIN
            # Behind the bound its retransmission goes straight.
            assert peers.receive(server, 13) == b"held for ever"
            assert peers.session_of(gateway, peers.port_of(client))["verdict"] == "allow"
        finally:
            os.kill(inspector.pid, signal.SIGCONT)
        # What the inspector lets go then is late, and harmless.
        client.sendall(b"and on")
        assert peers.receive(server, 6) == b"and on"
        server.sendall(b"and back")
        assert peers.receive(client, 8) == b"and back"
    assert gateway.stats()["packets"]["drain_limit"] == before["drain_limit"] + 1
