"""`accelerate` on real traffic: what goes past the stack arrives whole, and what the stack has to do it still does."""

from __future__ import annotations

import contextlib
import os
import select
import socket
import struct
import threading
import time
from collections.abc import Iterator

import pytest

from fastpath.libbpf import TCX_EGRESS, TCX_INGRESS
from tests.lab import Lab, Namespace
from tests.lab.clients import V4, V6
from tests.lab.gateway import FASTPATH, Gateway
from tests.lab.namespaces import Address, ip
from tests.netns.peers import (
    PATIENCE,
    datagrams,
    dial,
    digest,
    eventually,
    foreign,
    listen,
    mapped,
    need_tcx,
    pair,
    port_of,
    receive,
    remains,
    session_of,
    silent,
    tcx,
)
from tests.netns.probes import attempt, checksum, family, ping, use

pytestmark = pytest.mark.root

HOSTS = pytest.mark.parametrize("host", [V4, V6], ids=["v4", "v6"])
ALLOW_ALL = "default: allow\nrules: []\n"
DENY_ALL = "default: {action: deny, deny_with: drop}\nrules: []\n"
SIZE = 6 << 20
MASQUERADE = """\
table ip lab { chain out { type nat hook postrouting priority srcnat; oifname "seg1" masquerade; }
}
"""


@pytest.fixture(scope="module")
def gateway() -> Iterator[Gateway]:
    with Lab() as lab, Gateway(lab, ALLOW_ALL, settings={"accelerate": True}, inspector=False) as one:
        yield one


@pytest.fixture
def lab(gateway: Gateway) -> Lab:
    """The module's, with every neighbour known and acceleration on."""
    use(gateway, ALLOW_ALL)
    for host in (V4, V6):
        assert ping(gateway.lab, host, tries=3)
    eventually(lambda: gateway.status()["accelerate"] == "on")
    return gateway.lab


def nft(gateway: Gateway, text: str) -> None:
    done = gateway.lab.run(Namespace.GATEWAY, ["nft", "-f", "-"], stdin=text)
    assert not done.returncode, done.stderr


def forwarded(gateway: Gateway, host: str) -> int:
    """Packets that the gateway's stack has forwarded."""
    if ":" in host:
        lines = gateway.lab.run(Namespace.GATEWAY, ["cat", "/proc/net/snmp6"]).stdout.splitlines()
        return next(int(line.split()[1]) for line in lines if line.startswith("Ip6OutForwDatagrams"))
    lines = gateway.lab.run(Namespace.GATEWAY, ["cat", "/proc/net/snmp"]).stdout.splitlines()
    names, values = (line.split() for line in lines if line.startswith("Ip:"))
    return int(values[names.index("ForwDatagrams")])


def accelerated(gateway: Gateway) -> int:
    number: int = gateway.stats()["packets"]["accelerated"]
    return number


def carry(source: socket.socket, to: socket.socket, size: int = SIZE) -> None:
    """Send random bytes, all of which must arrive."""
    content = os.urandom(size)
    source.settimeout(PATIENCE)
    to.settimeout(PATIENCE)
    thread = threading.Thread(target=source.sendall, args=(content,), daemon=True)
    thread.start()
    got = receive(to, size)
    thread.join(PATIENCE)
    assert digest(got) == digest(content)


@HOSTS
def test_transfers_past_the_stack(gateway: Gateway, lab: Lab, host: str) -> None:
    before, stack = accelerated(gateway), forwarded(gateway, host)
    with pair(lab, 7000, host) as (client, server):
        carry(client, server)
        carry(server, client)
        session = session_of(gateway, port_of(client))
    # 1,448 bytes a segment at most; the stack had one of each direction a second.
    assert accelerated(gateway) - before > 2 * SIZE / 1500
    assert forwarded(gateway, host) - stack < 100
    assert all(number > SIZE / 1500 for number in session["packets"])
    assert all(number > SIZE for number in session["bytes"])


@HOSTS
def test_datagrams_past_the_stack(gateway: Gateway, lab: Lab, host: str) -> None:
    before, stack = accelerated(gateway), forwarded(gateway, host)
    with datagrams(lab, 7001) as server, datagrams(lab, namespace=Namespace.CLIENT) as client:
        for number in range(200):
            content = b"%d" % number * 50
            client.sendto(content, (mapped(host), 7001))
            got, source = server.recvfrom(2000)
            assert got == content
            server.sendto(content[::-1], source)
            assert client.recv(2000) == content[::-1]
    assert accelerated(gateway) - before >= 390
    assert forwarded(gateway, host) - stack <= 10


