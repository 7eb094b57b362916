"""What must work whatever the policy says, and what must not slip in beside it: the gateway itself, neighbours,
ICMP errors, fragments, tags."""

from __future__ import annotations

import contextlib
import itertools
import socket
from collections.abc import Iterator

import pytest
from scapy.layers.inet import ICMP, IP, TCP, UDP
from scapy.layers.inet6 import ICMPv6DestUnreach, IPv6, IPv6ExtHdrFragment
from scapy.layers.l2 import Dot1Q, Ether
from scapy.packet import Packet, Raw

from tests.lab import Lab, Namespace, servers
from tests.lab.capture import Capture, frames
from tests.lab.clients import V4, V6
from tests.lab.gateway import Gateway
from tests.lab.namespaces import Address, ip
from tests.netns.peers import (
    PATIENCE,
    Echo,
    datagrams,
    dial,
    eventually,
    listen,
    mapped,
    port_of,
    receive,
    record_of,
    session_of,
)
from tests.netns.probes import attempt, family, mac, ping, send_frames, use

pytestmark = pytest.mark.root

HOSTS = pytest.mark.parametrize("host", [V4, V6], ids=["v4", "v6"])
# The gateway's own addresses, as client and server see them, and a client's.
OWN = {
    (Namespace.CLIENT, V4): str(Address.GATEWAY_CLIENTS4),
    (Namespace.CLIENT, V6): str(Address.GATEWAY_CLIENTS6),
    (Namespace.SERVER, V4): str(Address.GATEWAY_SERVERS4),
    (Namespace.SERVER, V6): str(Address.GATEWAY_SERVERS6),
}
CLIENT = {V4: str(Address.CLIENT4), V6: str(Address.CLIENT6)}
# Of flows that a test makes by hand.
SPORTS = itertools.count(20000)

POLICY = """
default: {action: deny, deny_with: reset}
rules:
  - {id: ssh-is-shut, proto: tcp, ports: 22, action: deny, deny_with: reset}
  - {id: datagrams, proto: udp, ports: 7000, action: allow}
  - {id: connections, proto: tcp, ports: 7001, action: allow}
"""


@pytest.fixture(scope="module")
def gateway() -> Iterator[Gateway]:
    with contextlib.ExitStack() as stack:
        lab = stack.enter_context(Lab())
        for port in (22, 23):
            stack.enter_context(listen(lab, port, Namespace.GATEWAY))
            stack.enter_context(listen(lab, port, Namespace.SERVER))
        stack.enter_context(listen(lab, 7005))
        one = stack.enter_context(Gateway(lab, POLICY))
        stack.enter_context(servers.running(lab, [servers.Dnsmasq]))
        yield one


def drops(gateway: Gateway, reason: str) -> int:
    number: int = gateway.stats()["drops"][reason]
    return number


def link(lab: Lab, source: Namespace) -> Ether:
    """Ethernet header from a host to the gateway."""
    near = "seg0" if source is Namespace.CLIENT else "seg1"
    return Ether(src=mac(lab, source), dst=mac(lab, Namespace.GATEWAY, near))


def network(source: str, target: str, **fields: int) -> Packet:
    return IPv6(src=source, dst=target) if ":" in target else IP(src=source, dst=target, **fields)


def arrived(capture: Capture, needle: bytes) -> int:
    """Frames of a capture that carry these bytes."""
    return sum(needle in frame for frame in frames(capture.file))


# -- the gateway itself --------------------------------------------------------------------------------------------


@HOSTS
@pytest.mark.parametrize("source", [Namespace.CLIENT, Namespace.SERVER])
def test_failsafe_port_is_open_whatever_the_policy_says(gateway: Gateway, source: Namespace, host: str) -> None:
    use(gateway, POLICY)
    own = OWN[source, host]
    outcome, sport = attempt(gateway.lab, 22, own, namespace=source)
    assert outcome == "open"
    assert session_of(gateway, sport)["reason"] == "failsafe"
    # Another port of the gateway, and the same port of a host behind it, are not.
    assert attempt(gateway.lab, 23, own, namespace=source)[0] == "refused"
    assert attempt(gateway.lab, 22, host)[0] == "refused"


def test_failsafe_connection_survives_reloads(gateway: Gateway) -> None:
    use(gateway, POLICY)
    with contextlib.ExitStack() as stack:
        listener = stack.enter_context(
            gateway.lab.call(Namespace.GATEWAY, lambda: socket.create_server((OWN[Namespace.CLIENT, V4], 0)))
        )
        settings = dict(gateway.settings)
        try:
            gateway.settings |= {"failsafe": [22, port_of(listener)]}
            gateway.write_config()
            use(gateway, POLICY + "# another port\n")
            client = stack.enter_context(dial(gateway.lab, port_of(listener), OWN[Namespace.CLIENT, V4]))
            listener.settimeout(PATIENCE)
            server, _ = listener.accept()
            with server:
                use(gateway, POLICY)
                client.sendall(b"still here")
                assert receive(server, 10) == b"still here"
                server.sendall(b"and back")
                assert receive(client, 8) == b"and back"
        finally:
            gateway.settings = settings
            gateway.write_config()


