"""The lab itself: every client reaches its server by plain forwarding, and nothing stays behind."""

from __future__ import annotations

import json
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.lab import Lab, Namespace, clients, servers
from tests.lab.capture import Capture, packets, payload_bytes, payload_seen
from tests.lab.demo import Step, steps
from tests.lab.namespaces import BPFFS, NETNS, ROOT, STATE, pin_root, processes_in, started_at

pytestmark = pytest.mark.root

HOSTS = pytest.mark.parametrize("host", [clients.V4, clients.V6], ids=["v4", "v6"])


@pytest.fixture(scope="module")
def served() -> Iterator[Lab]:
    with Lab() as lab, servers.running(lab):
        yield lab


def inodes(prefix: str) -> set[int]:
    return {(NETNS / f"{prefix}-{namespace}").stat().st_ino for namespace in Namespace}


def traces(prefix: str) -> list[str]:
    folder = STATE / f"{prefix}.json"
    return [str(path) for path in [*NETNS.glob(f"{prefix}-*"), folder] if path.exists()]


@pytest.mark.parametrize("step", [pytest.param(step, id=f"{step.protocol}: {step.what}") for step in steps()])
def test_client_reaches_its_server(served: Lab, step: Step) -> None:
    result = step.run(served)
    assert result.ok, result.detail


@HOSTS
def test_a_closed_port_is_a_result_not_an_error(served: Lab, host: str) -> None:
    result = clients.http(served, host, port=81)
    assert not result.ok
    assert "status 7" in result.detail


@HOSTS
def test_grpc_reports_each_call(served: Lab, host: str) -> None:
    calls = ("lab.Echo/Say:3000000", "lab.No/Method", "lab.Admin/Wipe", "lab.Echo/Chat*10:100000")
    result = clients.grpc(served, host, calls)
    assert not result.ok
    assert [call["status"] for call in result.calls] == ["OK", "UNIMPLEMENTED", "OK", "OK"]
    assert [call["bytes"] for call in result.calls] == [3_000_000, 0, 5, 1_000_000]


@HOSTS
def test_capture_sees_what_reaches_the_server(served: Lab, host: str) -> None:
    with Capture(served, Namespace.SERVER) as capture:
        assert clients.http(served, host, "/echo?marker-one").ok
    assert payload_seen(capture.file, b"marker-one")
    assert not payload_seen(capture.file, b"marker-two")
    # What the server answers goes out and is not captured.
    assert not list(packets(capture.file, sport=80))
    sport = next(packets(capture.file, dport=80)).sport
    assert payload_bytes(capture.file, 80, sport) > len("GET /echo?marker-one HTTP/1.1")
    assert payload_bytes(capture.file, 80, sport ^ 1) == 0
    assert payload_bytes(capture.file, 6379) == 0


def test_payload_is_found_across_segments(served: Lab) -> None:
    script = (
        "import socket, time; s = socket.create_connection(('10.77.2.2', 80))\n"
        "s.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)\n"
        "for byte in b'GET /needle': s.send(bytes([byte])); time.sleep(0.002)\n"
    )
    with Capture(served, Namespace.SERVER) as capture:
        assert served.run(Namespace.CLIENT, [sys.executable, "-I", "-c", script]).returncode == 0
    assert sum(1 for packet in packets(capture.file, dport=80) if packet.payload) > 3
    assert payload_seen(capture.file, b"needle")


def test_namespace_shows_its_interfaces_and_the_hosts_pins(lab: Lab) -> None:
    done = lab.run(Namespace.GATEWAY, ["ls", "/sys/class/net"])
    assert {"seg0", "seg1"} <= set(done.stdout.split())
    assert "eth0" not in done.stdout.split()
    pin = BPFFS / lab.prefix
    pin.mkdir()
    try:
        assert lab.run(Namespace.GATEWAY, ["test", "-d", pin]).returncode == 0
        assert lab.run(Namespace.GATEWAY, ["rmdir", pin]).returncode == 0
        assert not pin.exists()
    finally:
        if pin.exists():
            pin.rmdir()


def test_starting_a_process_is_cheap(lab: Lab) -> None:
    fastest = 1.0
    for _ in range(10):
        start = time.perf_counter()
        lab.run(Namespace.CLIENT, ["true"])
        fastest = min(fastest, time.perf_counter() - start)
    assert fastest < 0.03


def test_two_labs_live_side_by_side() -> None:
    with Lab() as one, Lab() as two:
        assert one.prefix != two.prefix
        assert not two.swept or one.prefix not in two.swept
        for lab in (one, two):
            with servers.running(lab, [servers.Redis]):
                assert clients.redis(lab).ok


def test_nothing_remains_after_the_end() -> None:
    with Lab() as lab, servers.running(lab, [servers.Nginx, servers.Redis]):
        prefix, directory, spaces = lab.prefix, lab.directory, inodes(lab.prefix)
        # A process that has left its session and its parent is found by its namespace.
        lab.run(Namespace.CLIENT, ["sh", "-c", "setsid sleep 300 >/dev/null 2>&1 &"])
        assert len(processes_in(spaces)) > 5
    assert processes_in(spaces) == []
    assert traces(prefix) == []
    assert not directory.exists()


def test_nothing_remains_after_a_failure() -> None:
    lab, prefixes = Lab(), []

    def fail() -> None:
        with lab:
            prefixes.append(lab.prefix)
            lab.spawn(Namespace.SERVER, ["sleep", "300"])
            raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        fail()
    assert traces(prefixes[0]) == []


def test_a_killed_lab_is_removed_by_the_next() -> None:
    script = (
        "import json, time\n"
        "from tests.lab import Lab, servers\n"
        "with Lab() as lab, servers.running(lab, [servers.Nginx]):\n"
        "    print(json.dumps([lab.prefix, str(lab.directory)]), flush=True)\n"
        "    time.sleep(60)\n"
    )
    with subprocess.Popen([sys.executable, "-c", script], cwd=ROOT, stdout=subprocess.PIPE) as owner:
        assert owner.stdout is not None
        prefix, directory = json.loads(owner.stdout.readline())
        spaces = inodes(prefix)
        with Lab() as other:
            assert prefix not in other.swept
        assert len(processes_in(spaces)) > 3
        pin_root(prefix).mkdir()
        owner.send_signal(signal.SIGKILL)
        owner.wait()
    assert started_at(owner.pid) is None
    with Lab():
        assert traces(prefix) == []
    assert processes_in(spaces) == []
    assert not Path(directory).exists()
    assert not pin_root(prefix).exists()
