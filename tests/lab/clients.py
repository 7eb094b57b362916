"""Real clients, started in the client namespace. Each returns a `Result`, none raises
for a server that refuses or stays silent: being refused is what some are for."""

from __future__ import annotations

import json
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from tests.lab.namespaces import ROOT, Address, Lab, Namespace
from tests.lab.servers import DATABASE_PASSWORD, DATABASE_USER, DNS_BIG, DNS_NAMES, certificate, ssh_key

TIMEOUT = 5.0

V4 = str(Address.SERVER4)
V6 = str(Address.SERVER6)


@dataclass(frozen=True, slots=True)
class Result:
    """What became of one use of a service."""

    ok: bool
    detail: str
    seconds: float
    # What the client itself said, for those that say more (gRPC: a dict for each call).
    calls: list[dict[str, Any]] = field(default_factory=list)


def bracketed(host: str) -> str:
    """An address as URLs want it."""
    return f"[{host}]" if ":" in host else host


def attempt(
    lab: Lab,
    argv: Sequence[str | Path],
    accept: Callable[[str], bool],
    timeout: float = TIMEOUT,
    stdin: str | None = None,
) -> Result:
    """Run a client; ok when it ends well and `accept` likes what it printed."""
    start = time.perf_counter()
    try:
        done = lab.run(Namespace.CLIENT, argv, timeout, stdin=stdin)
    except subprocess.TimeoutExpired:
        return Result(False, f"no answer in {timeout:g} s", time.perf_counter() - start)
    seconds = time.perf_counter() - start
    if done.returncode:
        lines = (done.stderr.strip() or done.stdout.strip() or "no message").splitlines()
        return Result(False, f"status {done.returncode}: {lines[-1]}", seconds)
    if not accept(done.stdout):
        return Result(False, f"unexpected answer: {done.stdout[:200]!r}", seconds)
    return Result(True, done.stdout.strip().splitlines()[0][:80] if done.stdout.strip() else "", seconds)


def curl(
    lab: Lab,
    url: str,
    *options: str | Path,
    status: int = 200,
    version: str = "1.1",
    timeout: float = TIMEOUT,
) -> Result:
    """Fetch with curl; ok with this status over this HTTP version."""
    wanted = f"{status} {version}"
    argv = ["curl", "--silent", "--show-error", "--noproxy", "*", "--max-time", f"{timeout:g}", "--output", "/dev/null"]
    return attempt(
        lab,
        [*argv, "--write-out", "%{http_code} %{http_version}\n", *options, url],
        lambda output: set(output.split("\n")) - {""} == {wanted},
        timeout + 1,
    )


def http(lab: Lab, host: str = V4, path: str = "/", *options: str, port: int = 80, timeout: float = TIMEOUT) -> Result:
    """HTTP/1.1 with curl."""
    return curl(lab, f"http://{bracketed(host)}:{port}{path}", "--http1.1", *options, timeout=timeout)


def https(lab: Lab, host: str = V4, path: str = "/", timeout: float = TIMEOUT) -> Result:
    """HTTP/1.1 over TLS, with SNI and the certificate checked."""
    cert, _ = certificate()
    options = ("--http1.1", "--cacert", cert, "--resolve", f"web.lab.test:443:{bracketed(host)}")
    return curl(lab, f"https://web.lab.test{path}", *options, timeout=timeout)


def http2(
    lab: Lab, host: str = V4, path: str = "/", *options: str, port: int = 8080, timeout: float = TIMEOUT
) -> Result:
    """HTTP/2 in clear with prior knowledge, with curl."""
    url = f"http://{bracketed(host)}:{port}{path}"
    return curl(lab, url, "--http2-prior-knowledge", *options, version="2", timeout=timeout)


def http2_upgrade(lab: Lab, host: str = V4, path: str = "/", port: int = 8081, timeout: float = TIMEOUT) -> Result:
    """HTTP/1.1 with `Upgrade: h2c`, then HTTP/2, with curl."""
    return curl(lab, f"http://{bracketed(host)}:{port}{path}", "--http2", version="2", timeout=timeout)


def nghttp(lab: Lab, host: str = V4, path: str = "/", port: int = 8080, timeout: float = TIMEOUT) -> Result:
    """HTTP/2 with prior knowledge, with nghttp."""
    argv = ["nghttp", "--null-out", "--stat", "--no-dep", f"http://{bracketed(host)}:{port}{path}"]
    result = attempt(lab, argv, lambda output: any(" 200 " in line for line in output.splitlines()), timeout)
    return Result(result.ok, "200" if result.ok else result.detail, result.seconds)


