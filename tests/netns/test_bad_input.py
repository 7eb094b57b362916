"""What bad input gets: a clear line and a status from the commands, a counted drop from the gateway."""

from __future__ import annotations

import random
import signal
import struct
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from scapy.layers.dns import DNS, DNSQR
from scapy.layers.inet import ICMP, IP, TCP, UDP
from scapy.layers.inet6 import ICMPv6EchoRequest, IPv6, IPv6ExtHdrDestOpt, IPv6ExtHdrFragment, IPv6ExtHdrHopByHop
from scapy.layers.l2 import ARP, Dot1Q, Ether
from scapy.packet import Raw

from tests.lab import Lab, Namespace, clients, servers
from tests.lab.clients import V4, V6
from tests.lab.gateway import CONFIGS, FASTPATH, SLOWPATH, Gateway
from tests.lab.namespaces import Address, ip
from tests.netns.peers import copy_rules, eventually, pair, receive
from tests.netns.probes import mac, send_frames

pytestmark = pytest.mark.root

POLICY = """
default: {action: deny, deny_with: reset}
rules:
  - {id: web, proto: tcp, ports: 8080, action: inspect, rules: [web]}
  - {id: odd, proto: tcp, ports: 7000-7001, app: [unknown, http2], action: allow}
  - {id: dns, proto: udp, ports: 53, app: dns, action: allow}
  - {id: plain, proto: tcp, ports: 7002, action: allow}
"""


@pytest.fixture(scope="module")
def bare() -> Iterator[Lab]:
    """Nothing is loaded there."""
    with Lab() as lab:
        yield lab


@pytest.fixture(scope="module")
def gateway() -> Iterator[Gateway]:
    with Lab() as lab:
        rules = copy_rules(CONFIGS / "rules.d", lab.directory / "rules.d")
        with Gateway(lab, POLICY, rules) as one, servers.running(lab, [servers.Nginx]):
            yield one


def refused(lab: Lab, name: str = FASTPATH, policy: str = POLICY, **settings: Any) -> tuple[int, list[str], Gateway]:
    """Start a daemon that will not start: its status, and what it says."""
    one = Gateway(lab, policy, settings=settings)
    done = one.command(name, "run")
    assert done.stdout == ""
    assert not Path(one.settings["pin_root"]).exists()
    return done.returncode, done.stderr.splitlines(), one


# -- at start ------------------------------------------------------------------------------------------------------


def test_missing_interface(bare: Lab) -> None:
    status, lines, one = refused(bare, interfaces=["seg0", "seg9"])
    assert (status, lines) == (1, [f"microseg-fastpath: {one.config}: interfaces: there is no interface seg9"])


def test_host_that_does_not_forward(bare: Lab) -> None:
    switches = ("net/ipv4/ip_forward", "net/ipv6/conf/all/forwarding")

    def switch(value: int) -> None:
        for name in switches:
            bare.call(Namespace.GATEWAY, lambda name=name: Path("/proc/sys", name).write_text(str(value)))

    switch(0)
    try:
        status, lines, _ = refused(bare)
        assert status == 1
        assert len(lines) == 1
        assert "does not forward" in lines[0]
        assert "net.ipv4.ip_forward=1" in lines[0]
    finally:
        switch(1)


@pytest.mark.parametrize("name", [FASTPATH, SLOWPATH])
def test_only_one_interface(bare: Lab, name: str) -> None:
    status, lines, one = refused(bare, name, interfaces=["seg0"])
    assert status == 3
    assert len(lines) == 1
    assert lines[0].startswith(f"{one.config}:")
    assert lines[0].endswith("interfaces: a gateway stands between segments: name at least two interfaces")


def test_pins_outside_of_a_bpf_file_system(bare: Lab) -> None:
    status, lines, one = refused(bare, pin_root=str(bare.directory / "pins"))
    assert status == 5
    assert lines == [
        f"microseg-fastpath: {one.settings['pin_root']}: pin_root must lie in a BPF file system, such as /sys/fs/bpf"
    ]


@pytest.mark.parametrize(
    ("lacking", "says"),
    [("-sys_admin", "cannot mount a BPF file system: Operation not permitted"), ("-net_admin", "")],
)
def test_privilege_that_is_missing(bare: Lab, lacking: str, says: str) -> None:
    """Root without a capability; the BPF file system is hidden under another."""
    one = Gateway(bare, POLICY)
    hide = "mount -t tmpfs none /sys/fs/bpf && " if says else ""
    run = f"exec setpriv --bounding-set={lacking} {Path(sys.executable).with_name(FASTPATH)} run --config {one.config}"
    try:
        done = bare.run(Namespace.GATEWAY, ["unshare", "--mount", "sh", "-c", hide + run], 60)
        assert done.returncode == 5, done.stderr
        assert "Traceback" not in done.stderr
        assert done.stderr.startswith("microseg-fastpath: ")
        assert says in done.stderr
        assert len(done.stderr.splitlines()) == 1
    finally:
        assert one.command(FASTPATH, "unload").returncode == 0


