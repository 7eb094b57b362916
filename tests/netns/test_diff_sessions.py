"""`policy diff --sessions` says of live sessions what the kernel then does with them."""

from __future__ import annotations

import contextlib
import json
import socket
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.lab import Lab, Namespace
from tests.lab.clients import V4, V6
from tests.lab.gateway import FASTPATH, Gateway
from tests.netns.peers import Echo, datagrams, dial, eventually, mapped, port_of, receive, serve_http

pytestmark = pytest.mark.root

OLD = """
default: {action: deny, mode: monitor}
rules:
  - {id: web, proto: tcp, ports: 7000-7004, action: allow}
  - {id: told, proto: tcp, ports: 7010-7011, app: http, action: allow}
  - {id: both, proto: udp, ports: 7000-7001, action: allow}
"""
NEW = """
default: deny
rules:
  - {id: web, proto: tcp, ports: 7000-7001, action: allow}
  - {id: shut, proto: tcp, ports: 7002, action: deny}
  - {id: watched, proto: tcp, ports: 7003, action: deny, mode: monitor}
  - {id: late, proto: tcp, ports: 7004, app: http, action: allow}
  - {id: told, proto: tcp, ports: 7010, app: http, action: allow}
  - {id: files, proto: tcp, ports: 7011, action: inspect, rules: [web]}
  - {id: datagrams, proto: udp, ports: 7001, action: allow}
"""
TCP = (7000, 7001, 7002, 7003, 7004, 7005, 7010, 7011)
UDP = (7000, 7001, 7002)


@pytest.fixture
def gateway() -> Iterator[Gateway]:
    with Lab() as lab, Gateway(lab, OLD) as one:
        yield one


def test_as_the_kernel_does(gateway: Gateway, tmp_path: Path) -> None:
    lab = gateway.lab
    new = tmp_path / "new.yaml"
    new.write_text(NEW)
    with contextlib.ExitStack() as stack:
        clients: list[tuple[socket.socket, bytes]] = []
        for port in TCP:
            # The ports that HTTP is told of, and one that just talks.
            http = port >= 7010
            stack.enter_context(Echo(lab, port, serve_http if http else None))
            said = b"GET / HTTP/1.1\r\nHost: lab\r\n\r\n" if http else b"x"
            for host in (V4, V6):
                client = stack.enter_context(dial(lab, port, host))
                client.sendall(said)
                assert receive(client, 1)
                clients.append((client, said))
        for port in UDP:
            server = stack.enter_context(datagrams(lab, port))
            client = stack.enter_context(datagrams(lab, 0, Namespace.CLIENT))
            client.connect((mapped(V4), port))
            client.send(b"x")
            server.recv(10)
            clients.append((client, b"x"))

        ports = {port_of(client) for client, _ in clients}

        def now() -> dict[int, dict[str, Any]]:
            found = {each["sport"]: each for each in gateway.sessions() if each["sport"] in ports}
            assert found.keys() == ports
            return found

        before = now()
        done = gateway.command(FASTPATH, "policy", "diff", str(new), "--sessions", "-o", "json")
        assert done.returncode == 0, done.stderr
        told: dict[str, Any] = json.loads(done.stdout)["sessions"]
        people = gateway.command(FASTPATH, "policy", "diff", str(new), "--sessions").stdout
        assert {each["revision"] for each in now().values()} == {each["revision"] for each in before.values()}
        assert gateway.command(FASTPATH, "policy", "apply", str(new)).returncode == 0
        for client, said in clients:
            with contextlib.suppress(OSError):
                client.send(said)
        # Each is judged again with its next packet.
        revision = gateway.status()["policy"]["revision"]
        eventually(lambda: {each["revision"] for each in now().values()} == {revision})
        after = now()
    changed = Counter(
        (each["rule"], after[port]["rule"])
        for port, each in before.items()
        if each["verdict"] != after[port]["verdict"]
    )
    predicted = {
        (rule["old"], rule["new"]): rule["sessions"]
        for change in told["changes"]
        if change["old"]["verdict"] != change["new"]["verdict"]
        for rule in change["rules"]
    }
    # Of 7003 only monitor mode lets it pass; the inspector need not see 7011 from its middle on.
    assert changed == predicted == {
        ("web", "shut"): 2, ("web", "watched"): 2, ("web", "late"): 2, ("told", "files"): 2, ("both", "default"): 1,
    }  # fmt: skip
    (relaxed,) = [change for change in told["changes"] if change["old"] == {"verdict": "deny", "enforced": False}]
    assert relaxed["new"] == {"verdict": "deny", "enforced": True}
    assert relaxed["sessions"] >= 3
    assert told["live"] >= len(clients)
    assert "  allow -> deny: 7 sessions, " in people
    assert "    by web -> shut: 2 sessions, " in people
