"""`microseg-fastpath sessions` on a running gateway: what it shows, and connections that it closes."""

from __future__ import annotations

import contextlib
import json
import signal
import socket
import struct
import subprocess
import sys
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from fastpath.config import TIMEOUTS
from tests.lab import Lab, Namespace
from tests.lab.clients import V4, V6
from tests.lab.gateway import FASTPATH, Gateway
from tests.netns import peers
from tests.netns.peers import Echo, dial, eventually, pair, port_of, receive, record_of, remains, request, serve_http

pytestmark = pytest.mark.root

POLICY = """
default: {action: deny, log: deny, deny_with: reset}
rules:
  - {id: plain, proto: tcp, ports: [7000, 7003, 7005], action: allow}
  - {id: web, proto: tcp, ports: 7080, action: inspect, rules: [web]}
  - {id: datagrams, proto: udp, ports: [7000, 7001], action: allow}
  - {id: icmp, proto: icmp, action: allow}
  - {id: icmp6, proto: icmp6, action: allow}
"""
HOSTS = pytest.mark.parametrize("host", [V4, V6], ids=["v4", "v6"])
Row = dict[str, Any]


@pytest.fixture(scope="module")
def gateway() -> Iterator[Gateway]:
    # Nothing that is shown here ends by itself meanwhile.
    with Lab() as lab, Gateway(lab, POLICY, settings={"timeouts": dict.fromkeys(TIMEOUTS, 3600)}) as one:
        yield one


def sessions(gateway: Gateway, *options: str, status: int = 0) -> subprocess.CompletedProcess[str]:
    done = gateway.command(FASTPATH, "sessions", *options)
    assert done.returncode == status, done.stderr
    return done


def listed(gateway: Gateway, *options: str) -> list[Row]:
    return [json.loads(line) for line in sessions(gateway, *options, "-o", "json").stdout.splitlines()]


# -- list --------------------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def busy(gateway: Gateway) -> Iterator[Gateway]:
    """Sessions of all kinds."""
    lab = gateway.lab
    with contextlib.ExitStack() as stack:
        stack.enter_context(Echo(lab, 7000))
        server = stack.enter_context(peers.datagrams(lab, 7000))
        for number, host in enumerate((V4, V6, V4)):
            client = stack.enter_context(dial(lab, 7000, host))
            client.sendall(b"x" * (100 * (number + 1)))
            assert receive(client, 100) == b"x" * 100
            sock = stack.enter_context(peers.datagrams(lab, 0, Namespace.CLIENT))
            sock.sendto(b"x", (peers.mapped(host), 7000))
            server.recv(10)
            with pytest.raises(ConnectionRefusedError):
                dial(lab, 7009, host)
            ping(lab, host, number)
        with dial(lab, 7000, V6):
            pass
        yield gateway


def ping(lab: Lab, host: str, identifier: int) -> None:
    """An echo request; IPv6's checksum is the kernel's (RFC 3542 3.1)."""
    family, l4, kind = (
        (socket.AF_INET6, socket.IPPROTO_ICMPV6, 128) if ":" in host else (socket.AF_INET, socket.IPPROTO_ICMP, 8)
    )
    message = struct.pack(">BBHHH", kind, 0, 0xFFFF - (kind << 8) - identifier, identifier, 0)
    with lab.call(Namespace.CLIENT, lambda: socket.socket(family, socket.SOCK_RAW, l4)) as sock:
        sock.sendto(message, (host, 0))


def ends(row: Row) -> set[str]:
    return {row["src"], row["dst"]}


FILTERS: tuple[tuple[str, Callable[[Row], bool]], ...] = (
    ("--verdict deny", lambda r: r["verdict"] == "deny"),
    ("--reason default --reason host", lambda r: r["reason"] in {"default", "host"}),
    ("--protocol udp", lambda r: r["l4"] == "udp"),
    ("--protocol icmp", lambda r: r["protocol"] == "icmp"),
    ("--l4 tcp", lambda r: r["l4"] == "tcp"),
    ("--l4 58", lambda r: r["l4"] == "icmp6"),
    ("--state established", lambda r: r["tcp"] is not None and "established" in r["tcp"]),
    ("--from-ip 10.77.1.0/24", lambda r: r["src"].startswith("10.77.1.")),
    ("--to-ip fd77:2::/64", lambda r: r["dst"] == V6),
    (f"--ip {V4} --not --port 7000", lambda r: V4 in ends(r) and (r["l4"] == "icmp" or r["dport"] != 7000)),
    ("--ip ::/0", lambda r: ":" in r["src"]),
    ("--port 7001-7009", lambda r: 7001 <= r["dport"] <= 7009 and r["l4"] == "tcp"),
    ("--rule pl*", lambda r: r["rule"] == "plain"),
    ("--rule datagrams --rule plain --l4 tcp", lambda r: r["rule"] == "plain"),
    ("--not --l4 tcp --not --l4 udp", lambda r: r["l4"] not in {"tcp", "udp"}),
)


