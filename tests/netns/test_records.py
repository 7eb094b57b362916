"""The inspection log of real traffic, and the commands on a running gateway."""

from __future__ import annotations

import hashlib
import json
import os
import select
import shutil
import signal
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator
from importlib import metadata
from pathlib import Path
from typing import Any

import jsonschema
import pytest

from slowpath.record import schema
from tests.lab import Lab, Namespace, clients, servers
from tests.lab.clients import V4, V6
from tests.lab.gateway import FASTPATH, SLOWPATH, Gateway
from tests.netns.peers import eventually
from tests.netns.probes import attempt

pytestmark = pytest.mark.root

POLICY = """
default: {action: deny, deny_with: reset}
rules:
  - {id: web, proto: tcp, ports: 8080, action: inspect, rules: [web], log: all}
  - {id: http, proto: tcp, ports: 80, app: http, action: allow, log: all}
  - {id: dns, proto: udp, ports: 53, app: dns, action: allow, log: all}
"""
BOTH = pytest.mark.parametrize(("name", "port"), [(FASTPATH, 9470), (SLOWPATH, 9471)])
Record = dict[str, Any]


@pytest.fixture(scope="module")
def gateway() -> Iterator[Gateway]:
    listen = {"fastpath": "127.0.0.1:9470", "slowpath": "127.0.0.1:9471"}
    with (
        Lab() as lab,
        Gateway(lab, POLICY, settings={"listen": listen}) as one,
        servers.running(lab, [servers.Nginx, servers.Dnsmasq]),
    ):
        for host in (V4, V6):
            assert clients.http(lab, host).ok
            assert clients.dns(lab, host).ok
            assert clients.http2(lab, host).ok
            assert not clients.http2(lab, host, "/admin").ok
            assert attempt(lab, 81, host)[0] == "refused"
        eventually(
            lambda: len([r for r in one.read_records() if r["verdict"] == "deny" and r["event"] == "verdict"]) >= 4
        )
        yield one


def inspect(gateway: Gateway, *options: str) -> list[Record]:
    done = gateway.command(SLOWPATH, "inspect", "-o", "json", *options)
    assert done.returncode == 0, done.stderr
    return [json.loads(line) for line in done.stdout.splitlines()]


# -- inspect -------------------------------------------------------------------------------------------------------

FILTERS: tuple[tuple[tuple[str, ...], Callable[[Record], bool]], ...] = (
    (("--verdict", "deny"), lambda r: r["verdict"] == "deny"),
    (("--verdict", "deny", "--event", "verdict"), lambda r: r["verdict"] == "deny" and r["event"] == "verdict"),
    (("--protocol", "dns"), lambda r: r["protocol"] == "dns"),
    (("--protocol", "dns", "--protocol", "http"), lambda r: r["protocol"] in {"dns", "http"}),
    (("--protocol", "udp"), lambda r: r["flow"]["l4"] == "udp"),
    (("--from-ip", "10.77.1.2"), lambda r: r["flow"]["src"] == "10.77.1.2"),
    (("--to-ip", "fd77:2::/64"), lambda r: r["flow"]["dst"] == V6),
    (("--ip", V4, "--not", "--port", "53"), lambda r: r["flow"]["dst"] == V4 and r["flow"]["dport"] != 53),
    (("--port", "80-81"), lambda r: r["flow"]["dport"] in {80, 81}),
    (("--rule", "no-admin"), lambda r: r.get("l7_rule") == "no-admin"),
    (("--rule", "def*"), lambda r: r["rule"] == "default"),
    (("--reason", "default", "--reason", "rule"), lambda r: r["reason"] in {"default", "rule"}),
    (("--not", "--verdict", "allow"), lambda r: r["verdict"] != "allow"),
)