@HOSTS
def test_the_gateways_own_traffic_is_allowed(gateway: Gateway, host: str) -> None:
    use(gateway, POLICY)
    outcome, sport = attempt(gateway.lab, 7005, host, namespace=Namespace.GATEWAY)
    assert outcome == "open"
    assert session_of(gateway, sport)["reason"] == "host"
    assert ping(gateway.lab, host, Namespace.GATEWAY)
    assert ping(gateway.lab, CLIENT[host], Namespace.GATEWAY)
    for transport in ("+notcp", "+tcp"):
        argv = ["dig", "-r", f"@{host}", "+short", "+tries=1", "+time=3", transport, "web.lab.test", "A"]
        assert gateway.lab.run(Namespace.GATEWAY, argv).stdout.strip() == V4
    # The same port is shut for others.
    assert attempt(gateway.lab, 7005, host)[0] == "refused"


@HOSTS
def test_a_rule_can_deny_the_gateways_own_traffic(gateway: Gateway, host: str) -> None:
    own = OWN[Namespace.SERVER, host]
    use(gateway, POLICY + f'  - {{id: not-you, from: "{own}", proto: tcp, ports: 7005, action: deny}}\n')
    before = drops(gateway, "policy")
    outcome, sport = attempt(gateway.lab, 7005, host, timeout=0.5, namespace=Namespace.GATEWAY)
    assert outcome == "silent"
    assert drops(gateway, "policy") > before
    assert session_of(gateway, sport)["rule"] == "not-you"


@HOSTS
def test_neighbours_are_found_under_default_deny(gateway: Gateway, host: str) -> None:
    use(gateway, POLICY)
    before = gateway.stats()["packets"]["neighbour"]
    for namespace in Namespace:
        ip("neigh flush all", namespace=gateway.lab.netns(namespace))
    with datagrams(gateway.lab, 7000) as server, datagrams(gateway.lab, namespace=Namespace.CLIENT) as client:
        client.sendto(b"who has", (mapped(host), 7000))
        assert server.recv(100) == b"who has"
    assert gateway.stats()["packets"]["neighbour"] >= before + 4


# -- ICMP errors ---------------------------------------------------------------------------------------------------


@HOSTS
def test_icmp_error_of_an_allowed_session_reaches_the_client(gateway: Gateway, host: str) -> None:
    use(gateway, POLICY)

    def ask() -> socket.socket:
        sock = socket.socket(family(host), socket.SOCK_DGRAM)
        sock.settimeout(PATIENCE)
        sock.connect((host, 7000))
        return sock

    with gateway.lab.call(Namespace.CLIENT, ask) as client:
        client.send(b"nobody listens")
        with pytest.raises(ConnectionRefusedError):
            client.recv(100)


@HOSTS
def test_a_smaller_mtu_behind_the_gateway_is_learned(gateway: Gateway, host: str) -> None:
    """The server announces segments for 1,500 bytes, too big for the gateway's route to it (RFC 1191, RFC 8201)."""
    use(gateway, POLICY)
    lab, content = gateway.lab, bytes(range(256)) * 4096
    route = "fd77:2::/64 dev seg1 metric 256" if ":" in host else "10.77.2.0/24 dev seg1 src 10.77.2.1 scope link"
    ip(f"route change {route} mtu lock 1300", namespace=lab.netns(Namespace.GATEWAY))
    try:
        with Echo(lab, 7001), dial(lab, 7001, host) as client:
            for at in range(0, len(content), 1 << 16):
                client.sendall(content[at : at + (1 << 16)])
                assert receive(client, 1 << 16) == content[at : at + (1 << 16)]
            option = (socket.IPPROTO_IPV6, 24) if ":" in host else (socket.IPPROTO_IP, 14)  # IPV6_MTU, IP_MTU
            assert client.getsockopt(*option) == 1300
    finally:
        ip(f"route change {route}", namespace=lab.netns(Namespace.GATEWAY))
        # What the client learned.
        for version in ("-4", "-6"):
            lab.run(Namespace.CLIENT, ["ip", version, "route", "flush", "cache"])


@HOSTS
@pytest.mark.parametrize("related", [True, False])
def test_icmp_error_must_quote_an_allowed_session(gateway: Gateway, host: str, related: bool) -> None:
    use(gateway, POLICY)
    lab, client = gateway.lab, CLIENT[host]
    needle = b"quoted-by-an-error"
    with datagrams(lab, 7000) as server, datagrams(lab, namespace=Namespace.CLIENT) as sock:
        sock.sendto(b"opens a session", (mapped(host), 7000))
        server.recv(100)
        sport = port_of(sock) if related else port_of(sock) ^ 1
        quoted = network(client, host) / UDP(sport=sport, dport=7000) / Raw(needle)
        error = ICMPv6DestUnreach(code=1) if ":" in host else ICMP(type=3, code=1)
        frame = link(lab, Namespace.SERVER) / network(host, client) / error / quoted
        before = drops(gateway, "icmp_unrelated")
        with Capture(lab, Namespace.CLIENT) as capture:
            send_frames(lab, Namespace.SERVER, [bytes(frame)])
    assert arrived(capture, needle) == (1 if related else 0)
    assert drops(gateway, "icmp_unrelated") - before == (0 if related else 1)


