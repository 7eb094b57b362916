"""The tap is not a door: what is held reaches nobody, and what was never held does not come in there."""

from __future__ import annotations

import contextlib
import json
import os
import signal
import socket
from collections.abc import Iterator

import pytest

from tests.lab import Lab, Namespace
from tests.lab.capture import Capture, payload_seen
from tests.lab.clients import V4
from tests.lab.gateway import SLOWPATH, Gateway
from tests.lab.namespaces import Address
from tests.netns import peers
from tests.netns.peers import Stranger, hardware_address, packet_socket, receive, remains, request, silent
from tests.unit.slowpath.core.wire import tcp_frame, udp_frame

pytestmark = pytest.mark.root

POLICY = """
default: {action: deny, log: deny}
rules:
  - {id: web, proto: tcp, ports: 7080, action: inspect, rules: [web], log: all}
  - {id: odd, proto: [tcp, udp], ports: 7005, app: unknown, action: allow, log: all}
  - {id: plain, proto: udp, ports: 7000, action: allow}
"""

NEEDLE = b"\xff{~}|^<> not for you"
# gateway.yaml's default of `mark`.
JUDGED = 0x20000000
BROADCAST = b"\xff" * 6
LOCAL = str(Address.GATEWAY_CLIENTS4)


@pytest.fixture(scope="module")
def gateway() -> Iterator[Gateway]:
    # An inspector that stands still counts as alive, so that what it should judge stays held.
    with Lab() as lab, Gateway(lab, POLICY, settings={"inspector": {"timeout": 60}}) as one:
        yield one


@contextlib.contextmanager
def standing_still(gateway: Gateway) -> Iterator[None]:
    """The inspector takes nothing out of the tap."""
    pid = gateway.children[SLOWPATH].pid
    os.kill(pid, signal.SIGSTOP)
    try:
        yield
    finally:
        os.kill(pid, signal.SIGCONT)


def tap(gateway: Gateway, *, far: bool = False) -> str:
    return f"{gateway.settings['tap']}{'x' if far else ''}"


def drops(gateway: Gateway) -> int:
    return int(gateway.stats()["drops"]["tap"])


def udp(destination: str, port: int = 7005, sport: int = 4000) -> bytes:
    """A datagram of the stranger's, from its ethertype on."""
    return udp_frame(Stranger.ADDRESS, destination, sport, port, NEEDLE)[12:]


@contextlib.contextmanager
def listeners(lab: Lab, port: int = 7005) -> Iterator[tuple[socket.socket, socket.socket]]:
    """Sockets at the server and at the gateway itself."""
    with peers.datagrams(lab, port) as server, peers.datagrams(lab, port, Namespace.GATEWAY) as local:
        yield server, local


@pytest.mark.parametrize("destination", [V4, LOCAL], ids=["server", "gateway"])
def test_a_held_datagram_reaches_nobody_until_it_is_judged(gateway: Gateway, destination: str) -> None:
    with listeners(gateway.lab) as (server, local), Stranger(gateway.lab) as stranger:
        held = gateway.stats()["packets"]["held"]
        receiver, other = (server, local) if destination == V4 else (local, server)
        with standing_still(gateway):
            stranger.frame(udp(destination, sport=4001))
            peers.eventually(lambda: gateway.stats()["packets"]["held"] == held + 1)
            assert silent(receiver)
        assert receiver.recv(1000) == NEEDLE
        assert silent(receiver)
        assert silent(other)


@pytest.mark.parametrize("destination", [V4, LOCAL], ids=["server", "gateway"])
@pytest.mark.parametrize("whose", ["broadcast", "near", "far"])
def test_frames_to_broadcast_or_the_tap_reach_nobody(gateway: Gateway, destination: str, whose: str) -> None:
    link = BROADCAST
    if whose != "broadcast":
        link = hardware_address(gateway.lab, Namespace.GATEWAY, tap(gateway, far=whose == "far"))
    with (
        listeners(gateway.lab) as (server, local),
        Capture(gateway.lab, Namespace.SERVER) as capture,
        Stranger(gateway.lab) as stranger,
    ):
        before = drops(gateway)
        for sport in range(4100, 4110):
            stranger.frame(udp(destination, sport=sport), link)
        assert silent(server)
        assert silent(local)
        # A frame to somebody else's address is nobody's; one to all is refused where it would be held.
        assert drops(gateway) - before == (10 if whose == "broadcast" else 0)
    assert not payload_seen(capture.file, NEEDLE)


def test_the_beginning_of_a_request_reaches_nobody_while_it_is_held(gateway: Gateway) -> None:
    with peers.pair(gateway.lab, 7080) as (client, server), Capture(gateway.lab, Namespace.SERVER) as capture:
        with standing_still(gateway):
            client.sendall(request("/half")[:10])
            assert silent(server)
            client.sendall(request("/half")[10:])
            assert silent(server)
        assert receive(server, len(request("/half"))) == request("/half")
        with standing_still(gateway):
            client.sendall(request("/admin"))
            assert silent(server)
        assert remains(server) == (b"", "reset")
        assert remains(client) == (b"", "reset")
    assert not payload_seen(capture.file, b"/admin")