@pytest.mark.parametrize(("options", "wanted"), FILTERS, ids=[options for options, _ in FILTERS])
def test_filters(busy: Gateway, options: str, wanted: Callable[[Row], bool]) -> None:
    rows = listed(busy)
    expected = {row["session"] for row in rows if wanted(row)}
    assert 0 < len(expected) < len(rows)
    assert {row["session"] for row in listed(busy, "list", *options.split())} == expected
    assert sessions(busy, *options.split(), "--count").stdout == f"{len(expected)}\n"


def test_filter_by_session(busy: Gateway) -> None:
    row = listed(busy)[3]
    assert [each["session"] for each in listed(busy, "--session", hex(row["session"]))] == [row["session"]]


@pytest.mark.parametrize("field", ["verdict", "rule", "l4", "src", "dport", "state"])
def test_count_by(busy: Gateway, field: str) -> None:
    def value(row: Row) -> str:
        return ("/".join(row["tcp"]) if row["tcp"] else "-") if field == "state" else str(row[field])

    expected = Counter(value(row) for row in listed(busy))
    assert {row[field]: row["count"] for row in listed(busy, "--count", "--by", field)} == dict(expected)
    lines = sessions(busy, "--count", "--by", field).stdout.splitlines()
    assert [line.split() for line in lines[:1]] == [["COUNT", field.upper()]]
    assert {line.split()[1]: int(line.split()[0]) for line in lines[1:]} == dict(expected)


@pytest.mark.parametrize("key", ["bytes", "packets", "age", "session", "dport", "src", "state", "idle"])
@pytest.mark.parametrize("descending", [False, True])
def test_sort(busy: Gateway, key: str, descending: bool) -> None:
    # Of those that are silent: the hosts themselves say something now and then.
    silent = ("--rule", "plain", "--rule", "datagrams", "--sort", f"{key}:desc" if descending else key)
    rows = listed(busy, *silent)
    assert len(rows) == len(listed(busy, *silent[:4]))

    def value(row: Row) -> Any:
        return {"bytes": sum(row["bytes"]), "packets": sum(row["packets"])}.get(key, row.get(key))

    if key not in {"src", "state"}:  # by number, not as text
        values = [value(row) for row in rows]
        assert values == sorted(values, reverse=descending)
    assert len(listed(busy, *silent, "--limit", "3")) == 3

    def the_first() -> bool:
        """As many of them as asked for, and the first: where nobody said anything in between."""
        return [value(row) for row in listed(busy, *silent, "--limit", "3")] == [
            value(row) for row in listed(busy, *silent)[:3]
        ]

    if key not in {"age", "idle"}:  # which go on
        eventually(the_first)


def test_forms(busy: Gateway) -> None:
    rows = listed(busy)
    table = sessions(busy).stdout.splitlines()
    assert table[0].split()[:3] == ["L4", "CLIENT", "SERVER"]
    assert len(table) == len(rows) + 1
    compact = sessions(busy, "-o", "compact", "--rule", "plain").stdout
    for row in rows:
        assert (f"{row['session']:#x}" in compact) is (row["rule"] == "plain")
    assert f"[{V6}]:7000" in compact
    assert len(sessions(busy, "-o", "compact", "--limit", "2").stdout.splitlines()) == 2


@pytest.mark.parametrize("options", [(), ("--count",), ("--count", "--by", "rule")])
def test_watch(busy: Gateway, options: tuple[str, ...]) -> None:
    program = Path(sys.executable).with_name(FASTPATH)
    argv: list[str | Path] = [program, "sessions", "--watch", "0.1", *options, "--config", busy.config]
    child = busy.lab.spawn(Namespace.GATEWAY, argv, stdout=subprocess.PIPE, text=True)
    assert child.stdout is not None
    try:
        frames = 0
        while frames < 3:
            line = child.stdout.readline()
            assert line
            frames += line == "\n"
    finally:
        child.send_signal(signal.SIGINT)
        assert child.wait(10) == 130
        child.stdout.close()


# -- close -------------------------------------------------------------------------------------------------------------


def again(lab: Lab, sport: int, dport: int, host: str) -> socket.socket:
    """Another connection on the same ports."""

    def make() -> socket.socket:
        sock = socket.socket(socket.AF_INET6 if ":" in host else socket.AF_INET)
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        sock.settimeout(peers.PATIENCE)
        sock.bind(("", sport))
        sock.connect((host, dport))
        return sock

    return lab.call(Namespace.CLIENT, make)


def close(gateway: Gateway, *options: str) -> str:
    done = sessions(gateway, "close", *options)
    assert " closed" in done.stderr
    return done.stdout


