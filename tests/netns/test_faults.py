"""Daemons that are killed, stopped, stuck or gone, tables that fill up: what the traffic notices of it."""

from __future__ import annotations

import asyncio
import contextlib
import os
import signal
import socket
import time
from collections.abc import Iterator
from typing import Any

import pytest

from tests.lab import Lab, Namespace
from tests.lab.clients import V4, V6
from tests.lab.gateway import FASTPATH, SLOWPATH, Gateway
from tests.netns import peers
from tests.netns.peers import ACK, SYN, Echo, Stranger, dial, eventually, port_of, receive, record_of, remains, request
from tests.unit.slowpath.core.wire import tcp_frame, udp_frame

pytestmark = pytest.mark.root

POLICY = """
default: {action: deny, log: deny, deny_with: reset}
rules:
  - {id: plain, proto: tcp, ports: [7000, 7003], action: allow}
  - {id: logged, proto: udp, ports: 7000, action: allow, log: all}
  - {id: odd, proto: tcp, ports: 7001, app: unknown, action: allow, log: all}
  - {id: http, proto: tcp, ports: 7002, app: http, action: allow}
  - {id: web, proto: tcp, ports: 7080, action: inspect, rules: [web]}
  - {id: soft, proto: tcp, ports: 7081, action: inspect, rules: [web], on_inspector_down: allow}
"""

UDP_TIMEOUT = 1


@pytest.fixture(scope="module")
def gateway() -> Iterator[Gateway]:
    settings = {"timeouts": {"udp": UDP_TIMEOUT, "udp_stream": UDP_TIMEOUT}, "sessions": {"sweep": 0.2}}
    with Lab() as lab, Gateway(lab, POLICY, settings=settings) as one:
        yield one


def alive(gateway: Gateway) -> bool:
    return bool(gateway.status()["inspector"]["alive"])


# -- killed ------------------------------------------------------------------------------------------------------------

CONNECTIONS = 200
SECONDS = 10.0


