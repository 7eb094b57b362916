"""Loading, restarts and unloading on real interfaces: nothing is added twice, nothing is lost, nothing is left."""

from __future__ import annotations

import asyncio
import contextlib
import itertools
import json
import os
import re
import shutil
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Self

import pytest

from fastpath import abi, attach
from fastpath.attach import Attachment, State, netlink, state_file
from fastpath.config import load_config
from fastpath.gateway import pins_of
from fastpath.libbpf import TCX_EGRESS, TCX_INGRESS, Map
from fastpath.loader.compile import LoadError
from tests.lab import Lab, Namespace
from tests.lab.clients import V4, V6
from tests.lab.gateway import FASTPATH, SLOWPATH, Gateway, answers
from tests.lab.namespaces import ROOT, Address, ip
from tests.netns.peers import (
    PATIENCE,
    datagrams,
    default_hook,
    dial,
    eventually,
    foreign,
    listen,
    mapped,
    need_tcx,
    pair,
    port_of,
    program_ids,
    receive,
    session_of,
    tcx,
)
from tests.netns.probes import attempt, use

pytestmark = pytest.mark.root

POLICY = """
default: {action: deny, deny_with: reset}
rules:
  - {id: open, proto: tcp, ports: [7000, 7001], action: allow}
"""
# What each interface has.
PLACES = {
    "tcx": [("ingress", "ms_ingress"), ("egress", "ms_egress")],
    "clsact": [("ingress", "49000"), ("egress", "49000")],
}
SO_RCVBUFFORCE = 33
# A bound that the daemon's memory stays below.
MAX_RESIDENT = 60 * 1024


@pytest.fixture(scope="module")
def gateway() -> Iterator[Gateway]:
    """With a listener on 7001, open, and 7009, shut."""
    with Lab() as lab, listen(lab, 7001), listen(lab, 7009), Gateway(lab, POLICY) as one:
        yield one


@pytest.fixture(autouse=True)
def running(request: pytest.FixtureRequest) -> Iterator[None]:
    """A test that failed half-way leaves the shared gateway as the next one wants it."""
    yield
    if "gateway" in request.fixturenames:
        gateway: Gateway = request.getfixturevalue("gateway")
        for name in (FASTPATH, SLOWPATH):
            if name not in gateway.children or gateway.children[name].poll() is not None:
                gateway.start_daemon(name)


def judges(lab: Lab, host: str = V4) -> bool:
    """The policy holds: one port is open, the other shut."""
    return [attempt(lab, port, host)[0] for port in (7001, 7009)] == ["open", "refused"]


def exchange(client: socket.socket, server: socket.socket, content: bytes) -> None:
    client.sendall(content)
    assert receive(server, len(content)) == content
    server.sendall(content[::-1])
    assert receive(client, len(content)) == content[::-1]


def tc(lab: Lab, *words: str) -> str:
    done = lab.run(Namespace.GATEWAY, ["tc", *words])
    assert done.returncode == 0, done.stderr
    return done.stdout


def kinds(lab: Lab, interface: str) -> list[str]:
    """Qdiscs of an interface."""
    return re.findall(r"^qdisc (\S+)", tc(lab, "qdisc", "show", "dev", interface), re.MULTILINE)


def filters(lab: Lab, interface: str) -> list[tuple[str, int, str]]:
    """(hook, prio, kind) of every filter."""
    return [
        (hook, int(prio), kind)
        for hook in ("ingress", "egress")
        for prio, kind in re.findall(
            r"^filter \S+ \S+ pref (\d+) (\S+) chain 0 handle",
            tc(lab, "filter", "show", "dev", interface, hook),
            re.MULTILINE,
        )
    ]


def places(lab: Lab, interface: str) -> list[tuple[str, str]]:
    """(hook, name) of every program at tcx, (hook, prio) of every filter."""
    programs = [(hook, name) for hook, name, _ in tcx(lab, interface)]
    return programs + [(hook, str(prio)) for hook, prio, _ in filters(lab, interface)]