@HOSTS
def test_states_of_a_connection_are_followed(gateway: Gateway, lab: Lab, host: str) -> None:
    with pair(lab, 7000, host) as (client, server):
        sport = port_of(client)
        before = session_of(gateway, sport)["tcp"]
        client.shutdown(socket.SHUT_WR)
        assert receive(server, 1) == b""
        half = session_of(gateway, sport)["tcp"]
        assert half != before
    eventually(lambda: session_of(gateway, sport)["tcp"] != half)
    with pair(lab, 7000, host) as (client, server):
        sport = port_of(client)
        # A reset instead of a FIN.
        client.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        client.close()
        assert remains(server) == (b"", "reset")
        assert session_of(gateway, sport)["tcp"] != before


@HOSTS
def test_a_reload_ends_an_accelerated_flow_with_its_next_packet(gateway: Gateway, lab: Lab, host: str) -> None:
    with pair(lab, 7000, host) as (client, server):
        carry(client, server, 1 << 16)
        use(gateway, DENY_ALL)
        before = accelerated(gateway)
        client.sendall(b"after")
        assert silent(server)
        server.sendall(b"after")
        assert silent(client)
        assert accelerated(gateway) == before
    use(gateway, ALLOW_ALL)


def errors(lab: Lab, host: str, hops: int) -> bool:
    """An echo request that may take so many hops brings a `time exceeded` from the gateway."""
    version6 = ":" in host
    sender = str(Address.GATEWAY_CLIENTS6 if version6 else Address.GATEWAY_CLIENTS4)

    def ask() -> bool:
        proto = socket.IPPROTO_ICMPV6 if version6 else socket.IPPROTO_ICMP
        with socket.socket(family(host), socket.SOCK_RAW, proto) as sock:
            if version6:
                sock.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_UNICAST_HOPS, hops)
            else:
                sock.setsockopt(socket.IPPROTO_IP, socket.IP_TTL, hops)
            message = struct.pack(">BBHHH", 128 if version6 else 8, 0, 0, 77, hops) + b"echo"
            if not version6:
                message = message[:2] + struct.pack(">H", checksum(message)) + message[4:]
            sock.sendto(message, (host, 0))
            deadline = time.monotonic() + 1
            while (left := deadline - time.monotonic()) > 0 and select.select([sock], [], [], left)[0]:
                answer, source = sock.recvfrom(2048)
                kind = answer[0] if version6 else answer[(answer[0] & 15) * 4]
                if source[0] == sender and kind == (3 if version6 else 11):
                    return True
        return False

    return lab.call(Namespace.CLIENT, ask)


@HOSTS
def test_hops_are_counted(lab: Lab, host: str) -> None:
    assert errors(lab, host, 1)
    assert not errors(lab, host, 2)
    # What the server sees: one hop less than what was sent.
    # IP_RECVTTL of linux/in.h
    option, level = (socket.IPV6_RECVHOPLIMIT, socket.IPPROTO_IPV6) if ":" in host else (12, socket.IPPROTO_IP)
    server = lab.call(Namespace.SERVER, lambda: socket.socket(family(host), socket.SOCK_DGRAM))
    client = lab.call(Namespace.CLIENT, lambda: socket.socket(family(host), socket.SOCK_DGRAM))
    with server, client:
        server.setsockopt(level, option, 1)
        server.bind((host, 7002))
        server.settimeout(PATIENCE)
        for _ in range(3):
            client.sendto(b"x", (host, 7002))
            _, ancillary, _, _ = server.recvmsg(100, 100)
            assert [int.from_bytes(value[:4], "little") for _, _, value in ancillary] == [63]