@pytest.mark.parametrize("name", [FASTPATH, SLOWPATH])
def test_broken_config_is_reported_whole(bare: Lab, name: str) -> None:
    one = Gateway(bare, POLICY)
    one.config.write_text(
        f"interfaces: [seg0, seg1]\npolicy: {one.policy}\nprio: 0\ncolour: red\n"
        "sessions: {kind: tree}\nlisten: {fastpath: nowhere}\nmark: {value: 3, mask: 1}\n"
    )
    for command in (["run"], ["config", "check"]) if name == FASTPATH else (["run"],):
        done = one.command(name, *command)
        assert done.returncode == 3
        places = [line.partition(": ")[0] for line in done.stderr.splitlines()]
        assert places == [f"{one.config}:{line}" for line in (3, 4, 5, 6, 7)]


@pytest.mark.parametrize("name", [FASTPATH, SLOWPATH])
def test_config_that_is_not_there(bare: Lab, name: str, tmp_path: Path) -> None:
    argv = [Path(sys.executable).with_name(name), "run", "--config", tmp_path / "none.yaml"]
    done = bare.run(Namespace.GATEWAY, argv)
    assert done.returncode == 3
    assert done.stderr.splitlines() == [f"{tmp_path}/none.yaml: No such file or directory"]


def test_broken_policy_is_reported_whole(bare: Lab) -> None:
    policy = (
        "default: perhaps\n"
        "rules:\n"
        "  - {id: a, proto: tcp, ports: 0-70000, action: allow}\n"
        "  - {id: b, action: inspect, rules: [nowhere]}\n"
        "  - {action: allow}\n"
    )
    status, lines, one = refused(bare, policy=policy)
    assert status == 3
    assert [line.partition(": ")[0] for line in lines] == [f"{one.policy}:{line}" for line in (1, 3, 4, 5)]


def test_broken_rule_files_are_reported_whole(bare: Lab) -> None:
    rules = bare.directory / "broken.d"
    rules.mkdir()
    (rules / "one.yaml").write_text("name: one\nprotocol: http\nrules:\n  - {id: a, action: perhaps}\n")
    (rules / "two.yaml").write_text("name: two\nprotocol: smoke\nrules: []\n")
    status, lines, _ = refused(bare, SLOWPATH, rules=str(rules))
    assert status == 3
    places = {line.partition(": ")[0] for line in lines}
    assert {f"{rules}/one.yaml:4", f"{rules}/two.yaml:2"} <= places


# -- while running -------------------------------------------------------------------------------------------------


def test_a_broken_rule_file_leaves_those_in_force(gateway: Gateway) -> None:
    file = Path(gateway.settings["rules"]) / "web.yaml"
    good, said = file.read_text(), len(gateway.log(SLOWPATH).read_text())
    try:
        file.write_text(good.replace("action: deny", "action: perhaps"))
        gateway.children[SLOWPATH].send_signal(signal.SIGHUP)
        log = eventually(
            lambda: text if "the rule files in force stay" in (text := gateway.log(SLOWPATH).read_text()[said:]) else ""
        )
        line = 1 + good[: good.index("action: deny")].count("\n")
        assert f"{file}:{line}: " in log
        assert clients.http2(gateway.lab).ok
        assert not clients.http2(gateway.lab, path="/admin").ok
    finally:
        file.write_text(good)


def test_a_broken_config_leaves_the_one_in_force(gateway: Gateway) -> None:
    before = gateway.status()["policy"]
    said = {name: len(gateway.log(name).read_text()) for name in (FASTPATH, SLOWPATH)}
    try:
        gateway.config.write_text("interfaces: [seg0]\npolicy: nowhere\nshape: round\n")
        for name in (FASTPATH, SLOWPATH):
            gateway.children[name].send_signal(signal.SIGHUP)
            log = eventually(
                lambda name=name: text if "stay" in (text := gateway.log(name).read_text()[said[name] :]) else ""
            )
            assert f"{gateway.config}:1: interfaces: " in log
            assert f"{gateway.config}:3: unknown field 'shape'" in log
    finally:
        gateway.write_config()
    assert gateway.status()["policy"] | {"problem": None} == before
    assert clients.http2(gateway.lab, V6).ok


# -- frames --------------------------------------------------------------------------------------------------------