def interfaces(lab: Lab) -> set[str]:
    return set(lab.run(Namespace.GATEWAY, ["ls", "/sys/class/net"]).stdout.split())


def queues(lab: Lab, *names: str) -> str:
    """Receive packet steering of interfaces."""
    pattern = " ".join(f"/sys/class/net/{name}/queues/rx-*/rps_cpus" for name in names)
    return lab.run(Namespace.GATEWAY, ["sh", "-c", f"grep . {pattern}"]).stdout


def loaded_programs() -> set[int]:
    """Ids of all programs in the kernel."""
    shown = subprocess.run(["bpftool", "-j", "prog", "list"], capture_output=True, text=True, check=True)
    return {program["id"] for program in json.loads(shown.stdout)}


# -- restarts ------------------------------------------------------------------------------------------------------


def test_programs_are_loaded_once(gateway: Gateway) -> None:
    log = gateway.log(FASTPATH)
    eventually(lambda: log.read_text().count("programs compiled") == 1)
    assert gateway.status()["programs"].startswith("compiled")
    pins = pins_of(load_config(gateway.config))
    assert pins.loaded
    assert pins.base.name == abi.ABI_HASH
    before, said = program_ids(gateway), len(log.read_text())
    assert gateway.stop(FASTPATH) == 0
    assert program_ids(gateway) == before
    gateway.start_daemon(FASTPATH)
    assert program_ids(gateway) == before
    eventually(lambda: "ready: " in log.read_text()[said:])
    assert "programs loaded already" in log.read_text()[said:]
    assert gateway.status()["programs"] == "loaded already"


def test_a_killed_daemon_is_not_missed_and_comes_back_to_the_same_programs(gateway: Gateway) -> None:
    lab = gateway.lab
    before = program_ids(gateway)
    hooks = {name: places(lab, name) for name in ("seg0", "seg1")}
    assert all(found == PLACES[default_hook()] for found in hooks.values())
    with pair(lab, 7000) as (client, server):
        exchange(client, server, b"before")
        session = session_of(gateway, port_of(client))
        for round_ in range(3):
            revision = gateway.status()["policy"]["revision"]
            gateway.kill(FASTPATH)
            exchange(client, server, b"while it is dead")
            assert judges(lab)
            gateway.start_daemon(FASTPATH)
            assert gateway.status()["policy"]["revision"] > revision, round_
            exchange(client, server, b"and after")
        after = session_of(gateway, port_of(client))
    assert program_ids(gateway) == before
    assert {name: places(lab, name) for name in ("seg0", "seg1")} == hooks
    assert after["session"] == session["session"]
    assert after["packets"][0] > session["packets"][0]
    assert judges(lab, V6)


def test_resident_memory_is_bounded(gateway: Gateway) -> None:
    def resident() -> int:
        """kB."""
        status = Path(f"/proc/{gateway.children[FASTPATH].pid}/status").read_text()
        return int(re.findall(r"VmRSS:\s+(\d+) kB", status)[0])

    assert resident() < MAX_RESIDENT
    rules = [
        f"  - {{id: r{n}, from: 10.{n >> 8}.{n & 255}.0/24, proto: tcp, ports: {1 + n}, action: deny}}"
        for n in range(1000)
    ]
    use(gateway, POLICY + "\n".join(rules) + "\n")
    use(gateway, POLICY)
    assert resident() < MAX_RESIDENT


def test_a_second_instance_is_refused(gateway: Gateway) -> None:
    for name in (FASTPATH, SLOWPATH):
        done = gateway.command(name, "run")
        assert done.returncode == 1
        assert len(done.stderr.splitlines()) == 1
        assert f"another {name} is running with this pin_root" in done.stderr
    for command in ("load", "unload"):
        done = gateway.command(FASTPATH, command)
        assert done.returncode == 1
        assert "another microseg-fastpath is running" in done.stderr
    assert judges(gateway.lab)


