"""A gateway with three zones: who gets from one to another, and to the gateway itself."""

from __future__ import annotations

import contextlib
import signal
from collections.abc import Iterator

import pytest

from tests.lab import Lab, Namespace
from tests.lab.clients import V4, V6
from tests.lab.gateway import FASTPATH, Gateway
from tests.lab.namespaces import Address, ip
from tests.netns.peers import eventually, listen, pair, port_of, record_of, session_of
from tests.netns.probes import attempt, use

pytestmark = pytest.mark.root

ZONES = {"clients": ["seg0"], "servers": ["seg1"], "dmz": ["seg2"]}
# The servers' host has a leg in the dmz too.
DMZ4, DMZ6 = "10.77.3.2", "fd77:3::2"
POLICY = """
default: {action: deny, deny_with: reset}
defaults:
  - {from_zone: clients, to_zone: dmz, action: allow, log: all}
  - {from_zone: clients, to_zone: host, action: allow}
  - {from_zone: host, to_zone: dmz, action: deny}
rules:
  - {id: to-servers, proto: tcp, ports: [7000, 7002], from_zone: clients, to_zone: servers, action: allow, log: all}
  - {id: not-here, proto: tcp, ports: 7000, direction: to-host, action: deny}
"""
PORTS = (7000, 7001)


@pytest.fixture(scope="module")
def gateway() -> Iterator[Gateway]:
    with contextlib.ExitStack() as stack:
        lab = stack.enter_context(Lab())
        add_dmz(lab)
        for port in PORTS:
            for namespace in Namespace:
                stack.enter_context(listen(lab, port, namespace))
        yield stack.enter_context(
            Gateway(lab, POLICY, settings={"interfaces": ["seg0", "seg1", "seg2"], "zones": ZONES})
        )


def add_dmz(lab: Lab) -> None:
    gateway, server = lab.netns(Namespace.GATEWAY), lab.netns(Namespace.SERVER)
    ip(f"link add seg2 netns {gateway} type veth peer name eth1 netns {server}")
    ip("address add 10.77.3.1/24 dev seg2", "address add fd77:3::1/64 dev seg2 nodad", "link set seg2 up",
       namespace=gateway)  # fmt: skip
    ip(
        f"address add {DMZ4}/24 dev eth1",
        f"address add {DMZ6}/64 dev eth1 nodad",
        "link set eth1 up",
        # Answers go back the way the questions came.
        f"rule add from {DMZ4} lookup 77",
        "route add default via 10.77.3.1 table 77",
        "route add ::/0 via fd77:3::1 table 77",
        namespace=server,
    )
    # A batch has one family.
    assert not lab.run(Namespace.SERVER, ["ip", "-6", "rule", "add", "from", DMZ6, "lookup", "77"]).returncode


@pytest.mark.parametrize(
    ("namespace", "host", "port", "outcome", "rule"),
    [
        (Namespace.CLIENT, V4, 7000, "open", "to-servers"),
        (Namespace.CLIENT, V6, 7000, "open", "to-servers"),
        (Namespace.CLIENT, V4, 7001, "refused", "default"),
        (Namespace.CLIENT, DMZ4, 7000, "open", "default:clients>dmz"),
        (Namespace.CLIENT, DMZ6, 7001, "open", "default:clients>dmz"),
        (Namespace.CLIENT, Address.GATEWAY_CLIENTS4, 7000, "refused", "not-here"),
        (Namespace.CLIENT, Address.GATEWAY_SERVERS6, 7000, "refused", "not-here"),
        (Namespace.CLIENT, Address.GATEWAY_SERVERS4, 7001, "open", "default:clients>host"),
        (Namespace.SERVER, Address.CLIENT4, 7000, "refused", "default"),
        (Namespace.SERVER, Address.GATEWAY_SERVERS4, 7001, "refused", "default"),
        (Namespace.GATEWAY, DMZ4, 7001, "silent", "default:host>dmz"),
        (Namespace.GATEWAY, V6, 7001, "open", "default"),
    ],
)
def test_between_zones(
    gateway: Gateway, namespace: Namespace, host: str, port: int, outcome: str, rule: str
) -> None:  # fmt: skip
    use(gateway, POLICY)
    said, sport = attempt(gateway.lab, port, str(host), namespace=namespace)
    assert (said, session_of(gateway, sport)["rule"]) == (outcome, rule)


def test_records_name_the_default_of_the_pair(gateway: Gateway) -> None:
    use(gateway, POLICY)
    _, sport = attempt(gateway.lab, 7001, DMZ4)
    record = record_of(gateway, sport, event="verdict")
    assert (record["verdict"], record["reason"], record["rule"]) == ("allow", "default", "default:clients>dmz")


@pytest.mark.parametrize("before", [POLICY, "default: allow\nrules: []\n"], ids=["known", "unknown"])
def test_after_a_reload_the_servers_packet_is_judged_by_the_clients_zone(gateway: Gateway, before: str) -> None:
    rules = """
rules:
  - {id: servers, from_zone: servers, action: deny}
  - {id: clients, from_zone: clients, to_zone: servers, action: %s}
"""
    use(gateway, before)
    with pair(gateway.lab, 7002) as (client, server):
        client.sendall(b"question")
        assert server.recv(100) == b"question"
        use(gateway, rules % "allow")
        server.sendall(b"answer")
        assert client.recv(100) == b"answer"
        assert session_of(gateway, port_of(client))["rule"] == "clients"
        use(gateway, rules % "deny")
        server.sendall(b"more")
        assert eventually(lambda: session_of(gateway, port_of(client))["verdict"] == "deny")
        assert session_of(gateway, port_of(client))["rule"] == "clients"


def test_zones_are_fixed_while_the_daemon_runs(gateway: Gateway) -> None:
    use(gateway, POLICY)
    before, said = gateway.status()["policy"]["revision"], len(gateway.log(FASTPATH).read_text())
    settings = dict(gateway.settings)
    try:
        gateway.settings |= {"zones": {"clients": ["seg0", "seg2"]}}
        gateway.write_config()
        gateway.children[FASTPATH].send_signal(signal.SIGHUP)
        eventually(lambda: "needs a restart to change zones" in gateway.log(FASTPATH).read_text()[said:])
        assert gateway.status()["policy"]["revision"] == before
    finally:
        gateway.settings = settings
        gateway.write_config()


def test_after_a_restart_with_other_zones_sessions_are_judged_by_those(gateway: Gateway) -> None:
    use(gateway, POLICY)
    settings = dict(gateway.settings)

    def restart() -> None:
        gateway.write_config()
        gateway.stop(FASTPATH)
        gateway.start_daemon(FASTPATH)

    with pair(gateway.lab, 7002) as (client, _):
        try:
            gateway.settings |= {"zones": {"clients": ["seg1"], "servers": ["seg0"], "dmz": ["seg2"]}}
            restart()
            client.sendall(b"x")
            assert eventually(lambda: session_of(gateway, port_of(client))["verdict"] == "deny")
            assert session_of(gateway, port_of(client))["rule"] == "default"
        finally:
            gateway.settings = settings
            restart()
