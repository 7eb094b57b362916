"""`policy hits` after real traffic: what was sent is what it says, over reloads and restarts of the daemon."""

from __future__ import annotations

import contextlib
import json
from collections.abc import Iterator
from typing import Any

import pytest

from tests.lab import Lab, Namespace
from tests.lab.clients import V4, V6
from tests.lab.gateway import FASTPATH, Gateway
from tests.netns.peers import datagrams, mapped

pytestmark = pytest.mark.root

POLICY = """
rules:
  - {id: one, proto: udp, ports: 7040, action: allow}
  - {id: two, proto: udp, ports: 7041, action: allow}
  - {id: never, proto: udp, ports: 7042, action: deny}
  - {id: shadowed, proto: udp, ports: 7041, action: deny}
"""
# `two` has another name, `one` another number.
MOVED = """
rules:
  - {id: first, proto: tcp, ports: 1, action: allow}
  - {id: second, proto: udp, ports: 7041, action: allow}
  - {id: one, proto: udp, ports: 7040, action: allow}
"""


@pytest.fixture(scope="module")
def running() -> Iterator[Gateway]:
    with Lab() as lab, Gateway(lab, POLICY, inspector=False) as gateway:
        yield gateway


@pytest.fixture
def gateway(running: Gateway) -> Gateway:
    """Of which nothing is counted yet."""
    if running.policy.read_text() != POLICY:
        reload(running, POLICY)
    assert running.command(FASTPATH, "sessions", "close", "--all").returncode == 0
    assert running.command(FASTPATH, "policy", "hits", "--reset").returncode == 0
    return running


class Client:
    """Sends datagrams from one socket for each port: a session each."""

    def __init__(self, lab: Lab, stack: contextlib.ExitStack) -> None:
        self._sockets = {
            port: stack.enter_context(datagrams(lab, namespace=Namespace.CLIENT)) for port in (7040, 7041, 7043)
        }

    def send(self, port: int, count: int, host: str = V4) -> None:
        for _ in range(count):
            self._sockets[port].sendto(b"x" * 100, (mapped(host), port))


@pytest.fixture
def client(gateway: Gateway) -> Iterator[Client]:
    with contextlib.ExitStack() as stack:
        # Nobody answers, so that one packet is one packet: no ICMP errors, no replies.
        for port in (7040, 7041):
            stack.enter_context(datagrams(gateway.lab, port))
        yield Client(gateway.lab, stack)


def asked(gateway: Gateway, *argv: str) -> dict[str, Any]:
    done = gateway.command(FASTPATH, "policy", "hits", "-o", "json", *argv)
    assert done.returncode == 0, done.stderr
    told: dict[str, Any] = json.loads(done.stdout)
    return told


def figures(gateway: Gateway) -> dict[str, tuple[int, int]]:
    """Sessions and packets by rule, of those that have any."""
    told = asked(gateway)
    rows = {row["id"]: (row["sessions"], row["packets"]) for row in told["rules"] + told["removed"]}
    return {name: row for name, row in rows.items() if row != (0, 0) and name != "default"}


def reload(gateway: Gateway, policy: str) -> None:
    before = gateway.status()["policy"]["revision"]
    gateway.write_policy(policy)
    assert gateway.reload() != before


def test_what_was_sent(gateway: Gateway, client: Client) -> None:
    client.send(7040, 10)
    client.send(7040, 5, V6)
    client.send(7041, 3)
    client.send(7043, 2)
    rules = {row["id"]: row for row in asked(gateway)["rules"]}
    assert rules["one"] == {
        "number": 1, "id": "one", "action": "allow", "sessions": 2, "live": 2, "packets": 15,
        "bytes": 10 * 128 + 5 * 148, "never": False, "lint": None,
    }  # fmt: skip
    assert (rules["two"]["packets"], rules["two"]["live"]) == (3, 1)
    assert [(row["id"], row["lint"]) for row in asked(gateway, "--never")["rules"]] == [
        ("never", "redundant"), ("shadowed", "shadowed"),
    ]  # fmt: skip
    assert asked(gateway, "--sort", "packets")["rules"][0]["id"] == "one"
    done = gateway.command(FASTPATH, "policy", "hits")
    lines = [line.split() for line in done.stdout.splitlines()]
    assert ["1", "one", "allow", "2", "2", "15", "2020"] in lines
    assert ["4", "shadowed", "deny", "0", "0", "0", "0", "never,", "shadowed"] in lines


def test_over_reloads(gateway: Gateway, client: Client) -> None:
    client.send(7040, 10)
    client.send(7041, 3)
    reload(gateway, MOVED)
    client.send(7040, 10)
    client.send(7041, 4)
    assert figures(gateway) == {"one": (1, 20), "two": (1, 3), "second": (0, 4)}
    reload(gateway, POLICY)
    client.send(7041, 1)
    assert figures(gateway) == {"one": (1, 20), "two": (1, 4), "second": (0, 4)}
    # More often than the kernel keeps counters for: what ended is in the file.
    assert gateway.command(FASTPATH, "sessions", "close", "--all").returncode == 0
    for _ in range(5):
        reload(gateway, MOVED)
        reload(gateway, POLICY)
    assert figures(gateway) == {"one": (1, 20), "two": (1, 4), "second": (0, 4)}


@pytest.mark.parametrize("how", ["stop", "kill", "unload"])
def test_over_an_end_of_the_daemon(gateway: Gateway, client: Client, how: str) -> None:
    client.send(7040, 10)
    client.send(7041, 3)
    if how == "kill":
        gateway.kill(FASTPATH)
    else:
        assert gateway.stop(FASTPATH) == 0
    if how == "unload":
        assert gateway.command(FASTPATH, "unload").returncode == 0
        assert gateway.command(FASTPATH, "policy", "hits").returncode == 4
    else:
        # The kernel goes on counting.
        client.send(7040, 10)
    gateway.start_daemon(FASTPATH)
    client.send(7041, 3)
    expected = {"one": (1, 20), "two": (1, 6)} if how != "unload" else {"one": (1, 10), "two": (2, 6)}
    assert figures(gateway) == expected


def test_reset(gateway: Gateway, client: Client) -> None:
    client.send(7040, 10)
    before = asked(gateway)["since"]
    assert gateway.command(FASTPATH, "policy", "hits", "--reset").returncode == 0
    assert figures(gateway) == {}
    client.send(7040, 3)
    assert figures(gateway) == {"one": (0, 3)}
    assert asked(gateway)["since"] > before