def test_an_interface_that_comes_back_is_attached_again(gateway: Gateway) -> None:
    lab = gateway.lab
    space, client = lab.netns(Namespace.GATEWAY), lab.netns(Namespace.CLIENT)
    before = program_ids(gateway)
    ip("link delete seg0", namespace=space)
    eventually(lambda: gateway.status()["problem"] == "missing interfaces: seg0")
    assert gateway.status()["healthy"] is False
    ip(f"link add seg0 netns {space} type veth peer name eth0 netns {client}")
    ip(
        f"address add {Address.GATEWAY_CLIENTS4}/24 dev seg0",
        f"address add {Address.GATEWAY_CLIENTS6}/64 dev seg0 nodad",
        "link set seg0 up",
        namespace=space,
    )
    ip(
        f"address add {Address.CLIENT4}/24 dev eth0",
        f"address add {Address.CLIENT6}/64 dev eth0 nodad",
        "link set eth0 up",
        f"route add default via {Address.GATEWAY_CLIENTS4}",
        f"route add ::/0 via {Address.GATEWAY_CLIENTS6}",
        namespace=client,
    )
    eventually(lambda: places(lab, "seg0") == PLACES[default_hook()])
    eventually(lambda: gateway.status()["healthy"])
    assert program_ids(gateway) == before
    eventually(lambda: judges(lab))
    assert judges(lab, V6)


# -- hooks ---------------------------------------------------------------------------------------------------------


class Stream:
    """Datagrams without a pause to a port that is open and one that is shut, from one socket each."""

    def __init__(self, lab: Lab) -> None:
        self._stack = contextlib.ExitStack()
        self._servers = [self._stack.enter_context(datagrams(lab, port)) for port in (7002, 7009)]
        self._clients = [self._stack.enter_context(datagrams(lab, namespace=Namespace.CLIENT)) for _ in range(2)]
        for server in self._servers:
            server.setsockopt(socket.SOL_SOCKET, SO_RCVBUFFORCE, 1 << 26)
        self.ports = [port_of(client) for client in self._clients]
        self.sent = 0
        self.arrived = [0, 0]
        self._ended = threading.Event()
        self._threads = [threading.Thread(target=self._send)]
        self._threads += [threading.Thread(target=self._count, args=(number,)) for number in (0, 1)]

    def __enter__(self) -> Self:
        for thread in self._threads:
            thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.end()
        self._stack.close()

    def end(self) -> None:
        """Send no more, and wait for what is on its way."""
        self._ended.set()
        for thread in self._threads:
            thread.join()

    def judged_once(self, gateway: Gateway) -> bool:
        """All of them were, and the shut port got none. A qdisc that comes or goes stops the device for a moment
        (kernel: qdisc_graft): it may have dropped a few that had been judged.
        """
        assert session_of(gateway, self.ports[0])["packets"] == [self.sent, 0]
        assert self.sent * 0.99 < self.arrived[0] <= self.sent
        return self.arrived[1] == 0

    def _send(self) -> None:
        while not self._ended.is_set():
            for client, port in zip(self._clients, (7002, 7009), strict=True):
                client.sendto(b"x" * 32, (mapped(V4), port))
            self.sent += 1
            time.sleep(0.0001)

    def _count(self, number: int) -> None:
        server = self._servers[number]
        server.settimeout(0.3)
        while True:
            try:
                server.recv(64)
                self.arrived[number] += 1
            except TimeoutError:
                if self._ended.is_set():
                    return


STREAM_POLICY = """
default: {action: deny}
rules:
  - {id: open, proto: udp, ports: [7002], action: allow}
"""


def restart(gateway: Gateway, **settings: object) -> None:
    gateway.stop(FASTPATH)
    gateway.settings |= settings
    gateway.write_config()
    gateway.start_daemon(FASTPATH)


