"""The real programs over packets of our own: BPF_PROG_TEST_RUN.

A test run carries out no redirect, its return code only says that there would be one
(`Act.REDIRECT`); tail calls, map writes and `bpf_clone_redirect` are real. Its frames are linear before
Linux 6.19, so what concerns headers and payload outside the linear part is left to tests/netns.

The runs happen in a network namespace of their own: a gateway with `seg0` and `seg1`, so that
bpf_fib_lookup finds what it would find on one, and a clone ends at `far0`, where nobody answers.
"""

from __future__ import annotations

import contextlib
import ctypes
import dataclasses
import enum
import itertools
import os
import shutil
import socket
import struct
import subprocess
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from ipaddress import ip_address
from pathlib import Path
from typing import Any

from scapy.layers.inet import ICMP, IP, TCP, UDP
from scapy.layers.inet6 import ICMPv6EchoReply, ICMPv6EchoRequest, IPv6
from scapy.layers.l2 import Ether
from scapy.packet import Packet, Raw

from fastpath import abi, hits
from fastpath.commands import Commands
from fastpath.config import TIMEOUTS, Config, Inspection
from fastpath.libbpf import Program, RingBuffer
from fastpath.loader.pins import PROGRAMS, Pins, Table
from fastpath.policy.compiler.compile import compile_policy
from fastpath.policy.model import ANY_APP, Default, Log, Policy, Rule, RuleFileUse
from fastpath.revisions import Revisions
from fastpath.statistics import Counters, read_counters, sessions
from fastpath.word import Word
from tests.lab.namespaces import PROGRAMS as COMPILED

BPFFS = Path("/sys/fs/bpf")
PREFIX = "microseg-test-"
CAPACITY = 4096
CLONE_NEWNET = 0x40000000

GATEWAY_MAC = "02:00:00:00:00:01"
SENDER_MAC = "02:00:00:00:00:99"
NETWORK = f"""\
link set lo up
link add seg0 address {GATEWAY_MAC} type veth peer name far0
link add seg1 address 02:00:00:00:00:02 type veth peer name far1
addr add 10.77.1.1/24 dev seg0
addr add fd77:1::1/64 dev seg0 nodad
addr add 10.77.2.1/24 dev seg1
addr add fd77:2::1/64 dev seg1 nodad
link set seg0 up
link set seg1 up
link set far0 up
link set far1 up
route add default via 10.77.2.2 dev seg1
route add default via fd77:2::2 dev seg1
"""

CLIENT = {4: "10.77.1.2", 6: "fd77:1::2"}
SERVER = {4: "10.77.2.2", 6: "fd77:2::2"}
GATEWAY = {4: "10.77.1.1", 6: "fd77:1::1"}

# First sequence numbers of client and server in `Flow`.
ISN = 1000
PEER_ISN = 5000

TCP_L4, UDP_L4, ICMP_L4, ICMPV6_L4 = 6, 17, 1, 58


class Act(enum.IntEnum):
    """Return codes of the programs (TC_ACT_*)."""

    PASS = -1
    DROP = 2
    REDIRECT = 7


