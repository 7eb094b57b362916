"""Endpoints under the tests' own control: sockets that live in the lab's namespaces.

`lab.call` makes them in their namespace; from then on the test itself says when which byte goes out,
and sees each that comes in, and how a connection ends.
"""

from __future__ import annotations

import contextlib
import hashlib
import itertools
import re
import select
import socket
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Self

import pytest

from fastpath.libbpf import TCX_EGRESS, TCX_INGRESS, Program, tcx_attach, tcx_programs, tcx_supported
from tests.lab import Lab, Namespace
from tests.lab.capture import packets, parse
from tests.lab.clients import V4
from tests.lab.gateway import Gateway
from tests.lab.namespaces import ip
from tests.unit.slowpath.core.wire import tcp_frame

# A bound for what must happen, never a measure of how fast it does.
PATIENCE = 10.0
# Long enough for anything that was let through to arrive.
SILENCE = 0.3

SYN, RST, PSH, ACK = 0x02, 0x04, 0x08, 0x10


def listen(lab: Lab, port: int, namespace: Namespace = Namespace.SERVER) -> socket.socket:
    """A TCP listener for IPv4 and IPv6."""
    return lab.call(
        namespace, lambda: socket.create_server(("::", port), family=socket.AF_INET6, dualstack_ipv6=True, backlog=1024)
    )


def dial(lab: Lab, port: int, host: str = V4, timeout: float = PATIENCE) -> socket.socket:
    """A client's connection, without Nagle's algorithm."""
    sock = lab.call(Namespace.CLIENT, lambda: socket.create_connection((host, port), timeout))
    sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    return sock


@contextlib.contextmanager
def pair(lab: Lab, port: int, host: str = V4) -> Iterator[tuple[socket.socket, socket.socket]]:
    """Both ends of a connection: client, server."""
    with listen(lab, port) as listener:
        listener.settimeout(PATIENCE)
        with dial(lab, port, host) as client:
            server, _ = listener.accept()
            with server:
                server.settimeout(PATIENCE)
                yield client, server


def datagrams(lab: Lab, port: int = 0, namespace: Namespace = Namespace.SERVER) -> socket.socket:
    """A UDP socket for IPv4 and IPv6."""

    def make() -> socket.socket:
        sock = socket.socket(socket.AF_INET6, socket.SOCK_DGRAM)
        sock.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 0)
        sock.bind(("::", port))
        sock.settimeout(PATIENCE)
        return sock

    return lab.call(namespace, make)


def mapped(host: str) -> str:
    """An address as a socket for both families wants it."""
    return host if ":" in host else f"::ffff:{host}"


def receive(sock: socket.socket, size: int) -> bytes:
    """So many bytes; fewer if the connection ends before."""
    content = bytearray()
    while len(content) < size:
        piece = sock.recv(min(size - len(content), 1 << 20))
        if not piece:
            break
        content += piece
    return bytes(content)


def receive_until(sock: socket.socket, end: bytes) -> bytes:
    """Bytes up to and with `end`; fewer if the connection ends before."""
    content = bytearray()
    while not content.endswith(end):
        piece = sock.recv(1)
        if not piece:
            break
        content += piece
    return bytes(content)


def remains(sock: socket.socket) -> tuple[bytes, str]:
    """All that still comes in, and how it ends: closed, reset, or open (nothing more came)."""
    content = bytearray()
    sock.settimeout(PATIENCE)
    try:
        while piece := sock.recv(1 << 20):
            content += piece
    except ConnectionResetError:
        return bytes(content), "reset"
    except TimeoutError:
        return bytes(content), "open"
    return bytes(content), "closed"


def silent(sock: socket.socket, seconds: float = SILENCE) -> bool:
    """Nothing comes in, no end either."""
    return not select.select([sock], [], [], seconds)[0]


def eventually(condition: Callable[[], Any], timeout: float = PATIENCE) -> Any:
    """What `condition` says once it is true; AssertionError when it never is."""
    deadline = time.monotonic() + timeout
    while not (answer := condition()):
        assert time.monotonic() < deadline, f"still not so: {condition}"
        time.sleep(0.05)
    return answer


def port_of(sock: socket.socket) -> int:
    """The socket's own port."""
    port: int = sock.getsockname()[1]
    return port


def record_of(gateway: Gateway, sport: int, **fields: object) -> dict[str, Any]:
    """The last record of the flow from this port that has these fields, once it is written."""

    def find() -> dict[str, Any] | None:
        found = [
            record
            for record in gateway.read_records()
            if record["flow"]["sport"] == sport and all(record.get(name) == value for name, value in fields.items())
        ]
        return found[-1] if found else None

    record: dict[str, Any] = eventually(find)
    return record