@pytest.mark.parametrize(("options", "wanted"), FILTERS, ids=[" ".join(options) for options, _ in FILTERS])
def test_inspect_filters_the_log(gateway: Gateway, options: tuple[str, ...], wanted: Callable[[Record], bool]) -> None:
    records = gateway.read_records()
    expected = [record for record in records if wanted(record)]
    assert 0 < len(expected) < len(records)
    assert inspect(gateway, "--all", *options) == expected


def test_inspect_by_time_and_number(gateway: Gateway) -> None:
    records = gateway.read_records()
    assert inspect(gateway, "--last", "3") == records[-3:]
    assert inspect(gateway, "--since", "1h") == records
    assert inspect(gateway, "--until", "1h") == []
    assert inspect(gateway, "--last", "1", "--protocol", "http") == [r for r in records if r["protocol"] == "http"][-1:]


@pytest.mark.parametrize("form", ["compact", "table", "dict", "json"])
def test_inspect_shows_every_record(gateway: Gateway, form: str) -> None:
    done = gateway.command(SLOWPATH, "inspect", "--all", "--event", "verdict", "-o", form)
    assert done.returncode == 0
    verdicts = [record for record in gateway.read_records() if record["event"] == "verdict"]
    for record in verdicts:
        assert record["flow"]["dst"] in done.stdout
        assert str(record["flow"]["sport"]) in done.stdout


def test_inspect_follows(gateway: Gateway) -> None:
    program = Path(sys.executable).with_name(SLOWPATH)
    argv: list[str | Path] = [program, "inspect", "--follow", "--last", "0", "-o", "json", "--config", gateway.config]
    follower = gateway.lab.spawn(Namespace.GATEWAY, argv, stdout=subprocess.PIPE, text=True)
    stdout = follower.stdout
    assert stdout is not None
    try:
        sports = []

        def shown() -> bool:
            sports.append(attempt(gateway.lab, 82)[1])
            return bool(select.select([stdout], [], [], 0.5)[0])

        eventually(shown)
        # What came before it began is not shown.
        record = json.loads(stdout.readline())
        assert (record["flow"]["dport"], record["verdict"]) == (82, "deny")
        assert record["flow"]["sport"] in sports
    finally:
        follower.send_signal(signal.SIGINT)
        assert follower.wait(10) == 130
        stdout.close()


def test_a_corrupt_line_is_counted_and_the_rest_shown(gateway: Gateway, tmp_path: Path) -> None:
    lines = gateway.records.read_bytes().splitlines(keepends=True)
    log = tmp_path / "records.jsonl"
    log.write_bytes(b"".join(lines[:2]) + lines[2][:40] + b"\n\x00\xff{\n" + b"".join(lines[3:]))
    done = gateway.command(SLOWPATH, "inspect", "--all", "-o", "json", "--input-file", str(log))
    assert done.returncode == 0
    assert [json.loads(line) for line in done.stdout.splitlines()] == [
        json.loads(line) for line in lines[:2] + lines[3:]
    ]
    assert "2 corrupt lines left out" in done.stderr


def test_the_log_is_rotated(gateway: Gateway) -> None:
    settings = dict(gateway.settings)
    folder = gateway.directory / "rotated"
    folder.mkdir()
    gateway.stop(SLOWPATH)
    try:
        gateway.settings |= {"records": {"path": str(folder / "records.jsonl"), "max_bytes": 4096, "keep": 2}}
        gateway.write_config()
        gateway.start_daemon(SLOWPATH)
        for _ in range(60):
            attempt(gateway.lab, 83)
        # A denied connection writes its verdict and its end.
        eventually(lambda: gateway.status(SLOWPATH)["records"]["written"] >= 120)
        gateway.stop(SLOWPATH)
        files = [folder / f"records.jsonl{end}" for end in (".2", ".1", "")]
        assert sorted(folder.iterdir()) == sorted(files)
        assert all(file.stat().st_size <= 4096 for file in files)
        validator = jsonschema.Draft202012Validator(schema())
        records = [json.loads(line) for file in files for line in file.read_text().splitlines()]
        for record in records:
            validator.validate(record)
        # The oldest are gone, the newest are all there, in order.
        assert 0 < len(records) < 120
        assert inspect(gateway, "--all") == records
    finally:
        gateway.settings = settings
        gateway.write_config()
        gateway.children.pop(SLOWPATH, None)
        gateway.start_daemon(SLOWPATH)