@dataclass(frozen=True)
class Flow:
    """Frames of one flow; `back` turns them round."""

    version: int = 4
    sport: int = 40000
    dport: int = 80
    client: str = ""
    server: str = ""

    def ip(self, *, back: bool = False, **fields: Any) -> Packet:
        """Link and network header."""
        ends = (self.client or CLIENT[self.version], self.server or SERVER[self.version])
        src, dst = reversed(ends) if back else ends
        kind = IP if self.version == 4 else IPv6
        return Ether(src=SENDER_MAC, dst=GATEWAY_MAC) / kind(src=src, dst=dst, **fields)

    def segment(
        self, flags: str, seq: int = ISN, ack: int = 0, payload: bytes = b"", *, back: bool = False, **fields: Any
    ) -> Packet:
        """A TCP segment; `flags` in scapy's letters."""
        ports = (self.dport, self.sport) if back else (self.sport, self.dport)
        numbers = {"seq": seq & 0xFFFFFFFF, "ack": ack & 0xFFFFFFFF}
        head = self.ip(back=back, **fields) / TCP(sport=ports[0], dport=ports[1], flags=flags, **numbers)
        return head / Raw(payload) if payload else head

    def handshake(self) -> tuple[Packet, Packet, Packet]:
        """SYN, SYN and ACK, ACK."""
        return (
            self.segment("S"),
            self.segment("SA", PEER_ISN, ISN + 1, back=True),
            self.segment("A", ISN + 1, PEER_ISN + 1),
        )

    def data(self, payload: bytes, at: int = 0, *, got: int = 0, back: bool = False, flags: str = "PA") -> Packet:
        """Payload `at` bytes behind the start of its direction, acknowledging `got` bytes of the other."""
        mine, theirs = (PEER_ISN, ISN) if back else (ISN, PEER_ISN)
        return self.segment(flags, mine + 1 + at, theirs + 1 + got, payload, back=back)

    def datagram(self, payload: bytes = b"", *, back: bool = False, **fields: Any) -> Packet:
        """UDP."""
        ports = (self.dport, self.sport) if back else (self.sport, self.dport)
        head = self.ip(back=back, **fields) / UDP(sport=ports[0], dport=ports[1])
        return head / Raw(payload) if payload else head

    def echo(self, number: int = 7, *, back: bool = False) -> Packet:
        """ICMP echo request, or the reply."""
        if self.version == 4:
            return self.ip(back=back) / ICMP(type=0 if back else 8, id=number)
        return self.ip(back=back) / (ICMPv6EchoReply if back else ICMPv6EchoRequest)(id=number)

    def message(self, kind: int, code: int = 0, number: int = 7, *, back: bool = False) -> Packet:
        """Any ICMP message, its identifier, if it has one, being `number`."""
        content = struct.pack(">BBHHHQ", kind, code, 0, number, 0, 0)
        fields = {"proto": ICMP_L4} if self.version == 4 else {"nh": ICMPV6_L4}
        return self.ip(back=back, **fields) / Raw(content)

    def key(self, l4: int) -> bytes:
        """Key of the session, whichever direction."""
        ports = (0, 0) if l4 not in {TCP_L4, UDP_L4} else (self.sport, self.dport)
        return key(self.client or CLIENT[self.version], self.server or SERVER[self.version], *ports, l4)


def key(src: str, dst: str, sport: int, dport: int, l4: int) -> bytes:
    """`ms_key` of addresses and ports in any order; of ICMP the asking end is `src`."""
    asks = (mapped(src), sport)
    ends = sorted([asks, (mapped(dst), dport)])
    ports = (each.to_bytes(2, "big") for _, each in ends)
    a_asks = l4 in {ICMP_L4, ICMPV6_L4} and ends[0] == asks
    return struct.pack("=16s16s2s2sBBH", ends[0][0], ends[1][0], *ports, l4, 0, a_asks)


def mapped(text: str) -> bytes:
    """16 bytes, IPv4 mapped."""
    address = ip_address(text)
    return (bytes(10) + b"\xff\xff" if address.version == 4 else b"") + address.packed


def rule(
    name: str,
    action: str,
    *,
    tcp: int = 0,
    udp: int = 0,
    l4: int = 0,
    app: tuple[str, ...] | str = (),
    files: bool = False,
    **fields: Any,
) -> Rule:
    """A rule on one port or IP protocol; for all of them without."""
    apps = (app,) if isinstance(app, str) else app
    mask = sum(1 << abi.Protocol[one.upper()] for one in apps) or ANY_APP
    port = tcp or udp
    protocols = (TCP_L4,) if tcp else (UDP_L4,) if udp else (l4,) if l4 else ()
    uses = (RuleFileUse("web", "abc"),) if files else ()
    fields.setdefault("log", Log.NONE)
    ports = ((port, port),) if port else ()
    return Rule(
        name, abi.Action[action.upper()], protocols=protocols, ports=ports, apps=mask, rule_files=uses, **fields
    )


