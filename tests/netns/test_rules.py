"""Rule files on what real clients of real servers say: names, questions, statements, keys, versions."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest

from tests.lab import Lab, clients, servers
from tests.lab.clients import V4, V6
from tests.lab.gateway import Gateway
from tests.netns import peers

pytestmark = pytest.mark.root

HOSTS = pytest.mark.parametrize("host", [V4, V6], ids=["v4", "v6"])

POLICY = """
default: {action: deny, log: deny, deny_with: reset}
rules:
  - {id: https, proto: tcp, ports: 443, action: inspect, rules: [names], log: all}
  - {id: dns, proto: [udp, tcp], ports: 53, action: inspect, rules: [lookups], log: all}
  - {id: mysql, proto: tcp, ports: 3306, action: inspect, rules: [statements], log: all}
  - {id: redis, proto: tcp, ports: 6379, action: inspect, rules: [keys], log: all}
  - {id: ssh, proto: tcp, ports: 22, action: inspect, rules: [shells], log: all}
"""
RULES = {
    "names": """
name: names
protocol: tls
rules:
  - {id: ours, match: {tls.sni: web.lab.test, tls.selected_version: ["1.2", "1.3"]}, action: allow}
""",
    "lookups": """
name: lookups
protocol: dns
rules:
  - {id: web, match: {dns.qname: {glob: "web.lab.test"}, dns.qtype: [A, AAAA]}, action: allow}
""",
    "statements": """
name: statements
protocol: mysql
rules:
  - {id: login, match: {mysql.command: login, mysql.user: lab}, action: allow}
  - id: reads
    match: {mysql.command: query, mysql.verb: [select, set], mysql.unsure: 0}
    action: allow
""",
    "keys": """
name: keys
protocol: redis
rules:
  - {id: greeting, match: {redis.command: [hello, client, command, echo]}, action: allow}
  - {id: own, match: {redis.command: [get, set], redis.keys: {prefix: "lab:"}}, action: allow}
""",
    "shells": """
name: shells
protocol: ssh
rules:
  - {id: openssh, match: {ssh.client: {prefix: OpenSSH_}, ssh.server: {prefix: OpenSSH_}}, action: allow}
""",
}


@pytest.fixture(scope="module")
def gateway() -> Iterator[Gateway]:
    kinds = (servers.Nginx, servers.Dnsmasq, servers.MariaDB, servers.Redis, servers.Sshd)
    with Lab() as lab:
        folder = lab.directory / "rules.d"
        folder.mkdir()
        for name, text in RULES.items():
            (folder / f"{name}.yaml").write_text(text)
        settings = {"inspector": {"need_more": 0.5}}
        with Gateway(lab, POLICY, folder, settings) as one, servers.running(lab, kinds):
            yield one


def last(gateway: Gateway, protocol: str, **fields: object) -> dict[str, Any]:
    """The newest record with what a protocol's parser read."""

    def found() -> list[dict[str, Any]]:
        return [
            record
            for record in gateway.read_records()
            if protocol in record and all(record.get(name) == value for name, value in fields.items())
        ]

    return peers.eventually(found)[-1]  # type: ignore[no-any-return]


@HOSTS
def test_tls_by_name(gateway: Gateway, host: str) -> None:
    assert clients.https(gateway.lab, host).ok
    record = last(gateway, "tls", verdict="allow", scope="connection")
    assert record["tls"]["sni"] == "web.lab.test"
    assert record["l7_rule"] == "ours"
    ends = record["flow"]["src"], record["flow"]["sport"]
    (session,) = (session for session in gateway.sessions() if (session["src"], session["sport"]) == ends)
    assert (session["verdict"], session["protocol"]) == ("allow", "tls")
    other = clients.curl(
        gateway.lab,
        "https://other.lab.test/",
        "--insecure",
        "--resolve",
        f"other.lab.test:443:{clients.bracketed(host)}",
    )
    assert not other.ok
    record = last(gateway, "tls", verdict="deny")
    assert (record["tls"]["sni"], record["reason"]) == ("other.lab.test", "no_rule")


@HOSTS
@pytest.mark.parametrize("tcp", [False, True], ids=["udp", "tcp"])
def test_dns_question_by_question(gateway: Gateway, host: str, tcp: bool) -> None:
    assert clients.dns(gateway.lab, host, tcp=tcp).ok
    assert not clients.dns(gateway.lab, host, "version.bind", "TXT", tcp=tcp, timeout=1).ok
    record = last(gateway, "dns", verdict="deny")
    assert record["dns"]["qname"] == "version.bind"
    assert record["flow"]["l4"] == ("tcp" if tcp else "udp")
    assert clients.dns(gateway.lab, host, tcp=tcp).ok


@HOSTS
def test_mysql_statement_by_statement(gateway: Gateway, host: str) -> None:
    assert clients.mysql(gateway.lab, host).ok
    assert not clients.mysql(gateway.lab, host, "select 1; create table t (a int); select 2").ok
    record = last(gateway, "mysql", verdict="deny")
    assert (record["mysql"]["user"], record["scope"]) == ("lab", "request")
    assert record["mysql"]["verb"] == ["create"]
    assert not clients.mysql(gateway.lab, host, "select load_file('/etc/passwd')").ok


@HOSTS
def test_redis_key_by_key(gateway: Gateway, host: str) -> None:
    assert clients.redis(gateway.lab, host).ok
    assert clients.redis_pipeline(gateway.lab, host, 300).ok
    for command in ("GET other:key\n", "FLUSHALL\n", "CONFIG GET *\n"):
        argv = ["redis-cli", "-h", host, "-p", "6379"]
        result = clients.attempt(gateway.lab, argv, lambda output: bool(output.strip()), 5, stdin=command)
        assert not result.ok, command
    assert last(gateway, "redis", verdict="deny")["redis"]["command"] == "config"


@HOSTS
def test_ssh_by_both_banners_goes_back_to_the_kernel(gateway: Gateway, host: str) -> None:
    assert clients.ssh(gateway.lab, host).ok
    record = last(gateway, "ssh", verdict="allow")
    assert record["ssh"]["client"].startswith("OpenSSH_")
    assert record["ssh"]["server"].startswith("OpenSSH_")
    assert record["scope"] == "connection"
    with peers.dial(gateway.lab, 22, host) as client:
        client.sendall(b"SSH-2.0-Strange_1.0\r\n")
        assert peers.remains(client)[1] == "reset"
    assert last(gateway, "ssh", verdict="deny")["ssh"]["client"] == "Strange_1.0"
