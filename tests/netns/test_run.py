"""`./run`, as its user sees it."""

from __future__ import annotations

import os
import re
import shutil
import signal
import subprocess
import tempfile
import time
from pathlib import Path

import pytest

from tests.lab import Lab, Namespace, clients, servers
from tests.lab.gateway import FASTPATH, SLOWPATH, Gateway
from tests.lab.namespaces import BPFFS, ROOT

pytestmark = [pytest.mark.root, pytest.mark.timeout(180)]

RUN = ROOT / "run"


def test_the_lab_shows_who_judged_and_says_whether_all_went_well() -> None:
    done = subprocess.run([RUN], cwd=ROOT, capture_output=True, text=True, timeout=150, check=False)
    assert done.returncode == 0, done.stdout[-3000:] + done.stderr[-3000:]
    assert re.search(r"34 uses of services, 0 not as the rules want them", done.stdout)
    table = {
        line.split()[0]: line.split() for line in done.stdout.split("protocol  sessions", 1)[1].splitlines()[1:] if line
    }
    for protocol in ("dns", "mysql", "tls"):
        _, sessions, kernel, inspector, allowed, denied, *_ = table[protocol]
        assert (kernel, inspector, allowed, denied) == (sessions, "0", sessions, "0")
    for protocol in ("http2", "grpc"):
        _, sessions, kernel, inspector, *_ = table[protocol]
        assert (kernel, inspector) == ("0", sessions)
    # The log scrolled by: one line for each verdict.
    assert len(re.findall(r"^\S+ (allow|deny) +\S+ +\S+ > ", done.stdout, re.MULTILINE)) > 34


def test_with_a_configuration_it_serves_until_interrupted_and_unloads() -> None:
    with Lab() as lab, servers.running(lab, [servers.Nginx]):
        gateway = Gateway(lab)
        log = gateway.directory / "run.log"
        with log.open("wb") as output:
            child = lab.spawn(Namespace.GATEWAY, [RUN, "--config", gateway.config], stdout=output, stderr=output)
        deadline = time.monotonic() + 60
        while gateway.command(SLOWPATH, "status").returncode or gateway.command(FASTPATH, "status").returncode:
            assert child.poll() is None, log.read_text()
            assert time.monotonic() < deadline, log.read_text()
            time.sleep(0.1)
        assert clients.http(lab).ok
        assert clients.http2(lab).ok
        assert not clients.http2(lab, path="/admin").ok
        child.send_signal(signal.SIGINT)
        assert child.wait(20) == 0, log.read_text()
        assert not (BPFFS / f"microseg-{lab.prefix}").exists()
        shown = lab.run(Namespace.GATEWAY, ["sh", "-c", "tc qdisc; ls /sys/class/net"]).stdout
        assert "clsact" not in shown
        assert gateway.settings["tap"] not in shown
        assert clients.http2(lab, path="/admin").ok  # plain forwarding again


@pytest.mark.parametrize(
    ("arguments", "status", "message"),
    [
        (["--config"], 2, "wants one file"),
        (["--config", "/none"], 2, "cannot read /none"),
        (["what"], 2, "unknown command"),
    ],
)
def test_usage(arguments: list[str], status: int, message: str) -> None:
    done = subprocess.run([RUN, *arguments], cwd=ROOT, capture_output=True, text=True, timeout=60, check=False)
    assert (done.returncode, message in done.stderr) == (status, True)


def test_without_root() -> None:
    # The checkout itself may lie where nobody else may look.
    with tempfile.TemporaryDirectory() as folder:
        Path(folder).chmod(0o755)
        script = shutil.copy(RUN, folder)
        done = subprocess.run(
            [script], cwd="/", capture_output=True, text=True, timeout=60, check=False, user=65534, group=65534,
            extra_groups=[], env={"PATH": os.environ["PATH"]},
        )  # fmt: skip
    assert done.returncode == 5
    assert "needs root" in done.stderr
