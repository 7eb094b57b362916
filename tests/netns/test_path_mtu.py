"""Path MTU discovery through the gateway, for real: a hop behind it, or the gateway itself, has a smaller MTU, its
ICMP errors reach the sender, and what was sent arrives in the end."""

from __future__ import annotations

import ctypes
import errno
import hashlib
import itertools
import socket
import threading
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TypeVar

import pytest

from tests.lab import Lab, Namespace
from tests.lab.gateway import Gateway
from tests.lab.namespaces import CLONE_NEWNET, Address, ip
from tests.netns.peers import PATIENCE, eventually, receive
from tests.netns.probes import family

pytestmark = pytest.mark.root

T = TypeVar("T")

# Nothing lets ICMP through but the sessions that it is about.
POLICY = """
default: deny
rules:
  - {id: datagrams, proto: udp, ports: 7000, action: allow}
  - {id: connections, proto: tcp, ports: 7001, action: allow}
"""
FAR4, FAR6 = "10.77.3.2", "fd77:3::2"
NUMBERS = itertools.count(10)
MTU = 1300
# linux/in.h, linux/in6.h
IP_MTU_DISCOVER, IP_PMTUDISC_DO, IP_MTU = 10, 2, 14
IPV6_MTU_DISCOVER, IPV6_MTU = 23, 24
CONTENT = bytes(range(256)) * 4000


@dataclass(frozen=True)
class Path3:
    """Client, gateway, a router, and a host behind it, in a namespace that ends with a process."""

    gateway: Gateway
    far: int

    @property
    def lab(self) -> Lab:
        return self.gateway.lab

    def at_far(self, function: Callable[[], T]) -> T:
        """Result of `function`, run by a thread inside the far host's network namespace."""
        results: list[T] = []

        def inside() -> None:
            with Path(f"/proc/{self.far}/ns/net").open("rb") as file:
                assert ctypes.CDLL(None).setns(file.fileno(), CLONE_NEWNET) == 0
            results.append(function())

        thread = threading.Thread(target=inside)
        thread.start()
        thread.join()
        return results[0]

    def narrow(self, hop: str) -> None:
        """The way to the far host is narrow behind this hop."""
        for place, via4, via6 in (
            (Namespace.GATEWAY, f"via {Address.SERVER4}", f"via {Address.SERVER6}"),
            (Namespace.SERVER, "dev far0", "dev far0"),
        ):
            # Locked: what a router goes by, when its links are wide.
            mtu = f"mtu lock {MTU}" if (place is Namespace.GATEWAY) == (hop == "gateway") else ""
            ip(
                f"route replace 10.77.3.0/24 {via4} {mtu}",
                f"route replace fd77:3::/64 {via6} metric 100 {mtu}",
                namespace=self.lab.netns(place),
            )

    def fresh(self, host: str) -> str:
        """Another address of the far host's, to which nobody knows the way's width."""
        number = next(NUMBERS)
        address, length = (f"fd77:3::{number}", 64) if ":" in host else (f"10.77.3.{number}", 24)
        nodad = ["nodad"] if ":" in host else []
        enter = ["nsenter", f"--net=/proc/{self.far}/ns/net", "ip", "address", "add", f"{address}/{length}"]
        done = self.lab.run(Namespace.SERVER, [*enter, "dev", "eth0", *nodad])
        assert done.returncode == 0, done.stderr
        return address

    def told(self, host: str) -> int:
        """Errors that the client got."""
        if ":" in host:
            lines = self.lab.run(Namespace.CLIENT, ["cat", "/proc/net/snmp6"]).stdout.splitlines()
            return int(dict(line.split() for line in lines)["Icmp6InPktTooBigs"])
        lines = self.lab.run(Namespace.CLIENT, ["cat", "/proc/net/snmp"]).stdout.splitlines()
        names, values = [line.split()[1:] for line in lines if line.startswith("Icmp:")]
        return int(dict(zip(names, values, strict=True))["InDestUnreachs"])