# -- what the daemons say ------------------------------------------------------------------------------------------


def test_status_of_the_fast_path(gateway: Gateway) -> None:
    status = gateway.status(FASTPATH)
    assert status["healthy"] is True
    assert status["pid"] == gateway.children[FASTPATH].pid
    assert status["version"] == metadata.version("microseg")
    assert status["policy"] == {
        "file": str(gateway.policy), "revision": status["policy"]["revision"], "rules": 3, "problem": None,
        "digest": hashlib.sha256(gateway.policy.read_bytes()).hexdigest(),
    }  # fmt: skip
    assert set(status["interfaces"]) == {"seg0", "seg1"}
    assert all(status["interfaces"].values())
    assert status["inspector"]["alive"] is True
    assert status["sessions"]["live"] == len(gateway.sessions())
    assert status["drops"]["default"] >= 2
    text = gateway.command(FASTPATH, "status").stdout
    assert "healthy" in text
    assert "policy.rules" in text


def test_status_of_the_inspector(gateway: Gateway) -> None:
    status = gateway.status(SLOWPATH)
    assert status["pid"] == gateway.children[SLOWPATH].pid
    assert status["revision"] == gateway.status(FASTPATH)["policy"]["revision"]
    assert "web" in status["rule_files"]
    assert status["pattern_engine"] == "hyperscan", "the tests install it"
    assert status["records"]["path"] == str(gateway.records)
    assert (status["records"]["lost"], status["events"]["unreadable"]) == (0, 0)


def test_a_silent_inspector_is_seen(gateway: Gateway) -> None:
    gateway.stop(SLOWPATH)
    try:
        eventually(lambda: gateway.status(FASTPATH)["inspector"]["alive"] is False)
        assert gateway.command(SLOWPATH, "status").returncode == 4
    finally:
        gateway.start_daemon(SLOWPATH)
    eventually(lambda: gateway.status(FASTPATH)["inspector"]["alive"] is True)


def test_stats_and_sessions(gateway: Gateway) -> None:
    before = gateway.stats()
    outcome, sport = attempt(gateway.lab, 80)
    assert outcome == "open"
    after = gateway.stats()
    # SYN, SYN-ACK, ACK, and what closes it again.
    assert after["packets"]["packets"] - before["packets"]["packets"] >= 3
    assert after["packets"]["inserts"] == before["packets"]["inserts"] + 1
    assert "packets.packets" in gateway.command(FASTPATH, "stats").stdout
    shown = [session for session in gateway.sessions() if session["sport"] == sport]
    assert [(session["dst"], session["dport"], session["rule"]) for session in shown] == [(V4, 80, "http")]
    text = gateway.command(FASTPATH, "sessions", "--limit", "1").stdout.splitlines()
    assert text[0].split()[:3] == ["L4", "CLIENT", "SERVER"]
    assert len(text) == 2
    assert str(sport) in gateway.command(FASTPATH, "sessions", "--limit", "0").stdout


