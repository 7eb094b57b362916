"""Both daemons on the lab's gateway namespace, as processes, with an own pin root and state."""

from __future__ import annotations

import json
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Mapping
from pathlib import Path
from types import TracebackType
from typing import Any, Self

import yaml

from tests.lab.namespaces import PROGRAMS, ROOT, Lab, LabError, Namespace, pin_root

READY_TIMEOUT = 60.0
CONFIGS = ROOT / "configs"
FASTPATH = "microseg-fastpath"
SLOWPATH = "microseg-slowpath"


def answers(path: Path) -> bool:
    """A daemon listens on this socket."""
    with socket.socket(socket.AF_UNIX) as probe:
        try:
            probe.connect(str(path))
        except OSError:
            return False
        return True


class Gateway:
    """The gateway of one lab. `policy` is YAML text or a file; `settings` are merged over gateway.yaml's."""

    def __init__(
        self,
        lab: Lab,
        policy: str | Path = CONFIGS / "policy.yaml",
        rules: Path = CONFIGS / "rules.d",
        settings: Mapping[str, Any] | None = None,
        *,
        inspector: bool = True,
        echo: bool = False,
    ) -> None:
        self.lab = lab
        self.directory = lab.directory / "gateway"
        self.inspector = inspector
        self._echo = echo
        self.directory.mkdir(exist_ok=True)
        self.policy = self.directory / "policy.yaml"
        self.write_policy(policy if isinstance(policy, str) else policy.read_text())
        self.settings: dict[str, Any] = {
            "interfaces": ["seg0", "seg1"],
            "policy": str(self.policy),
            "rules": str(rules),
            "run_dir": str(self.directory / "run"),
            "state_dir": str(self.directory / "state"),
            "pin_root": str(pin_root(lab.prefix)),
            "program_cache": str(PROGRAMS),
            "tap": f"{lab.prefix}tap",
            "records": {"path": str(self.directory / "records.jsonl")},
        } | dict(settings or {})
        self.config = self.directory / "gateway.yaml"
        self.write_config()
        self.children: dict[str, subprocess.Popen[Any]] = {}

    def write_policy(self, text: str) -> None:
        """Another policy; `reload` makes it current."""
        self.policy.write_text(text)

    def write_config(self) -> None:
        """Write gateway.yaml anew from `settings`."""
        self.config.write_text(yaml.safe_dump(self.settings))

    @property
    def records(self) -> Path:
        """The inspection log."""
        return Path(self.settings["records"]["path"])

    def __enter__(self) -> Self:
        try:
            self.start()
        except BaseException:
            self.close()
            raise
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def start(self) -> None:
        """Start both and wait until they are ready."""
        self.start_early()
        self.wait_ready()

    def start_early(self) -> None:
        """Start both; `wait_ready` comes later."""
        self.spawn(FASTPATH)
        if self.inspector:
            self.spawn(SLOWPATH)

    def start_daemon(self, name: str) -> None:
        """Start one daemon and wait until it is healthy."""
        self.spawn(name)
        self.wait_ready(name)

    def spawn(self, name: str) -> None:
        """Start one daemon."""
        argv = [Path(sys.executable).with_name(name), "run", "--config", self.config]
        with self.log(name).open("ab") as log:
            self.children[name] = self.lab.spawn(
                Namespace.GATEWAY, argv, stdout=log, stderr=None if self._echo else log, cwd=self.directory
            )

    def wait_ready(self, *names: str) -> None:
        """Return when these daemons (all that were started) answer on their sockets."""
        deadline = time.monotonic() + READY_TIMEOUT
        for name in names or tuple(self.children):
            path = self.directory / "run" / f"{name.removeprefix('microseg-')}.sock"
            while not answers(path):
                if self.children[name].poll() is not None:
                    raise LabError(f"{name} ended with status {self.children[name].returncode}:\n{self.said(name)}")
                if time.monotonic() > deadline:
                    raise LabError(f"{name} is not ready after {READY_TIMEOUT:g} s:\n{self.said(name)}")
                time.sleep(0.01)

    def log(self, name: str) -> Path:
        """What a daemon wrote to its outputs."""
        return self.directory / f"{name}.log"

    def said(self, name: str) -> str:
        """The end of it."""
        return self.log(name).read_text(errors="replace")[-6000:] if self.log(name).exists() else ""

    def command(self, name: str, *arguments: str, timeout: float = 30.0) -> subprocess.CompletedProcess[str]:
        """Run one of our commands on the gateway."""
        argv = [Path(sys.executable).with_name(name), *arguments, "--config", self.config]
        return self.lab.run(Namespace.GATEWAY, argv, timeout)

    def status(self, name: str = FASTPATH) -> dict[str, Any]:
        """What a daemon says of itself."""
        done = self.command(name, "status", "-o", "json")
        if done.returncode:
            raise LabError(done.stderr)
        status: dict[str, Any] = json.loads(done.stdout)
        return status

    def stats(self) -> dict[str, Any]:
        """The kernel half's counters."""
        stats: dict[str, Any] = json.loads(self.command(FASTPATH, "stats", "-o", "json").stdout)
        return stats

    def sessions(self) -> list[dict[str, Any]]:
        """What the session table holds."""
        done = self.command(FASTPATH, "sessions", "-o", "json", "--limit", "0")
        return [json.loads(line) for line in done.stdout.splitlines()]

    def read_records(self) -> list[dict[str, Any]]:
        """The inspection log, after the writer's interval."""
        time.sleep(0.3)
        if not self.records.exists():
            return []
        return [json.loads(line) for line in self.records.read_text().splitlines()]

    def reload(self, timeout: float = 10.0) -> int:
        """SIGHUP to both; the new revision, which is the old one when the files are broken."""
        before = self.status()["policy"]["revision"]
        for child in self.children.values():
            child.send_signal(signal.SIGHUP)
        deadline = time.monotonic() + timeout
        while time.monotonic() < deadline:
            revision: int = self.status()["policy"]["revision"]
            if revision != before:
                return revision
            time.sleep(0.02)
        return before

    def kill(self, name: str) -> None:
        """SIGKILL, as a crash would."""
        child = self.children.pop(name)
        child.kill()
        child.wait()

    def stop(self, name: str) -> int:
        """End a daemon as systemd would; its exit status."""
        return self.lab.stop(self.children.pop(name))

    def close(self) -> None:
        """Stop both and unload."""
        for name in list(self.children):
            self.stop(name)
        done = self.command(FASTPATH, "unload")
        if done.returncode:
            raise LabError(f"unload: {done.stderr}")