@HOSTS
@pytest.mark.parametrize("said", ["nothing", "by the client", "by the server", "both"])
def test_both_ends_of_a_closed_connection_are_reset(gateway: Gateway, host: str, said: str) -> None:
    with pair(gateway.lab, 7003, host) as (client, server):
        for sender, receiver, name in ((client, server, "client"), (server, client, "server")):
            if said == "both" or said.endswith(name):
                sender.sendall(b"hello")
                assert receive(receiver, 5) == b"hello"
        sport = port_of(client)
        session = peers.session_of(gateway, sport)
        out = close(gateway, "--port", str(sport), "--l4", "tcp")
        assert f"{session['session']:#x}" in out
        assert len(out.splitlines()) == 1
        assert remains(client) == (b"", "reset")
        assert remains(server) == (b"", "reset")
    record = record_of(gateway, sport, event="end")
    assert (record["end"], record["reason"], record["session"]) == ("removed", "closed", session["session"])
    assert (peers.session_of(gateway, sport)["verdict"], peers.session_of(gateway, sport)["reason"]) == (
        "deny", "closed",
    )  # fmt: skip
    with Echo(gateway.lab, 7003), again(gateway.lab, sport, 7003, host) as client:
        client.sendall(b"back")
        assert receive(client, 4) == b"back"
    assert peers.session_of(gateway, sport)["session"] != session["session"]


@HOSTS
def test_an_inspected_connection_is_closed(gateway: Gateway, host: str) -> None:
    with Echo(gateway.lab, 7080, serve_http), dial(gateway.lab, 7080, host) as client:
        client.sendall(request("/allowed"))
        with contextlib.suppress(ConnectionResetError):
            peers.answer_of(client)
        sport = port_of(client)
        out = close(gateway, "--port", str(sport), "-o", "json")
        assert [json.loads(line)["sport"] for line in out.splitlines()] == [sport]
        assert remains(client) == (b"", "reset")
    assert record_of(gateway, sport, event="end")["end"] == "removed"


@HOSTS
def test_bytes_on_their_way_do_not_save_a_connection(gateway: Gateway, host: str) -> None:
    """The receiver's window is full and the last acknowledgment is not what it expects next."""
    with pair(gateway.lab, 7003, host) as (client, server):
        server.setblocking(False)
        with contextlib.suppress(BlockingIOError):
            while True:
                server.send(bytes(65536))
        sport = port_of(client)
        close(gateway, "--port", str(sport))
        server.setblocking(True)

        def reset(sock: socket.socket) -> bool:
            return bool(sock.getsockopt(socket.SOL_SOCKET, socket.SO_ERROR)) or remains(sock)[1] == "reset"

        assert reset(server)
        assert reset(client)


@HOSTS
def test_datagrams_may_come_again(gateway: Gateway, host: str) -> None:
    lab = gateway.lab
    with peers.datagrams(lab, 7001) as server, peers.datagrams(lab, 0, Namespace.CLIENT) as client:
        client.sendto(b"one", (peers.mapped(host), 7001))
        assert server.recv(10) == b"one"
        first = peers.session_of(gateway, port_of(client))["session"]
        close(gateway, "--session", str(first))
        assert port_of(client) not in {row["sport"] for row in gateway.sessions()}
        assert record_of(gateway, port_of(client), event="end")["end"] == "removed"
        client.sendto(b"two", (peers.mapped(host), 7001))
        assert server.recv(10) == b"two"
        assert peers.session_of(gateway, port_of(client))["session"] != first


def test_a_dry_run_ends_nothing(gateway: Gateway) -> None:
    with pair(gateway.lab, 7003) as (client, server):
        done = sessions(gateway, "close", "--port", str(port_of(client)), "--dry-run")
        assert done.stderr == "1 session would be closed\n"
        assert str(port_of(client)) in done.stdout
        client.sendall(b"on")
        assert receive(server, 2) == b"on"


def test_nothing_is_closed_unasked(gateway: Gateway) -> None:
    with pair(gateway.lab, 7003) as (client, server):
        for options in ((), ("--dry-run",), ("--not",), ("--all", "--l4", "tcp")):
            done = sessions(gateway, "close", *options, status=2)
            assert len(done.stderr.splitlines()) == 1
        # What stands before the word would be lost.
        sessions(gateway, "--l4", "tcp", "close", status=2)
        client.sendall(b"on")
        assert receive(server, 2) == b"on"


def test_all_are_closed(gateway: Gateway) -> None:
    with pair(gateway.lab, 7003) as one, pair(gateway.lab, 7005, V6) as two:
        sessions(gateway, "close", "--all")
        for sock in (*one, *two):
            assert remains(sock)[1] == "reset"
    eventually(lambda: not listed(gateway, "--not", "--reason", "closed", "--l4", "tcp"))