def session_of(gateway: Gateway, sport: int) -> dict[str, Any]:
    """The newest session of a flow from this port: another family may have had it before."""
    found = [session for session in gateway.sessions() if session["sport"] == sport]
    assert found, sport
    return min(found, key=lambda session: session["age"])  # type: ignore[no-any-return]


def network_counter(lab: Lab, namespace: Namespace, name: str) -> int:
    """A counter of /proc/net/netstat, like TCPOFOQueue."""
    lines = lab.run(namespace, ["cat", "/proc/net/netstat"]).stdout.splitlines()
    for names, values in zip(lines[::2], lines[1::2], strict=True):
        counters = dict(zip(names.split()[1:], values.split()[1:], strict=True))
        if name in counters:
            return int(counters[name])
    raise AssertionError(name)


def default_hook() -> str:
    """What `hook: auto` comes to on this kernel."""
    return "tcx" if tcx_supported() else "clsact"


def need_tcx() -> None:
    """Skip the test where there is none."""
    if not tcx_supported():
        pytest.skip("this kernel has no tcx: it came with Linux 6.6")


class Transfer:
    """Blocks to an echo and back, over and over, within `with`: `rounds` so far, and what went wrong."""

    def __init__(self, sock: socket.socket) -> None:
        self.rounds = 0
        self.problems: list[str] = []
        self._sock = sock
        self._done = threading.Event()
        self._thread = threading.Thread(target=self._run)

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._done.set()
        self._thread.join(PATIENCE)

    def _run(self) -> None:
        block = bytes(range(256)) * 256
        try:
            while not self._done.is_set():
                self._sock.sendall(block)
                if receive(self._sock, len(block)) != block:
                    self.problems.append("other bytes came back")
                    return
                self.rounds += 1
        except OSError as error:
            self.problems.append(repr(error))


def tcx(lab: Lab, interface: str) -> list[tuple[str, str, int]]:
    """(hook, name, id) of every program at tcx, in the order they run."""

    def look() -> list[tuple[str, str, int]]:
        index = socket.if_nametoindex(interface)
        hooks = {"ingress": TCX_INGRESS, "egress": TCX_EGRESS}
        return [
            (hook, Program.by_id(number).name, number)
            for hook, kind in hooks.items()
            for number in tcx_programs(index, kind)
        ]

    return lab.call(Namespace.GATEWAY, look) if tcx_supported() else []


def foreign(lab: Lab, interface: str, hook: int, name: str = "foreign") -> None:
    """Somebody's program at tcx, behind those that are there: it lets all pass."""
    # r0 = -1; exit
    program = Program.load(name, bytes.fromhex("b7000000ffffffff 9500000000000000"))
    lab.call(Namespace.GATEWAY, lambda: tcx_attach(program, socket.if_nametoindex(interface), hook))


def program_ids(gateway: Gateway) -> dict[str, list[str]]:
    """Ids of the programs on every interface, at tcx and as filters."""
    ids = {}
    tap = gateway.settings["tap"]
    for interface in (*gateway.settings["interfaces"], tap, f"{tap}x"):
        there = tcx(gateway.lab, interface)
        for hook in ("ingress", "egress"):
            shown = gateway.lab.run(Namespace.GATEWAY, ["tc", "filter", "show", "dev", interface, hook]).stdout
            ids[f"{interface} {hook}"] = [str(number) for at, _, number in there if at == hook]
            ids[f"{interface} {hook}"] += re.findall(r" id (\d+)", shown)
    assert all(ids[f"{interface} ingress"] for interface in (*gateway.settings["interfaces"], tap, f"{tap}x"))
    return ids


def hardware_address(lab: Lab, namespace: Namespace, interface: str) -> bytes:
    """Link-layer address of an interface."""
    return bytes.fromhex(
        lab.run(namespace, ["cat", f"/sys/class/net/{interface}/address"]).stdout.strip().replace(":", "")
    )


def packet_socket(lab: Lab, namespace: Namespace, interface: str, protocol: int = 0) -> socket.socket:
    """Sends whole frames; receives with a protocol (3: all)."""

    def make() -> socket.socket:
        sock = socket.socket(socket.AF_PACKET, socket.SOCK_RAW, 0)
        sock.bind((interface, protocol))
        sock.settimeout(PATIENCE)
        return sock

    return lab.call(namespace, make)


def digest(content: bytes) -> str:
    """To compare what is too large to show."""
    return hashlib.sha256(content).hexdigest()