def test_another_hook_takes_over_without_an_unjudged_packet_and_none_is_judged_twice() -> None:
    need_tcx()
    with Lab() as lab:
        foreign(lab, "seg0", TCX_INGRESS)
        with Gateway(lab, STREAM_POLICY, settings={"hook": "clsact"}, inspector=False) as gateway:
            with Stream(lab) as stream:
                eventually(lambda: stream.arrived[0] > 100)
                for hook in ("tcx", "clsact", "auto", "clsact", "tcx"):
                    restart(gateway, hook=hook)
                    now = "tcx" if hook == "auto" else hook
                    assert places(lab, "seg1") == PLACES[now]
                    assert set(places(lab, "seg0")) == {("ingress", "foreign"), *PLACES[now]}
                    tap = gateway.settings["tap"]
                    assert [len(places(lab, name)) for name in (tap, f"{tap}x")] == [1, 2]
                    assert ("clsact" in kinds(lab, "seg0")) == (now == "clsact")
                stream.end()
                assert stream.judged_once(gateway)
            state = State.read(state_file(Path(gateway.settings["run_dir"])))
            assert (state.filtered, state.clsact) == ([], [])
        assert places(lab, "seg0") == [("ingress", "foreign")]


@pytest.mark.parametrize("hook", PLACES)
def test_other_programs_take_over_under_traffic(hook: str) -> None:
    with Lab() as lab, Gateway(lab, STREAM_POLICY, settings={"hook": hook}, inspector=False) as gateway:
        before = program_ids(gateway)
        with Stream(lab) as stream:
            eventually(lambda: stream.arrived[0] > 100)
            restart(gateway, sessions={"capacity": 2048})
            stream.end()
            assert stream.arrived == [stream.sent, 0]
        after = program_ids(gateway)
        assert all(len(after[place]) == len(before[place]) for place in before)
        assert not {number for numbers in after.values() for number in numbers} & {*itertools.chain(*before.values())}