def dns(
    lab: Lab,
    host: str = V4,
    name: str = "web.lab.test",
    kind: str = "A",
    tcp: bool = False,
    timeout: float = TIMEOUT,
) -> Result:
    """One question with dig."""
    expected = {"A": 0, "AAAA": 1}
    wanted = DNS_NAMES[name][expected[kind]] if name in DNS_NAMES and kind in expected else ""
    options = ["+short", "+tries=1", f"+time={max(1, int(timeout))}", "+tcp" if tcp else "+notcp"]
    if name == DNS_BIG:
        options.append("+ignore")
    argv = ["dig", "-r", f"@{host}", *options, name, kind]
    return attempt(lab, argv, lambda output: bool(output.strip()) and wanted in output, timeout + 1)


def mysql(lab: Lab, host: str = V4, statement: str = "select 1", timeout: float = TIMEOUT) -> Result:
    """One statement with the mariadb client."""
    argv = [
        *("mariadb", "--no-defaults", f"--host={host}", "--port=3306", f"--user={DATABASE_USER}"),
        *(f"--password={DATABASE_PASSWORD}", f"--connect-timeout={max(1, int(timeout))}", "--batch"),
        *("--skip-column-names", "--execute", statement, "lab"),
    ]
    return attempt(lab, argv, lambda output: bool(output.strip()), timeout)


def redis(lab: Lab, host: str = V4, timeout: float = TIMEOUT) -> Result:
    """SET and GET with redis-cli, on one connection."""
    commands = "SET lab:key value\nGET lab:key\n"
    argv = ["redis-cli", "-h", host, "-p", "6379"]
    return attempt(lab, argv, lambda output: output.split() == ["OK", "value"], timeout, stdin=commands)


def redis_pipeline(lab: Lab, host: str = V4, count: int = 1000, timeout: float = TIMEOUT) -> Result:
    """Many commands without waiting for answers (redis-cli --pipe)."""
    commands = "".join(f"SET lab:{index} {index}\r\n" for index in range(count))
    argv = ["redis-cli", "-h", host, "-p", "6379", "--pipe", "--pipe-timeout", f"{max(1, int(timeout))}"]
    return attempt(lab, argv, lambda output: f"errors: 0, replies: {count}" in output, timeout, stdin=commands)


def ssh(lab: Lab, host: str = V4, command: str = "echo through", port: int = 22, timeout: float = TIMEOUT) -> Result:
    """Run a command over SSH."""
    known = lab.directory / "known_hosts"
    if not known.exists():
        kind, key, *_ = ssh_key("host").with_suffix(".pub").read_text().split()
        known.write_text(f"{V4},{V6} {kind} {key}\n")
    argv: list[str | Path] = ["ssh", "-F", "/dev/null", "-T", "-p", str(port), "-i", ssh_key("client")]
    for option in (
        "BatchMode=yes",
        "IdentitiesOnly=yes",
        "IdentityAgent=none",
        "StrictHostKeyChecking=yes",
        f"UserKnownHostsFile={known}",
        "GlobalKnownHostsFile=/dev/null",
        f"ConnectTimeout={max(1, int(timeout))}",
    ):
        argv += ["-o", option]
    wanted = command.removeprefix("echo ") if command.startswith("echo ") else ""
    return attempt(lab, [*argv, f"root@{host}", command], lambda output: wanted in output, timeout)


def grpc(
    lab: Lab,
    host: str = V4,
    calls: Sequence[str] = ("lab.Echo/Say",),
    port: int = 50051,
    timeout: float = TIMEOUT,
) -> Result:
    """Calls on one channel with grpcio, see grpc_client.py; ok when all answered OK."""
    script = ROOT / "tests" / "lab" / "grpc_client.py"
    argv: list[str | Path] = [sys.executable, "-s", script, f"{bracketed(host)}:{port}", *calls]
    start = time.perf_counter()
    try:
        done = lab.run(Namespace.CLIENT, argv, (timeout + 1) * max(1, len(calls)))
    except subprocess.TimeoutExpired:
        return Result(False, "no answer", time.perf_counter() - start)
    seconds = time.perf_counter() - start
    answers = [json.loads(line) for line in done.stdout.splitlines()]
    if done.returncode or len(answers) != len(calls):
        lines = done.stderr.strip().splitlines() or ["no message"]
        return Result(False, f"status {done.returncode}: {lines[-1]}", seconds, answers)
    failed = [answer for answer in answers if answer["code"]]
    detail = ", ".join(f"{answer['call']} {answer['status']}" for answer in failed or answers[:1])
    return Result(not failed, detail, seconds, answers)