@dataclass(frozen=True)
class Outcome:
    """What one packet did: `stats` and `drops` are the counters that changed, by how much."""

    act: Act
    frame: bytes
    mark: int
    stats: Mapping[str, int]
    drops: Mapping[str, int]
    session: abi.Session | None

    @property
    def said(self) -> str:
        """`pass`, `redirect` or `drop REASON`; `pass REASON` in monitor mode."""
        return " ".join([self.act.name.lower(), *self.drops])

    @property
    def entry(self) -> abi.Session:
        """The flow's session, which must be there."""
        assert self.session is not None
        return self.session


def judged(session: abi.Session | None) -> str:
    """`VERDICT REASON RULE` of a session."""
    assert session is not None
    word = Word.unpack(session.verdict)
    return f"{word.verdict.name} {word.reason.name} {word.rule}".lower()


def states(session: abi.Session | None) -> tuple[str, str]:
    """TCP states of client and server."""
    assert session is not None
    client, server = (abi.Tcp(state).name.lower() for state in session.tcp)
    return client, server


class Namespace:
    """A network namespace without a name: it ends with its last descriptor."""

    def __init__(self) -> None:
        self._libc = ctypes.CDLL(None, use_errno=True)
        self._home = os.open("/proc/thread-self/ns/net", os.O_RDONLY)
        self._check(self._libc.unshare(CLONE_NEWNET))
        try:
            self._fd = os.open("/proc/thread-self/ns/net", os.O_RDONLY)
            for family in ("ipv4", "ipv6"):
                Path(f"/proc/sys/net/{family}/conf/all/forwarding").write_text("1")
            subprocess.run(["ip", "-batch", "-"], input=NETWORK, text=True, check=True)
            self.ifindex = {name: socket.if_nametoindex(name) for name in ("seg0", "seg1", "far0")}
        finally:
            self._check(self._libc.setns(self._home, CLONE_NEWNET))

    def _check(self, result: int) -> None:
        if result:
            number = ctypes.get_errno()
            raise OSError(number, os.strerror(number))

    @contextlib.contextmanager
    def inside(self) -> Iterator[None]:
        """This thread is in the namespace meanwhile."""
        self._check(self._libc.setns(self._fd, CLONE_NEWNET))
        try:
            yield
        finally:
            self._check(self._libc.setns(self._home, CLONE_NEWNET))

    def close(self) -> None:
        """Leave it to the kernel."""
        os.close(self._fd)
        os.close(self._home)


def sweep() -> None:
    """Unpin what killed runs left."""
    for root in BPFFS.glob(f"{PREFIX}*"):
        if not Path(f"/proc/{root.name.removeprefix(PREFIX)}").exists():
            shutil.rmtree(root, ignore_errors=True)


