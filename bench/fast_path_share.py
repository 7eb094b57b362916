"""Share of the packets that the kernel forwards by itself, under a mix of traffic.

Of 100 connections 70 are HTTP (nginx), 20 databases (half MariaDB, half Redis), 8 gRPC (half of them on a
server ruled by service, so judged call by call for ever) and 2 DNS over TCP. A connection has 1 to 10
requests, a request one body of 1 to 64 KB, in the same sizes for all protocols. `by_protocol` rules HTTP and
the databases by protocol; `by_request` has request rules on all HTTP too.
"""

from __future__ import annotations

import random
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack

from bench.gateway import Gateway
from bench.results import HIGHER, Result
from bench.traffic import make
from tests.lab import clients, servers
from tests.lab.namespaces import ROOT, Address, Lab, LabError, Namespace

CONNECTIONS = 200
BODIES = (1024, 16 * 1024, 64 * 1024)  # files that the lab's nginx has
GRPC_BY_PROTOCOL, GRPC_BY_SERVICE = 50051, 50052
SERVER = str(Address.SERVER4)

POLICY = f"""\
rules:
- {{id: by-path, proto: tcp, ports: 80, action: inspect, rules: by-path}}
- {{id: http, proto: tcp, app: http, action: allow}}
- {{id: databases, proto: tcp, app: [mysql, redis], action: allow}}
- {{id: dns, proto: [tcp, udp], app: dns, action: allow}}
- {{id: grpc, proto: tcp, ports: {GRPC_BY_PROTOCOL}, action: inspect, rules: by-protocol}}
- {{id: grpc-services, proto: tcp, ports: {GRPC_BY_SERVICE}, action: inspect, rules: by-service}}
"""
POLICIES = {
    "by_protocol": POLICY.replace(POLICY.splitlines()[1] + "\n", ""),
    "by_request": POLICY,
}


def ask(peer: socket.socket, request: bytes, missing: Callable[[bytes], int]) -> None:
    """Send, and receive until nothing is `missing` of what came."""
    peer.sendall(request)
    got = b""
    while missing(got):
        part = peer.recv(1 << 16)
        if not part:
            raise LabError("a server closed the connection")
        got += part


def connect(lab: Lab, port: int) -> socket.socket:
    """A connected socket of the client's namespace."""
    peer = lab.call(Namespace.CLIENT, lambda: make(socket.SOCK_STREAM))
    peer.connect((SERVER, port))
    return peer


def http(lab: Lab, dice: random.Random) -> None:
    """Some files over one connection."""

    def missing(got: bytes) -> int:
        head, end, body = got.partition(b"\r\n\r\n")
        if not end:
            return 1
        if not head.startswith(b"HTTP/1.1 200"):
            raise LabError(f"HTTP: {head[:80]!r}")
        return size - len(body)

    with connect(lab, 80) as peer:
        for _ in range(dice.randint(1, 10)):
            size = dice.choice(BODIES)
            ask(peer, b"GET /%d.bin HTTP/1.1\r\nHost: lab\r\n\r\n" % size, missing)


def redis(lab: Lab, dice: random.Random) -> None:
    """SET and GET in turns, on one connection."""
    with connect(lab, 6379) as peer:
        for number in range(dice.randint(1, 10)):
            if number % 2 == 0:
                size = dice.choice(BODIES)
                value = b"$%d\r\n%s\r\n" % (size, bytes(size))
                ask(peer, b"*3\r\n$3\r\nSET\r\n$1\r\nk\r\n" + value, lambda got: len(b"+OK\r\n") - len(got))
            else:
                ask(peer, b"*2\r\n$3\r\nGET\r\n$1\r\nk\r\n", lambda got: len(value) - len(got))  # noqa: B023  called at once


def mysql(lab: Lab, dice: random.Random) -> None:
    """Statements of one client, the body in the answer."""
    sizes = [dice.choice(BODIES) for _ in range(dice.randint(1, 10))]
    require(clients.mysql(lab, statement=";".join(f"select repeat('x', {size})" for size in sizes)))


def grpc(lab: Lab, dice: random.Random) -> None:
    """Calls on one channel, to either server, the body in the request: Wipe's answer is short."""
    calls = [f"lab.Admin/Wipe:{dice.choice(BODIES)}" for _ in range(dice.randint(1, 10))]
    require(clients.grpc(lab, calls=calls, port=dice.choice((GRPC_BY_PROTOCOL, GRPC_BY_SERVICE))))


def dns(lab: Lab, _dice: random.Random) -> None:
    """A question over TCP."""
    require(clients.dns(lab, tcp=True))


def require(result: clients.Result) -> None:
    """All of the mix is allowed."""
    if not result.ok:
        raise LabError(result.detail)


MIX = [http] * 70 + [mysql] * 10 + [redis] * 10 + [grpc] * 8 + [dns] * 2
SERVERS = (servers.Nginx, servers.MariaDB, servers.Redis, servers.Grpc, servers.Dnsmasq)


def second_grpc_server(lab: Lab) -> subprocess.Popen[bytes]:
    """The lab's gRPC server once more, on the port that is ruled by service."""
    script = ROOT / "tests" / "lab" / "grpc_server.py"
    process = lab.spawn(Namespace.SERVER, [sys.executable, "-s", script, str(GRPC_BY_SERVICE)])
    deadline = time.monotonic() + 10
    while True:
        with lab.call(Namespace.SERVER, lambda: make(socket.SOCK_STREAM)) as probe:
            if not probe.connect_ex((SERVER, GRPC_BY_SERVICE)):
                return process
        if time.monotonic() > deadline:
            raise LabError("the second gRPC server does not start")
        time.sleep(0.02)


def share(policy: str) -> float:
    """Percent of the packets that never left the kernel."""
    dice = random.Random(1)
    with ExitStack() as stack:
        lab = stack.enter_context(Lab())
        stack.enter_context(servers.running(lab, SERVERS))
        second_grpc_server(lab)
        gateway = stack.enter_context(Gateway(lab, policy))
        for number in range(CONNECTIONS):
            MIX[number * 37 % len(MIX)](lab, dice)  # every kind in its share, evenly mixed
        counters = gateway.packets()
    return 100 * (1 - counters["held"] / counters["packets"])


def bench() -> Iterator[Result]:
    """Percent."""
    yield Result("fast_path_share.by_protocol", "%", share(POLICIES["by_protocol"]), target=95, better=HIGHER)
    yield Result("fast_path_share.by_request", "%", share(POLICIES["by_request"]), better=HIGHER)