@pytest.mark.parametrize("hook", ["tcx", "clsact", "unload"])
def test_a_crash_while_another_hook_takes_over(hook: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Both are there, and judge each packet once; the next start, or `unload`, clears up."""
    need_tcx()
    with Lab() as lab, Gateway(lab, STREAM_POLICY, settings={"hook": "clsact"}, inspector=False) as gateway:
        gateway.kill(FASTPATH)
        gateway.settings["hook"] = "tcx"
        gateway.write_config()
        remove = attach._remove_filter

        async def crash(route: object, prio: int, index: int, parent: int) -> None:
            if parent == attach.INGRESS:
                raise LoadError("crashed")
            await remove(route, prio, index, parent)

        async def half() -> None:
            config = load_config(gateway.config)
            async with netlink() as route:
                await Attachment(config, pins_of(config)).attach(route, lambda _: None)

        with monkeypatch.context() as patch:
            patch.setattr(attach, "_remove_filter", crash)
            with pytest.raises(LoadError, match="crashed"):
                lab.call(Namespace.GATEWAY, lambda: asyncio.run(half()))
        assert places(lab, "seg0") == [("ingress", "ms_marking"), ("egress", "ms_egress"), ("ingress", "49000")]
        if hook == "unload":
            assert gateway.command(FASTPATH, "unload").returncode == 0
            assert places(lab, "seg0") == places(lab, "seg1") == []
            assert "clsact" not in kinds(lab, "seg0")
            return
        with Stream(lab) as stream:
            eventually(lambda: stream.arrived[0] > 100)
            gateway.settings["hook"] = hook
            gateway.write_config()
            gateway.start_daemon(FASTPATH)
            stream.end()
            assert stream.judged_once(gateway)
        assert places(lab, "seg0") == places(lab, "seg1") == PLACES[hook]


# -- the session table ---------------------------------------------------------------------------------------------


def test_sessions_of_another_table_are_dropped_and_their_flows_go_on(gateway: Gateway) -> None:
    lab, settings = gateway.lab, dict(gateway.settings)
    with pair(lab, 7000) as (client, server):
        exchange(client, server, b"before")
        session = session_of(gateway, port_of(client))
        revision = gateway.status()["policy"]["revision"]
        for name in (SLOWPATH, FASTPATH):
            gateway.stop(name)
        try:
            gateway.settings |= {"sessions": {"capacity": 2048, "kind": "hash"}}
            gateway.write_config()
            gateway.start()
            pins = pins_of(load_config(gateway.config))
            assert pins.map("sessions").shape == pins.table.shape
            assert gateway.status()["sessions"]["capacity"] == 2048
            # Settings of another table are others, its revisions are not.
            assert gateway.status()["policy"]["revision"] > revision
            assert [path for path in pins.base.iterdir() if path.is_dir()] == [pins.directory]
            exchange(client, server, b"after")
            # Adopted by the rule on its port: the exception `midstream`.
            adopted = session_of(gateway, port_of(client))
            assert adopted["session"] != session["session"]
            assert (adopted["verdict"], adopted["rule"]) == ("allow", "open")
        finally:
            for name in list(gateway.children):
                gateway.stop(name)
            gateway.settings = settings
            gateway.write_config()
            gateway.start()


def test_a_pinned_table_of_another_shape_is_not_used(gateway: Gateway) -> None:
    for name in (SLOWPATH, FASTPATH):
        gateway.stop(name)
    pins = pins_of(load_config(gateway.config))
    table = pins.base / "sessions"
    table.unlink()
    argv = ["bpftool", "map", "create", table, "type", "hash", "key", "8", "value", "8", "entries", "64", "name", "odd"]
    subprocess.run(argv, check=True)
    (pins.base / "half-part").mkdir()
    gateway.start_early()
    # What is attached judges until the new programs take over.
    while not answers(gateway.directory / "run" / "fastpath.sock"):
        assert gateway.children[FASTPATH].poll() is None, gateway.said(FASTPATH)
        assert judges(gateway.lab)
        time.sleep(0.1)
    gateway.wait_ready()
    assert Map.open(table).shape == pins.table.shape
    assert sorted(path.name for path in pins.base.iterdir()) == sorted(["hits", "sessions", pins.directory.name])
    assert judges(gateway.lab)
    assert {session["dport"] for session in gateway.sessions()} >= {7001, 7009}


# -- unloading -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("hook", PLACES)
def test_load_and_unload_leave_nothing_and_take_nothing(hook: str) -> None:
    """seg0 has a qdisc, a filter and a program of somebody else, seg1 nothing, seg2 gets somebody's later."""
    if hook == "tcx":
        need_tcx()
    somebody_there = default_hook() == "tcx"
    with Lab() as lab, listen(lab, 7001), listen(lab, 7009):
        ip("link add seg2 type veth peer name far2", "link set seg2 up", namespace=lab.netns(Namespace.GATEWAY))
        tc(lab, "qdisc", "add", "dev", "seg0", "clsact")
        # One instruction: never matches.
        somebodys = ("prio", "100", "protocol", "all", "bpf", "bytecode", "1,6 0 0 0")
        tc(lab, "filter", "add", "dev", "seg0", "ingress", *somebodys)
        if somebody_there:
            foreign(lab, "seg0", TCX_INGRESS)
        names = ("seg0", "seg1", "seg2")
        there, steering = interfaces(lab), queues(lab, *names)
        gateway = Gateway(lab, POLICY, settings={"interfaces": list(names), "hook": hook}, inspector=False)
        pin_root, run_dir = Path(gateway.settings["pin_root"]), Path(gateway.settings["run_dir"])
        try:
            done = gateway.command(FASTPATH, "load", timeout=60)
            assert done.returncode == 0, done.stderr
            # Nobody stays, and all of it works.
            assert gateway.command(FASTPATH, "status").returncode == 4
            assert judges(lab)
            assert gateway.stats()["packets"]["packets"] > 0
            ids = program_ids(gateway)
            ours = {int(number) for numbers in ids.values() for number in numbers if number}
            ours -= {number for _, name, number in tcx(lab, "seg0") if name == "foreign"}
            assert len({ids[f"{name} ingress"][-1] for name in names}) == 1
            assert queues(lab, *names) == steering
            somebodys_places = [("ingress", "foreign")] * somebody_there + [("ingress", "100")]
            assert set(places(lab, "seg0")) == {*somebodys_places, *PLACES[hook]}
            assert places(lab, "seg1") == PLACES[hook]
            if hook == "tcx":
                tc(lab, "qdisc", "add", "dev", "seg2", "clsact")
            tc(lab, "filter", "add", "dev", "seg2", "egress", *somebodys)
            if somebody_there:
                foreign(lab, "seg2", TCX_EGRESS)
            ids = program_ids(gateway)
            # The daemon finds what `load` left, and adds nothing.
            gateway.start()
            assert program_ids(gateway) == ids
            gateway.spawn(SLOWPATH)
            gateway.wait_ready(SLOWPATH)
            gateway.kill(FASTPATH)
        finally:
            done = gateway.command(FASTPATH, "unload")
        assert done.returncode == 0, done.stderr
        # The inspector has nothing left to do, and says so.
        assert gateway.children.pop(SLOWPATH).wait(PATIENCE) == 4
        assert "the kernel half was unloaded" in gateway.said(SLOWPATH)

        assert interfaces(lab) == there
        assert places(lab, "seg0") == somebodys_places
        assert places(lab, "seg1") == []
        assert "clsact" in kinds(lab, "seg0")
        assert "clsact" not in kinds(lab, "seg1")
        assert places(lab, "seg2") == [("egress", "foreign")] * somebody_there + [("egress", "100")]
        assert queues(lab, *names) == steering
        assert not pin_root.exists()
        eventually(lambda: not ours & loaded_programs())
        assert [path.name for path in run_dir.rglob("*")] == []
        assert [attempt(lab, port)[0] for port in (7001, 7009)] == ["open", "open"]
        # Nothing to do is no failure.
        assert gateway.command(FASTPATH, "unload").returncode == 0


def test_two_gateways_side_by_side(gateway: Gateway) -> None:
    before = program_ids(gateway)
    with Lab() as lab, listen(lab, 7001), listen(lab, 7009):
        other = POLICY.replace("7001", "7009")
        settings = {"hook": "clsact", "prio": 7, "mark": {"value": 0x100, "mask": 0x300}, "tap": "othertap"}
        with Gateway(lab, other, settings=settings) as second:
            assert places(lab, "seg0") == [("ingress", "7"), ("egress", "7")]
            assert [attempt(lab, port)[0] for port in (7001, 7009)] == ["refused", "open"]
            assert judges(gateway.lab)
            used = {number for numbers in program_ids(second).values() for number in numbers}
            assert not used & {number for numbers in before.values() for number in numbers}
    assert program_ids(gateway) == before
    assert judges(gateway.lab)
    with contextlib.closing(dial(gateway.lab, 7001)) as client:
        assert session_of(gateway, port_of(client))["verdict"] == "allow"


# -- the ABI -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("old", "new", "status"),
    [
        ("", "", 0),
        ("\tMS_VERDICT_DRAIN = 5,\n", "\tMS_VERDICT_DRAIN = 5,\n\tMS_VERDICT_LATER = 6,\n", 1),
        ("struct ms_policy {\n\t__u32 ipv4;", "struct ms_policy {\n\t__u32 other;", 1),
        ("Decision on a session", "Decision on the session", 1),
    ],
    ids=["as committed", "enum", "struct", "comment"],
)
def test_a_changed_abi_header_is_noticed(tmp_path: Path, old: str, new: str, status: int) -> None:
    for name in ("fastpath", "bpf"):
        shutil.copytree(ROOT / name, tmp_path / name, ignore=shutil.ignore_patterns("__pycache__", "generated"))
    header = tmp_path / "bpf" / "include" / "abi.h"
    text = header.read_text()
    assert not old or text.count(old) == 1
    header.write_text(text.replace(old, new) if old else text)
    done = subprocess.run(
        [sys.executable, "-m", "fastpath.abi_gen", "--check"],
        cwd=tmp_path,
        env=os.environ | {"PYTHONPATH": str(tmp_path)},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == status, done.stderr
    assert ("run `make abi`" in done.stderr) == bool(status)