class Kernel:
    """The loaded programs of one test session; `text` in place of the source, `name` apart from others."""

    def __init__(self, text: str | None = None, name: str = "", capacity: int = CAPACITY) -> None:
        sweep()
        self.pins = Pins(BPFFS / f"{PREFIX}{os.getpid()}" / name, Table(capacity), text, COMPILED)
        try:
            self.pins.load()
            self.programs: dict[str, Program] = {name: self.pins.program(name) for name in PROGRAMS}
            self.commands = Commands(self.pins)
            self.hertz = self.commands.hertz()
            self.table, self.fragments = self.pins.map("sessions"), self.pins.map("fragments")
            self._managed = self.pins.map("managed")
            self._stats = self.pins.map("stats")
            self._heartbeat = self.pins.map("heartbeat")
            self._ring = RingBuffer(self.pins.map("events"), self._receive)
            self.revisions = Revisions(self.pins, self.hertz)
            self.namespace = Namespace()
        except BaseException:
            self.pins.unload()
            raise
        # A heartbeat lasts for a test, however slow the machine.
        inspection = Inspection(timeout=60)
        self.config = Config(
            Path("gateway.yaml"),
            (),
            Path("policy.yaml"),
            Path("rules.d"),
            capacity=capacity,
            inspection=inspection,
        )
        self._default = self.config
        self._events: list[abi.Event] = []
        self._current: Policy | None = None
        self.replaced: hits.Counters | None = None

    def close(self) -> None:
        """Nothing stays."""
        self._ring.close()
        self.namespace.close()
        self.pins.unload()
        with contextlib.suppress(OSError):
            (BPFFS / f"{PREFIX}{os.getpid()}").rmdir()

    def reset(self) -> None:
        """As after loading, but for counters and policy: a test begins by saying which it means."""
        for table in (self.table, self.fragments):
            for each in list(table.keys()):
                table.delete(each)
        self._heartbeat.update(bytes(4), bytes(8))
        self.config = self._default
        self.settings()
        self.manage()
        self.revisions.press(abi.Pressure.NONE)
        self.events()

    # What the daemons do.

    def policy(self, *rules: Rule, default: str = "deny", **attributes: Any) -> int:
        """Make these the rules; the revision. Applied only if they are not current: each time takes the kernel
        a few grace periods.
        """
        attributes.setdefault("log", Log.NONE)
        policy = Policy(rules, Default(abi.Action[default.upper()], **attributes))
        return self.revisions.revision if policy == self._current else self.apply(policy)

    def apply(self, policy: Policy) -> int:
        """Apply a policy under a new revision."""
        self._current = policy
        revision = self.revisions.next()
        self.replaced = self.revisions.apply(compile_policy(policy), revision)
        return revision

    def settings(
        self,
        *,
        timeouts: Mapping[str, float] | None = None,
        exceptions: Mapping[str, abi.Action] | None = None,
        **changes: Any,
    ) -> None:
        """Change the configuration; times in seconds."""
        self.config = dataclasses.replace(
            self.config,
            timeouts={**TIMEOUTS, **(timeouts or {})},
            exceptions=exceptions or {},
            **changes,
        )
        self.revisions.configure(self.config, self.namespace.ifindex["far0"])

    def command(self, op: abi.Op | int, flow_key: bytes = bytes(40), **fields: Any) -> abi.Command:
        """One command of `ms_apply`; its answer."""
        return self.commands.apply([abi.Command(op=op, key=abi.Key.from_buffer_copy(flow_key), **fields)])[0]

    def manage(self, *indexes: int, zones: Sequence[int] = ()) -> None:
        """These interfaces are judged, and no others; `zones` are those of the first ones (`abi.Zone`)."""
        for each in list(self._managed.keys()):
            self._managed.delete(each)
        for index, zone in itertools.zip_longest(indexes, zones, fillvalue=abi.Zone.NONE):
            self._managed.update(struct.pack("=I", index), struct.pack("=I", zone))
        self.revisions.manage(list(indexes))

    def beat(self, age: float) -> None:
        """As if the inspector's last sign of life was `age` seconds old."""
        jiffies = self.commands.clocks().jiffies - round(age * self.hertz)
        self._heartbeat.update(bytes(4), struct.pack("=Q", jiffies))

    def events(self) -> list[abi.Event]:
        """Events since the last call."""
        self._ring.consume()
        found, self._events = self._events, []
        return found

    def _receive(self, address: int, size: int) -> None:
        self._events.append(abi.Event.from_buffer_copy(ctypes.string_at(address, size)))

    def session(self, flow_key: bytes) -> abi.Session | None:
        """A session by its key."""
        value = self.table.lookup(flow_key)
        return abi.Session.from_buffer_copy(value) if value else None

    def live(self) -> list[tuple[bytes, abi.Session]]:
        """All sessions."""
        return list(sessions(self.table))

    @property
    def counters(self) -> Counters:
        """Statistics."""
        return read_counters(self._stats)

    def tick(self, seconds: float = 0) -> None:
        """Wait until the kernel's clock is at least one tick, and `seconds`, further."""
        start = self.commands.clocks()
        until = start.jiffies + max(2, int(seconds * self.hertz) + 2)
        while self.commands.clocks().jiffies < until:
            time.sleep(0.002)

    # What the network does.

    def send(
        self,
        packet: Packet | bytes,
        program: str = "ms_ingress",
        *,
        mark: int = 0,
        interface: str = "seg0",
        came_from: int = 0,
        gso_segs: int = 0,
        gso_size: int = 0,
    ) -> Outcome:
        """Run a program over a frame that came in (goes out) at `interface`, having come from the interface
        with the index `came_from`.
        """
        frame = bytes(packet)
        context = sk_buff(mark, self.namespace.ifindex[interface], came_from, gso_segs, gso_size)
        before = self.counters
        with self.namespace.inside():
            run = self.programs[program].run(frame, context=context)
        after = self.counters
        flow_key = key_of(packet) if isinstance(packet, Packet) else None
        return Outcome(
            Act(run.value),
            run.frame,
            struct.unpack_from("=I", run.context, 8)[0],
            changed(before.stats, after.stats),
            changed(before.drops, after.drops),
            self.session(flow_key) if flow_key else None,
        )

    def open(self, flow: Flow) -> abi.Session:
        """A TCP handshake, which must pass; the session."""
        outcome = None
        for packet in flow.handshake():
            outcome = self.send(packet)
            assert outcome.said == "pass"
        assert outcome is not None
        return outcome.entry

    @contextlib.contextmanager
    def forwarding(self, version: int, *, on: bool) -> Iterator[None]:
        """Forwarding of one IP version at seg0, as set before afterwards."""
        with self.namespace.inside():
            switch = Path(f"/proc/sys/net/ipv{version}/conf/seg0/forwarding")
            before = switch.read_text()
            switch.write_text(str(int(on)))
        try:
            yield
        finally:
            with self.namespace.inside():
                switch.write_text(before)

    @contextlib.contextmanager
    def listening(self) -> Iterator[Callable[[], bytes]]:
        """Gives the next TCP frame that leaves through seg0."""
        with self.namespace.inside():
            listener = socket.socket(socket.AF_PACKET, socket.SOCK_RAW, socket.htons(3))
            listener.bind(("far0", 0))
        with listener:
            listener.settimeout(5)

            def hear() -> bytes:
                # The interface itself may say something too: multicast listener reports.
                while TCP not in Ether(frame := listener.recv(2000)):
                    pass
                return frame

            yield hear