def templates(link: Ether, rng: random.Random) -> list[bytes]:
    """Sound frames of many kinds, to be bent."""
    client4, client6 = str(Address.CLIENT4), str(Address.CLIENT6)
    v4, v6 = IP(src=client4, dst=V4), IPv6(src=client6, dst=V6)
    query = DNS(rd=1, qd=DNSQR(qname="web.lab.test"))
    frames = [link / ARP(hwsrc=link.src, psrc="10.77.1.99", pdst="10.77.1.1"), link / Raw(rng.randbytes(60))]
    for network in (v4, v6):
        sport = rng.randrange(1024, 65536)
        syn = TCP(sport=sport, dport=7000, flags="S", seq=1000, options=[("MSS", 1460), ("SAckOK", b""), ("WScale", 7)])
        begun = TCP(sport=sport, dport=7000, flags="PA", seq=1001, ack=1)
        frames += [
            link / network / syn,
            # The inspector gets these, and what becomes of them when they are bent.
            link / network / begun / Raw(b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n" + bytes([0, 0, 0, 4, 0, 0, 0, 0, 0])),
            link / network / begun / Raw(rng.randbytes(rng.randrange(1, 600))),
            link / network / TCP(sport=sport, dport=8080, flags="S", seq=1000),
            link / network / UDP(sport=sport, dport=53) / query,
            link / network / UDP(sport=sport, dport=53) / Raw(rng.randbytes(200)),
            link / Dot1Q(vlan=7) / Dot1Q(vlan=8) / network / UDP(sport=sport, dport=53) / query,
        ]
    frames += [
        link / v4 / ICMP() / Raw(b"echo"),
        link / v4 / ICMP(type=3, code=4) / IP(src=V4, dst=client4) / UDP(sport=53, dport=5000) / Raw(b"12345678"),
        link / IP(src=client4, dst=V4, options=[]) / TCP(dport=7000, dataofs=15),
        link / IP(src=client4, dst=V4, flags="MF", frag=0, id=5) / UDP(sport=5, dport=53) / Raw(bytes(64)),
        link / IP(src=client4, dst=V4, frag=2, id=5) / Raw(bytes(64)),
        link / v6 / ICMPv6EchoRequest(data=b"echo"),
        link / v6 / IPv6ExtHdrHopByHop() / IPv6ExtHdrDestOpt() / UDP(sport=5, dport=53) / query,
        link / v6 / IPv6ExtHdrFragment(m=1, id=6) / UDP(sport=5, dport=53) / Raw(bytes(64)),
    ]
    return [bytes(frame) for frame in frames]


def bent(rng: random.Random, frame: bytes) -> bytes:
    """A frame with some bytes changed, cut off or added; what is behind the addresses of Ethernet."""
    content = bytearray(frame)
    for _ in range(rng.choice((0, 0, 1, 1, 2, 4, 16))):
        # Headers more often than what they carry.
        at = rng.randrange(12, min(len(content), rng.choice((40, 80, 2000))))
        content[at] = rng.choice((0, 0xFF, rng.randrange(256), content[at] ^ (1 << rng.randrange(8))))
    if rng.random() < 0.3:
        del content[rng.randrange(14, len(content) + 1) :]
    elif rng.random() < 0.1:
        content += rng.randbytes(rng.randrange(1, 100))
    return bytes(content)


def garbage(rng: random.Random, link: bytes) -> bytes:
    """Nothing but a destination, and maybe a type that promises more."""
    kind = rng.choice((b"\x08\x00", b"\x86\xdd", b"\x81\x00", rng.randbytes(2)))
    body = bytearray(rng.randbytes(rng.choice((0, 1, rng.randrange(200), rng.randrange(1400)))))
    if body and kind != b"\x81\x00":
        # The version at least, so that not all of it ends there.
        body[0] = 0x40 | rng.randrange(16) if kind == b"\x08\x00" else 0x60
        if len(body) > 20 and rng.random() < 0.5:
            body[2:4] = struct.pack(">H", len(body))
    return link[:12] + kind + bytes(body)


@pytest.mark.parametrize("seed", [1, 2])
def test_bent_and_random_frames_are_dropped_and_counted(gateway: Gateway, seed: int) -> None:
    rng = random.Random(seed)
    lab = gateway.lab
    link = Ether(src=mac(lab, Namespace.CLIENT), dst=mac(lab, Namespace.GATEWAY, "seg0"))
    before, tap = gateway.stats(), gateway.status(SLOWPATH)["tap"]["received"]
    frames: list[bytes] = []
    for _ in range(100):
        frames += [bent(rng, frame) for frame in templates(link, rng)]
        frames += [garbage(rng, bytes(link)) for _ in range(8)]
    assert len(frames) >= 3000
    send_frames(lab, Namespace.CLIENT, frames)

    assert all(child.poll() is None for child in gateway.children.values())
    assert gateway.status()["healthy"]
    # Some of it was ARP, which ends at the hosts: they may believe odd things of each other.
    for namespace in Namespace:
        ip("neigh flush all", namespace=lab.netns(namespace))
    # Both halves go on: the kernel's verdict, and the inspector's.
    for host in (V4, V6):
        with pair(lab, 7002, host) as (client, server):
            client.sendall(b"still")
            assert receive(server, 5) == b"still"
        assert clients.http2(lab, host).ok
        assert not clients.http2(lab, host, "/admin").ok
    after = gateway.stats()
    dropped = {reason: number - before["drops"][reason] for reason, number in after["drops"].items()}
    for reason in (
        "truncated",
        "ip_header",
        "ip_checksum",
        "tcp_flags",
        "not_ip",
        "fragment",
        "default",
        "icmp_unrelated",
    ):
        assert dropped[reason] > 0, reason
    # The kernel half failed at none of them.
    assert dropped["no_policy"] == 0
    assert gateway.status(SLOWPATH)["tap"]["received"] > tap
    assert "Traceback" not in gateway.said(FASTPATH) + gateway.said(SLOWPATH)