@pytest.mark.parametrize("mark", [0, JUDGED], ids=["plain", "marked"])
@pytest.mark.parametrize("link", [BROADCAST, b""], ids=["broadcast", "unicast"])
@pytest.mark.parametrize("far", [True, False], ids=["far end", "near end"])
def test_frames_put_into_the_tap_reach_nobody(gateway: Gateway, far: bool, link: bytes, mark: int) -> None:
    lab = gateway.lab
    link = link or hardware_address(lab, Namespace.GATEWAY, tap(gateway, far=not far))
    with listeners(lab) as (server, local), packet_socket(lab, Namespace.GATEWAY, tap(gateway, far=far)) as door:
        door.setsockopt(socket.SOL_SOCKET, socket.SO_MARK, mark)
        before = drops(gateway)
        for destination in (V4, LOCAL):
            door.send(link + bytes(6) + udp(destination, sport=4200))
        assert silent(server)
        assert silent(local)
        # Out of the far end they come to the program that takes back what was held; the other way, to the wall.
        assert drops(gateway) - before == (2 if far else 0)


def test_frames_of_a_live_session_do_not_come_in_by_the_tap(gateway: Gateway) -> None:
    """A judged session is no password: nothing of it is held."""
    lab = gateway.lab
    with (
        listeners(lab) as (server, _),
        Stranger(lab) as stranger,
        packet_socket(lab, Namespace.GATEWAY, tap(gateway, far=True)) as door,
    ):
        stranger.frame(udp(V4, sport=4300))
        assert server.recv(1000) == NEEDLE
        peers.eventually(lambda: peers.session_of(gateway, 4300)["verdict"] in {"allow", "drain"})
        before = drops(gateway)
        for _ in range(3):
            door.send(hardware_address(lab, Namespace.GATEWAY, "seg0") + bytes(6) + udp(V4, sport=4300))
        assert silent(server)
        assert drops(gateway) - before == 3


def test_a_forged_mark_opens_nothing(gateway: Gateway) -> None:
    """SO_MARK on a packet socket of the gateway: without a session, and on one whose requests are inspected."""
    lab = gateway.lab
    server_address = hardware_address(lab, Namespace.SERVER, "eth0")
    with Capture(lab, Namespace.SERVER) as capture, packet_socket(lab, Namespace.GATEWAY, "seg1") as door:
        door.setsockopt(socket.SOL_SOCKET, socket.SO_MARK, JUDGED)
        with listeners(lab) as (server, _):
            before = drops(gateway)
            # The egress hook's drop comes back as the sender's error.
            with pytest.raises(OSError, match="No buffer space"):
                door.send(server_address + bytes(6) + udp(V4, sport=4400))
            assert silent(server)
            assert drops(gateway) == before + 1
        with Stranger(lab) as stranger, peers.listen(lab, 7080) as listener:
            connection = stranger.connect(7080)
            server, _ = listener.accept()
            with server:
                server.settimeout(peers.PATIENCE)
                connection.send(request("/one"), 0)
                assert receive(server, len(request("/one"))) == request("/one")
                forged = tcp_frame(
                    Stranger.ADDRESS, V4, connection.sport, 7080, 1000 + len(request("/one")), connection.ack,
                    peers.ACK | peers.PSH, request("/admin"),
                )  # fmt: skip
                door.send(server_address + bytes(6) + forged[12:])
                assert peers.record_of(gateway, connection.sport, verdict="deny")["l7_rule"] == "no-admin"
                assert silent(server)
    assert not payload_seen(capture.file, NEEDLE)
    assert not payload_seen(capture.file, b"/admin")


def test_the_tap_has_nothing_to_be_reached_by(gateway: Gateway) -> None:
    lab = gateway.lab
    for far in (False, True):
        name = tap(gateway, far=far)
        shown = json.loads(lab.run(Namespace.GATEWAY, ["ip", "-json", "address", "show", "dev", name]).stdout)[0]
        assert shown["addr_info"] == []
        assert {"NOARP", "UP", "LOWER_UP"} <= set(shown["flags"])
        assert shown["mtu"] == 65535
        assert lab.run(Namespace.GATEWAY, ["cat", f"/proc/sys/net/ipv6/conf/{name}/disable_ipv6"]).stdout == "1\n"


def test_each_cpu_has_a_queue_of_the_tap(gateway: Gateway) -> None:
    """A released frame runs on its flow's CPU."""
    queues = f"/sys/class/net/{tap(gateway)}/queues"
    masks = gateway.lab.run(Namespace.GATEWAY, ["sh", "-c", f"cat {queues}/rx-*/rps_cpus"]).stdout.split()
    steered = [int(mask.replace(",", ""), 16) for mask in masks]
    assert {1 << cpu for cpu in range(os.cpu_count() or 1)} <= set(steered)
