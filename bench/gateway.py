"""The gateway itself in a lab, as its users run it: both daemons with a configuration of their own."""

from __future__ import annotations

import contextlib
import json
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping
from pathlib import Path
from types import TracebackType
from typing import Any, Self

from bench.rules import decoys
from fastpath.admin_client import DaemonUnreachableError, fetch_status
from fastpath.libbpf import Map, Program
from tests.lab.namespaces import BPFFS, Lab, LabError, Namespace

READY_SECONDS = 30.0
POLL = 0.002
BIN = Path(sys.executable).parent
FASTPATH = "fastpath"
SLOWPATH = "slowpath"


class Gateway:
    """Running daemons, from `with` to its end; nothing of them stays.

    `policy` is the text of the policy file, `rule_files` text by name, `settings` what
    gateway.yaml has besides the paths.
    """

    def __init__(
        self,
        lab: Lab,
        policy: str,
        rule_files: Mapping[str, str] | None = None,
        settings: Mapping[str, Any] | None = None,
        *,
        inspector: bool = True,
    ) -> None:
        self.lab = lab
        self.directory = lab.directory / "gateway"
        self.config = self.directory / "gateway.yaml"
        self._records = self.directory / "records.jsonl"
        self._daemons = (FASTPATH, SLOWPATH) if inspector else (FASTPATH,)
        self._processes: dict[str, subprocess.Popen[Any]] = {}
        self.ready_seconds: dict[str, float] = {}
        (self.directory / "rules.d").mkdir(parents=True)
        (self.directory / "policy.yaml").write_text(policy)
        for name, text in (rule_files or {}).items():
            (self.directory / "rules.d" / f"{name}.yaml").write_text(text)
        paths = {
            "interfaces": ["seg0", "seg1"],
            "policy": "policy.yaml",
            "rules": "rules.d",
            "run_dir": str(self.directory / "run"),
            "pin_root": str(BPFFS / f"microseg-{lab.prefix}"),
            "records": {"path": str(self._records)},
        }
        # JSON is YAML.
        self.config.write_text(json.dumps(paths | dict(settings or {}), indent=2))

    def __enter__(self) -> Self:
        try:
            for daemon in self._daemons:
                self.start(daemon)
        except BaseException:
            self.close()
            raise
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def start(self, daemon: str) -> None:
        """Start a daemon; `ready_seconds` has how long it took until it answered."""
        begin = time.monotonic()
        log = self.directory / f"{daemon}.log"
        with log.open("ab") as out:
            process = self.lab.spawn(
                Namespace.GATEWAY, [BIN / f"microseg-{daemon}", "run", "--config", self.config], stdout=out, stderr=out
            )
        self._processes[daemon] = process
        while True:
            with contextlib.suppress(DaemonUnreachableError):
                self.status(daemon)
                break
            if process.poll() is not None or time.monotonic() - begin > READY_SECONDS:
                raise LabError(f"microseg-{daemon} did not start: {log.read_text()[-2000:]}")
            time.sleep(POLL)
        self.ready_seconds[daemon] = time.monotonic() - begin

    def stop(self, daemon: str) -> None:
        """End a daemon; what it attached stays."""
        if process := self._processes.pop(daemon, None):
            self.lab.stop(process)

    def close(self) -> None:
        """End the daemons, detach and unpin."""
        for daemon in reversed(self._daemons):
            self.stop(daemon)
        done = self.lab.run(Namespace.GATEWAY, [BIN / "microseg-fastpath", "unload", "--config", self.config], 30)
        if done.returncode:
            sys.stderr.write(f"bench: {done.stderr}")

    def status(self, daemon: str = FASTPATH) -> dict[str, Any]:
        """What a daemon says of itself."""
        return fetch_status(self.directory / "run" / f"{daemon}.sock")

    def packets(self) -> dict[str, int]:
        """The kernel half's counters by name."""
        counters: dict[str, int] = self.status()["packets"]
        return counters

    def resident(self, daemon: str) -> int:
        """Resident memory in bytes."""
        text = Path(f"/proc/{self._processes[daemon].pid}/status").read_text()
        return next(int(line.split()[1]) * 1024 for line in text.splitlines() if line.startswith("VmRSS:"))

    def records(self) -> list[dict[str, Any]]:
        """The inspection log so far."""
        if not self._records.exists():
            return []
        return [json.loads(line) for line in self._records.read_text().splitlines()]

    def program(self, name: str) -> Program:
        """A pinned program of the kernel half."""
        return Program.open(Path(self.status()["pins"]) / name)

    def sessions(self) -> Map:
        """The session table; it is pinned one level above the programs."""
        return Map.open(Path(self.status()["pins"]).parent / "sessions")


def allow_all(action: str = "action: allow") -> str:
    """The 1,000 rules, the last of which matches the lab's traffic and does `action`."""
    lines = [
        f"- {{id: decoy-{n}, from: {rule.source}, to: {rule.destination}, proto: tcp, ports: {rule.port}, "
        "action: allow}"
        for n, rule in enumerate(decoys())
    ]
    lines.append(f"- {{id: lab, from: 10.77.0.0/16, to: 10.77.0.0/16, {action}}}")
    return "rules:\n" + "\n".join(lines) + "\n"


@contextlib.contextmanager
def ours(lab: Lab) -> Iterator[None]:
    """The gateway as a forwarder: 1,000 rules, default logging, default settings."""
    with Gateway(lab, allow_all(), inspector=False):
        yield