@BOTH
@pytest.mark.parametrize("over", ["unix", "tcp"])
def test_health_and_metrics(gateway: Gateway, name: str, port: int, over: str) -> None:
    path = gateway.directory / "run" / f"{name.removeprefix('microseg-')}.sock"
    where = ["--unix-socket", str(path), "http://localhost"] if over == "unix" else [f"http://127.0.0.1:{port}"]

    def get(target: str) -> str:
        argv = ["curl", "--silent", "--show-error", "--fail", "--noproxy", "*", *where[:-1], where[-1] + target]
        done = gateway.lab.run(Namespace.GATEWAY, argv)
        assert done.returncode == 0, done.stderr
        return done.stdout

    assert json.loads(get("/health")) == {"healthy": True}
    assert json.loads(get("/status"))["pid"] == gateway.children[name].pid

    def metrics() -> dict[str, float]:
        lines = [line for line in get("/metrics").splitlines() if line and line[0] != "#"]
        return {name: float(value) for name, value in (line.rsplit(" ", 1) for line in lines)}

    wanted = 'microseg_drops_total{reason="default"}' if name == FASTPATH else 'microseg_records_total{event="written"}'
    before = metrics()[wanted]
    attempt(gateway.lab, 84)
    samples = eventually(lambda: found if (found := metrics())[wanted] > before else None)
    if name == FASTPATH:
        assert samples["microseg_inspector_alive"] == 1
        assert samples["microseg_policy_revision"] == gateway.status(FASTPATH)["policy"]["revision"]


# -- exit statuses -------------------------------------------------------------------------------------------------


def test_config_check(gateway: Gateway) -> None:
    done = gateway.command(FASTPATH, "config", "check")
    assert done.returncode == 0, done.stderr
    assert str(gateway.policy) in done.stdout


def test_nobody_answers(gateway: Gateway, tmp_path: Path) -> None:
    elsewhere = tmp_path / "gateway.yaml"
    text = gateway.config.read_text()
    for name in ("run_dir", "pin_root"):
        text = text.replace(str(gateway.settings[name]), f"{gateway.settings[name]}-elsewhere")
    elsewhere.write_text(text)
    for program, command in ((FASTPATH, "status"), (FASTPATH, "stats"), (FASTPATH, "sessions"), (SLOWPATH, "status")):
        argv = [Path(sys.executable).with_name(program), command, "--config", elsewhere]
        done = gateway.lab.run(Namespace.GATEWAY, argv)
        assert done.returncode == 4, (program, command)
        assert len(done.stderr.splitlines()) == 1
        assert done.stdout == ""


@pytest.mark.parametrize(
    ("module", "arguments", "status"),
    [
        ("fastpath", ("load",), 5),
        ("fastpath", ("run",), 5),
        ("fastpath", ("unload",), 5),
        ("fastpath", ("stats",), 5),
        ("fastpath", ("sessions",), 5),
        ("fastpath", ("status",), 5),
        ("fastpath", ("config", "check"), 0),
        ("slowpath", ("run",), 5),
        ("slowpath", ("status",), 5),
        ("slowpath", ("--version",), 0),
    ],
)
def test_without_root(gateway: Gateway, module: str, arguments: tuple[str, ...], status: int) -> None:
    """As `nobody`, after all modules are loaded: the project may lie where nobody may look."""
    script = (
        "import os, sys, fastpath.service, fastpath.cli.sessions, slowpath.service, slowpath.cli.status\n"
        f"from {module}.cli.main import main\n"
        "os.setgroups([]); os.setgid(65534); os.setuid(65534)\n"
        "sys.exit(main(sys.argv[1:]))\n"
    )
    folder = Path(tempfile.mkdtemp(prefix="microseg-nobody-"))
    try:
        folder.chmod(0o755)
        (folder / "policy.yaml").write_text(POLICY.replace("inspect, rules: [web]", "allow"))
        config = folder / "gateway.yaml"
        config.write_text(
            f"interfaces: [seg0, seg1]\npolicy: policy.yaml\nrun_dir: {gateway.settings['run_dir']}\n"
            f"pin_root: {gateway.settings['pin_root']}\ntap: {gateway.settings['tap']}\n"
        )
        argv = [
            sys.executable,
            "-c",
            script,
            *arguments,
            *(() if "--version" in arguments else ("--config", str(config))),
        ]
        done = gateway.lab.run(Namespace.GATEWAY, argv, 20, env=dict(os.environ))
    finally:
        shutil.rmtree(folder)
    assert done.returncode == status, done.stderr
    assert len(done.stderr.splitlines()) == (1 if status else 0), done.stderr
    if status:
        assert "root" in done.stderr