# -- fragments -----------------------------------------------------------------------------------------------------


@HOSTS
def test_fragmented_datagrams_of_an_allowed_flow_get_through_whole(gateway: Gateway, host: str) -> None:
    use(gateway, POLICY)
    before = gateway.stats()["packets"]["fragments"], drops(gateway, "fragment")
    content = bytes(range(256)) * 100
    with datagrams(gateway.lab, 7000) as server, datagrams(gateway.lab, namespace=Namespace.CLIENT) as client:
        for _ in range(3):
            client.sendto(content, (mapped(host), 7000))
            got, source = server.recvfrom(1 << 16)
            assert got == content
            server.sendto(content[::-1], source)
            assert client.recv(1 << 16) == content[::-1]
    after = gateway.stats()["packets"]["fragments"], drops(gateway, "fragment")
    # 25,600 bytes over 1,500: 17 later fragments each time, in both directions.
    assert after[0] - before[0] >= 3 * 2 * 17
    assert after[1] == before[1]


@HOSTS
def test_fragmented_datagrams_of_a_denied_flow_do_not(gateway: Gateway, host: str) -> None:
    use(gateway, POLICY)
    with (
        datagrams(gateway.lab, namespace=Namespace.CLIENT) as client,
        Capture(gateway.lab, Namespace.SERVER) as capture,
    ):
        before = drops(gateway, "default")
        client.sendto(b"forbidden" * 1000, (mapped(host), 7002))
        # All seven have the first one's reason.
        eventually(lambda: drops(gateway, "default") >= before + 7)
    assert arrived(capture, b"forbidden") == 0


@HOSTS
@pytest.mark.parametrize(
    ("first", "offset", "reason"),
    [(True, 128, ""), (False, 128, "fragment"), (True, 64, "fragment_overlap"), (True, 8, "fragment_overlap")],
    ids=["in its place", "before its first", "reaching into its first", "over the ports"],
)
def test_later_fragments(gateway: Gateway, host: str, first: bool, offset: int, reason: str) -> None:
    """A first fragment of 128 bytes, and one more at `offset`."""
    use(gateway, POLICY)
    lab = gateway.lab
    udp = bytes(network(CLIENT[host], host) / UDP(sport=5000, dport=7000) / Raw(bytes(248)))[-256:]
    number = 7000 + offset + (1000 if first else 0)

    def fragment(at: int, content: bytes, more: bool) -> bytes:
        if ":" in host:
            header = IPv6ExtHdrFragment(nh=17, offset=at // 8, m=int(more), id=number)
            return bytes(link(lab, Namespace.CLIENT) / IPv6(src=CLIENT[host], dst=host) / header / Raw(content))
        header = IP(src=CLIENT[host], dst=host, id=number, flags="MF" if more else 0, frag=at // 8, proto=17)
        return bytes(link(lab, Namespace.CLIENT) / header / Raw(content))

    needle = b"late-fragment-" * 8 + bytes(16)
    sent = [fragment(0, udp[:128], more=True)] if first else []
    before = gateway.stats()["drops"]
    with Capture(lab, Namespace.SERVER) as capture:
        send_frames(lab, Namespace.CLIENT, [*sent, fragment(offset, needle, more=False)])
    assert arrived(capture, needle[:14]) == (0 if reason else 1)
    after = gateway.stats()["drops"]
    told = {name: number - before[name] for name, number in after.items() if name.startswith("fragment")}
    assert {name for name, number in told.items() if number} == ({reason} if reason else set())


# -- tags ----------------------------------------------------------------------------------------------------------


@HOSTS
@pytest.mark.parametrize("tags", [[100], [100, 200]], ids=["802.1Q", "QinQ"])
@pytest.mark.parametrize("port", [7001, 7002])
def test_tagged_frames_are_judged_like_others(gateway: Gateway, host: str, tags: list[int], port: int) -> None:
    use(gateway, POLICY)
    lab = gateway.lab
    frame = link(lab, Namespace.CLIENT)
    for depth, tag in enumerate(tags):
        frame /= Dot1Q(vlan=tag, type=0x8100 if depth + 1 < len(tags) else 0x86DD if ":" in host else 0x0800)
    sport = next(SPORTS)
    frame = frame / network(CLIENT[host], host) / TCP(sport=sport, dport=port, flags="S", seq=1)
    before = drops(gateway, "default")
    send_frames(lab, Namespace.CLIENT, [bytes(frame)])
    session = eventually(lambda: [each for each in gateway.sessions() if each["sport"] == sport])[0]
    if port == 7001:
        assert (session["verdict"], session["rule"]) == ("allow", "connections")
        assert drops(gateway, "default") == before
        return
    assert session["verdict"] == "deny"
    assert drops(gateway, "default") == before + 1
    assert record_of(gateway, sport, event="verdict")["flow"]["vlan"] == tags