@HOSTS
@pytest.mark.parametrize("by", ["link", "route"])
def test_what_is_too_long_is_told_the_sender(gateway: Gateway, lab: Lab, host: str, by: str) -> None:
    place = lab.netns(Namespace.GATEWAY)
    prefix = f"{host}/{128 if ':' in host else 32}"
    with pair(lab, 7000, host) as (client, server):
        carry(client, server, 1 << 20)
        if by == "link":
            ip("link set seg1 mtu 1300", namespace=place)
        else:
            ip(f"route add {prefix} dev seg1 mtu 1300", namespace=place)
        try:
            # The daemon looks at the routes once a second.
            time.sleep(1.5)
            carry(client, server)
            carry(server, client)
            assert mtu(client, host) == 1300
        finally:
            if by == "link":
                ip("link set seg1 mtu 1500", namespace=place)
            else:
                ip(f"route del {prefix} dev seg1", namespace=place)
            for version in ("-4", "-6"):
                # What the client has learnt of the path's MTU.
                lab.run(Namespace.CLIENT, ["ip", version, "route", "flush", "cache"])


def mtu(sock: socket.socket, host: str) -> int:
    """Path MTU that the socket has learnt."""
    level, option = (socket.IPPROTO_IPV6, 24) if ":" in host else (socket.IPPROTO_IP, 14)  # IPV6_MTU, IP_MTU
    return sock.getsockopt(level, option)


def announce(lab: Lab) -> None:
    """The server asks for its router anew: its neighbours hear of its link address."""
    ip("neighbour flush dev eth0", namespace=lab.netns(Namespace.SERVER))
    for address in (Address.GATEWAY_SERVERS4, Address.GATEWAY_SERVERS6):
        assert ping(lab, str(address), Namespace.SERVER, tries=3)


@HOSTS
def test_another_link_address(gateway: Gateway, lab: Lab, host: str) -> None:
    place = lab.netns(Namespace.SERVER)
    with pair(lab, 7000, host) as (client, server):
        carry(client, server, 1 << 16)
        for number in (1, 2):
            ip(f"link set eth0 address 02:00:00:00:77:0{number}", namespace=place)
            announce(lab)
            carry(server, client, 1 << 16)
            carry(client, server, 1 << 16)
            before = accelerated(gateway)
            carry(client, server, 1 << 16)
            assert accelerated(gateway) > before


@HOSTS
def test_another_route(gateway: Gateway, lab: Lab, host: str) -> None:
    """A blackhole takes effect at once, and so does its end."""
    place = lab.netns(Namespace.GATEWAY)
    prefix = f"{host}/{128 if ':' in host else 32}"
    with pair(lab, 7000, host) as (client, server):
        carry(client, server, 1 << 16)
        ip(f"route add blackhole {prefix}", namespace=place)
        try:
            time.sleep(1.2)
            before = accelerated(gateway)
            client.sendall(b"lost")
            assert silent(server)
            assert accelerated(gateway) == before
        finally:
            ip(f"route del blackhole {prefix}", namespace=place)
        assert receive(server, 4) == b"lost"
        carry(client, server, 1 << 16)


@HOSTS
def test_a_link_that_goes_down_and_comes_back(gateway: Gateway, lab: Lab, host: str) -> None:
    place = lab.netns(Namespace.SERVER)
    with pair(lab, 7000, host) as (client, server):
        carry(client, server, 1 << 16)
        ip("link set eth0 down", namespace=place)
        client.sendall(b"waits")
        assert silent(server)
        ip(
            "link set eth0 up",
            f"address replace {Address.SERVER6}/64 dev eth0 nodad",
            f"route replace default via {Address.GATEWAY_SERVERS4}",
            f"route replace ::/0 via {Address.GATEWAY_SERVERS6}",
            namespace=place,
        )
        assert receive(server, 5) == b"waits"
        carry(server, client, 1 << 16)
        before = accelerated(gateway)
        eventually(lambda: carry(client, server, 1 << 16) or accelerated(gateway) > before)


@HOSTS
def test_rules_that_come_while_it_runs(gateway: Gateway, lab: Lab, host: str) -> None:
    """Off, so that they see every packet; on again when they are gone."""
    with pair(lab, 7000, host) as (client, server):
        carry(client, server, 1 << 16)
        nft(
            gateway,
            "table inet lab { counter seen {}\nchain c { type filter hook forward priority 0; counter name seen; }\n}",
        )
        try:
            status = eventually(lambda: text if (text := gateway.status()["accelerate"]) != "on" else "")
            assert status == "off (nftables: the chain inet lab c (hook forward) has rules)"
            before = accelerated(gateway)
            carry(client, server, 1 << 18)
            assert accelerated(gateway) == before
            assert counted(gateway) >= (1 << 18) // (1 << 16)
        finally:
            nft(gateway, "delete table inet lab")
        eventually(lambda: gateway.status()["accelerate"] == "on")
        carry(client, server, 1 << 16)
        assert accelerated(gateway) > before
    log = gateway.log(FASTPATH).read_text()
    assert "warning fastpath.accelerate: acceleration is off: nftables" in log


