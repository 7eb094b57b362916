"""Traffic through a lab from one thread that owns both ends.

The sockets are made inside the namespaces, the thread stays outside. A packet's whole way
through the gateway then runs in the softirq of the call that sends it: no process is
woken, nothing is scheduled, and the time is that of the path alone.
"""

from __future__ import annotations

import contextlib
import socket
import statistics
import struct
import time
from pathlib import Path
from types import TracebackType
from typing import Self

from tests.lab.namespaces import Address, Lab, Namespace

PORT = 9000
SERVER = (str(Address.SERVER4), PORT)
# All unread datagrams of a burst fit the default receive buffer.
BURST = 64
DATAGRAM = bytes(64)
FLOWS = 8
TIMEOUT = 5  # seconds


class Ends:
    """A client's and a server's sockets in one lab: TCP and UDP on PORT.

    Several flows of each: on which CPU the kernel handles one may depend on its ports.
    """

    def __init__(self, lab: Lab) -> None:
        self.lab = lab
        self._stack = contextlib.ExitStack()
        lab.call(Namespace.CLIENT, spare_ports)
        self._listener = self._made(Namespace.SERVER, socket.SOCK_STREAM)
        self._listener.bind(SERVER)
        self._listener.listen()
        self._streams = [self.stream() for _ in range(FLOWS)]
        self._to = self._made(Namespace.SERVER, socket.SOCK_DGRAM)
        self._to.bind(SERVER)
        self._from = [self._made(Namespace.CLIENT, socket.SOCK_DGRAM) for _ in range(FLOWS)]
        for one in self._from:
            one.connect(SERVER)
            # Connection tracking takes a flow for new, and walks all rules, until it has seen an answer.
            one.send(b"?")
            _, client = self._to.recvfrom(1)
            self._to.sendto(b"!", client)
            one.recv(1)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._stack.close()

    def _made(self, place: Namespace, kind: socket.SocketKind) -> socket.socket:
        return self._stack.enter_context(self.lab.call(place, lambda: make(kind)))

    def client(self) -> socket.socket:
        """A new TCP socket of the client; the caller's to close."""
        return self.lab.call(Namespace.CLIENT, lambda: make(socket.SOCK_STREAM))

    def connect(self, client: socket.socket) -> socket.socket:
        """Connect it; the server's end."""
        client.connect(SERVER)
        return self._listener.accept()[0]

    def stream(self) -> tuple[socket.socket, socket.socket]:
        """Both ends of a new connection, closed with the others."""
        client = self._made(Namespace.CLIENT, socket.SOCK_STREAM)
        return client, self._stack.enter_context(self.connect(client))

    def round_trip(self, count: int = 250) -> float:
        """Microseconds of one byte there and one byte back on an established connection: mean of the flows' medians."""
        clock = time.perf_counter_ns
        medians = []
        for client, server in self._streams:
            times = []
            for _ in range(count):
                start = clock()
                client.send(b"x")
                server.recv(1)
                server.send(b"x")
                client.recv(1)
                times.append(clock() - start)
            medians.append(statistics.median(times))
        return statistics.mean(medians) / 1000

    def connections(self, count: int = 250) -> float:
        """Connections a second: handshake, one byte each way, close from both sides."""
        clients = self.lab.call(Namespace.CLIENT, lambda: [make(socket.SOCK_STREAM) for _ in range(count)])
        start = time.perf_counter()
        for client in clients:
            client.connect(SERVER)
            accepted, _ = self._listener.accept()
            client.send(b"x")
            accepted.recv(1)
            accepted.send(b"x")
            client.recv(1)
            client.close()
            accepted.close()
        return count / (time.perf_counter() - start)

    def datagrams(self, count: int = 6400) -> float:
        """UDP packets a second, 64 bytes of payload; a lost one ends the bench."""
        sends = [one.send for one in self._from]
        receive = self._to.recv
        start = time.perf_counter()
        for _ in range(count // BURST):
            for send in sends:
                for _ in range(BURST // FLOWS):
                    send(DATAGRAM)
            for _ in range(BURST):
                receive(128)
        return count / (time.perf_counter() - start)


def make(kind: socket.SocketKind) -> socket.socket:
    """A socket of the calling thread's namespace. The kernel's own timeouts: with Python's, every call polls first."""
    made = socket.socket(socket.AF_INET, kind)
    for option in (socket.SO_RCVTIMEO, socket.SO_SNDTIMEO):
        made.setsockopt(socket.SOL_SOCKET, option, struct.pack("@ll", TIMEOUT, 0))
    if kind is socket.SOCK_STREAM:
        made.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    return made


def spare_ports() -> None:
    """Thousands of connections a minute to one address and port: let the client's ports come again."""
    for name, value in (("tcp_tw_reuse", "1"), ("ip_local_port_range", "10000 65000")):
        # Of the calling thread's network namespace.
        Path(f"/proc/sys/net/ipv4/{name}").write_text(value, encoding="ascii")