@pytest.fixture(scope="module")
def path() -> Iterator[Path3]:
    with Lab() as lab, Gateway(lab, POLICY, inspector=False) as gateway:
        # Bounded, should nobody be left to end it.
        far = lab.spawn(Namespace.SERVER, ["unshare", "--net", "sleep", "300"])
        try:
            eventually(lambda: Path(f"/proc/{far.pid}/comm").read_text() == "sleep\n")
            router = lab.netns(Namespace.SERVER)
            ip(
                f"link add far0 type veth peer name eth0 netns {far.pid}",
                "address add 10.77.3.1/24 dev far0",
                "address add fd77:3::1/64 dev far0 nodad",
                "link set far0 up",
                namespace=router,
            )
            enter = ["nsenter", f"--net=/proc/{far.pid}/ns/net", "ip"]
            for command in (
                f"address add {FAR4}/24 dev eth0",
                f"address add {FAR6}/64 dev eth0 nodad",
                "link set lo up",
                "link set eth0 up",
                "route add default via 10.77.3.1",
                "-6 route add default via fd77:3::1",
            ):
                done = lab.run(Namespace.SERVER, [*enter, *command.split()])
                assert done.returncode == 0, done.stderr
            for switch in ("ipv4/ip_forward", "ipv6/conf/all/forwarding"):
                assert lab.run(Namespace.SERVER, ["sh", "-c", f"echo 1 > /proc/sys/net/{switch}"]).returncode == 0
            yield Path3(gateway, far.pid)
        finally:
            lab.stop(far)


HOSTS = pytest.mark.parametrize("host", [FAR4, FAR6], ids=["v4", "v6"])
HOPS = pytest.mark.parametrize("hop", ["gateway", "router"])


@HOSTS
@HOPS
def test_tcp_finds_its_path_mtu(path: Path3, host: str, hop: str) -> None:
    path.narrow(hop)
    host = path.fresh(host)
    before, dropped = path.told(host), path.gateway.stats()["drops"]
    listener = path.at_far(lambda: socket.create_server((host, 7001), family=family(host)))
    with listener:
        listener.settimeout(PATIENCE)
        client = path.lab.call(Namespace.CLIENT, lambda: socket.create_connection((host, 7001), PATIENCE))
        with client:
            far, _ = listener.accept()
            with far:
                far.settimeout(PATIENCE)
                sender = threading.Thread(target=client.sendall, args=(CONTENT,))
                sender.start()
                received = receive(far, len(CONTENT))
                sender.join()
                # The other way too, whose packets fit from the start: nothing there is narrow.
                far.sendall(b"got it")
                assert receive(client, 6) == b"got it"
    assert hashlib.sha256(received).digest() == hashlib.sha256(CONTENT).digest()
    assert path.told(host) > before
    assert path.gateway.stats()["drops"] == dropped


@HOSTS
@HOPS
def test_udp_finds_its_path_mtu(path: Path3, host: str, hop: str) -> None:
    path.narrow(hop)
    host = path.fresh(host)
    before = path.told(host)
    version6 = ":" in host
    level, discover, mtu = (
        (socket.IPPROTO_IPV6, IPV6_MTU_DISCOVER, IPV6_MTU) if version6 else (socket.IPPROTO_IP, IP_MTU_DISCOVER, IP_MTU)
    )

    def bound() -> socket.socket:
        sock = socket.socket(family(host), socket.SOCK_DGRAM)
        sock.bind((host, 7000))
        sock.settimeout(PATIENCE)
        return sock

    def connected() -> socket.socket:
        sock = socket.socket(family(host), socket.SOCK_DGRAM)
        sock.setsockopt(level, discover, IP_PMTUDISC_DO)
        sock.connect((host, 7000))
        return sock

    with path.at_far(bound) as far, path.lab.call(Namespace.CLIENT, connected) as client:
        size = MTU - (48 if version6 else 28)

        def sent(length: int) -> bool:
            try:
                client.send(bytes(length))
            except OSError as error:
                # An error that came in meanwhile, or the width is known.
                assert error.errno == errno.EMSGSIZE  # noqa: PT017 - not the test's subject
                return False
            return True

        def known() -> bool:
            sent(1400)
            return client.getsockopt(level, mtu) == MTU

        eventually(known)
        eventually(lambda: sent(size))
        assert len(far.recv(2000)) == size
    assert path.told(host) > before


@HOSTS
def test_fragments_of_a_sender_that_knows_cross(path: Path3, host: str) -> None:
    """Larger than any link: in order, whole, and no exception for it."""
    path.narrow("router")
    host = path.fresh(host)

    def bound() -> socket.socket:
        sock = socket.socket(family(host), socket.SOCK_DGRAM)
        sock.bind((host, 7000))
        sock.settimeout(0.5)
        return sock

    client = path.lab.call(Namespace.CLIENT, lambda: socket.socket(family(host), socket.SOCK_DGRAM))
    with path.at_far(bound) as far, client:

        def arrives() -> bytes:
            client.sendto(CONTENT[:20000], (host, 7000))
            try:
                return far.recv(65536)
            except TimeoutError:
                return b""

        # IPv6 routers fragment nothing: the first is lost for its fragments' size.
        assert eventually(arrives) == CONTENT[:20000]