def counted(gateway: Gateway) -> int:
    """Packets that the rule of nftables has seen."""
    shown = gateway.lab.run(Namespace.GATEWAY, ["nft", "list", "counters"]).stdout
    return int(shown.split("packets ")[1].split()[0])


def test_off_and_on_by_a_reload(gateway: Gateway, lab: Lab) -> None:
    settings = dict(gateway.settings)
    try:
        gateway.settings["accelerate"] = False
        gateway.write_config()
        gateway.reload()
        eventually(lambda: gateway.status()["accelerate"] == "off (not asked for)")
        before = accelerated(gateway)
        assert attempt(lab, 7000)[0] == "refused"
        assert accelerated(gateway) == before
    finally:
        gateway.settings = settings
        gateway.write_config()
        gateway.reload()
    eventually(lambda: gateway.status()["accelerate"] == "on")
    # The first packet to each neighbour may be the stack's.
    for _ in range(2):
        assert attempt(lab, 7000)[0] == "refused"
    assert accelerated(gateway) > before


def test_a_source_that_cannot_be_answered_there(gateway: Gateway, lab: Lab) -> None:
    """Reverse path filtering is the stack's, and stays so: such a packet is never accelerated."""
    before = accelerated(gateway)
    place = lab.netns(Namespace.CLIENT)
    ip("address add 198.51.100.7/32 dev lo", namespace=place)
    try:
        sock = lab.call(Namespace.CLIENT, lambda: socket.socket(socket.AF_INET, socket.SOCK_DGRAM))
        with sock, datagrams(lab, 7003) as server:
            sock.bind(("198.51.100.7", 0))
            sock.sendto(b"x", (V4, 7003))
            # The lab's hosts filter nothing: it does arrive, by the stack's way.
            assert server.recv(10) == b"x"
    finally:
        ip("address del 198.51.100.7/32 dev lo", namespace=place)
    assert accelerated(gateway) == before


OBSTACLES = {
    "nat": (MASQUERADE, "the chain ip lab out (hook postrouting) has rules"),
    "filter": (
        "table inet f { chain c { type filter hook forward priority 0; ct state invalid drop; }\n}",
        "the chain inet f c (hook forward) has rules",
    ),
    "policy": (
        "table ip6 f { chain c { type filter hook forward priority 0; policy drop; }\n}",
        "the chain ip6 f c (hook forward) drops by default",
    ),
    "ingress": (
        'table netdev f { chain c { type filter hook ingress device "seg0" priority 0; ip saddr 10.0.0.9 drop; }\n}',
        "the chain netdev f c (hook ingress) has rules",
    ),
}
LATER = "tc filter add dev seg1 ingress prio 50000 protocol ip u32 match u32 0 0 flowid 1:1"
HARMLESS = """\
table inet harmless {
  chain in { type filter hook input priority 0; policy drop; tcp dport 22 accept; }
  chain through { type filter hook forward priority 0; policy accept; }
}
table netdev elsewhere { chain c { type filter hook ingress device "lo" priority 0; ip saddr 10.0.0.9 drop; }
}
"""


@pytest.mark.parametrize("what", OBSTACLES)
def test_refused_at_start(what: str) -> None:
    rules, reason = OBSTACLES[what]
    with Lab() as lab:
        gateway = Gateway(lab, ALLOW_ALL, settings={"accelerate": True}, inspector=False)
        nft(gateway, rules)
        done = gateway.command(FASTPATH, "load")
        assert (done.returncode, done.stdout) == (3, "")
        assert done.stderr == (
            f"microseg-fastpath: {gateway.config}: accelerate: packets would bypass what this host does with them: "
            f"nftables: {reason}\n"
        )
        # Nothing stays behind.
        assert "clsact" not in lab.run(Namespace.GATEWAY, ["tc", "qdisc"]).stdout
        gateway.settings["accelerate"] = False
        gateway.write_config()
        assert gateway.command(FASTPATH, "load").returncode == 0
        gateway.close()