class Echo:
    """Sends back what it gets, each connection in a thread of its own."""

    def __init__(self, lab: Lab, port: int, serve: Callable[[socket.socket], None] | None = None) -> None:
        self._listener = listen(lab, port)
        self._serve = serve or _echo
        self._thread = threading.Thread(target=self._accept, name=f"echo-{port}", daemon=True)
        self._thread.start()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        # Wakes the thread out of accept, which closing alone would not.
        with contextlib.suppress(OSError):
            self._listener.shutdown(socket.SHUT_RDWR)
        self._thread.join()
        self._listener.close()

    def _accept(self) -> None:
        while True:
            try:
                sock, _ = self._listener.accept()
            except OSError:
                return
            threading.Thread(target=self._one, args=(sock,), daemon=True).start()

    def _one(self, sock: socket.socket) -> None:
        with sock, contextlib.suppress(OSError):
            sock.settimeout(PATIENCE * 3)
            self._serve(sock)


def _echo(sock: socket.socket) -> None:
    while content := sock.recv(1 << 20):
        sock.sendall(content)


def serve_http(sock: socket.socket) -> None:
    """HTTP/1.1: answers each request with its body, or its target when it has none."""
    while head := receive_until(sock, b"\r\n\r\n"):
        found = re.search(rb"(?i)\r\ncontent-length: *(\d+)\r\n", head)
        body = receive(sock, int(found[1])) if found else head.split(b" ")[1]
        sock.sendall(b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n" % len(body) + body)


def request(target: str = "/", body: bytes | None = None, method: str = "GET") -> bytes:
    """A request of HTTP/1.1."""
    length = b"" if body is None else b"Content-Length: %d\r\n" % len(body)
    return f"{method} {target} HTTP/1.1\r\nHost: lab\r\n".encode() + length + b"\r\n" + (body or b"")


def answer_of(sock: socket.socket) -> bytes:
    """Body of the next answer of HTTP/1.1; ConnectionResetError when there is none."""
    head = receive_until(sock, b"\r\n\r\n")
    found = re.search(rb"(?i)\r\ncontent-length: *(\d+)\r\n", head)
    assert found, head
    return receive(sock, int(found[1]))


def copy_rules(source: Path, to: Path, more: Mapping[str, str] | None = None) -> Path:
    """A folder of rule files that a test may change, and beside it one of the patterns that they name."""
    for folder, copy in ((source, to), (source.parent / "patterns.d", to.parent / "patterns.d")):
        copy.mkdir()
        for file in folder.glob("*.yaml"):
            (copy / file.name).write_text(file.read_text())
    for name, text in (more or {}).items():
        (to / f"{name}.yaml").write_text(text)
    return to


def payloads(file: Path, dport: int) -> Iterator[bytes]:
    """Payload of a capture's packets to a port."""
    return (packet.payload for packet in packets(file, dport=dport))


class Stranger:
    """A host in the clients' segment without a TCP of its own: it sends what it is told, and answers nothing."""

    ADDRESS = "10.77.1.99"
    # Never the same twice: what it leaves behind at the server is not closed.
    _ports = itertools.count(20_000)

    def __init__(self, lab: Lab) -> None:
        self._own = hardware_address(lab, Namespace.CLIENT, "eth0")
        self._gateway = hardware_address(lab, Namespace.GATEWAY, "seg0")
        ip(
            f"neighbour replace {self.ADDRESS} lladdr {self._own.hex(':')} dev seg0 nud permanent",
            namespace=lab.netns(Namespace.GATEWAY),
        )
        self._socket = packet_socket(lab, Namespace.CLIENT, "eth0", 0x0800)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._socket.close()

    def segment(self, sport: int, dport: int, seq: int, ack: int, flags: int, payload: bytes = b"") -> None:
        """Send one TCP segment to the server."""
        frame = tcp_frame(self.ADDRESS, V4, sport, dport, seq, ack, flags, payload)
        self.frame(frame[12:])

    def frame(self, content: bytes, destination: bytes = b"") -> None:
        """Send a frame, from its ethertype on, to the gateway's or another link-layer address."""
        self._socket.send((destination or self._gateway) + self._own + content)

    def connect(self, dport: int) -> Connection:
        """A connection, with its handshake done."""
        sport = next(self._ports)
        self.segment(sport, dport, 999, 0, SYN)
        while True:
            packet = parse(self._socket.recv(65536))
            if packet and packet.dport == sport and packet.flags & (SYN | ACK) == SYN | ACK:
                break
        connection = Connection(self, sport, dport, packet.sequence + 1)
        self.segment(sport, dport, 1000, connection.ack, ACK)
        return connection


@dataclass(frozen=True, slots=True)
class Connection:
    """A stranger's connection, whose client acknowledges nothing but the handshake."""

    stranger: Stranger
    sport: int
    dport: int
    ack: int

    def send(self, payload: bytes, at: int) -> None:
        """Send bytes for a place of the stream, counted from 0."""
        self.stranger.segment(self.sport, self.dport, 1000 + at, self.ack, ACK | PSH, payload)