async def echo(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    """Server of the raw connections."""
    while content := await reader.read(65536):
        writer.write(content)
        await writer.drain()
    writer.close()


async def web(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    """Server of the HTTP connections: answers with the target."""
    with contextlib.suppress(asyncio.IncompleteReadError):
        while head := await reader.readuntil(b"\r\n\r\n"):
            target = head.split(b" ")[1]
            writer.write(b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n" % len(target) + target)
            await writer.drain()
    writer.close()


async def converse(sock: socket.socket, http: bool, over: asyncio.Event) -> int:
    """Exchanges on one connection until it is over; bytes that came back. Any loss or reset raises."""
    reader, writer = await asyncio.open_connection(sock=sock)
    total = number = 0
    while not over.is_set():
        number += 1
        if http:
            target = f"/{number:06d}".encode()
            writer.write(request(target.decode()))
            await reader.readuntil(b"\r\n\r\n")
            answer, expected = await reader.readexactly(len(target)), target
        else:
            expected = number.to_bytes(4) * 1024
            writer.write(expected)
            answer = await reader.readexactly(len(expected))
        assert answer == expected
        total += len(answer)
        await asyncio.sleep(0.05)
    writer.close()
    await writer.wait_closed()
    return total


async def kill_in_turns(gateway: Gateway) -> None:
    """Both daemons, five times in all, while the transfers run."""
    for name in (FASTPATH, SLOWPATH, FASTPATH, SLOWPATH, FASTPATH):
        await asyncio.sleep(0.8)
        gateway.kill(name)
        await asyncio.sleep(0.5)
        await asyncio.to_thread(gateway.start_daemon, name)


def test_killing_the_daemons_loses_nothing(gateway: Gateway) -> None:
    lab = gateway.lab

    def ends(row: dict[str, Any]) -> tuple[str, int]:
        """The client's: both families may use a port."""
        return row["src"], row["sport"]

    async def run() -> list[int]:
        servers = [
            await asyncio.start_server(serve, sock=peers.listen(lab, port), backlog=1024)
            for port, serve in ((7000, echo), (7002, web))
        ]
        http = [number % 10 == 0 for number in range(CONNECTIONS)]
        socks = [dial(lab, 7002 if one else 7000, V6 if n % 2 else V4) for n, one in enumerate(http)]
        for sock in socks:
            sock.setblocking(False)
        over = asyncio.Event()
        async with asyncio.TaskGroup() as group:
            transfers = [group.create_task(converse(sock, one, over)) for sock, one in zip(socks, http, strict=True)]
            await asyncio.sleep(0.5)
            before = {ends(row): row["session"] for row in await asyncio.to_thread(gateway.sessions)}
            await asyncio.gather(kill_in_turns(gateway), asyncio.sleep(SECONDS))
            over.set()
        after = {ends(row): row["session"] for row in gateway.sessions()}
        # The very sessions of before: nothing was forgotten and begun anew.
        assert {each: after.get(each) for each in before} == before
        assert len(before) >= CONNECTIONS
        for server in servers:
            server.close()
            await server.wait_closed()
        return [transfer.result() for transfer in transfers]

    before, resets = peers.program_ids(gateway), gateway.stats()["packets"]["resets"]
    totals = asyncio.run(run())
    assert min(totals) > 0
    assert peers.program_ids(gateway) == before
    assert gateway.stats()["packets"]["resets"] == resets
    assert alive(gateway)


# -- stuck and gone ----------------------------------------------------------------------------------------------------


def test_an_inspector_that_is_stuck(gateway: Gateway) -> None:
    lab = gateway.lab
    with (
        Echo(lab, 7080, peers.serve_http),
        Echo(lab, 7081, peers.serve_http),
        Echo(lab, 7001),
        dial(lab, 7001) as decided,
    ):
        decided.sendall(b"\x7fcustom one")
        assert receive(decided, 11) == b"\x7fcustom one"
        eventually(lambda: peers.session_of(gateway, port_of(decided))["verdict"] in {"allow", "drain"})
        pid = gateway.children[SLOWPATH].pid
        os.kill(pid, signal.SIGSTOP)
        try:
            eventually(lambda: not alive(gateway))
            for host in (V4, V6):
                with dial(lab, 7080, host) as client:
                    client.sendall(request("/down"))
                    assert remains(client) == (b"", "reset")
                    denied = peers.session_of(gateway, port_of(client))
                    assert (denied["verdict"], denied["reason"]) == ("deny", "inspector_down")
                with dial(lab, 7081, host) as client:
                    client.sendall(request("/down"))
                    assert peers.answer_of(client) == b"/down"
                    allowed = peers.session_of(gateway, port_of(client))
                    assert (allowed["verdict"], allowed["reason"]) == ("allow", "inspector_down")
            decided.sendall(b"\x7fcustom two")
            assert receive(decided, 11) == b"\x7fcustom two"
            assert gateway.stats()["drops"]["inspector_down"] > 0
        finally:
            os.kill(pid, signal.SIGCONT)
        eventually(lambda: alive(gateway))
        with dial(lab, 7080) as client:
            client.sendall(request("/up"))
            assert peers.answer_of(client) == b"/up"
            client.sendall(request("/admin"))
            assert remains(client) == (b"", "reset")
        # The denials are on record: the events waited for their reader.
        assert record_of(gateway, denied["sport"], event="verdict")["reason"] == "inspector_down"


def test_traffic_needs_no_fast_path_daemon(gateway: Gateway) -> None:
    lab = gateway.lab
    assert gateway.stop(FASTPATH) == 0
    try:
        assert gateway.command(FASTPATH, "status").returncode == 4
        with Echo(lab, 7000), Echo(lab, 7080, peers.serve_http):
            for host in (V4, V6):
                with dial(lab, 7000, host) as client:
                    client.sendall(b"still here")
                    assert receive(client, 10) == b"still here"
                with dial(lab, 7080, host) as client:
                    client.sendall(request("/fine"))
                    assert peers.answer_of(client) == b"/fine"
                    client.sendall(request("/admin"))
                    assert remains(client) == (b"", "reset")
    finally:
        gateway.start_daemon(FASTPATH)


def test_unloading_ends_the_inspector(gateway: Gateway) -> None:
    gateway.stop(FASTPATH)
    inspector = gateway.children.pop(SLOWPATH)
    said = len(gateway.said(SLOWPATH))
    assert gateway.command(FASTPATH, "unload").returncode == 0
    try:
        assert inspector.wait(peers.PATIENCE) == 4
        lines = gateway.said(SLOWPATH)[said:].splitlines()
        assert len(lines) == 1, lines
        assert "the kernel half was unloaded" in lines[0]
    finally:
        gateway.start()


# -- sessions that are over --------------------------------------------------------------------------------------------


@pytest.mark.parametrize("host", [V4, V6], ids=["v4", "v6"])
def test_the_sweep_ends_what_is_not_used(gateway: Gateway, host: str) -> None:
    lab = gateway.lab
    with (
        peers.datagrams(lab, 7000),
        peers.datagrams(lab, 0, Namespace.CLIENT) as idle,
        peers.datagrams(lab, 0, Namespace.CLIENT) as busy,
    ):
        for sock in (idle, busy):
            sock.connect((peers.mapped(host), 7000))
            sock.send(b"one")
        first = peers.session_of(gateway, port_of(busy))["session"]

        def ended() -> dict[int, int] | None:
            busy.send(b"more")
            found = {row["sport"]: row["session"] for row in gateway.sessions()}
            return None if port_of(idle) in found else found

        assert eventually(ended)[port_of(busy)] == first
        record = record_of(gateway, port_of(idle), event="end")
    assert (record["end"], record["packets"]) == ("timeout", {"to_server": 1, "to_client": 0})
    assert record["duration"] >= UDP_TIMEOUT


def test_events_nobody_takes_are_counted_and_cost_nothing_else(gateway: Gateway) -> None:
    lab = gateway.lab
    gateway.kill(SLOWPATH)
    try:
        with Stranger(lab) as stranger, Echo(lab, 7000), dial(lab, 7000) as client:
            lost = gateway.stats()["packets"]["events_lost"]
            # The ring holds some 20,000.
            for sport in range(10_000, 35_000):
                stranger.frame(udp_frame(Stranger.ADDRESS, V4, sport, 7000, b"x")[12:])
            eventually(lambda: gateway.stats()["packets"]["events_lost"] > lost)
            client.sendall(b"fine")
            assert receive(client, 4) == b"fine"
            with dial(lab, 7000, V6) as other:
                other.sendall(b"fine too")
                assert receive(other, 8) == b"fine too"
    finally:
        gateway.start_daemon(SLOWPATH)
    # The next inspector takes what waits, and what is to come.
    with peers.datagrams(lab, 7000), peers.datagrams(lab, 0, Namespace.CLIENT) as sock:

        def recorded() -> bool:
            sock.sendto(b"x", (peers.mapped(V4), 7000))
            return any(record["flow"]["sport"] == port_of(sock) for record in gateway.read_records())

        eventually(recorded)


# -- pressure ----------------------------------------------------------------------------------------------------------

CAPACITY = 1024
ESTABLISHED = 20
FLOOD = 3000
NOBODY = "10.77.2.99"


def exchange(socks: list[socket.socket]) -> None:
    for sock in socks:
        sock.sendall(b"still there?")
    for sock in socks:
        assert receive(sock, 12) == b"still there?"


@pytest.mark.parametrize("kind", ["lru", "hash"])
def test_a_flood_of_new_sessions_leaves_the_established_alone(lab: Lab, kind: str) -> None:
    settings = {"sessions": {"capacity": CAPACITY, "kind": kind}}
    with contextlib.ExitStack() as stack:
        gateway = stack.enter_context(Gateway(lab, POLICY, settings=settings))
        stack.enter_context(Echo(lab, 7000))
        stranger = stack.enter_context(Stranger(lab))
        socks = [stack.enter_context(dial(lab, 7000, V6 if n % 2 else V4)) for n in range(ESTABLISHED)]
        exchange(socks)
        ports = {port_of(sock) for sock in socks}
        before = {row["sport"]: row["session"] for row in gateway.sessions() if row["sport"] in ports}
        assert len(before) == ESTABLISHED
        for number in range(FLOOD):
            # Open, as far as anybody can see, and not to be swept: nobody is there to answer.
            stranger.frame(tcp_frame(Stranger.ADDRESS, NOBODY, 20_000 + number, 7003, number, 1, ACK, b"")[12:])
            if number % 50 == 49:
                exchange(socks)
                time.sleep(0.03)
        status = gateway.status()["sessions"]
        assert status["pressure"] == "full"
        assert status["live"] <= CAPACITY
        assert "session table" in gateway.said(FASTPATH)
        after = {row["sport"]: row["session"] for row in gateway.sessions() if row["sport"] in ports}
        assert after == before
        exchange(socks)
        # A new one that the policy allows gets through, with a session or without.
        for host in (V4, V6):
            with dial(lab, 7000, host) as client:
                exchange([client])
            with peers.datagrams(lab, 7000) as server, peers.datagrams(lab, 0, Namespace.CLIENT) as client:
                client.sendto(b"question", (peers.mapped(host), 7000))
                content, address = server.recvfrom(100)
                server.sendto(b"answer to " + content, address)
                assert client.recv(100) == b"answer to question"
        # Nor does the full table open anything else.
        with pytest.raises(TimeoutError):
            dial(lab, 7009, timeout=1.2)
        # One that would have to be identified first does not.
        dropped = gateway.stats()["drops"]["table_full"]
        with pytest.raises(TimeoutError):
            dial(lab, 7002, timeout=1.5)
        assert gateway.stats()["drops"]["table_full"] > dropped


def test_an_emergency_sweep_makes_room(lab: Lab) -> None:
    with contextlib.ExitStack() as stack:
        # Of a kind that evicts nothing, so that what goes was swept.
        settings = {"sessions": {"capacity": CAPACITY, "kind": "hash"}}
        gateway = stack.enter_context(Gateway(lab, POLICY, settings=settings))
        stack.enter_context(Echo(lab, 7000))
        stranger = stack.enter_context(Stranger(lab))
        socks = [stack.enter_context(dial(lab, 7000, V6 if n % 2 else V4)) for n in range(ESTABLISHED)]
        before = {row["session"] for row in gateway.sessions()}
        assert len(before) == ESTABLISHED
        for number in range(CAPACITY):
            # Half of them nobody answers, the others the server refuses at once.
            host = NOBODY if number % 2 else V4
            stranger.frame(tcp_frame(Stranger.ADDRESS, host, 20_000 + number, 7003, number, 0, SYN, b"")[12:])
        eventually(lambda: gateway.status()["sessions"]["emergency_sweeps"])
        eventually(lambda: gateway.status()["sessions"]["pressure"] == "none")
        exchange(socks)
        assert before <= {row["session"] for row in gateway.sessions()}
        assert gateway.status()["sessions"]["swept"] >= CAPACITY / 4
        assert "emergency" in gateway.said(FASTPATH)
        assert gateway.stats()["sessions"]["emergency_sweeps"] >= 1