@pytest.mark.parametrize("hook", ["tcx", "clsact"])
def test_a_filter_before_ours_is_an_obstacle_at_tcx_alone(hook: str) -> None:
    """At tcx ours run first."""
    if hook == "tcx":
        need_tcx()
    with Lab() as lab:
        settings = {"accelerate": True, "hook": hook}
        gateway = Gateway(lab, ALLOW_ALL, settings=settings, inspector=False)
        earlier = LATER.replace("50000", "100")
        assert not lab.run(Namespace.GATEWAY, ["sh", "-c", f"tc qdisc add dev seg1 clsact && {earlier}"]).returncode
        done = gateway.command(FASTPATH, "load")
        assert done.returncode == (3 if hook == "tcx" else 0)
        assert hook == "clsact" or "seg1 has an ingress filter of another at prio 100, behind ours" in done.stderr
        gateway.close()


def test_our_own_filters_are_no_obstacle_to_tcx() -> None:
    need_tcx()
    settings = {"accelerate": True, "hook": "clsact"}
    with Lab() as lab, Gateway(lab, ALLOW_ALL, settings=settings, inspector=False) as gateway:
        gateway.stop(FASTPATH)
        gateway.settings["hook"] = "tcx"
        gateway.write_config()
        gateway.start_daemon(FASTPATH)
        assert gateway.status()["accelerate"] == "on"


def test_programs_of_others_at_tcx() -> None:
    """Before ours they meet every packet; behind ours none that is accelerated."""
    need_tcx()
    with Lab() as lab:
        gateway = Gateway(lab, ALLOW_ALL, settings={"accelerate": True}, inspector=False)
        foreign(lab, "seg0", TCX_INGRESS, "earlier")
        with gateway:
            assert gateway.status()["accelerate"] == "on"
            foreign(lab, "seg1", TCX_EGRESS, "elsewhere")
            foreign(lab, "seg1", TCX_INGRESS, "later")
            eventually(lambda: gateway.status()["accelerate"] != "on")
            number = tcx(lab, "seg1")[1][2]
            reason = f"seg1 has the tcx program later (id {number}) of another at ingress, behind ours"
            assert gateway.status()["accelerate"] == f"off ({reason})"
            gateway.stop(FASTPATH)
            done = gateway.command(FASTPATH, "load")
            assert done.returncode == 3
            assert reason in done.stderr
        assert [name for _, name, _ in tcx(lab, "seg1")] == ["later", "elsewhere"]


@pytest.mark.parametrize("what", ["xfrm", "filter", "master"])
def test_refused_at_start_for_what_is_no_netfilter(what: str) -> None:
    with Lab() as lab:
        gateway = Gateway(lab, ALLOW_ALL, settings={"accelerate": True}, inspector=False)
        nft(gateway, HARMLESS)
        command, reason = {
            "xfrm": (
                "ip xfrm policy add src 10.9.0.0/16 dst 10.8.0.0/16 dir fwd priority 1 action block",
                "IPsec policies",
            ),
            "filter": (
                f"tc qdisc add dev seg1 clsact && {LATER}",
                "seg1 has an ingress filter of another at prio 50000, behind ours",
            ),
            "master": ("ip link add br9 type bridge && ip link set seg0 master br9", "seg0 belongs to br9"),
        }[what]
        done = lab.run(Namespace.GATEWAY, ["sh", "-c", command])
        assert not done.returncode, done.stderr
        done = gateway.command(FASTPATH, "load")
        assert done.returncode == 3
        assert reason in done.stderr


def test_rules_that_no_forwarded_packet_meets_are_no_obstacle() -> None:
    with Lab() as lab:
        gateway = Gateway(lab, ALLOW_ALL, settings={"accelerate": True}, inspector=False)
        nft(gateway, HARMLESS)
        with gateway:
            assert gateway.status()["accelerate"] == "on"


def test_many_connections_at_once(gateway: Gateway, lab: Lab) -> None:
    """What both CPUs look up at the same time is not mixed up."""
    with listen(lab, 7005) as listener, contextlib.ExitStack() as stack:
        listener.settimeout(PATIENCE)
        pairs = []
        for number in range(60):
            client = stack.enter_context(dial(lab, 7005, (V4, V6)[number % 2]))
            pairs.append((client, stack.enter_context(listener.accept()[0])))
        threads = [threading.Thread(target=carry, args=(*each, 1 << 18)) for each in pairs]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join(PATIENCE)
            assert not thread.is_alive()