def sk_buff(mark: int = 0, ifindex: int = 1, ingress_ifindex: int = 0, gso_segs: int = 0, gso_size: int = 0) -> bytes:
    """`struct __sk_buff` (linux/bpf.h) with the fields that a test run lets us set."""
    raw = bytearray(192)
    for offset, value in ((8, mark), (36, ingress_ifindex), (40, ifindex), (164, gso_segs), (176, gso_size)):
        struct.pack_into("=I", raw, offset, value)
    return bytes(raw)


def changed(before: Mapping[str, int], after: Mapping[str, int]) -> dict[str, int]:
    """Counters that moved."""
    return {name: after[name] - value for name, value in before.items() if after[name] != value}


def key_of(packet: Packet) -> bytes | None:
    """Key of a packet's session, as scapy understands the packet."""
    network = packet.getlayer(IP) or packet.getlayer(IPv6)
    if network is None:
        return None
    for layer, l4 in ((TCP, TCP_L4), (UDP, UDP_L4)):
        if layer in packet:
            return key(network.src, network.dst, packet[layer].sport, packet[layer].dport, l4)
    l4 = network.proto if IP in packet else network.nh
    if l4 in {ICMP_L4, ICMPV6_L4}:
        return icmp_key(network.src, network.dst, bytes(network.payload), l4)
    return key(network.src, network.dst, 0, 0, l4)


# Of replies with an identifier the types of what they answer.
QUERIES = {
    ICMP_L4: {0: 8, 14: 13, 16: 15, 18: 17, 43: 42},
    ICMPV6_L4: {129: 128, 145: 144, 147: 146, 161: 160},
}


def icmp_key(src: str, dst: str, message: bytes, l4: int) -> bytes:
    """Key of a message's session; a reply is taken to have been asked for."""
    kind, code, _, number = struct.unpack_from(">BBHH", message)
    asked = QUERIES[l4].get(kind)
    if asked is not None:
        return key(dst, src, number, asked << 8 | code, l4)
    return key(src, dst, number if kind in QUERIES[l4].values() else 0, kind << 8 | code, l4)
